"""The tokens of a conversation whose answers are at hand as tokens.

A text has many tokenizations, and a model need not answer in the one that encoding gives. An assistant's message that
carries the ``token_ids`` of its output is put into the prompt as these, so that the prefix cache finds the whole
history.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .arguments import shown
from .detokenizer import Detokenizer
from .errors import InvalidArgument

if TYPE_CHECKING:
    from .tokenizer import Tokenizer

__all__ = ["TOKEN_IDS", "ChatPrompt", "chat_prompt"]

TOKEN_IDS = "token_ids"
_Messages = Sequence[Mapping[str, Any]]
_Render = Callable[[_Messages], str]


class ChatPrompt(str):
    """A rendered conversation. ``pieces`` in order make it up: texts, and the token ids of answers."""

    pieces: tuple[str | list[int], ...]

    def __new__(cls, text: str, pieces: tuple[str | list[int], ...]) -> ChatPrompt:
        prompt = super().__new__(cls, text)
        prompt.pieces = pieces
        return prompt


def chat_prompt(render: _Render, messages: _Messages, tokenizer: Tokenizer | None) -> ChatPrompt:
    """Renders the messages, which ``render`` sees without their token ids. Ids are used where they spell the message's
    content and the template puts that into the prompt as it is; elsewhere the text counts."""
    plain = [_without_ids(message) for message in messages]
    text = render(plain)
    given = _given_ids(messages)
    answers = {} if tokenizer is None else _answers(messages, given, tokenizer)
    if not answers:
        return ChatPrompt(text, (text,))
    pieces: list[str | list[int]] = []
    at = 0
    for position, start in sorted(_places(render, plain, text, list(answers)).items(), key=lambda place: place[1]):
        pieces += [text[at:start], answers[position]]
        at = start + len(plain[position]["content"])
    return ChatPrompt(text, tuple(piece for piece in (*pieces, text[at:]) if piece))


def _without_ids(message: Any) -> Any:
    if not isinstance(message, Mapping) or TOKEN_IDS not in message:
        return message
    return {key: value for key, value in message.items() if key != TOKEN_IDS}


def _given_ids(messages: _Messages) -> dict[int, list[int]]:
    """Of the messages that carry some, by their position."""
    carried = {at: message.get(TOKEN_IDS) for at, message in enumerate(messages) if isinstance(message, Mapping)}
    return {at: _checked(ids, at) for at, ids in carried.items() if ids is not None}


def _answers(messages: _Messages, given: Mapping[int, list[int]], tokenizer: Tokenizer) -> dict[int, list[int]]:
    """By a message's position the ids that spell its content: those of the output but for the end of the turn, which is
    the template's to write."""
    found = {}
    for position, ids in given.items():
        while ids and tokenizer.is_special(ids[-1]):
            ids.pop()
        message = messages[position]
        if ids and message.get("role") == "assistant" and _spelled(tokenizer, ids) == message.get("content"):
            found[position] = ids
    return found


def _checked(given: Any, position: int) -> list[int]:
    listed = given.tolist() if hasattr(given, "tolist") else given
    if not isinstance(listed, (list, tuple)):
        raise InvalidArgument(
            f"message {position} of the conversation has {TOKEN_IDS} = {shown(given)}: they are a list, the token ids "
            "of the output that it was"
        )
    for token in listed:
        if isinstance(token, bool) or not hasattr(token, "__index__") or not 0 <= int(token) < 2**31:
            raise InvalidArgument(
                f"message {position} of the conversation has {shown(token)} among its {TOKEN_IDS}: they are the token "
                "ids of the output that it was"
            )
    return [int(token) for token in listed]


def _spelled(tokenizer: Tokenizer, ids: list[int]) -> str:
    text = Detokenizer(tokenizer)
    return "".join(map(text.push, ids)) + text.finish()


def _places(render: _Render, messages: list[Any], text: str, positions: list[int]) -> dict[int, int]:
    """Where in the text the contents of these messages begin, of those that stand in it as they are: a mark in their
    place leaves the rest of the prompt alone."""
    found = _marked(render, messages, text, positions)
    if found is None and len(positions) > 1:
        found = {}
        for position in positions:
            found |= _marked(render, messages, text, [position]) or {}
    return found or {}


def _marked(render: _Render, messages: list[Any], text: str, positions: list[int]) -> dict[int, int] | None:
    mark = "\ue000"  # for private use: no template looks for it
    while mark in text:
        mark += "\ue000"
    marked = list(messages)
    for position in positions:
        marked[position] = {**messages[position], "content": f"{mark}{position}\ue001"}
    try:
        rest = render(marked)
    except InvalidArgument:  # the template wants something of the content
        return None
    places, at = {}, 0
    rebuilt = []
    for position in positions:
        before, found, rest = rest.partition(f"{mark}{position}\ue001")
        if not found:
            return None
        rebuilt += [before, messages[position]["content"]]
        places[position] = at + len(before)
        at = places[position] + len(messages[position]["content"])
    return places if "".join([*rebuilt, rest]) == text else None
