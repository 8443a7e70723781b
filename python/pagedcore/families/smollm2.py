"""SmolLM2 (Allal et al., 2025): LLaMA in both formats, with a vocabulary of its own."""

from __future__ import annotations

from . import llama
from .family import Family
from .llama_like import tiny_config
from .splits import APART, GPT2, Split

__all__ = ["FAMILY"]

FAMILY = Family(
    name="smollm2",
    huggingface=llama.FAMILY.huggingface,
    gguf=llama.FAMILY.gguf,
    # As the smallest of them: three query heads to a KV head, a rope of 100000, tied embeddings.
    tiny_config=lambda: tiny_config(
        "llama",
        hidden_size=120,
        initializer_range=0.1,
        num_attention_heads=3,
        num_key_value_heads=1,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
    ),
    # Digits first: "\n\n3." is "\n\n", "3", ".". GPT-2's cut alone, which transformers' conversion of these files has,
    # makes "\n", "\n", "3", "." of it.
    splits={"smollm": Split((APART, *GPT2.patterns))},
)
