"""A tokenizer.json is judged before it is built: what it makes of a text must not be many times as long.

The library ends the process when memory runs out, so a file whose normalizers multiply a text's length, one after
another, must not get to see one.
"""

from __future__ import annotations

import json
from typing import Any

from ..errors import Corrupt

__all__ = ["judge"]

MOST_GROWTH = 256
"""Of a text, by all normalizers and pre-tokenizers together. Those of published models grow one 4 to 18 times."""

_DEEPEST = 32
_EXPANSIONS = {"NFC": 3, "NFKC": 18, "NFD": 4, "NFKD": 18}  # https://unicode.org/reports/tr15, in code points


def judge(text: str, source: str) -> None:
    """Raises Corrupt for what is no JSON object, or grows texts beyond MOST_GROWTH. ``source``: the file."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"{source} is not a tokenizer: it is no JSON: {str(error)[:200]}") from None
    if not isinstance(value, dict):
        raise Corrupt(f"{source} is not a tokenizer: it is no JSON object")
    growth = _growth(value.get("normalizer"), source, 0) * _growth(value.get("pre_tokenizer"), source, 0)
    if growth > MOST_GROWTH:
        raise Corrupt(
            f"{source}: its normalizers and pre-tokenizers make a text up to {min(growth, 10**18)} times as long; at "
            f"most {MOST_GROWTH} times is served"
        )


def _growth(step: Any, source: str, depth: int) -> int:
    """How many times as long a text of one character may become."""
    if not isinstance(step, dict):
        return 1
    if depth > _DEEPEST:
        raise Corrupt(f"{source}: its normalizers or pre-tokenizers are nested more than {_DEEPEST} deep")
    kind = step.get("type")
    growth = 1
    if kind == "Sequence":
        for name in ("normalizers", "pretokenizers"):
            inner = step.get(name)
            for each in inner if isinstance(inner, list) else ():
                growth = min(growth * _growth(each, source, depth + 1), 10**18)
    elif kind == "Replace":
        content, pattern = step.get("content"), step.get("pattern")
        found = pattern.get("String") if isinstance(pattern, dict) else pattern
        least = max(len(found), 1) if isinstance(found, str) else 1
        size = len(content) if isinstance(content, str) else 1
        # An expression, or an empty text, may also match between any two characters.
        growth = max(-(-size // least), 1) if isinstance(found, str) and found else size + 1
    elif kind == "Prepend":
        prepend = step.get("prepend")
        growth = 1 + (len(prepend) if isinstance(prepend, str) else 0)
    elif isinstance(kind, str):
        growth = _EXPANSIONS.get(kind, 1)
    return growth
