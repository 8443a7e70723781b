"""The whole of it: thoughts first, then content and calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .channels import ChannelParser
from .pieces import Content, Piece
from .reasoning import ReasoningParser
from .tool_formats import ToolFormat
from .tools import ToolParser

__all__ = ["AnswerParser"]


class AnswerParser:
    """Of one sample. A text gives the same pieces however it is cut, but for where texts within them are cut."""

    def __init__(
        self,
        *,
        thinks: bool = False,
        prompt: str = "",
        format: ToolFormat | None = None,
        tools: Mapping[str, Mapping[str, Any]] | None = None,
        begun: str = "",
        channels: bool = False,
    ) -> None:
        """``thinks``: whether thoughts are told apart; ``prompt``: what the answer continues. ``format``: of calls;
        None: they are content. ``begun``: what the answer was made to begin with. ``channels``: thoughts, content and
        calls are messages in channels."""
        channels = channels or (format is not None and format.body == "channels")
        self._reasoning = ChannelParser(prompt) if channels else ReasoningParser(prompt) if thinks else None
        self._tools = ToolParser(format, tools or {}) if format is not None and not channels else None
        self._begun = begun

    def push(self, text: str) -> list[Piece]:
        text, self._begun = self._begun + text, ""
        return self._called(self._reasoning.push(text) if self._reasoning else [Content(text)] if text else [])

    def finish(self) -> list[Piece]:
        pieces = self.push("") if self._begun else []
        pieces += self._called(self._reasoning.finish()) if self._reasoning else []
        return pieces + (self._tools.finish() if self._tools else [])

    def _called(self, pieces: list[Piece]) -> list[Piece]:
        if self._tools is None:
            return pieces
        found: list[Piece] = []
        for piece in pieces:
            found += self._tools.push(piece.text) if isinstance(piece, Content) else [piece]
        return found
