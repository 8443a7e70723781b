"""JSON of any length in little memory: what is long is read in pieces.

Python's objects take tens of times the bytes that they are written in. Expressions find where members end, and the
``json`` module reads a piece of them at a time; nothing is kept that the caller does not keep.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from ..errors import Corrupt

__all__ = ["LongJson"]

_MOST_VALUES = 100_000  # of one value that is read whole
_MOST_BYTES = 8 << 20  # of it
_DEEPEST = 100

# With bounds on what an expression has to remember. What they let through and is no JSON, the json module refuses.
_STRING = rb'"[^"\\]*(?:\\.[^"\\]*){0,9999}"'
_ATOM = rb"(?:" + _STRING + rb"|[-+.0-9a-zA-Z]+)"
_FLAT = rb"[\[{]\s*(?:" + _ATOM + rb"(?:\s*[:,]\s*" + _ATOM + rb"){0,63})?\s*[\]}]"
_MEMBER = rb"(?:" + _STRING + rb"\s*:\s*)?(?:" + _ATOM + rb"|" + _FLAT + rb")"
_MEMBERS = re.compile(_MEMBER + rb"(?:\s*,\s*" + _MEMBER + rb"){0,511}(?=\s*[,\]}])", re.DOTALL)
_PIECE = 1 << 18  # bytes of members that are read at a time
_KEY = re.compile(rb"(" + _STRING + rb")\s*:\s*", re.DOTALL)
_TOKEN = re.compile(_STRING + rb'|[\[\]{}]|[^"\[\]{},\s]+|[:,\s]+', re.DOTALL)
_SPACE = re.compile(rb"\s*")


class LongJson:
    """A place in a JSON text, which moves on as it is read. ``source``: begins messages. What is no JSON, and what is
    larger than it may be, raises Corrupt."""

    def __init__(self, data: bytes, source: str, at: int = 0) -> None:
        self.data = data
        self.source = source
        self.at = at

    def members(self) -> Iterator[str]:
        """The keys of an object. The caller reads a key's value before it asks for the next one."""
        keys: set[str] = set()
        self._expect(b"{")
        while not self._accept(b"}"):
            if keys:
                self._expect(b",")
            found = _KEY.match(self.data, self._begin())
            if found is None:
                raise self._error("an object's key and a colon are expected")
            key = self._loads(found[1])
            self.at = found.end()
            if key in keys or len(keys) > _DEEPEST:
                raise self._error(f"the key {key[:80]!r} is repeated, or one of very many")
            keys.add(key)
            yield key

    def value(self) -> Any:
        """One value, read whole."""
        begin = self._begin()
        depth = 0
        for count, token in enumerate(_TOKEN.finditer(self.data, begin)):
            depth += (token[0] in b"[{") - (token[0] in b"]}")
            if token.end() - begin > _MOST_BYTES or count > _MOST_VALUES or depth > _DEEPEST:
                raise self._error(
                    f"a value is too large: at most {_MOST_VALUES} values in {_MOST_BYTES} bytes, nested up to "
                    f"{_DEEPEST} deep, are read"
                )
            if depth <= 0:
                self.at = token.end()
                break
        return self._loads(self.data[begin : self.at])

    def pieces(self) -> Iterator[Any]:
        """An object or array in pieces, at least one, which may be empty. Its members may be lists and objects of
        atoms, no more."""
        if not self.holds_many():
            raise self._error("a list or an object is expected")
        opening = self._next()
        self.at += 1
        closing = b"]" if opening == b"[" else b"}"
        if self._accept(closing):
            yield self._loads(opening + closing)
            return
        while True:
            begin = self._begin()
            found = _MEMBERS.match(self.data, begin, begin + _PIECE)
            if found is None:
                raise self._error("its members are not read: they end early, are too long, or nested")
            piece = self._loads(opening + found[0] + closing)
            self.at = found.end()
            yield piece
            if self._accept(closing):
                return
            self._expect(b",")

    def holds_many(self) -> bool:
        """Whether it is a list or an object."""
        return self._next() in (b"[", b"{")

    def here(self) -> LongJson:
        """The same place, to read from once more."""
        return LongJson(self.data, self.source, self.at)

    def skip(self) -> None:
        """A value of which :meth:`pieces` can be read, or any small one."""
        if self.holds_many():
            for _ in self.pieces():
                pass
        else:
            self.value()

    def finish(self) -> None:
        if self._begin() != len(self.data):
            raise self._error("something follows its end")

    def _next(self) -> bytes:
        return self.data[self._begin() : self.at + 1]

    def _begin(self) -> int:
        found = _SPACE.match(self.data, self.at)
        self.at = found.end() if found else self.at
        return self.at

    def _accept(self, char: bytes) -> bool:
        there = self.data.startswith(char, self._begin())
        self.at += there
        return there

    def _expect(self, char: bytes) -> None:
        if not self._accept(char):
            raise self._error(f"'{char.decode()}' is expected")

    def _loads(self, data: bytes) -> Any:
        try:
            value = json.loads(data.decode())
            if b"\\u" in data:
                json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair cannot be
        except (ValueError, RecursionError) as error:
            raise self._error(str(error)[:200]) from None
        return value

    def _error(self, problem: str) -> Corrupt:
        return Corrupt(f"{self.source}: it is no JSON, or none that is read: near byte {self.at}: {problem}")
