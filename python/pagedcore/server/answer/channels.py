"""Answers in channels, as gpt-oss writes them: a message is ``<|channel|>NAME<|message|>TEXT`` and ends with a mark.
What is in ``analysis`` are thoughts; a message to a function is a call; the rest is content."""

from __future__ import annotations

import re

from .pieces import Arguments, Begun, Content, Piece, Thought
from .reasoning import held_back

__all__ = ["ChannelParser"]

_CHANNEL, _MESSAGE = "<|channel|>", "<|message|>"
_ENDS = ("<|end|>", "<|call|>", "<|return|>", "<|start|>")
_END = re.compile("|".join(map(re.escape, _ENDS)))
_TO = re.compile(r"\bto=(?:functions\.)?([^\s<]+)")
_MOST = 1024  # characters of a header, beyond which it is none


class ChannelParser:
    """Takes an answer apart whose marks are in its text."""

    def __init__(self, prompt: str) -> None:
        """``prompt``: where it ends inside a message, the answer goes on with that."""
        _, _, last = prompt.rpartition("<|start|>")
        self._kind: type[Piece] | None = None  # of the message that has begun
        self._buffer = ""
        self._begun: list[Piece] = []
        header, mark, begun = last.partition(_MESSAGE)
        if mark and _CHANNEL in header and _END.search(begun) is None:
            self._begin(header)

    def push(self, text: str) -> list[Piece]:
        self._buffer += text
        pieces, self._begun = self._begun, []
        while self._read(pieces):
            pass
        return pieces

    def finish(self) -> list[Piece]:
        """What was held back: no text will follow."""
        text, self._buffer = self._buffer, ""
        if self._kind is None:
            text = "" if text.lstrip().startswith("<|") else text  # a header that was cut
        return [(self._kind or Content)(text)] if text else []

    def _read(self, pieces: list[Piece]) -> bool:
        """Whether there may be more to take from what has come."""
        if self._kind is None:
            return self._read_header(pieces)
        end = _END.search(self._buffer)
        if end is not None:
            text, self._buffer = self._buffer[: end.start()], self._buffer[end.end() :]
        else:
            kept = max(held_back(self._buffer, mark) for mark in _ENDS)
            text, self._buffer = self._buffer[: len(self._buffer) - kept], self._buffer[len(self._buffer) - kept :]
        if text:
            pieces.append(self._kind(text))
        if end is not None:
            self._kind = None
        return end is not None

    def _read_header(self, pieces: list[Piece]) -> bool:
        header, mark, rest = self._buffer.partition(_MESSAGE)
        if mark:
            self._buffer = rest
            self._begin(header)
            pieces += self._begun
            self._begun = []
            return True
        begin = self._buffer.lstrip()
        marks = (_CHANNEL, "<|start|>", "assistant", "<|constrain|>")
        if len(begin) > _MOST or not any(begin.startswith(mark) or mark.startswith(begin) for mark in marks):
            self._kind = Content  # a model that writes no channels
            return True
        return False

    def _begin(self, header: str) -> None:
        to = _TO.search(header)
        if to is not None:
            self._kind = Arguments
            self._begun.append(Begun(to[1]))
        else:
            channel = header.rpartition(_CHANNEL)[2].lstrip()
            self._kind = Thought if channel.startswith("analysis") else Content
