"""Operators and methods: how large a result will be, where that is more than what it is made of."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from .budget import MOST_BITS, NODE, Budget, TemplateLimit

__all__ = ["COMPARISONS", "METHODS", "check_binary", "check_percent", "check_replace", "check_spec", "check_texts"]

_LONGEST_FIELD = 10_000  # characters that a format pads a value to, and digits behind the point
_MOST_PAIRS = 50_000_000  # of characters that a search from the right or a strip compares
_PERCENT = re.compile(r"%(?:\([^)]*\))?[#0\- +]*(\*|\d*)(?:\.(\*|\d*))?")

COMPARISONS: Mapping[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "gteq": operator.ge,
    "lt": operator.lt,
    "lteq": operator.le,
    "in": lambda a, b: a in b,
    "notin": lambda a, b: a not in b,
}


def _text_weight(budget: Budget, value: Any) -> int:
    """Characters of a value as text, at most: of a list some for brackets, quotes and escapes."""
    if isinstance(value, str):
        return len(value)
    return 4 * budget.weight(value) if isinstance(value, (list, tuple, dict, set)) else 2048


def check_binary(budget: Budget, sign: str, left: Any, right: Any) -> None:
    if sign == "*":
        for many, times in ((left, right), (right, left)):
            if isinstance(times, int) and isinstance(many, (str, list, tuple)):
                budget.fits(len(many) * times * (1 if isinstance(many, str) else NODE))
    if sign == "+" and isinstance(left, (str, list, tuple)) and isinstance(right, (str, list, tuple)):
        budget.fits((len(left) + len(right)) * (1 if isinstance(left, str) else NODE))
    if sign == "%" and isinstance(left, str):
        check_percent(budget, left, right)
    if sign == "**" and isinstance(left, int) and isinstance(right, int) and right > 0:
        bits = (abs(left).bit_length() - 1) * right  # at least; what comes close is computed, and looked at then
        if bits > MOST_BITS:
            raise TemplateLimit(f"it computes with an integer of {bits} bits; {MOST_BITS} are possible")


def check_percent(budget: Budget, text: str, values: Any) -> None:
    """``text % values``"""
    fields = _PERCENT.findall(text)
    for field in fields:
        for digits in field:
            _check_digits(digits)
    given = values.values() if isinstance(values, dict) else values if isinstance(values, tuple) else [values]
    longest = max((_text_weight(budget, value) for value in given), default=0)
    if isinstance(values, dict):  # which may be asked for as a whole, too
        longest = max(longest, _text_weight(budget, values))
    # Names are said once for each value, but a name may be said often: each may be the longest.
    padded = sum(int(digits or 0) for field in fields for digits in field)
    budget.fits(len(text) + len(fields) * longest + padded)


def check_spec(spec: str) -> None:
    """Of ``str.format``: what stands behind the colon."""
    for digits in re.findall(r"\d+", spec):
        _check_digits(digits)


def _check_digits(digits: str) -> None:
    if digits == "*":
        raise TemplateLimit("it formats with a width or precision that is computed (*)")
    if digits and (len(digits) > 9 or int(digits) > _LONGEST_FIELD):
        raise TemplateLimit(f"it formats to {digits[:20]} characters; at most {_LONGEST_FIELD} are possible")


def check_texts(budget: Budget, separator: str, parts: list[Any]) -> None:
    """``separator.join(parts)``"""
    budget.fits(sum(_text_weight(budget, part) for part in parts) + len(separator) * len(parts))


def check_replace(budget: Budget, text: str, old: str, new: str, count: int = -1) -> None:
    found = text.count(old) if count is None or count < 0 else min(count, text.count(old))
    budget.fits(len(text) + found * max(0, len(new) - len(old)))


def _padding(budget: Budget, text: str, width: int, fill: str = " ") -> None:
    budget.fits(width)


def _tabs(budget: Budget, text: str, tabsize: int = 8) -> None:
    budget.fits(len(text) + text.count("\t") * max(tabsize, 0))


def _from_right(budget: Budget, text: str, sought: str | None = None, *_: Any) -> None:
    # Searches from the right compare every character of one with every one of the other, at worst.
    if sought is not None and len(text) * len(sought) > _MOST_PAIRS:
        raise TemplateLimit(f"it looks for a text of {len(sought)} characters in one of {len(text)}")


def _nothing(budget: Budget, *_: Any) -> None:
    pass


_PLAIN = """capitalize casefold count endswith find index isalnum isalpha isascii isdecimal isdigit isidentifier islower
isnumeric isprintable isspace istitle isupper lower partition removeprefix removesuffix split splitlines startswith
swapcase title upper"""

_Check = Callable[..., None]

METHODS: Mapping[type, Mapping[str, _Check]] = {
    str: {
        **dict.fromkeys(_PLAIN.split(), _nothing),
        **dict.fromkeys(("center", "ljust", "rjust", "zfill"), _padding),
        **dict.fromkeys(("rfind", "rindex", "rpartition", "rsplit", "strip", "lstrip", "rstrip"), _from_right),
        "expandtabs": _tabs,
        "replace": check_replace,
        "join": lambda budget, text, parts: check_texts(budget, text, parts),
    },
    dict: dict.fromkeys(("copy", "get", "items", "keys", "values"), _nothing),
    list: dict.fromkeys(("copy", "count", "index"), _nothing),
    tuple: dict.fromkeys(("count", "index"), _nothing),
    range: dict.fromkeys(("count", "index"), _nothing),
    int: dict.fromkeys(("bit_length", "is_integer"), _nothing),
    float: dict.fromkeys(("is_integer", "hex"), _nothing),
}
"""The methods of builtin types that a template may call, and what checks a call."""
