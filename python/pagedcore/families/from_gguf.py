"""Metadata of a GGUF file, whose keys are the same for every decoder, to the fields of ModelDescription."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import Corrupt, Unsupported
from . import experts
from .family import Described, Tensors
from .fields import Fields
from .from_config import MAX_HEAD_DIM, MAX_HEADS, MAX_LAYERS, check_description
from .llama_like import GGUF_NAMES, MLP, QKVO
from .rope import Rope, default_rope, linear_rope, longrope, to_f32, yarn_magnitude, yarn_rope
from .tensors import TensorNames

__all__ = ["RMS_EPS", "biases", "describe", "described", "slides", "windows"]

RMS_EPS = "attention.layer_norm_rms_epsilon"
LAYER_EPS = "attention.layer_norm_epsilon"
_FACTORS = {"rope_freqs": "rope_freqs.weight", "long": "rope_factors_long.weight"}


def describe(fields: Fields, tensors: Tensors) -> Described:
    return Described(described(fields, tensors), biases(tensors, (*QKVO, *MLP)))


def described(
    fields: Fields,
    tensors: Tensors,
    *,
    norm: str = "rms",
    activation: str = "silu",
    gated: bool = True,
    rotates: bool = True,
) -> dict[str, Any]:
    """Vocabulary and tied embeddings are what the tensors say."""
    hidden_size = fields.integer("embedding_length")
    num_heads = fields.integer("attention.head_count", maximum=MAX_HEADS)
    head_dim = fields.integer("attention.key_length", max(hidden_size // num_heads, 1), maximum=MAX_HEAD_DIM)
    if fields.integer("attention.value_length", head_dim) != head_dim:
        raise Unsupported(f"{fields.source}: values of another length than keys are not supported")
    embedding = tensors.get("token_embd.weight")
    if embedding is None:
        raise Corrupt(f"{fields.source}: has no tensor 'token_embd.weight'")
    description: dict[str, Any] = {
        "vocab_size": embedding.shape[0],
        "hidden_size": hidden_size,
        "intermediate_size": fields.integer("feed_forward_length"),
        "num_layers": fields.integer("block_count", maximum=MAX_LAYERS),
        "num_heads": num_heads,
        "num_kv_heads": fields.integer("attention.head_count_kv", num_heads),
        "head_dim": head_dim,
        "max_context": fields.integer("context_length", minimum=2),  # a prompt token and a generated one
        "norm": norm,
        "norm_eps": fields.number(RMS_EPS if norm == "rms" else LAYER_EPS, above=0.0),
        "activation": activation,
        "gated_mlp": gated,
        "tied_embeddings": "output.weight" not in tensors,
        "qk_norm": False,
        "windows": [],
        "rope_inv_freq": [],
    }
    check_description(description, fields.source)
    description |= experts.from_gguf(fields, tensors, description["num_layers"])
    if rotates:
        rope = _rope(fields, tensors, head_dim, description["max_context"])
        description["rope_inv_freq"] = rope.inv_freq
        description["rope_magnitude"] = rope.magnitude
    description["windows"] = windows(fields, description, None)
    return description


def windows(fields: Fields, description: Mapping[str, Any], pattern: int | None) -> list[int]:
    """``attention.sliding_window`` in every layer or, with a pattern, in all but each ``pattern``-th; the file may have
    another one. Empty when it does not matter."""
    window = fields.integer("attention.sliding_window", 0, minimum=0)
    slide = slides(fields, description["num_layers"], pattern)
    if not 0 < window < description["max_context"] or not any(slide):
        return []
    return [window if slides else 0 for slides in slide]


def slides(fields: Fields, num_layers: int, pattern: int | None) -> list[bool]:
    """For each layer, whether it is one of those that may have a window."""
    name = "attention.sliding_window_pattern"
    given = fields.get(name)
    if isinstance(given, list):
        if len(given) != num_layers or not all(isinstance(slides, bool) for slides in given):
            raise fields.refuse(name, f"is not a list of {num_layers} flags")
        return given
    every = fields.integer(name, pattern or 0, minimum=0)
    return [every == 0 or (layer + 1) % every != 0 for layer in range(num_layers)]


def biases(
    tensors: Tensors,
    modules: Iterable[str],
    names: TensorNames = GGUF_NAMES,
    stacks: Mapping[str, Iterable[str]] | None = None,
) -> tuple[str, ...]:
    """Those of ``modules`` that have a bias in the file, by canonical name. ``stacks``: what ``names`` calls several
    modules in one tensor, and those modules."""
    found = {names.canonical(name) for name in tensors if name.endswith(".bias")}
    for stack, parts in (stacks or {}).items():
        if f"layers.0.{stack}.bias" in found:
            found |= {f"layers.0.{part}.bias" for part in parts}
    return tuple(m for m in modules if not found.isdisjoint((f"{m}.bias", f"layers.0.{m}.bias")))


def _rope(fields: Fields, tensors: Tensors, head_dim: int, max_context: int) -> Rope:
    dim = fields.integer("rope.dimension_count", head_dim, maximum=head_dim)
    if dim % 2:
        raise fields.refuse("rope.dimension_count", "cannot be rotated: it must be even")
    theta = fields.number("rope.freq_base", 10000.0, above=1.0)
    long = _factors(_FACTORS["long"], fields, tensors, dim)
    if long is not None:
        return longrope(theta, long, fields.number("rope.scaling.attn_factor", 1.0, above=0.0))
    rope = _scaled_rope(fields, theta, dim, max_context)
    factors = _factors(_FACTORS["rope_freqs"], fields, tensors, dim)  # of Llama 3.1's scaling
    if factors is None:
        return rope
    try:
        return Rope([to_f32(f / factor) for f, factor in zip(rope.inv_freq, factors, strict=True)], rope.magnitude)
    except OverflowError:
        raise Corrupt(f"{fields.source}: the factors of '{_FACTORS['rope_freqs']}' give no frequencies") from None


def _scaled_rope(fields: Fields, theta: float, dim: int, max_context: int) -> Rope:
    kind = fields.text("rope.scaling.type", "linear")  # of a factor without a type, as llama.cpp reads it
    factor = _factor(fields)
    try:
        if kind == "none":
            return default_rope(theta, dim)
        if kind == "linear":
            return linear_rope(theta, dim, factor)
        if kind == "yarn":
            return yarn_rope(
                theta,
                dim,
                factor,
                fields.integer("rope.scaling.original_context_length", max_context),
                beta_fast=fields.number("rope.scaling.yarn_beta_fast", 32.0, above=0.0),
                beta_slow=fields.number("rope.scaling.yarn_beta_slow", 1.0, above=0.0),
                magnitude=yarn_magnitude(factor) * fields.number("rope.scaling.attn_factor", 1.0, above=0.0),
                truncate=fields.flag("rope.scaling.yarn_truncate", True),  # no file says
            )
    except (OverflowError, ValueError, ZeroDivisionError) as error:
        if isinstance(error, (Corrupt, Unsupported)):
            raise
        raise Corrupt(f"{fields.source}: the {kind} rope parameters give no frequencies: {error}") from None
    raise Unsupported(f"{fields.source}: rope scaling '{kind[:80]}'; supported are none, linear, yarn")


def _factor(fields: Fields) -> float:
    """By how much contexts are stretched. "scale_linear" is the key that files had before "scaling.factor"; 0 means
    none."""
    name = "rope.scaling.factor" if "rope.scaling.factor" in fields else "rope.scale_linear"
    factor = fields.number(name, 0.0)
    if factor < 0:
        raise fields.refuse(name, "is negative")
    return factor or 1.0


def _factors(name: str, fields: Fields, tensors: Tensors, dim: int) -> list[float] | None:
    """A divisor for each frequency, where the file has such."""
    tensor = tensors.get(name)
    if tensor is None:
        return None
    if tensor.dtype != "f32" or tensor.shape != (dim // 2,):
        raise Corrupt(f"{fields.source}: '{name}' is {tensor.dtype} of shape {tensor.shape}, not f32 of ({dim // 2},)")
    factors = [float(factor) for factor in tensor.read().cast("f")]
    if not all(1e-6 < factor < 1e6 for factor in factors):
        raise Corrupt(f"{fields.source}: '{name}' has a factor that is not a positive number of usual size")
    return factors
