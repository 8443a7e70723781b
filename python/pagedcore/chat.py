"""Conversations to prompts, with the Jinja template that comes with a model."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import InvalidArgument

__all__ = ["ChatTemplate", "Message"]

Message = Mapping[str, Any]
"""At least ``role`` and ``content``; whatever else the template reads, such as ``tool_calls``."""


class ChatTemplate:
    """A compiled template. It runs in Jinja's sandbox: a template is a part of a checkpoint, which may be anybody's."""

    def __init__(self, source: str, special_tokens: Mapping[str, str] | None = None) -> None:
        try:
            import jinja2
            from jinja2.ext import loopcontrols
            from jinja2.sandbox import ImmutableSandboxedEnvironment
        except ImportError:
            raise InvalidArgument("chat templates need Jinja: pip install jinja2") from None

        # As transformers renders them: templates are written for its settings.
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _generation_tag()]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _strftime_now
        self.source = source
        self._special_tokens = dict(special_tokens or {})
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise InvalidArgument(f"the chat template is not valid Jinja: {error}") from None

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **variables: Any,
    ) -> str:
        """The prompt. ``variables`` are passed to the template as they are."""
        check_messages(messages)
        context = self._special_tokens | variables
        try:
            return self._template.render(
                messages=messages, tools=tools, add_generation_prompt=add_generation_prompt, **context
            )
        except _TemplateRefusal as error:
            raise InvalidArgument(f"the chat template refuses these messages: {error}") from None
        except Exception as error:  # the template is a program: anything may be wrong with it
            raise InvalidArgument(f"the chat template failed on these messages: {error}") from error


def check_messages(messages: Sequence[Message]) -> None:
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence) or not messages:
        raise InvalidArgument("a conversation is a list of messages such as {'role': 'user', 'content': 'Hi'}")
    for position, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise InvalidArgument(f"message {position} of the conversation is {message!r}: it needs a role and content")


class _TemplateRefusal(Exception):
    pass


def _raise_exception(message: str) -> None:
    raise _TemplateRefusal(message)


def _strftime_now(format: str) -> str:
    return datetime.datetime.now().strftime(format)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own escapes HTML, which a prompt is not.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _generation_tag() -> Any:
    """``{% generation %}``: marks what the assistant wrote, for training. Here it only has to be accepted."""
    from jinja2 import nodes, parser
    from jinja2.ext import Extension

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012  (the base class declares it so)

        def parse(self, parser: parser.Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    return Generation
