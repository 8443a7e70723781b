"""Checks of what users pass, with messages that name the value and its limits."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .errors import InvalidArgument

__all__ = ["MOST_PRIORITY", "check_int", "check_real", "token_ids"]

MOST_PRIORITY = 1_000_000
"""Priorities of requests lie within plus and minus that."""


def check_int(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidArgument(f"{name}={value!r} must be an integer in [{low}, {high}]")


def check_real(name: str, value: object, low: float, high: float, *, above_low: bool = False) -> None:
    # NaN fails every comparison, hence the positive form; infinity is no temperature and no penalty.
    fine = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not fine or not low <= value <= high or (above_low and value == low):  # type: ignore[operator]
        left = "(" if above_low else "["
        right = ")" if math.isinf(high) else "]"
        raise InvalidArgument(f"{name}={value!r} must be a number in {left}{low:g}, {high:g}{right}")


def token_ids(name: str, values: Sequence[int]) -> tuple[int, ...]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
        raise InvalidArgument(f"{name}={values!r} must be a list of token ids")
    for token in values:
        if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < 2**31:
            raise InvalidArgument(f"{name} holds {token!r}, which is not a token id (an integer >= 0)")
    return tuple(values)
