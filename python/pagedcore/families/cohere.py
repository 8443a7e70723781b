"""Command R and R+ (Cohere, 2024) and Command R7B (Cohere 2, 2024): attention and MLP side by side behind one norm
without bias; neighbours are rotated. Cohere 2 rotates in the layers with a window only."""

from __future__ import annotations

from typing import Any

from . import from_config, from_gguf
from .family import Described, Family, Gguf, HuggingFace, Tensors
from .fields import Fields
from .llama import NEIGHBOURS
from .llama_like import GGUF_NAMES, HUGGINGFACE_NAMES, QKVO, tiny_config
from .rope import to_f32
from .transforms import after, flat, halves, input_norm

__all__ = ["COHERE2", "FAMILY"]

_TRANSFORMS = {
    **NEIGHBOURS,
    "attn_norm": input_norm,
    "attn.q_norm": after(flat, halves("num_heads")),
    "attn.k_norm": after(flat, halves("num_kv_heads")),
}


def _finish(description: dict[str, Any], logit_scale: float, qk_norm: bool) -> dict[str, Any]:
    qk_norms = {"qk_norm": True, "qk_norm_kind": "layer", "qk_norm_span": "heads"} if qk_norm else {}
    return description | {"parallel_block": True, "logit_scale": to_f32(logit_scale)} | qk_norms


def describe(config: Fields) -> Described:
    config = config.defaulting(max_position_embeddings=8192, tie_word_embeddings=True, rope_theta=500000.0)
    description = from_config.described(config, norm="layer", norm_eps="layer_norm_eps")
    description = _finish(description, config.number("logit_scale", 0.0625), config.flag("use_qk_norm", False))
    return Described(description, QKVO if config.flag("attention_bias", False) else ())


def describe_2(config: Fields) -> Described:
    pattern = config.integer("sliding_window_pattern", config.integer("_sliding_window_pattern", 4))
    config = config.defaulting(max_position_embeddings=8192, tie_word_embeddings=True, head_dim=128)
    description = from_config.described(config, norm="layer", norm_eps="layer_norm_eps")
    slides = [(layer + 1) % pattern != 0 for layer in range(description["num_layers"])]
    slides = from_config.slides_of(config, description["num_layers"], slides)
    description["windows"] = from_config.windows_of_types(config, description, 4096, slides)
    description["rope_layers"] = [int(slide) - 1 for slide in slides]
    biases = QKVO if config.flag("attention_bias", False) else ()
    return Described(_finish(description, config.number("logit_scale", 0.0625), False), biases)


def describe_gguf(fields: Fields, tensors: Tensors) -> Described:
    description = from_gguf.described(fields, tensors, norm="layer")
    has_norms = "blk.0.attn_q_norm.weight" in tensors
    description = _finish(description, fields.number("logit_scale", 1.0), has_norms)
    return Described(description, from_gguf.biases(tensors, QKVO))


def describe_gguf_2(fields: Fields, tensors: Tensors) -> Described:
    found = describe_gguf(fields, tensors)
    slides = from_gguf.slides(fields, found.description["num_layers"], 4)
    found.description["windows"] = from_gguf.windows(fields, found.description, 4)
    found.description["rope_layers"] = [int(slide) - 1 for slide in slides]
    return found


def _tiny(model_type: str, **settings: Any) -> dict[str, Any]:
    return tiny_config(model_type, pad_token_id=0, tie_word_embeddings=True, logit_scale=0.25, **settings)


_ODD = {"hidden_size": 102, "num_attention_heads": 3, "num_key_value_heads": 1, "intermediate_size": 100}
FAMILY = Family(
    name="cohere",
    huggingface=HuggingFace(("CohereForCausalLM",), "cohere", describe, HUGGINGFACE_NAMES, _TRANSFORMS),
    gguf=Gguf(("command-r",), describe_gguf, GGUF_NAMES, _TRANSFORMS),
    tiny_config=lambda: _tiny("cohere"),
    odd={**_ODD, "use_qk_norm": True},
)
COHERE2 = Family(
    name="cohere2",
    huggingface=HuggingFace(("Cohere2ForCausalLM",), "cohere2", describe_2, HUGGINGFACE_NAMES, _TRANSFORMS),
    gguf=Gguf(("cohere2",), describe_gguf_2, GGUF_NAMES, _TRANSFORMS),
    tiny_config=lambda: _tiny("cohere2", num_hidden_layers=5, head_dim=32, sliding_window=24),
    odd={**_ODD, "head_dim": 34},
)
