"""Thoughts, which models put between ``<think>`` and ``</think>`` before they answer."""

from __future__ import annotations

from .pieces import Content, Piece, Thought

__all__ = ["ReasoningParser", "held_back"]

_OPEN, _CLOSE = "<think>", "</think>"


def held_back(text: str, mark: str) -> int:
    """Length of the longest end of a text that may be the beginning of a mark."""
    return next((n for n in range(min(len(text), len(mark) - 1), 0, -1) if mark.startswith(text[-n:])), 0)


class ReasoningParser:
    """Gives thoughts and content; white space around the marks is neither."""

    def __init__(self, prompt: str) -> None:
        """``prompt``: where it ends with the mark, the answer begins inside a thought."""
        self._state = "thought" if prompt.rstrip().endswith(_OPEN) else "start"
        self._buffer = ""
        self._bare = True  # nothing of this part but white space so far

    def push(self, text: str) -> list[Piece]:
        self._buffer += text
        if self._state == "start" and not self._started():
            return []
        pieces: list[Piece] = []
        if self._state == "thought":
            before, mark, rest = self._buffer.partition(_CLOSE)
            if mark:
                pieces += self._shown(before.rstrip())
                self._state, self._buffer, self._bare = "content", rest, True
            else:
                keep = held_back(before, _CLOSE)
                shown = before[: len(before) - keep].rstrip()
                pieces += self._shown(shown)
                self._buffer = before[len(shown) :]
        if self._state == "content":
            shown, self._buffer = self._buffer, ""
            pieces += self._shown(shown)
        return pieces

    def finish(self) -> list[Piece]:
        """What was held back: no text will follow."""
        text, self._buffer = self._buffer, ""
        return self._shown(text.rstrip() if self._state == "thought" else text)

    def _started(self) -> bool:
        """Whether it is known if the answer begins with a thought."""
        begin = self._buffer.lstrip()
        if begin.startswith(_OPEN):
            self._state, self._buffer = "thought", begin[len(_OPEN) :]
        elif not _OPEN.startswith(begin):
            self._state, self._bare = "content", False
        return self._state != "start"

    def _shown(self, text: str) -> list[Piece]:
        if self._bare and self._state != "start":
            text = text.lstrip()
        if not text:
            return []
        self._bare = False
        return [Thought(text) if self._state == "thought" else Content(text)]
