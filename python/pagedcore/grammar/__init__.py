"""Structured outputs by llguidance, which the extra ``grammar`` installs."""

from __future__ import annotations

from importlib.util import find_spec

from .grammars import Grammars
from .lark import literal, schema_rule

__all__ = ["Grammars", "is_available", "literal", "schema_rule"]


def is_available() -> bool:
    """Whether llguidance is installed."""
    return find_spec("llguidance") is not None
