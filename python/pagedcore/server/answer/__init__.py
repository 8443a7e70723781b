"""A model's text taken apart as it comes: what it thought, what it says, and the tools that it calls."""

from .parser import AnswerParser
from .pieces import Arguments, Begun, Content, Piece, Thought
from .tool_formats import TOOL_FORMATS, ToolFormat, tool_format_of
from .tool_grammars import calls_grammar

__all__ = [
    "TOOL_FORMATS",
    "AnswerParser",
    "Arguments",
    "Begun",
    "Content",
    "Piece",
    "Thought",
    "ToolFormat",
    "calls_grammar",
    "tool_format_of",
]
