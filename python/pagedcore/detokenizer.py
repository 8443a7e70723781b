"""Token ids to text, as they come: characters that are complete, and stop strings found wherever they lie."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from .tokenizer import Tokenizer

__all__ = ["Detokenizer", "StopStrings"]


class Detokenizer:
    """Puts the text of one sample together. Each token costs as much as its own bytes, whatever came before.

    An output continues its prompt, so a first token's leading space stays. Bytes that can never become UTF-8 turn into
    U+FFFD as soon as that is known; those that may yet are held back.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special_tokens: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special_tokens
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """The text that is new with this token; empty while a character is incomplete."""
        if self._skip_special and self._tokenizer.is_special(token_id):
            return ""
        return self._utf8.decode(self._tokenizer.token_bytes(token_id))

    def finish(self) -> str:
        """What was held back: no token will follow."""
        return self._utf8.decode(b"", final=True)


class StopStrings:
    """Finds the first stop string in a text that comes in pieces, and holds back what may be the start of one."""

    def __init__(self, stop: Sequence[str], *, include: bool = False) -> None:
        self._stop = tuple(stop)
        self._include = include
        self._held = ""  # never released text: a proper prefix of some stop string, or empty
        self.matched: str | None = None

    def push(self, piece: str, *, searching: bool = True) -> str:
        """The text that can be shown now. Once ``matched`` is set the text is over and complete.

        ``searching`` False lets the piece pass, as text in which a stop string neither ends nor begins."""
        if not searching:
            return self.finish() + piece
        text = self._held + piece
        found = [(at, order) for order, stop in enumerate(self._stop) if (at := text.find(stop)) >= 0]
        if found:
            at, order = min(found)
            self.matched = self._stop[order]
            self._held = ""
            return text[: at + len(self.matched)] if self._include else text[:at]
        keep = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """What was held back, since no text will follow."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that is a proper beginning of ``stop``."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
