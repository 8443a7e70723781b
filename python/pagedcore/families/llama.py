"""LLaMA (Touvron et al., 2023) 1 to 3, and the many that are one under another name."""

from __future__ import annotations

from . import experts, from_config, from_gguf
from .family import Described, Family, Gguf, HuggingFace
from .fields import Fields
from .llama_like import GGUF_NAMES, HUGGINGFACE_NAMES, MLP, QKVO, tiny_config
from .splits import LLAMA3, Split
from .transforms import halves

__all__ = ["FAMILY", "GGUF", "NEIGHBOURS"]


def describe(config: Fields) -> Described:
    attention = QKVO if config.flag("attention_bias", False) else ()
    mlp = MLP if config.flag("mlp_bias", False) else ()
    return Described(from_config.described(config.defaulting(max_position_embeddings=2048)), (*attention, *mlp))


# Files of this architecture have the two halves of a head interleaved.
NEIGHBOURS = {"attn.q": halves("num_heads"), "attn.k": halves("num_kv_heads")}
GGUF = Gguf(
    architectures=("llama",),
    describe=from_gguf.describe,
    names=GGUF_NAMES,
    transforms=NEIGHBOURS | experts.GGUF_TRANSFORMS,  # Mixtral's files are of this architecture
)
FAMILY = Family(
    name="llama",
    huggingface=HuggingFace(
        architectures=("LlamaForCausalLM",), model_type="llama", describe=describe, names=HUGGINGFACE_NAMES
    ),
    gguf=GGUF,
    tiny_config=lambda: tiny_config("llama"),
    splits=dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3", "midm-2.0"), LLAMA3)
    | {"smaug-bpe": Split(LLAMA3.patterns)},
)
