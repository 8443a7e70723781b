"""config.json of a Hugging Face model to the fields of ModelDescription, with transformers' semantics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..errors import Unsupported
from .checkpoint import check_description
from .fields import Fields
from .rope import rope_from_parameters

__all__ = ["ARCHITECTURES", "Config", "parse_config"]

_MAX_LAYERS = 10_000

_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
_QKV = ("attn.q", "attn.k", "attn.v")
_MLP = ("mlp.gate", "mlp.up", "mlp.down")


@dataclass(frozen=True)
class _Architecture:
    model_type: str
    num_kv_heads: int | None = None  # transformers' defaults; None: derived
    head_dim: int | None = None
    max_position_embeddings: int = 32768
    windows: str = "none"  # none, every layer, or per layer
    sliding_window: int | None = None
    qkv_bias: bool = False
    attention_bias_option: bool = False
    mlp_bias_option: bool = False
    qk_norm: bool = False


ARCHITECTURES = {
    "LlamaForCausalLM": _Architecture(
        "llama", max_position_embeddings=2048, attention_bias_option=True, mlp_bias_option=True
    ),
    "MistralForCausalLM": _Architecture(
        "mistral", num_kv_heads=8, max_position_embeddings=131072, windows="every layer", sliding_window=4096
    ),
    "Qwen2ForCausalLM": _Architecture(
        "qwen2", num_kv_heads=32, windows="per layer", sliding_window=4096, qkv_bias=True
    ),
    "Qwen3ForCausalLM": _Architecture(
        "qwen3",
        num_kv_heads=32,
        head_dim=128,
        windows="per layer",
        sliding_window=4096,
        attention_bias_option=True,
        qk_norm=True,
    ),
}


@dataclass(frozen=True)
class Config:
    description: dict[str, Any]
    biases: tuple[str, ...] = ()  # projections that have one
    dtype: str = "f32"
    eos_token_ids: list[int] = field(default_factory=list)
    bos_token_ids: list[int] = field(default_factory=list)


def parse_config(config: Fields) -> Config:
    name, architecture = _architecture(config)
    if config.get("quantization_config") is not None:
        method = config.mapping("quantization_config").text("quant_method", "unknown")
        raise Unsupported(
            f"{config.source}: quantization_config ('{method}') is not supported; use the original checkpoint or GGUF"
        )
    hidden_size = config.integer("hidden_size")
    num_heads = config.integer("num_attention_heads")
    num_kv_heads = architecture.num_kv_heads if "num_key_value_heads" not in config else None
    default_head_dim = architecture.head_dim if "head_dim" not in config else None
    activation = config.text("hidden_act", "silu")
    if activation not in _ACTIVATIONS:
        raise Unsupported(f"{config.source}: hidden_act '{activation}'; supported are {', '.join(_ACTIVATIONS)}")
    description: dict[str, Any] = {
        "architecture": name,
        "vocab_size": config.integer("vocab_size"),
        "hidden_size": hidden_size,
        "intermediate_size": config.integer("intermediate_size"),
        "num_layers": config.integer("num_hidden_layers", maximum=_MAX_LAYERS),
        "num_heads": num_heads,
        "num_kv_heads": config.integer("num_key_value_heads", num_kv_heads or num_heads),
        "head_dim": config.integer("head_dim", default_head_dim or max(hidden_size // num_heads, 1), maximum=65536),
        "max_context": config.integer("max_position_embeddings", architecture.max_position_embeddings),
        "norm": "rms",
        "norm_eps": config.number("rms_norm_eps", 1e-6, above=0.0),
        "activation": _ACTIVATIONS[activation],
        "gated_mlp": True,
        "tied_embeddings": config.flag("tie_word_embeddings", False),
        "qk_norm": architecture.qk_norm,
    }
    check_description(description, config.source)
    rope = rope_from_parameters(_rope_parameters(config), description["head_dim"], description["max_context"])
    description["rope_inv_freq"] = rope.inv_freq
    description["rope_magnitude"] = rope.magnitude
    description["windows"] = _windows(config, architecture, description)
    return Config(
        description,
        _biases(config, architecture),
        _dtype(config),
        config.token_ids("eos_token_id"),
        config.token_ids("bos_token_id"),
    )


def _architecture(config: Fields) -> tuple[str, _Architecture]:
    names = config.get("architectures")
    if names is None:
        model_type = config.text("model_type")
        names = [name for name, known in ARCHITECTURES.items() if known.model_type == model_type] or [model_type]
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise config.refuse("architectures", "is not a list of names")
    if names[0] not in ARCHITECTURES:
        raise Unsupported(
            f"{config.source}: the architecture '{names[0][:80]}' is not supported; supported are "
            f"{', '.join(ARCHITECTURES)}"
        )
    return names[0], ARCHITECTURES[names[0]]


def _rope_parameters(config: Fields) -> Fields:
    """transformers 5 keeps all in ``rope_parameters``; before, ``rope_theta`` lay beside ``rope_scaling``."""
    name = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    nested = config.mapping(name)
    values = dict(nested.values)
    outside = ["rope_theta", "partial_rotary_factor"]
    for key in outside:
        if key in config:
            values.setdefault(key, config.get(key))
    if config.get("original_max_position_embeddings") is not None:
        values["original_max_position_embeddings"] = config.get("original_max_position_embeddings")
    values.setdefault("rope_theta", 10000.0)
    return Fields(values, nested.source)


def _windows(config: Fields, architecture: _Architecture, description: dict[str, Any]) -> list[int]:
    """Per layer, 0 for full attention; empty when no layer has a window that matters."""
    num_layers, max_context = description["num_layers"], description["max_context"]
    default = architecture.sliding_window if "sliding_window" not in config else None
    has_window = default is not None or config.get("sliding_window") is not None
    if architecture.windows == "per layer" and not config.flag("use_sliding_window", False):
        has_window = False
    if architecture.windows == "none" or not has_window:
        return []
    window = config.integer("sliding_window", default)
    if architecture.windows == "every layer":
        sliding = [True] * num_layers
    elif config.get("layer_types") is not None:
        sliding = [kind == "sliding_attention" for kind in _layer_types(config, num_layers)]
    else:
        first = config.integer("max_window_layers", 28, minimum=0)
        sliding = [layer >= first for layer in range(num_layers)]
    if window >= max_context or not any(sliding):
        return []
    return [window if slides else 0 for slides in sliding]


def _layer_types(config: Fields, num_layers: int) -> list[str]:
    kinds = config.get("layer_types")
    if not isinstance(kinds, list) or len(kinds) != num_layers:
        raise config.refuse("layer_types", f"is not a list of {num_layers} names")
    for kind in kinds:
        if kind not in ("full_attention", "sliding_attention"):
            raise Unsupported(
                f"{config.source}: the layer type {str(kind)[:80]!r}; supported are full_attention, sliding_attention"
            )
    return kinds


def _biases(config: Fields, architecture: _Architecture) -> tuple[str, ...]:
    biases: tuple[str, ...] = _QKV if architecture.qkv_bias else ()
    if architecture.attention_bias_option and config.flag("attention_bias", False):
        biases = (*_QKV, "attn.o")
    if architecture.mlp_bias_option and config.flag("mlp_bias", False):
        biases = (*biases, *_MLP)
    return biases


def _dtype(config: Fields) -> str:
    name = config.text("dtype", config.text("torch_dtype", "float32"))
    return {"bfloat16": "bf16", "float16": "f16", "float32": "f32", "float64": "f64"}.get(name, "f32")
