"""Rotary position embedding: inverse frequencies and the factor on cos and sin, for every scaling method in use.

Dimension pair i of a head is rotated by position * inv_freq[i]; without scaling inv_freq[i] = theta^(-2i / head_dim)
(Su et al., 2021). Computed in double and rounded once to f32.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from typing import NamedTuple

from ..errors import Corrupt, Unsupported
from .fields import Fields

__all__ = [
    "Rope",
    "default_rope",
    "linear_rope",
    "llama3_rope",
    "longrope",
    "rope_from_parameters",
    "to_f32",
    "yarn_magnitude",
    "yarn_rope",
]

_SERVED = "default, linear, dynamic, yarn, llama3, longrope"
# What only scaling of some kind has.
_OF_KINDS = (
    *("low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"),
    *("attention_factor", "long_factor", "short_factor"),
)


class Rope(NamedTuple):
    inv_freq: list[float]  # [dimensions that are rotated / 2], every value an f32
    magnitude: float = 1.0


def default_rope(theta: float, head_dim: int) -> Rope:
    return _rope(theta ** (-i / head_dim) for i in range(0, head_dim, 2))


def linear_rope(theta: float, head_dim: int, factor: float) -> Rope:
    """Position interpolation (Chen et al., 2023): positions divided by ``factor``."""
    return _rope(theta ** (-i / head_dim) / factor for i in range(0, head_dim, 2))


def llama3_rope(
    theta: float, head_dim: int, factor: float, low_freq_factor: float, high_freq_factor: float, original_context: int
) -> Rope:
    """Llama 3.1: wavelengths beyond the original context are stretched by ``factor``, those well inside it are kept,
    with a linear blend between."""

    def scale(frequency: float) -> float:
        turns = original_context * frequency / (2 * math.pi)  # within the original context
        if turns < low_freq_factor:
            return frequency / factor
        if turns > high_freq_factor:
            return frequency
        blend = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor)
        return (1 - blend) * frequency / factor + blend * frequency

    return _rope(scale(theta ** (-i / head_dim)) for i in range(0, head_dim, 2))


def yarn_rope(
    theta: float,
    head_dim: int,
    factor: float,
    original_context: int,
    *,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    magnitude: float | None = None,
    truncate: bool = True,
) -> Rope:
    """YaRN (Peng et al., 2023): dimensions that turn more than ``beta_fast`` times within the original context are
    kept, those that turn less than ``beta_slow`` times are interpolated, with a linear ramp between."""

    def dimension_with(turns: float) -> float:
        return head_dim * math.log(original_context / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low, high = dimension_with(beta_fast), dimension_with(beta_slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    if low == high:
        high += 0.001  # a step

    def scale(i: int) -> float:
        frequency: float = theta ** (-2 * i / head_dim)
        interpolated = min(max((i - low) / (high - low), 0.0), 1.0)
        return frequency / factor * interpolated + frequency * (1 - interpolated)

    if magnitude is None:
        magnitude = yarn_magnitude(factor)
    return _rope((scale(i) for i in range(head_dim // 2)), magnitude)


def longrope(theta: float, factors: list[float], magnitude: float) -> Rope:
    """LongRoPE (Ding et al., 2024): each frequency divided by a factor that was searched for."""
    dim = 2 * len(factors)
    return _rope((1.0 / (f * theta ** (2 * i / dim)) for i, f in enumerate(factors)), magnitude)


def longrope_magnitude(factor: float, original_context: int) -> float:
    return 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original_context))


def yarn_magnitude(factor: float, multiplier: float = 1.0) -> float:
    return 1.0 if factor <= 1 else 0.1 * multiplier * math.log(factor) + 1.0


def rope_from_parameters(parameters: Fields, head_dim: int, max_context: int) -> Rope:
    """From Hugging Face's ``rope_parameters`` (with ``rope_theta`` in it), as transformers reads them.

    Dynamic NTK scaling changes the frequencies once a sequence outgrows ``max_position_embeddings``, which would
    invalidate its KV cache. It is served up to there, where it is the same as no scaling.
    """
    kind = parameters.text("rope_type", "") or parameters.text("type", "") or _kind_without_a_name(parameters)
    part = parameters.number("partial_rotary_factor", 1.0, above=0.0)
    if part > 1.0:
        raise parameters.refuse("partial_rotary_factor", "is more than a whole head (1.0)")
    head_dim = int(head_dim * part)
    if head_dim % 2:
        raise Corrupt(f"{parameters.source}: {head_dim} dimensions of a head cannot be rotated: it must be even")
    theta = parameters.number("rope_theta", above=1.0)
    try:
        return _dispatch(kind, parameters, theta, head_dim, max_context)
    except (OverflowError, ValueError, ZeroDivisionError) as error:
        if isinstance(error, (Corrupt, Unsupported)):
            raise
        raise Corrupt(f"{parameters.source}: the {kind} parameters give no frequencies: {error}") from None


def _kind_without_a_name(parameters: Fields) -> str:
    """A factor alone is linear, as llama.cpp reads it; one of 0 is none. (transformers drops it.)"""
    for name in _OF_KINDS:
        if parameters.get(name) is not None:
            raise parameters.refuse(name, f"belongs to a rope_type, and none is named; supported are {_SERVED}")
    return "linear" if parameters.number("factor", 0.0) != 0 else "default"


def _dispatch(kind: str, parameters: Fields, theta: float, head_dim: int, max_context: int) -> Rope:
    if kind in ("default", "dynamic"):
        return default_rope(theta, head_dim)
    if kind == "linear":
        return linear_rope(theta, head_dim, parameters.number("factor", above=0.0))
    original_context = parameters.integer("original_max_position_embeddings", max_context)
    if kind == "llama3":
        low = parameters.number("low_freq_factor", above=0.0)
        high = parameters.number("high_freq_factor", above=0.0)
        if low >= high:
            raise parameters.refuse("low_freq_factor", f"is not below high_freq_factor = {high}")
        return llama3_rope(theta, head_dim, parameters.number("factor", above=0.0), low, high, original_context)
    if kind == "yarn":
        factor = parameters.number("factor", max_context / original_context, above=0.0)
        magnitude = None
        if parameters.get("attention_factor") is not None:
            magnitude = parameters.number("attention_factor", above=0.0)
        elif parameters.get("mscale") and parameters.get("mscale_all_dim"):
            mscale, all_dim = parameters.number("mscale"), parameters.number("mscale_all_dim")
            magnitude = yarn_magnitude(factor, mscale) / yarn_magnitude(factor, all_dim)
        return yarn_rope(
            theta,
            head_dim,
            factor,
            original_context,
            beta_fast=parameters.number("beta_fast", 32.0) or 32.0,
            beta_slow=parameters.number("beta_slow", 1.0) or 1.0,
            magnitude=magnitude,
            truncate=parameters.flag("truncate", True),
        )
    if kind in ("longrope", "su"):
        default_factor = max_context / original_context
        return longrope(
            theta,
            parameters.numbers("long_factor", head_dim // 2, above=0.0),
            parameters.number(
                "attention_factor",
                longrope_magnitude(parameters.number("factor", default_factor, above=0.0), original_context),
                above=0.0,
            ),
        )
    raise Unsupported(f"{parameters.source}: rope_type '{kind}' is not supported; supported are {_SERVED}")


def _rope(frequencies: Iterable[float], magnitude: float = 1.0) -> Rope:
    return Rope([to_f32(f) for f in frequencies], to_f32(magnitude))


def to_f32(value: float) -> float:
    """The nearest f32, so that handing it to C++ changes nothing. Raises OverflowError beyond its range."""
    rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return rounded
