"""The dialect of Anthropic, as its official clients read it."""
