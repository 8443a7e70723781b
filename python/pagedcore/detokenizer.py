"""Token ids to text, as they come: characters that are complete, and stop strings found wherever they lie."""

from __future__ import annotations

import bisect
import codecs
from collections.abc import Sequence

from .tokenizer import Tokenizer

__all__ = ["Detokenizer", "StopIndex", "StopStrings"]


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


class StopIndex:
    """Stop strings, sorted once for all samples that look for them. Each step of a search costs the length of the text
    at hand times a logarithm, however many strings there are."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._sorted = sorted(set(stop))
        self._order = {string: order for order, string in reversed(list(enumerate(stop)))}
        self._lengths = sorted({len(string) for string in stop})

    def first_in(self, text: str) -> tuple[int, str] | None:
        """Where the first one begins and which it is: of several at one place, the one that was named first."""
        for at in range(len(text)):
            found = [s for length in self._lengths if (s := text[at : at + length]) in self._order]
            if found:
                return at, min(found, key=self._order.__getitem__)
        return None

    def overlap(self, text: str) -> int:
        """Length of the longest end of ``text`` that is a proper beginning of some stop string."""
        most = self._lengths[-1] - 1 if self._lengths else 0
        for length in range(min(len(text), most), 0, -1):
            end = text[len(text) - length :]
            at = bisect.bisect_right(self._sorted, end)  # the first that is longer, if it begins so
            if at < len(self._sorted) and self._sorted[at].startswith(end):
                return length
        return 0


class StopStrings:
    """Finds the first stop string in a text that comes in pieces, and holds back what may be the start of one."""

    def __init__(self, stop: StopIndex, *, include: bool = False) -> None:
        self._stop = stop
        self._include = include
        self._held = ""  # never released text: a proper prefix of some stop string, or empty
        self.matched: str | None = None

    def push(self, piece: str, *, searching: bool = True) -> str:
        """The text that can be shown now. Once ``matched`` is set the text is over and complete.

        ``searching`` False lets the piece pass, as text in which a stop string neither ends nor begins."""
        if not searching:
            return self.finish() + piece
        text = self._held + piece
        found = self._stop.first_in(text)
        if found is not None:
            at, self.matched = found
            self._held = ""
            return text[: at + len(self.matched)] if self._include else text[:at]
        shown = len(text) - self._stop.overlap(text)
        self._held = text[shown:]
        return text[:shown]

    def finish(self) -> str:
        """What was held back, since no text will follow."""
        held, self._held = self._held, ""
        return held
