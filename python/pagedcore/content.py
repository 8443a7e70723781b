"""Content of messages that is a list of parts, for templates that know texts only, and the other way round."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .errors import InvalidArgument

__all__ = ["TextParts", "with_text_parts"]

_TEXT_TYPES = (None, "text", "input_text", "output_text")

_Messages = list[dict[str, Any]]


class TextParts:
    """A list of parts."""

    def __init__(self, parts: list[Any]) -> None:
        self.parts = parts

    @staticmethod
    def text_of(part: Any) -> str | None:
        """None for a part that is no text."""
        if isinstance(part, str):
            return part
        if isinstance(part, dict) and part.get("type") in _TEXT_TYPES and isinstance(part.get("text"), str):
            return str(part["text"])
        return None

    def other_type(self) -> str | None:
        """The type of the first part that is no text."""
        for part in self.parts:
            if self.text_of(part) is None:
                return str(part.get("type", "no type") if isinstance(part, dict) else type(part).__name__)
        return None

    def joined(self) -> str:
        return "".join(text for part in self.parts if (text := self.text_of(part)) is not None)

    def with_last_text(self, change: Callable[[str], str]) -> list[Any]:
        """The parts with a change to the last text among them."""
        for at in range(len(self.parts) - 1, -1, -1):
            text = self.text_of(self.parts[at])
            if text is not None:
                part = self.parts[at]
                new = change(text) if isinstance(part, str) else part | {"text": change(text)}
                return [*self.parts[:at], new, *self.parts[at + 1 :]]
        raise InvalidArgument("continue_final_message: the last message has no text to continue")


def with_text_parts(messages: _Messages, render: Callable[[_Messages], str | None], *, takes_parts: bool) -> _Messages:
    """The messages in the form that the template knows: a list of parts stays one where the template shows its texts,
    else they are joined; a text becomes a part where the template shows parts only. ``render`` gives the template's
    text, or None where it fails; it is asked with marks instead of the texts. ``takes_parts``: whether the template may
    know parts; if not, texts are what it knows.

    Raises InvalidArgument for parts that would be lost: those that are no text, where texts are joined."""
    messages = [_with_typed_parts(message) for message in messages]
    lists = [at for at, message in enumerate(messages) if isinstance(message.get("content"), list)]
    if takes_parts:
        shown = _shown(messages, render, as_parts=lambda at: at in lists)
        wanting = [at for at in range(len(messages)) if "content" in messages[at] and not shown[at]]
        swapped = _shown(messages, render, as_parts=lambda at: (at in lists) != (at in wanting)) if wanting else shown
    else:
        wanting, swapped = lists, [True] * len(messages)
    formed = list(messages)
    for at in wanting:
        content = messages[at]["content"]
        if at in lists:
            other = TextParts(content).other_type()
            if other is not None:
                raise InvalidArgument(
                    f"message {at} has a part of the type {other!r}, and the chat template knows texts only"
                )
            formed[at] = messages[at] | {"content": TextParts(content).joined()}
        elif swapped[at] and isinstance(content, str) and content:
            formed[at] = messages[at] | {"content": [{"type": "text", "text": content}]}
    return formed


def _with_typed_parts(message: dict[str, Any]) -> dict[str, Any]:
    """A text among parts is a part of the type text: this is what templates that know parts look for."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    return message | {"content": [{"type": "text", "text": p} if isinstance(p, str) else p for p in content]}


def _shown(
    messages: _Messages, render: Callable[[_Messages], str | None], *, as_parts: Callable[[int], bool]
) -> list[bool]:
    """Of each message: whether the template shows its text, other than as Python or JSON writes a part."""
    marked = []
    for at, message in enumerate(messages):
        mark = f"Qx{at}xQ"
        content: Any = mark
        if as_parts(at):
            parts = message["content"] if isinstance(message.get("content"), list) else [{"type": "text", "text": ""}]
            content = [*parts[:-1], _marked(parts[-1] if parts else None, mark)]
        marked.append(message | {"content": content} if "content" in message else message)
    text = render(marked)
    if text is None:
        return [False] * len(messages)
    text = text.casefold()
    return [_is_shown(f"qx{at}xq", text) for at in range(len(messages))]


def _marked(part: Any, mark: str) -> Any:
    return part | {"text": mark} if TextParts.text_of(part) is not None else {"type": "text", "text": mark}


def _is_shown(mark: str, text: str) -> bool:
    written = (f"'text': '{mark}'", f'"text": "{mark}"', f'"text":"{mark}"')
    return mark in text and not any(form in text for form in written)
