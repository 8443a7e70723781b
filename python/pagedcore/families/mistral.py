"""Mistral (Jiang et al., 2023): LLaMA with a window in every layer, or in some. GGUF files call it a llama."""

from __future__ import annotations

from . import from_config
from .family import Described, Family, HuggingFace
from .fields import Fields
from .llama import GGUF
from .llama_like import HUGGINGFACE_NAMES, tiny_config
from .splits import APART, Split, cased

__all__ = ["FAMILY"]


def describe(config: Fields) -> Described:
    config = config.defaulting(num_key_value_heads=8, max_position_embeddings=131072)
    description = from_config.described(config)
    slides = [True] * description["num_layers"]
    description["windows"] = from_config.windows_of_types(config, description, 4096, slides)
    return Described(description)


FAMILY = Family(
    name="mistral",
    huggingface=HuggingFace(
        architectures=("MistralForCausalLM", "MinistralForCausalLM"),
        model_type="mistral",
        describe=describe,
        names=HUGGINGFACE_NAMES,
    ),
    gguf=GGUF,
    tiny_config=lambda: tiny_config("mistral", sliding_window=24, head_dim=16),
    splits={"tekken": Split((cased(APART),), ignore_merges=True, add_bos=True)},
)
