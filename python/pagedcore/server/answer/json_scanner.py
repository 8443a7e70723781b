"""Where a JSON value ends in a text that comes in pieces."""

from __future__ import annotations

import re

__all__ = ["JsonScanner"]

_OUTSIDE = re.compile(r'["{}\[\],]')
_INSIDE = re.compile(r'["\\]')


class JsonScanner:
    """Of one object, array or text. Does not check the value; each character is looked at once."""

    def __init__(self) -> None:
        self._depth = 0
        self._quoted = False
        self._escaped = False

    def end_in(self, text: str) -> int | None:
        """Where the value ends in the next piece of text: the index behind its last character, None: not in it. A
        number or word ends before the comma or bracket that follows."""
        at = 0
        while at < len(text):
            if self._escaped:
                self._escaped = False
                at += 1
                continue
            found = (_INSIDE if self._quoted else _OUTSIDE).search(text, at)
            if found is None:
                return None
            at = found.end()
            mark = found.group()
            if mark == "\\":
                self._escaped = True
            elif mark == '"':
                self._quoted = not self._quoted
                if not self._quoted and self._depth == 0:
                    return at
            elif mark in "{[":
                self._depth += 1
            elif mark == "," or self._depth == 0:
                if self._depth == 0:
                    return found.start()
            else:
                self._depth -= 1
                if self._depth == 0:
                    return at
        return None
