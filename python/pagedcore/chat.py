"""Conversations to prompts, with the Jinja template that comes with a model."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

from .content import TextParts, with_text_parts
from .errors import InvalidArgument
from .names import unknown_name

if TYPE_CHECKING:
    from .sandbox import BoundedTemplate, Budget

__all__ = ["ChatTemplates", "Message", "TemplateOptions", "TemplateSource"]

Message = Mapping[str, Any]
"""At least ``role`` and ``content``, a text or a list of parts such as ``{"type": "text", "text": ...}``; whatever else
the template reads, such as ``tool_calls``."""

_log = logging.getLogger("pagedcore")
_CONTINUES = "PAGEDCORE_CONTINUES_HERE "  # the space tells whether the template strips a message
_REASONING = ("reasoning_content", "thinking", "reasoning")


class TemplateSource(NamedTuple):
    text: str
    origin: str  # file and field, for errors


class TemplateOptions(TypedDict, total=False):
    """How a conversation becomes a prompt."""

    add_generation_prompt: bool | None
    """Whether the prompt ends where the assistant is to speak. None: unless ``continue_final_message``."""
    continue_final_message: bool | str
    """Whether the prompt ends inside the last message, which the model is to continue; a text names its field, where
    that is not ``content``."""
    chat_template: str | None
    """The name of one of the model's templates, or a template. None: the one called ``tool_use`` if there are tools and
    the model has it, else ``default``."""
    tools: Sequence[Mapping[str, Any]] | None
    """JSON schemas of functions."""
    template_variables: Mapping[str, Any] | None
    """Passed to the template by their names."""


class ChatTemplates:
    """The templates of a model, by name. Thread-safe.

    A template is a part of a checkpoint, which may be anybody's: it runs in a sandbox that bounds its time and memory.
    """

    def __init__(
        self, sources: Mapping[str, TemplateSource], special_tokens: Mapping[str, str | list[str]] | None = None
    ) -> None:
        """``special_tokens``: what templates may name, such as ``{"bos_token": "<s>"}``."""
        self._sources = dict(sources)
        self._special_tokens = dict(special_tokens or {})

    def __len__(self) -> int:
        return len(self._sources)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._sources)

    def text(self, chosen: str | None = None, *, with_tools: bool = False) -> str:
        """The text of the template that is used where this one is chosen; empty where there is none."""
        return self._choose(chosen, with_tools=with_tools).text if chosen or self._sources else ""

    def prompt(self, messages: Sequence[Message], options: TemplateOptions) -> str:
        """The prompt's text. Raises InvalidArgument for messages that the template refuses, and for templates that are
        not valid or take too much time or memory."""
        check_messages(messages)
        for name in options:
            if name not in TemplateOptions.__annotations__:
                raise unknown_name("a prompt", name, TemplateOptions.__annotations__)
        continues = options.get("continue_final_message", False)
        add = options.get("add_generation_prompt")
        if not isinstance(continues, (bool, str)) or not (add is None or isinstance(add, bool)):
            raise InvalidArgument(
                f"add_generation_prompt={add!r} must be True, False or None; continue_final_message={continues!r} True,"
                " False or the name of a field"
            )
        if add and continues:
            raise InvalidArgument(
                "continue_final_message and add_generation_prompt contradict each other: a prompt ends inside the last "
                "message, or where a new one begins"
            )
        tools = options.get("tools")
        source = self._choose(options.get("chat_template"), with_tools=tools is not None)
        if tools and "tools" not in source.text:
            _warn_of_tools(source)
        rendering = _Rendering(source, self._special_tokens, options)
        return rendering.run(messages, add_generation_prompt=not continues if add is None else add)

    def _choose(self, chosen: str | None, *, with_tools: bool) -> TemplateSource:
        known = ", ".join(sorted(self._sources)) or "none"
        if chosen is not None and chosen != "":
            if not isinstance(chosen, str):
                raise InvalidArgument(f"chat_template={chosen!r} must be a template, or the name of one")
            if chosen in self._sources:
                return self._sources[chosen]
            if re.fullmatch(r"[\w.-]+", chosen):
                raise InvalidArgument(
                    f"there is no chat template {chosen!r} (the model's are: {known}); a text without braces is none"
                )
            return TemplateSource(chosen, "chat_template=")
        for name in ("tool_use", "default") if with_tools else ("default",):
            if name in self._sources:
                return self._sources[name]
        if self._sources:
            raise InvalidArgument(f"the model has several chat templates: name one with chat_template= ({known})")
        raise InvalidArgument("the model has no chat template: pass one as chat_template=, or use generate()")


@functools.lru_cache(maxsize=64)
def _warn_of_tools(source: TemplateSource) -> None:
    """Once."""
    _log.warning("the chat template (%s) knows no tools: those that are passed are not in the prompt", source.origin)


@functools.lru_cache(maxsize=16)
def _compile(source: TemplateSource) -> BoundedTemplate:
    template: BoundedTemplate = _guarded(source, "is not valid Jinja", lambda: _sandbox().BoundedTemplate(source.text))
    return template


def _sandbox() -> Any:
    try:
        from . import sandbox
    except ImportError as error:
        raise InvalidArgument(f"chat templates need Jinja (pip install 'jinja2>=3.1.6'): {error}") from None
    return sandbox


def _guarded(source: TemplateSource, problem: str, call: Callable[[], Any]) -> Any:
    """The call's result. Whatever it raises becomes one error: a template is a program."""
    sandbox = _sandbox()
    where = f"the chat template ({source.origin})"
    try:
        return call()
    except InvalidArgument:
        raise
    except sandbox.TemplateRefusal as error:
        raise InvalidArgument(f"{where} refuses these messages: {error}") from None
    except sandbox.TemplateLimit as error:
        raise InvalidArgument(f"{where} was stopped: {error}") from None
    except Exception as error:
        raise InvalidArgument(f"{where} {problem}: {_described(error)}") from None


def _described(error: Exception) -> str:
    try:
        text = str(error)[:500]
    except Exception:
        text = ""
    # The types that Jinja's own errors have say no more than their texts.
    if text and type(error).__module__.startswith("jinja2"):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class _Rendering:
    """One conversation on its way through a template."""

    def __init__(
        self, source: TemplateSource, special_tokens: Mapping[str, str | list[str]], options: TemplateOptions
    ) -> None:
        sandbox = _sandbox()
        self._source = source
        self._template = _compile(source)
        self._given = sandbox.Given()
        variables = options.get("template_variables") or {}
        if not isinstance(variables, Mapping) or not all(isinstance(name, str) for name in variables):
            raise InvalidArgument(f"template_variables={variables!r} must be a mapping of names to values")
        for name in ("messages", "tools", "add_generation_prompt"):
            if name in variables:
                raise InvalidArgument(f"template_variables has {name!r}, which is an argument of its own")
        plain = self._given.plain
        tools = plain(_checked_tools(options.get("tools")), "tools")
        self._variables: dict[str, Any] = {"documents": None, "tools": tools}
        self._variables |= special_tokens
        self._variables |= {
            name: value if callable(value) else plain(value, f"template_variables[{name!r}]")
            for name, value in variables.items()
        }
        self._continues = options.get("continue_final_message", False)
        self._budget: Budget

    def run(self, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
        plain = [self._plain(position, message) for position, message in enumerate(messages)]
        self._budget = _sandbox().Budget(self._given)
        self._variables["add_generation_prompt"] = add_generation_prompt
        lists = any(isinstance(message.get("content"), list) for message in plain)
        if lists or not _knows_texts(self._source):
            plain = with_text_parts(plain, self._tried, takes_parts=_takes_parts(self._source))
        if self._continues:
            return self._continued(plain)
        return self._rendered(plain)

    def _plain(self, position: int, message: Message) -> dict[str, Any]:
        plain = self._given.plain(message, f"message {position} of the conversation")
        if not isinstance(plain, dict) or not isinstance(plain.get("role"), str):
            raise InvalidArgument(f"message {position} of the conversation is {plain!r}: it needs a role and content")
        return _normalised(plain)

    def _rendered(self, messages: list[dict[str, Any]]) -> str:
        variables = {"messages": messages} | self._variables
        return str(
            _guarded(
                self._source,
                "failed on these messages",
                lambda: self._template.render(variables, self._budget),
            )
        )

    def _tried(self, messages: list[dict[str, Any]]) -> str | None:
        """None where the template fails."""
        try:
            return self._rendered(messages)
        except InvalidArgument:
            return None

    def _continued(self, messages: list[dict[str, Any]]) -> str:
        """Up to the end of the last message's text: a mark at that end is found again in what the template makes."""
        field = self._continues if isinstance(self._continues, str) else "content"
        last = dict(messages[-1])
        value = last.get(field)
        if not isinstance(value, (str, list)):
            raise InvalidArgument(f"continue_final_message: the last message has no {field!r} to continue")
        if isinstance(value, str):
            same = [name for name in _REASONING if field in _REASONING and last.get(name) == value]
            last |= dict.fromkeys([*same, field], value + _CONTINUES)
        else:
            last[field] = TextParts(value).with_last_text(lambda text: text + _CONTINUES)
            value = TextParts(value).joined()
        text = self._rendered([*messages[:-1], last])
        at = text.rfind(_CONTINUES.rstrip())
        if at < 0 or (isinstance(messages[-1][field], str) and value.strip() not in text):
            raise InvalidArgument(
                f"continue_final_message: the chat template ({self._source.origin}) does not show the last message's "
                f"{field!r} as it is"
            )
        kept = text.startswith(_CONTINUES, at)
        return text[:at] if kept else text[:at].rstrip()


@functools.lru_cache(maxsize=64)
def _takes_parts(source: TemplateSource) -> bool:
    """Whether the template may know content that is a list of parts: it looks at their types and texts."""
    return all(re.search(rf"\b{name}\b", source.text) for name in ("type", "text"))


@functools.lru_cache(maxsize=64)
def _knows_texts(source: TemplateSource) -> bool:
    """Whether the template shows content that is a text, where that can be told from a conversation of one message."""
    if not _takes_parts(source):
        return True
    mark = "Qx0xQ"
    try:
        messages = {"messages": [{"role": "user", "content": mark}]}
        text = _compile(source).render(messages, _sandbox().Budget(seconds=0.1))
    except Exception:  # it wants other conversations
        return True
    return mark.casefold() in text.casefold()


def _normalised(message: dict[str, Any]) -> dict[str, Any]:
    """As transformers has it: what is None is not there; what the model thought has each of its names."""
    known = {name: value for name, value in message.items() if value is not None}
    thought = next((known[name] for name in _REASONING if name in known), None)
    if thought is not None:
        known = {"thinking": thought, **known, "reasoning_content": thought}
    return known


def check_messages(messages: Sequence[Message]) -> None:
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence) or not messages:
        raise InvalidArgument("a conversation is a list of messages such as {'role': 'user', 'content': 'Hi'}")


def _checked_tools(tools: Any) -> Any:
    if tools is None:
        return None
    if isinstance(tools, (str, bytes, Mapping)) or not isinstance(tools, Sequence):
        raise InvalidArgument(f"tools is a {type(tools).__name__}: it must be a list of JSON schemas of functions")
    for position, tool in enumerate(tools):
        if not isinstance(tool, Mapping):
            raise InvalidArgument(f"tools[{position}] is a {type(tool).__name__}: it must be a function's JSON schema")
    return tools
