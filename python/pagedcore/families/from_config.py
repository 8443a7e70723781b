"""A config.json of LLaMA's names to the fields of ModelDescription, with transformers' semantics."""

from __future__ import annotations

from typing import Any

from ..errors import Corrupt, Unsupported
from .fields import Fields
from .rope import Rope, rope_from_parameters

__all__ = [
    "MAX_HEADS",
    "MAX_HEAD_DIM",
    "MAX_LAYERS",
    "check_description",
    "described",
    "rope_of",
    "slides_of",
    "text_part",
    "windows_by_layer",
    "windows_everywhere",
    "windows_of_types",
]

# Lists of so many entries are made before the engine checks the description.
MAX_LAYERS = 10_000
MAX_HEADS = MAX_HEAD_DIM = 1 << 16

_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
}


def described(
    config: Fields, *, norm: str = "rms", norm_eps: str = "rms_norm_eps", rotates: bool = True
) -> dict[str, Any]:
    """What the configuration leaves out has LLaMA's defaults in transformers, where a family gives it no others by
    ``defaulting``; a null is not the same as nothing: it asks for the value derived from the rest. ``norm_eps`` is the
    name that it has there."""
    hidden_size = config.integer("hidden_size")
    num_heads = config.integer("num_attention_heads", maximum=MAX_HEADS)
    description: dict[str, Any] = {
        "vocab_size": config.integer("vocab_size"),
        "hidden_size": hidden_size,
        "intermediate_size": config.integer("intermediate_size"),
        "num_layers": config.integer("num_hidden_layers", maximum=MAX_LAYERS),
        "num_heads": num_heads,
        "num_kv_heads": config.integer("num_key_value_heads", num_heads),
        "head_dim": config.integer("head_dim", max(hidden_size // num_heads, 1), maximum=MAX_HEAD_DIM),
        "max_context": config.integer(
            "max_position_embeddings", 32768, minimum=2
        ),  # a prompt token and a generated one
        "norm": norm,
        "norm_eps": config.number(norm_eps, 1e-6 if norm == "rms" else 1e-5, above=0.0),
        "activation": _activation(config),
        "gated_mlp": True,
        "tied_embeddings": config.flag("tie_word_embeddings", False),
        "qk_norm": False,
        "windows": [],
    }
    check_description(description, config.source)
    description["rope_inv_freq"] = []
    if rotates:
        rope = rope_of(config, description)
        description["rope_inv_freq"] = rope.inv_freq
        description["rope_magnitude"] = rope.magnitude
    return description


def text_part(config: Fields) -> Fields:
    """Of a model that also sees: the configuration of its decoder."""
    return config.mapping("text_config") if "text_config" in config else config


def check_description(description: dict[str, Any], source: str) -> None:
    """Raises Corrupt for fields that contradict each other."""
    d = description
    if d["num_heads"] % d["num_kv_heads"]:
        raise Corrupt(f"{source}: {d['num_heads']} attention heads are not a multiple of {d['num_kv_heads']} KV heads")


def _activation(config: Fields) -> str:
    name = config.text("hidden_act", "silu")
    if name not in _ACTIVATIONS:
        raise config.unsupported("hidden_act", _ACTIVATIONS)
    return _ACTIVATIONS[name]


def rope_of(config: Fields, description: dict[str, Any]) -> Rope:
    """transformers 5 keeps all in ``rope_parameters``; before, ``rope_theta`` lay beside ``rope_scaling``."""
    head_dim, max_context = description["head_dim"], description["max_context"]
    name = "rope_scaling" if config.get("rope_scaling") else "rope_parameters"
    nested = config.mapping(name)
    values = dict(nested.values)
    for key in ("rope_theta", "partial_rotary_factor"):
        if key in config:
            values.setdefault(key, config.get(key))
    if config.get("original_max_position_embeddings") is not None:
        values["original_max_position_embeddings"] = config.get("original_max_position_embeddings")
    values.setdefault("rope_theta", 10000.0)
    return rope_from_parameters(Fields(values, nested.source), head_dim, max_context)


def windows_everywhere(config: Fields, description: dict[str, Any], default: int | None) -> list[int]:
    """``sliding_window`` in every layer, unless it is null. Empty when it does not matter."""
    return _windows(config, description, default, [True] * description["num_layers"])


def windows_by_layer(config: Fields, description: dict[str, Any], default: int) -> list[int]:
    """``sliding_window`` where ``layer_types`` says so, or from ``max_window_layers`` on, if ``use_sliding_window``.
    Per layer, 0 for full attention; empty when no layer has a window that matters."""
    if not config.flag("use_sliding_window", False):
        return []
    first = config.integer("max_window_layers", 28, minimum=0)
    slides = [layer >= first for layer in range(description["num_layers"])]
    return windows_of_types(config, description, default, slides)


def windows_of_types(config: Fields, description: dict[str, Any], default: int | None, slides: list[bool]) -> list[int]:
    """``sliding_window`` where ``layer_types`` says so or, when there is none, where a layer ``slides``."""
    return _windows(config, description, default, slides_of(config, description["num_layers"], slides))


def slides_of(config: Fields, num_layers: int, default: list[bool]) -> list[bool]:
    """For each layer, whether ``layer_types`` gives it a window."""
    if config.get("layer_types") is None:
        return default
    return [kind == "sliding_attention" for kind in _layer_types(config, num_layers)]


def _windows(config: Fields, description: dict[str, Any], default: int | None, slides: list[bool]) -> list[int]:
    if config.get("sliding_window") is None and ("sliding_window" in config or default is None):
        return []
    window = config.integer("sliding_window", default)
    if window >= description["max_context"] or not any(slides):
        return []
    return [window if slide else 0 for slide in slides]


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
