"""Prefixes from engine to engine: bytes, or files that hold them."""

from __future__ import annotations

from typing import BinaryIO

from . import _core
from .arguments import shown
from .errors import InvalidArgument
from .prompts import Prompt, PromptReader, is_single_prompt

__all__ = ["export_prefix", "import_prefix"]


def export_prefix(engine: _core.Engine, prompts: PromptReader, prefix: Prompt, salt: int) -> bytes:
    if not is_single_prompt(prefix):
        raise InvalidArgument("export_prefix() takes one text or one list of token ids")
    _, ids = prompts.read(prefix)
    return engine.export_prefix(ids, salt)


def import_prefix(engine: _core.Engine, data: bytes | bytearray | memoryview | BinaryIO) -> int:
    read = getattr(data, "read", None)
    given = read() if callable(read) else data
    if not isinstance(given, (bytes, bytearray, memoryview)):
        what = "a file that gives bytes (open it with mode 'rb')" if callable(read) else "bytes, or a file of them"
        raise TypeError(f"import_prefix() takes {what}, not {shown(given)}")
    return engine.import_prefix(bytes(given))
