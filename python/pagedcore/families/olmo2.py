"""OLMo 2 and 3 (2024, 2025): norms after attention and MLP, over the whole of q and k. OLMo 3 has windows, and scales
its rope in the layers without."""

from __future__ import annotations

from typing import Any

from . import from_config, from_gguf
from .family import Described, Family, Gguf, HuggingFace, Tensors
from .fields import Fields
from .llama_like import GGUF_NAMES, HUGGINGFACE_NAMES, QKVO, tiny_config
from .rope import default_rope

__all__ = ["FAMILY"]

_NAMES = HUGGINGFACE_NAMES.changed(
    in_layer={"post_attention_layernorm": "attn_post_norm", "post_feedforward_layernorm": "mlp_post_norm"}
)


def _finish(description: dict[str, Any], biases: tuple[str, ...] = ()) -> Described:
    return Described(description | {"norm_place": "after", "qk_norm": True, "qk_norm_span": "row"}, biases)


def describe(config: Fields) -> Described:
    config = config.defaulting(max_position_embeddings=2048, rms_norm_eps=1e-5)
    biases = QKVO if config.flag("attention_bias", False) else ()
    if config.get("layer_types") is None and config.get("sliding_window") is None:
        return _finish(from_config.described(config), biases)
    description = from_config.described(config, rotates=False)
    slides = [(layer + 1) % 4 != 0 for layer in range(description["num_layers"])]
    slides = from_config.slides_of(config, description["num_layers"], slides)
    description["windows"] = from_config.windows_of_types(config, description, 4096, slides)
    by_kind = config.mapping("rope_parameters")
    full = Fields({"rope_parameters": by_kind.get("full_attention")}, config.source) if by_kind.values else config
    rope = from_config.rope_of(full if by_kind.get("full_attention") else config, description)
    theta = by_kind.mapping("sliding_attention").number(
        "rope_theta", config.number("rope_theta", by_kind.number("rope_theta", 500000.0, above=1.0), above=1.0)
    )
    description |= {
        "rope_inv_freq": rope.inv_freq + default_rope(theta, description["head_dim"]).inv_freq,
        "rope_magnitude": rope.magnitude,
        "rope_tables": 2,
        "rope_layers": [int(slide) for slide in slides],
    }
    return _finish(description, biases)


def describe_gguf(fields: Fields, tensors: Tensors) -> Described:
    description = from_gguf.described(fields, tensors)
    if description["windows"]:
        description["windows"] = from_gguf.windows(fields, description, 4)
        theta = fields.number("rope.freq_base", 10000.0, above=1.0)
        description["rope_layers"] = [int(window > 0) for window in description["windows"]]
        description["rope_inv_freq"] = (
            description["rope_inv_freq"] + default_rope(theta, description["head_dim"]).inv_freq
        )
        description["rope_tables"] = 2
    return _finish(description)


FAMILY = Family(
    name="olmo2",
    huggingface=HuggingFace(
        architectures=("Olmo2ForCausalLM", "Olmo3ForCausalLM"), model_type="olmo2", describe=describe, names=_NAMES
    ),
    gguf=Gguf(architectures=("olmo2",), describe=describe_gguf, names=GGUF_NAMES),
    tiny_config=lambda: tiny_config("olmo2", pad_token_id=0),
    odd={"hidden_size": 102, "num_attention_heads": 3, "num_key_value_heads": 1, "intermediate_size": 100},
)
