"""SmolLM2 (Allal et al., 2025): LLaMA in both formats, with a vocabulary of its own."""

from __future__ import annotations

from . import llama
from .family import Family
from .llama_like import tiny_config
from .splits import GPT2

__all__ = ["FAMILY"]

FAMILY = Family(
    name="smollm2",
    huggingface=llama.FAMILY.huggingface,
    gguf=llama.FAMILY.gguf,
    # As the smallest of them: three query heads to a KV head, a rope of 100000, tied embeddings.
    tiny_config=lambda: tiny_config(
        "llama",
        hidden_size=120,
        num_attention_heads=3,
        num_key_value_heads=1,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
    ),
    # It was trained with digits apart, but a piece such as " 12" has no merge across its digits, so that GPT-2's cut
    # gives the same ids but for runs of spaces before a digit. There the reference is the conversion that transformers
    # makes of these files: GPT-2's.
    splits={"smollm": GPT2},
)
