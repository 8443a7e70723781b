"""Checks of what users pass, with messages that name the value and its limits."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeVar

from .arguments import shown
from .errors import InvalidArgument

__all__ = [
    "check_bool",
    "check_int",
    "check_real",
    "check_text",
    "float_of",
    "native_record",
    "token_list",
]

_R = TypeVar("_R")


def check_bool(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise InvalidArgument(f"{name}={shown(value)} must be True or False")


def check_int(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidArgument(f"{name}={shown(value)} must be an integer in [{low}, {high}]")


def check_text(name: str, value: object, *, path: bool = False) -> None:
    """That a text can be given to the native library: it is UTF-8 there, and ends at a zero. ``path``: it names a file,
    whose name may have other bytes."""
    text = os.fspath(value) if path and isinstance(value, os.PathLike) else value
    if not isinstance(text, str):
        return
    if not text.isascii():
        try:
            os.fsencode(text) if path else text.encode()
        except UnicodeEncodeError:
            raise InvalidArgument(
                f"{name}={shown(text)} is not valid Unicode: it holds half of a surrogate pair"
            ) from None
    if "\0" in text:
        raise InvalidArgument(f"{name}={shown(text)} holds a zero character, at which it would end")


def check_real(name: str, value: object, low: float, high: float, *, above_low: bool = False) -> None:
    # NaN fails every comparison, hence the positive form; infinity is no temperature and no penalty.
    number = float_of(value)
    if not math.isfinite(number) or not low <= number <= high or (above_low and number == low):
        left = "(" if above_low else "["
        right = ")" if math.isinf(high) else "]"
        raise InvalidArgument(f"{name}={shown(value)} must be a number in {left}{low:g}, {high:g}{right}")


def float_of(value: object) -> float:
    """The value of a number, infinity for one that is too large for a float, NaN for what is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def token_list(name: str, tokens: object) -> tuple[int, ...]:
    """Ids as a tuple; None is an empty one, an array its elements. Their range is the native library's to check."""
    listed = tokens.tolist() if hasattr(tokens, "tolist") else () if tokens is None else tokens
    if isinstance(listed, (str, bytes)) or not isinstance(listed, Iterable):
        raise InvalidArgument(f"{name}={shown(tokens)} must be a list of token ids")
    return tuple(listed)


def native_record(record: type[_R], values: Mapping[str, Any], *, paths: Collection[str] = ()) -> _R:
    """A native record of these values. What a field cannot hold is InvalidArgument, as what is out of its range.
    ``paths``: the fields that name files."""
    for name, value in values.items():
        check_text(name, value, path=name in paths)
    try:
        return record(**values)
    except TypeError as error:
        raise InvalidArgument(str(error)) from None
