"""A tokenizer from the bytes of a ``tokenizer.json``, whoever wrote them: judged, tried without its tokens, then built.

The library takes tens of times the size of a file, and ends the process where memory runs out. So what is wrong with a
file is found out beforehand: its tokens and merges by :class:`Outline`, its growth by :func:`judge`, all else by the
library itself, from the outline.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from ..errors import Corrupt
from .judge import judge
from .library import corrupt_unless_it_works
from .outline import Outline

if TYPE_CHECKING:
    import tokenizers

__all__ = ["TRIED", "build_from_json"]

TRIED = ("a", " B 12\n\n", "\u00e9\u65e5\U0001f600")
"""Texts that a tokenizer must be able to encode."""


def build_from_json(data: bytes, source: str) -> tuple[tokenizers.Tokenizer, int]:
    """The tokenizer, and how many times as long its steps may make a text. Raises Corrupt. ``source``: the file, for
    messages."""
    import tokenizers

    outline = Outline(data, source)
    growth = judge(outline.values, source)
    try:
        with corrupt_unless_it_works(f"{source} is not a tokenizer"):
            rehearsal = _without_sides(tokenizers.Tokenizer.from_str(json.dumps(outline.values)))
            _try(rehearsal, outline)
    except Corrupt as error:
        raise Corrupt(re.sub(r" at line \d+ column \d+", "", str(error))) from None
    with corrupt_unless_it_works(f"{source} is not a tokenizer"):
        return _without_sides(tokenizers.Tokenizer.from_buffer(data)), growth


def _without_sides(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """Neither cuts nor fills texts to a length: filling can take any amount of memory."""
    backend.no_truncation()
    backend.no_padding()
    return backend


def _try(rehearsal: tokenizers.Tokenizer, outline: Outline) -> None:
    for text in TRIED:
        rehearsal.encode(text)
        normal = rehearsal.normalizer.normalize_str(text) if rehearsal.normalizer else text
        cut = rehearsal.pre_tokenizer.pre_tokenize_str(normal) if rehearsal.pre_tokenizer else [(normal, (0, 0))]
        missing = [char for word, _ in cut for char in word if not (outline.has_unknown or outline.spells(char))]
        if missing:
            raise Corrupt(f"{outline.source}: it has no token for {missing[0]!r}, and none for what is unknown")
