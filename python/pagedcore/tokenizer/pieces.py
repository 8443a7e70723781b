"""Long texts are encoded in pieces: a call of the library for one text holds the GIL from its start to its end.

A piece ends where the tokenizer cuts anyway, whatever follows. A window that reaches further shows where: what is far
enough from its end does not change with more text behind it. A tokenizer of which that is not known is given whole
texts.
"""

from __future__ import annotations

import json
import re
import unicodedata
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..families import CUTS_OF_NUMBERS
from .byte_level import BYTE_TO_CHAR

if TYPE_CHECKING:
    import tokenizers

__all__ = ["Pieces"]

_WINDOW = 4096  # characters: some 7 ms
_LONGEST_WINDOW = 1 << 16
_MARGIN = 256  # of a window's end, whose tokens may depend on what follows
_WORDS = 8  # of it at least
_SPACE = "\u2581"  # SentencePiece's
_ANCHORS = ("\n", "|", "a")
# What an expression may look at besides the text that it matches: the next character.
_FAR = re.compile(r"\\[AGbBzZ]|\(\?<|\(\?=|\(\?!(?!\\S\))|(?:^|[|(])\^")
_NORMALIZERS = {"NFC": 4}  # code points that one may be made of: https://unicode.org/reports/tr15 (maximum expansion)


class Pieces:
    """How one tokenizer's texts are cut. Thread-safe."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self._backend = backend

    def least_tokens(self, text: str) -> int:
        """How many tokens the text has at least; 0 where that is not known before it is encoded."""
        if not self._longest:
            return 0
        data = text.encode(errors="replace")
        left_out = sum(data.count(byte) for byte in self._unknown_bytes)
        return -(-(len(text) - left_out) // self._longest)

    def encode(self, text: str, *, continues: bool, at_most: int | None) -> list[int]:
        """All ids but the special ones around a text; those so far as soon as there are more than ``at_most``.
        ``continues``: the text goes on where another ends, so it gets no space before it."""
        ids: list[int] = []
        start, size = 0, _WINDOW
        while start < len(text) and (at_most is None or len(ids) <= at_most):
            end = min(start + size, len(text)) if size <= _LONGEST_WINDOW and self._kind else len(text)
            encoding, skipped = self._encoded(text[start:end], continues or start > 0)
            if end == len(text):
                return ids + encoding.ids[skipped:]
            cut = self._cut(encoding, text, start, end)
            if cut is None:
                size *= 4
                continue
            token, start = cut
            ids += encoding.ids[skipped:token]
            size = _WINDOW
        return ids

    def _encoded(self, text: str, continues: bool) -> tuple[tokenizers.Encoding, int]:
        """The encoding, and how many of its tokens stand for something before the text."""
        if continues and self._kind != "words":
            for anchor in _ANCHORS:  # which takes the space; a token of both would show
                before = self._backend.encode(anchor, add_special_tokens=False).ids
                both = self._of_whole(anchor + text)
                if both.ids[: len(before)] == before:
                    return both, len(before)
        return self._of_whole(text), 0

    def _of_whole(self, text: str) -> tokenizers.Encoding:
        """A batch of one is encoded without the GIL, in a thread of the library: a word that cannot be cut may take
        long, and is worth one."""
        if len(text) <= _LONGEST_WINDOW:
            return self._backend.encode(text, add_special_tokens=False)
        return self._backend.encode_batch([text], add_special_tokens=False)[0]

    def _cut(self, encoding: tokenizers.Encoding, text: str, start: int, end: int) -> tuple[int, int] | None:
        """A token before which the text can be cut, the last that will do, and where it begins."""
        ids, offsets, words = encoding.ids, encoding.offsets, encoding.word_ids
        shift = end - offsets[-1][1] if offsets else 0  # of an anchor
        seen, blank = set(), True
        for token in range(len(ids) - 1, 0, -1):
            at = offsets[token][0] + shift
            blank = blank and text[at : offsets[token][1] + shift].isspace()
            seen.add(words[token])
            if (
                end - at < self._margin
                or blank
                or at <= start
                or ids[token] in self._added
                or ids[token - 1] in self._added
            ):
                continue
            if self._kind == "spaces":
                if text[at] == " " and text[at - 1] != " ":
                    return token, at
            elif self._numbers_whole and text[at].isdecimal():
                continue
            elif len(seen) >= _WORDS and words[token] != words[token - 1] and _stands_alone(text[at]):
                return token, at
        return None

    # What the tokenizer is: looked at when the first long text comes

    @cached_property
    def _added(self) -> set[int]:
        return set(self._backend.get_added_tokens_decoder())

    @cached_property
    def _margin(self) -> int:
        return max([_MARGIN, *(len(token.content) + 1 for token in self._backend.get_added_tokens_decoder().values())])

    @cached_property
    def _kind(self) -> str | None:
        """ "words": cut by expressions before merging. "spaces": no token joins anything with a space behind it."""
        from tokenizers.models import BPE

        model = self._backend.model
        added = self._backend.get_added_tokens_decoder().values()
        if not isinstance(model, BPE) or model.dropout or any(token.lstrip or token.rstrip for token in added):
            return None
        normalizer, pre_tokenizer = _steps(self._backend.normalizer), _steps(self._backend.pre_tokenizer)
        if {step["type"] for step in normalizer} <= set(_NORMALIZERS) and _cuts_words(pre_tokenizer):
            return "words"
        if _only_spells_spaces(normalizer, pre_tokenizer) and not any(" " in token.content for token in added):
            vocab = self._backend.get_vocab(with_added_tokens=False)
            if _SPACE in vocab and not any(re.search(f"[^{_SPACE}]{_SPACE}", token) for token in vocab):
                return "spaces"
        return None

    @cached_property
    def _numbers_whole(self) -> bool:
        """Whether how a number is cut depends on its end."""
        steps = _steps(self._backend.pre_tokenizer)
        return any(step["type"] == "Split" and step["pattern"].get("Regex") in CUTS_OF_NUMBERS for step in steps)

    @cached_property
    def _longest(self) -> int:
        """Characters that a token can stand for at most; 0: there is no such limit, or it is not known."""
        if self._kind is None:
            return 0
        vocab = self._backend.get_vocab(with_added_tokens=True)
        if self._kind == "spaces":
            bytes_of_all = all(f"<0x{byte:02X}>" in vocab for byte in range(256))
            if not bytes_of_all or not self._backend.model.byte_fallback:  # any run may be one unknown token
                return 0
        makes_one = max([1, *(_NORMALIZERS.get(step["type"], 1) for step in _steps(self._backend.normalizer))])
        return makes_one * max(map(len, vocab))

    @cached_property
    def _unknown_bytes(self) -> list[bytes]:
        """Bytes that the vocabulary leaves out of a text, such as control characters that nobody wrote in training."""
        vocab = self._backend.get_vocab(with_added_tokens=True)
        return [bytes([byte]) for byte, char in BYTE_TO_CHAR.items() if self._kind == "words" and char not in vocab]


def _steps(component: Any) -> list[dict[str, Any]]:
    """A normalizer or pre-tokenizer as a flat list."""
    if component is None:
        return []
    flat, rest = [], [json.loads(component.__getstate__())]
    while rest:
        step = rest.pop()
        inner = step.get("normalizers") or step.get("pretokenizers") or []
        if step["type"] == "Sequence":
            rest += reversed(inner)
        else:
            flat.append(step)
    return flat


def _cuts_words(steps: list[dict[str, Any]]) -> bool:
    """Whether it is expressions, none of which looks far but for the end of a number, and bytes in the end."""
    if not steps or steps[-1]["type"] != "ByteLevel" or steps[-1]["add_prefix_space"]:
        return False
    if len(steps) == 1 and not steps[-1]["use_regex"]:
        return False
    for step in steps[:-1]:
        if step["type"] == "Split":
            pattern = step["pattern"].get("Regex", "")
            if pattern in CUTS_OF_NUMBERS:
                continue
            isolated = step["behavior"] == "Isolated" and not step["invert"]
            if not pattern or not isolated or _FAR.search(pattern):
                return False
        elif step["type"] != "Digits":
            return False
    return True


def _only_spells_spaces(normalizer: list[dict[str, Any]], pre_tokenizer: list[dict[str, Any]]) -> bool:
    spelled = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    if pre_tokenizer:
        step = pre_tokenizer[0]
        metaspace = step["type"] == "Metaspace" and step["replacement"] == _SPACE and not step.get("split", True)
        return metaspace and len(pre_tokenizer) == 1 and not normalizer
    return normalizer in ([spelled], [{"type": "Prepend", "prepend": _SPACE}, spelled])


def _stands_alone(char: str) -> bool:
    """Whether it never becomes one character with what is before it."""
    return not unicodedata.category(char).startswith("M") and not "\u1160" <= char <= "\u11ff"
