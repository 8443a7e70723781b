"""Gemma 3 (2025), its text: Gemma 2 without caps; norms of q and k; layers with a window have a rope of their own."""

from __future__ import annotations

from typing import Any

from . import from_config, from_gguf
from .family import Described, Family, Gguf, HuggingFace, Tensors
from .fields import Fields
from .gemma import described, described_gguf
from .gemma2 import HUGGINGFACE_NAMES, capped, scale_of_gguf
from .llama_like import GGUF_NAMES, QKVO, tiny_config
from .rope import Rope, default_rope, to_f32

__all__ = ["FAMILY"]

_DEFAULTS = {
    "vocab_size": 262208,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 131072,
}


def _finish(description: dict[str, Any], full: Rope, local: Rope, slides: list[bool]) -> dict[str, Any]:
    return description | {
        "norm_place": "both",
        "qk_norm": True,
        "rope_inv_freq": full.inv_freq + local.inv_freq,
        "rope_magnitude": full.magnitude,
        "rope_tables": 2,
        "rope_layers": [int(slide) for slide in slides],
    }


def describe(config: Fields) -> Described:
    config = from_config.text_part(config).renamed(hidden_act="hidden_activation").defaulting(**_DEFAULTS)
    description = described(config, rotates=False)
    description |= capped(config, ("attn_logit_softcapping", "final_logit_softcapping"), (0.0, 0.0))
    description["attention_scale"] = to_f32(config.number("query_pre_attn_scalar", 256.0, above=0.0) ** -0.5)
    if config.flag("use_bidirectional_attention", False):  # EmbeddingGemma, with half of the window on either side
        description |= {"bidirectional": True, "head": False, "pooling": "mean"}
        config = config.replacing(sliding_window=config.integer("sliding_window", 4096) // 2 + 1)
    every = config.integer("sliding_window_pattern", config.integer("_sliding_window_pattern", 6))
    slides = [(layer + 1) % every != 0 for layer in range(description["num_layers"])]
    slides = from_config.slides_of(config, description["num_layers"], slides)
    description["windows"] = from_config.windows_of_types(config, description, 4096, slides)
    full, local = _ropes(config, description)
    biases = QKVO if config.flag("attention_bias", False) else ()
    return Described(_finish(description, full, local, slides), biases)


def _ropes(config: Fields, description: dict[str, Any]) -> tuple[Rope, Rope]:
    """transformers 5 keeps both in ``rope_parameters``, by the kind of layer."""
    by_kind = config.mapping("rope_parameters")
    if "full_attention" in by_kind or "sliding_attention" in by_kind:
        parts = [by_kind.mapping(kind) for kind in ("full_attention", "sliding_attention")]
        full, local = (Fields({"rope_parameters": part.values}, config.source) for part in parts)
    else:
        full, local = config, Fields({}, config.source)
        local = local.defaulting(rope_theta=config.number("rope_local_base_freq", 10000.0, above=1.0))
    return (
        from_config.rope_of(full.defaulting(rope_theta=1000000.0), description),
        from_config.rope_of(local, description),
    )


def describe_gguf(fields: Fields, tensors: Tensors) -> Described:
    description = described_gguf(fields.defaulting(**{"rope.freq_base": 1000000.0}), tensors)
    description |= capped(fields, ("attn_logit_softcapping", "final_logit_softcapping"), (0.0, 0.0))
    description["attention_scale"] = scale_of_gguf(description, 62)
    description["windows"] = from_gguf.windows(fields, description, 6)
    full = Rope(description["rope_inv_freq"], description["rope_magnitude"])
    local = default_rope(fields.number("rope.freq_base_swa", 10000.0, above=1.0), 2 * len(full.inv_freq))
    slides = from_gguf.slides(fields, description["num_layers"], 6)
    return Described(_finish(description, full, local, slides))


FAMILY = Family(
    name="gemma3",
    huggingface=HuggingFace(
        architectures=("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration", "Gemma3TextModel"),
        model_type="gemma3_text",
        describe=describe,
        names=HUGGINGFACE_NAMES,
    ),
    gguf=Gguf(architectures=("gemma3",), describe=describe_gguf, names=GGUF_NAMES),
    tiny_config=lambda: tiny_config(
        "gemma3_text",
        **{"num_hidden_layers": 7, "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 24},
        tie_word_embeddings=True,
    ),
    odd={
        **{"hidden_size": 72, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 40},
        "query_pre_attn_scalar": 40,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    },
)
