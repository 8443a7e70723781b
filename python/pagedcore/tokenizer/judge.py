"""A tokenizer.json is judged before it is built: what it makes of a text must not be many times as long.

The library ends the process when memory runs out, so a file whose normalizers multiply a text's length, one after
another, must not get to see one; nor a decoder that multiplies what comes out.
"""

from __future__ import annotations

from typing import Any

from ..errors import Corrupt

__all__ = ["MOST_GROWTH", "judge", "longest_of_map"]

MOST_GROWTH = 256
"""Of a text, by all normalizers and pre-tokenizers together. Those of published models grow one 4 to 18 times."""

_DEEPEST = 32
_MOST_STEPS = 1000
_MOST_AROUND = 1024  # special tokens around a text, and ids of each
# In code points. NFC to NFKD: https://unicode.org/reports/tr15. Precompiled: the library's maps are SentencePiece's,
# in which U+FDFA becomes 18 characters; one of another origin may map to more, but not to more than it holds.
_EXPANSIONS = {"NFC": 3, "NFKC": 18, "NFD": 4, "NFKD": 18, "BertNormalizer": 4}
_MOST_MAP = 4 << 20  # characters of a Precompiled map


def judge(value: dict[str, Any], source: str) -> int:
    """How many times as long its normalizers and pre-tokenizers may make a text. Raises Corrupt for what grows texts
    beyond MOST_GROWTH. ``value``: the file's, without its tokens; ``source``: the file."""
    steps = _Judge(source)
    growth = steps.growth(value.get("normalizer"), 0) * steps.growth(value.get("pre_tokenizer"), 0)
    for most, what in ((growth, "normalizers and pre-tokenizers"), (steps.growth(value.get("decoder"), 0), "decoders")):
        if most > MOST_GROWTH:
            raise Corrupt(
                f"{source}: its {what} make a text up to {min(most, 10**18)} times as long; at most {MOST_GROWTH} "
                "times is served"
            )
    steps.judge_post_processor(value.get("post_processor"), 0)
    return growth


class _Judge:
    def __init__(self, source: str) -> None:
        self._source = source
        self._steps = 0

    def growth(self, step: Any, depth: int) -> int:
        """How many times as long a text of one character may become."""
        if not isinstance(step, dict):
            return 1
        self._steps += 1
        if depth > _DEEPEST or self._steps > _MOST_STEPS:
            raise Corrupt(
                f"{self._source}: its normalizers, pre-tokenizers or decoders are more than {_MOST_STEPS}, or nested "
                f"more than {_DEEPEST} deep"
            )
        kind = step.get("type")
        growth = 1
        if kind == "Sequence":
            for name in ("normalizers", "pretokenizers", "decoders"):
                inner = step.get(name)
                for each in inner if isinstance(inner, list) else ():
                    growth = min(growth * self.growth(each, depth + 1), 10**18)
        elif kind == "Replace":
            growth = _of_replace(step)
        elif kind == "Prepend":
            growth = 1 + _length(step.get("prepend"))
        elif kind == "Precompiled":
            growth = self._of_map(step)
        elif kind in ("Metaspace", "WordPiece", "BPEDecoder"):
            growth = 1 + max(_length(step.get(name)) for name in ("replacement", "prefix", "suffix"))
        elif isinstance(kind, str):
            growth = _EXPANSIONS.get(kind, 1)
        return growth

    def _of_map(self, step: dict[str, Any]) -> int:
        if _length(step.get("precompiled_charsmap")) > _MOST_MAP:
            raise Corrupt(f"{self._source}: a precompiled_charsmap has more than {_MOST_MAP} characters")
        return _longest_of_text(step.get("precompiled_charsmap"))

    def judge_post_processor(self, step: Any, depth: int) -> None:
        """What it puts around a text, in pieces and ids."""
        if not isinstance(step, dict):
            return
        self.growth({}, depth)
        inner = step.get("processors")
        for each in inner if isinstance(inner, list) else ():
            self.judge_post_processor(each, depth + 1)
        special = step.get("special_tokens")
        ids = {name: _ids_of(token) for name, token in special.items()} if isinstance(special, dict) else {}
        for name in ("single", "pair"):
            pieces = step.get(name)
            count = sum(self._around(piece, ids) for piece in (pieces if isinstance(pieces, list) else ()))
            if count > _MOST_AROUND:
                raise Corrupt(
                    f"{self._source}: its template ({name}) has {count} tokens; at most {_MOST_AROUND} are served"
                )

    def _around(self, piece: Any, ids: dict[str, list[Any]]) -> int:
        named = piece.get("SpecialToken") if isinstance(piece, dict) else None
        if not isinstance(named, dict):
            return 1
        name = str(named.get("id"))
        if name not in ids:  # the library would panic
            raise Corrupt(f"{self._source}: its template has {name[:80]!r}, which is none of its special_tokens")
        return len(ids[name])


def _ids_of(token: Any) -> list[Any]:
    ids = token.get("ids") if isinstance(token, dict) else None
    return ids if isinstance(ids, list) else []


def _length(text: Any) -> int:
    return len(text) if isinstance(text, str) else 0


def _of_replace(step: dict[str, Any]) -> int:
    content, pattern = step.get("content"), step.get("pattern")
    found = pattern.get("String") if isinstance(pattern, dict) else pattern
    least = max(len(found), 1) if isinstance(found, str) else 1
    size = len(content) if isinstance(content, str) else 1
    # An expression, or an empty text, may also match between any two characters.
    return max(-(-size // least), 1) if isinstance(found, str) and found else size + 1


def _longest_of_text(text: Any) -> int:
    import base64

    try:
        return longest_of_map(base64.b64decode(text))
    except (TypeError, ValueError):
        return 1  # the library says what is wrong with it


def longest_of_map(data: bytes) -> int:
    """The longest replacement of a precompiled map: the size of a table in bytes, the table, then texts that end with a
    zero each (https://github.com/google/sentencepiece/blob/master/src/normalizer.cc)."""
    texts = data[4 + int.from_bytes(data[:4], "little") :]
    return max((len(each.decode(errors="replace")) for each in texts.split(b"\0")), default=1) or 1
