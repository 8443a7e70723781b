"""What a text is taken apart into. In order, they are the answer."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Arguments", "Begun", "Content", "Piece", "Thought"]


class Thought(NamedTuple):
    text: str


class Content(NamedTuple):
    text: str


class Begun(NamedTuple):
    """A tool call begins."""

    name: str


class Arguments(NamedTuple):
    """More of the arguments of the call that began last: they are JSON once the call is complete."""

    text: str


Piece = Thought | Content | Begun | Arguments
