"""The dialect of OpenAI, as its official clients read it, with vLLM's additions."""
