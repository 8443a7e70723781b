"""The outline of a ``tokenizer.json``: all of it but its tokens and merges, which are checked in passing.

What contradicts itself is found before the library makes anything large of it: it takes tens of times the file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ..errors import Corrupt
from .long_json import LongJson

__all__ = ["Outline"]

_MOST_TOKENS = 1 << 19
_ID_END = 2**31
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


class Outline:
    """Raises Corrupt for what is no JSON object, and for tokens and merges of which the library can build no tokenizer.
    Takes some 70 MB at most, beside ``data``. ``source``: the file, for messages."""

    def __init__(self, data: bytes, source: str) -> None:
        self.source = f"{source} is not a tokenizer"
        self._json = LongJson(data, self.source)
        self.values: dict[str, Any] = {}
        """The file's; ``added_tokens``, ``vocab`` and ``merges`` are small ones that stand for them."""
        self.tokens: set[str] = set()
        """Of the model, without added tokens."""
        self.has_unknown = True
        """Whether a text may hold what no token spells."""
        self._count = 0
        for key in self._json.members():
            if key == "added_tokens":
                self.values[key] = []
                self._check_added()
            elif key == "model":
                self.values[key] = self._model() if self._json.holds_many() else self._json.value()
            else:
                self.values[key] = self._json.value()
        self._json.finish()

    def spells(self, char: str) -> bool:
        """Whether a token stands for the character, or one for each of its bytes where the model falls back on them."""
        fallback = self.values["model"].get("byte_fallback") is True
        return char in self.tokens or (fallback and self.tokens.issuperset(f"<0x{byte:02X}>" for byte in char.encode()))

    def _refuse(self, problem: str) -> Corrupt:
        return Corrupt(f"{self.source}: {problem}")

    def _check_added(self) -> None:
        for piece in self._lists("added_tokens"):
            for token in piece:
                flags = isinstance(token, dict) and all(isinstance(token.get(flag), bool) for flag in _FLAGS)
                if not flags or not isinstance(token.get("content"), str):
                    raise self._refuse(
                        f"an added token is {str(token)[:80]}; it has an id, a content, and true or false for each of "
                        f"{', '.join(_FLAGS)}"
                    )
                self._check_ids([token.get("id")])

    def _lists(self, name: str) -> Iterable[Any]:
        for piece in self._json.pieces():
            if not isinstance(piece, list):
                raise self._refuse(f"its {name} are no list")
            yield piece

    def _check_ids(self, ids: Iterable[Any]) -> None:
        for index in ids:
            if type(index) is not int or index < 0:
                raise self._refuse(f"a token has the id {str(index)[:80]}; ids are whole numbers")
            if index >= _ID_END:
                raise self._refuse(f"a token has the id {index}; ids are below 2^31")

    def _model(self) -> dict[str, Any]:
        """With a vocabulary of an unknown token at most, and without merges."""
        model: dict[str, Any] = {}
        merges, checked = None, -1
        for key in self._json.members():
            if key == "vocab" and self._json.holds_many():
                model[key] = self._vocabulary()
            elif key == "merges" and self._json.holds_many():
                merges, model[key] = self._json.here(), []
                if "vocab" in model:
                    checked = self._check_merges(self._json, model)
                else:
                    self._json.skip()
            else:
                model[key] = self._json.value()
        if merges is not None and checked != _prefix(model):  # a file may have its fields in any order
            self._check_merges(merges, model)
        self._set_unknown(model)
        return model

    def _vocabulary(self) -> Any:
        scored = False
        for piece in self._json.pieces():
            scored = isinstance(piece, list)
            if scored and not all(map(_is_scored, piece)):
                raise self._refuse("its vocabulary has something that is no pair of a token and a finite score")
            if not scored:
                self._check_ids(piece.values())
            spelled = [pair[0] for pair in piece] if scored else list(piece)
            self.tokens.update(spelled)
            self._count += len(spelled)
            if self._count > _MOST_TOKENS:
                raise self._refuse(f"its vocabulary has more than {_MOST_TOKENS} tokens, which are not served")
        return [["<unk>", 0.0]] if scored else {}

    def _set_unknown(self, model: dict[str, Any]) -> None:
        """So that the model without its tokens knows an unknown one."""
        if isinstance(model.get("vocab"), list):
            index = model.get("unk_id")
            self.has_unknown = index is not None
            if self.has_unknown and not (type(index) is int and 0 <= index < self._count):
                raise self._refuse(f"its unk_id is {str(index)[:80]}, which is none of its {self._count} tokens")
            model["unk_id"] = 0
        elif isinstance(model.get("unk_token"), str):
            unknown = model["unk_token"]
            if unknown in self.tokens:
                model["vocab"] = {unknown: 0}
            elif model.get("type", "BPE") != "BPE":  # early files name no type
                raise self._refuse(f"its unk_token {unknown[:80]!r} is not in its vocabulary")
            else:
                self.has_unknown, model["unk_token"] = False, None

    def _check_merges(self, at: LongJson, model: dict[str, Any]) -> int:
        """Returns how many bytes the right one of two tokens loses."""
        prefix = _prefix(model)
        kind = None
        for piece in at.pieces():
            kind = kind or (type((piece or [""])[0]) if isinstance(piece, list) else dict)
            if kind not in (str, list) or not all(type(merge) is kind for merge in piece):
                raise self._refuse("its merges are no list of texts, and no list of pairs")
            if kind is str:  # as in merges.txt
                piece = [merge.split(" ") for merge in piece if not merge.startswith("#version")]
            for pair in piece:
                if not self._joins(pair, prefix):
                    raise self._refuse(f"the merge {str(pair)[:80]} does not join two of its tokens into a third")
        return prefix

    def _joins(self, pair: list[Any], prefix: int) -> bool:
        tokens = self.tokens
        if len(pair) != 2 or pair[0] not in tokens or pair[1] not in tokens:
            return False
        if not prefix:
            return pair[0] + pair[1] in tokens
        end = pair[1].encode()
        return len(end) >= prefix and pair[0] + end[prefix:].decode(errors="replace") in tokens


def _prefix(model: dict[str, Any]) -> int:
    prefix = model.get("continuing_subword_prefix")
    return len(prefix.encode(errors="replace")) if isinstance(prefix, str) else 0


def _is_scored(pair: Any) -> bool:
    """Whether it is a token of a Unigram vocabulary."""
    scored = isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)
    return scored and type(pair[1]) in (int, float) and math.isfinite(pair[1])
