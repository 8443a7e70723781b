"""Metadata of a GGUF file, whose keys are the same for every decoder, to the fields of ModelDescription."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..errors import Corrupt, Unsupported
from .family import Described, Tensors
from .fields import Fields
from .from_config import MAX_LAYERS, check_description
from .llama_like import GGUF_NAMES, MLP, QKVO
from .rope import Rope, default_rope, linear_rope, to_f32, yarn_magnitude, yarn_rope

__all__ = ["biases", "describe", "described"]

_ROPE_FACTORS = "rope_freqs.weight"


def describe(fields: Fields, tensors: Tensors) -> Described:
    return Described(described(fields, tensors), biases(tensors, (*QKVO, *MLP)))


def described(
    fields: Fields, tensors: Tensors, *, norm_eps: str = "attention.layer_norm_rms_epsilon"
) -> dict[str, Any]:
    """Vocabulary and tied embeddings are what the tensors say."""
    if fields.integer("expert_count", 0, minimum=0):
        raise Unsupported(f"{fields.source}: mixtures of experts are not supported")
    hidden_size = fields.integer("embedding_length")
    num_heads = fields.integer("attention.head_count")
    head_dim = fields.integer("attention.key_length", max(hidden_size // num_heads, 1), maximum=65536)
    if fields.integer("attention.value_length", head_dim) != head_dim:
        raise Unsupported(f"{fields.source}: values of another length than keys are not supported")
    if fields.integer("rope.dimension_count", head_dim) != head_dim:
        raise Unsupported(f"{fields.source}: rotating a part of a head (rope.dimension_count) is not supported")
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
        "max_context": fields.integer("context_length"),
        "norm": "rms",
        "norm_eps": fields.number(norm_eps, above=0.0),
        "activation": "silu",
        "gated_mlp": True,
        "tied_embeddings": "output.weight" not in tensors,
        "qk_norm": False,
    }
    check_description(description, fields.source)
    rope = _with_factors(_rope(fields, head_dim, description["max_context"]), fields, tensors, head_dim)
    description["rope_inv_freq"] = rope.inv_freq
    description["rope_magnitude"] = rope.magnitude
    window = fields.integer("attention.sliding_window", 0, minimum=0)
    limited = 0 < window < description["max_context"]
    description["windows"] = [window] * description["num_layers"] if limited else []
    return description


def biases(tensors: Tensors, modules: Iterable[str]) -> tuple[str, ...]:
    """Those of ``modules`` that have a bias in the file, by canonical name."""
    found = {GGUF_NAMES.canonical(name) for name in tensors if name.endswith(".bias")}
    return tuple(m for m in modules if not found.isdisjoint((f"{m}.bias", f"layers.0.{m}.bias")))


def _rope(fields: Fields, head_dim: int, max_context: int) -> Rope:
    theta = fields.number("rope.freq_base", 10000.0, above=1.0)
    kind = fields.text("rope.scaling.type", "linear")  # of a factor without a type, as llama.cpp reads it
    factor = _factor(fields)
    try:
        if kind == "none":
            return default_rope(theta, head_dim)
        if kind == "linear":
            return linear_rope(theta, head_dim, factor)
        if kind == "yarn":
            return yarn_rope(
                theta,
                head_dim,
                factor,
                fields.integer("rope.scaling.original_context_length", max_context),
                beta_fast=fields.number("rope.scaling.yarn_beta_fast", 32.0, above=0.0),
                beta_slow=fields.number("rope.scaling.yarn_beta_slow", 1.0, above=0.0),
                magnitude=yarn_magnitude(factor) * fields.number("rope.scaling.attn_factor", 1.0, above=0.0),
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


def _with_factors(rope: Rope, fields: Fields, tensors: Tensors, head_dim: int) -> Rope:
    """Llama 3.1's scaling comes as a divisor for each frequency."""
    tensor = tensors.get(_ROPE_FACTORS)
    if tensor is None:
        return rope
    if tensor.dtype != "f32" or tensor.shape != (head_dim // 2,):
        raise Corrupt(
            f"{fields.source}: '{_ROPE_FACTORS}' is {tensor.dtype} of shape {tensor.shape}, "
            f"not f32 of ({head_dim // 2},)"
        )
    factors = tensor.read().cast("f").tolist()
    if not all(1e-6 < factor < 1e6 for factor in factors):
        raise Corrupt(f"{fields.source}: '{_ROPE_FACTORS}' has a factor that is not a positive number of usual size")
    return Rope([to_f32(f / factor) for f, factor in zip(rope.inv_freq, factors, strict=True)], rope.magnitude)
