"""Tool calls in a text that comes in pieces."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from .json_scanner import JsonScanner
from .pieces import Arguments, Begun, Content, Piece
from .reasoning import held_back
from .tool_formats import ToolFormat

__all__ = ["ToolParser"]

_JSON_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\S)')
_NAMED_HEAD = re.compile(r"\s*([\w.-]+)\s*(?:\[CALL_ID\]\w*)?(?:\[ARGS\])?\s*(?=\{)")
_NAMED_BEGUN = re.compile(r"\s*[\w.-]*\s*(?:\[[A-Z_]*\]?\w*)*\s*")  # what may become one
_XML = re.compile(r"\s*<function=([^>\n]+)>(.*?)</function>\s*(?:</tool_call>)?", re.DOTALL)
_XML_PARAMETER = re.compile(r"<parameter=([^>\n]+)>\n?(.*?)\n?(?:</parameter>|(?=<parameter=)|$)", re.DOTALL)


class ToolParser:
    """Gives content and calls. The arguments of a call in JSON come as they are written; what begins like a call and is
    none is content."""

    def __init__(self, format: ToolFormat, tools: Mapping[str, Mapping[str, Any]]) -> None:
        """``tools``: the schema of each function's parameters, by its name."""
        self._format = format
        self._tools = tools
        self._buffer = ""
        self._read = self._read_content
        self._started = False  # there was something
        self._after_call = False
        self._opened = ""  # the mark that began what is read now
        self._arguments: JsonScanner | None = None
        self._pieces: list[Piece] = []

    def push(self, text: str) -> list[Piece]:
        self._buffer += text
        while self._read():
            pass
        return self._taken()

    def finish(self) -> list[Piece]:
        """What was held back: no text will follow. A call that was cut keeps what there is of its arguments."""
        if self._read == self._read_content:
            self._show("" if self._after_call else self._buffer)
        elif self._read in (self._read_head, self._read_xml):
            self._show(self._opened + self._buffer)
        self._buffer = ""
        return self._taken()

    def _taken(self) -> list[Piece]:
        pieces, self._pieces = self._pieces, []
        return pieces

    def _show(self, text: str) -> None:
        if text:
            self._started, self._after_call = True, False
            self._pieces.append(Content(text))

    def _begin(self, name: str, *arguments: str) -> None:
        self._started = True
        self._pieces += [Begun(name), *map(Arguments, arguments)]

    # Each reader takes what it can from the buffer, and returns whether there may be more to take.

    def _read_content(self) -> bool:
        if self._after_call:  # white space between calls, and behind the last one, is nobody's
            self._buffer = self._buffer.lstrip()
        before, mark, rest = self._buffer.partition(self._format.opener)
        content = before.rstrip()
        if mark:
            self._show(content)
            self._enter(before[len(content) :] + mark, rest)
            return True
        if self._format.bare and not self._started and before.lstrip().startswith("{"):
            self._enter(before[: len(before) - len(before.lstrip())], before.lstrip())
            return True
        shown = before[: len(before) - held_back(before, self._format.opener)].rstrip()
        self._show(shown)
        self._buffer = before[len(shown) :]
        return False

    def _enter(self, opened: str, rest: str) -> None:
        self._opened, self._buffer = opened, rest
        self._read = self._read_xml if self._format.body == "xml" else self._read_head

    def _is_none(self) -> bool:
        """What began like a call: its mark is content, and so is what follows, unless a call begins there."""
        if not self._opened.strip():
            self._opened, self._buffer = self._opened + self._buffer[:1], self._buffer[1:]
        self._show(self._opened)
        self._read = self._read_content
        return True

    def _read_head(self) -> bool:
        if self._format.named:
            self._buffer = re.sub(r"^\s*\[(?=\s*\{)", "", self._buffer)
        found = _JSON_HEAD.match(self._buffer)
        name = json.loads(found[1], strict=False) if found and _is_json(found[1]) else None
        if found is None and self._format.named:
            found = _NAMED_HEAD.match(self._buffer)
            name = found[1] if found else None
        if found is not None and name is not None:
            self._begin(name)
            self._buffer = self._buffer[found.end() :]
            self._arguments = JsonScanner()
            self._read = self._read_text_arguments if self._buffer.startswith('"') else self._read_arguments
            return True
        begin = self._buffer.lstrip()
        if begin.startswith("{"):
            return self._read_whole()
        may_be = not begin or (self._format.named and (begin == "[" or _NAMED_BEGUN.fullmatch(begin)))
        return False if may_be else self._is_none()

    def _read_whole(self) -> bool:
        """An object whose keys are in another order, or that is no call."""
        end = JsonScanner().end_in(self._buffer)
        if end is None:
            return False
        text, self._buffer = self._buffer[:end], self._buffer[end:]
        try:
            call = json.loads(text)
        except ValueError:
            call = {}
        arguments = call.get("arguments", call.get("parameters", {}))
        if not isinstance(call.get("name"), str):
            self._opened += text
            return self._is_none()
        self._begin(
            call["name"], arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        )
        self._read = self._read_end
        return True

    def _read_arguments(self) -> bool:
        assert self._arguments is not None
        end = self._arguments.end_in(self._buffer)
        text = self._buffer if end is None else self._buffer[:end]
        self._buffer = self._buffer[len(text) :]
        if text:
            self._pieces.append(Arguments(text))
        if end is not None:
            self._read = self._read_end
        return end is not None

    def _read_text_arguments(self) -> bool:
        """JSON within a JSON text."""
        end = JsonScanner().end_in(self._buffer)
        if end is None:
            return False
        text, self._buffer = self._buffer[:end], self._buffer[end:]
        with suppress(ValueError):
            text = json.loads(text, strict=False)
        self._pieces.append(Arguments(text))
        self._read = self._read_end
        return True

    def _read_end(self) -> bool:
        """The rest of the object, and what closes or separates calls."""
        rest = self._buffer.lstrip()
        if rest.startswith("}"):
            self._buffer = rest[1:]
            return True
        closer = self._format.closer
        if closer and rest.startswith(closer):
            self._buffer = rest[len(closer) :]
            return self._end()
        if not rest or (closer and closer.startswith(rest)):
            return False
        if self._format.several and rest.startswith(self._format.several):
            self._enter(self._format.several, rest[1:])
            return True
        if self._format.bare and rest.startswith("{"):
            self._enter("", rest)
            return True
        return self._end()

    def _end(self) -> bool:
        self._read, self._after_call = self._read_content, True
        return True

    def _read_xml(self) -> bool:
        found = _XML.match(self._buffer)
        if found is None:
            begin = self._buffer.lstrip()[:10]
            if "<function="[: len(begin)] == begin:
                return False
            return self._is_none()
        self._buffer = self._buffer[found.end() :]
        name = found[1].strip()
        types = self._tools.get(name, {}).get("properties", {})
        values = {key.strip(): _typed(value, types.get(key.strip())) for key, value in _XML_PARAMETER.findall(found[2])}
        self._begin(name, json.dumps(values, ensure_ascii=False))
        self._read = self._read_end
        return True


def _is_json(text: str) -> bool:
    try:
        json.loads(text, strict=False)
    except ValueError:
        return False
    return True


def _typed(text: str, schema: Any) -> Any:
    """A text where the schema says so, else what it means in JSON."""
    if isinstance(schema, dict) and schema.get("type") == "string":
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text
