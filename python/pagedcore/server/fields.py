"""The fields of a body: each read once, with its type and bounds, by the caller's name for it."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sized
from typing import Any

from ..arguments import shown
from .errors import ApiError, not_supported

__all__ = ["MOST", "Fields", "are_token_ids", "wrong"]

MOST = {
    "allowed_token_ids": 1_000_000,
    "bad_words": 128,
    "chat_template_kwargs": 64,
    "documents": 1024,
    "input": 2048,
    "logit_bias": 1024,
    "messages": 2048,
    "prompt": 128,
    "stop": 64,
    "stop_sequences": 64,
    "stop_token_ids": 256,
    "text_1": 256,
    "text_2": 256,
    "tokens": 1_000_000,
    "tools": 128,
}
"""Entries of the lists and mappings that a body may hold: what a call costs is bounded before anything is computed."""
MOST_CHARACTERS = 4096  # of a stop string, a bad word, a name
_INT_END = 2**31


def wrong(name: str, value: object, must: str) -> ApiError:
    return ApiError(400, f"{name}={shown(value)} must be {must}", param=name)


class Fields:
    """A JSON object. ``null`` counts as absent, as the dialects have it."""

    def __init__(self, values: Mapping[str, Any], within: str = "") -> None:
        """``within``: where it stands in the body, such as ``messages[0]``."""
        self._values = {name: value for name, value in values.items() if value is not None}
        self._within = within + "." if within else ""

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def path(self, name: str) -> str:
        return self._within + name

    def everything(self) -> dict[str, Any]:
        return dict(self._values)

    def raw(self, name: str) -> Any:
        return self._values.get(name)

    def text(self, name: str, default: str | None = None, *, most: int | None = MOST_CHARACTERS) -> str | None:
        value = self._values.get(name, default)
        if value is not None and not isinstance(value, str):
            raise wrong(self.path(name), value, "a text")
        if value is not None and most is not None and len(value) > most:
            raise ApiError(400, f"{self.path(name)} has {len(value)} characters: {most} are allowed", param=name)
        return value

    def required(self, name: str) -> Any:
        if name not in self._values:
            raise ApiError(400, f"{self.path(name)} is missing", param=self.path(name))
        return self._values[name]

    def flag(self, name: str, default: bool = False) -> bool:
        value = self._values.get(name, default)
        if not isinstance(value, bool):
            raise wrong(self.path(name), value, "true or false")
        return value

    def integer(self, name: str, low: int, high: int = _INT_END - 1, default: int | None = None) -> int | None:
        value = self._values.get(name, default)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise wrong(self.path(name), value, f"an integer in [{low}, {high}]")
        return value

    def number(self, name: str, low: float, high: float = math.inf, default: float | None = None) -> float | None:
        value = self._values.get(name, default)
        if value is None:
            return None
        try:
            number = math.nan if isinstance(value, (bool, str)) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number) or not low <= number <= high:
            most = "" if math.isinf(high) else f" and at most {high:g}"
            raise wrong(self.path(name), value, f"a number of at least {low:g}{most}")
        return number

    def typed(self, name: str, kind: str) -> Any:
        """A value of one of the types that the lists of options know, within no bounds but those of its type."""
        if kind == "tokens":
            return self.token_ids(name)
        if kind == "biases":
            return self.mapping(name)
        if kind == "int":
            return self.integer(name, -(2**63), 2**64 - 1)
        return self.number(name, -math.inf)

    def choice(self, name: str, choices: Collection[str], default: str | None = None) -> str | None:
        value = self.text(name, default)
        if value is not None and value not in choices:
            raise wrong(self.path(name), value, f"one of {', '.join(choices)}")
        return value

    def listed(self, name: str) -> list[Any]:
        value = self._values.get(name, [])
        if not isinstance(value, list):
            raise wrong(self.path(name), value, "a list")
        self._check_length(name, value)
        return value

    def texts(self, name: str) -> list[str]:
        """A text, or a list of texts."""
        value = self._values.get(name, [])
        given = [value] if isinstance(value, str) else value
        if not isinstance(given, list) or not all(isinstance(text, str) for text in given):
            raise wrong(self.path(name), value, "a text or a list of texts")
        self._check_length(name, given)
        for text in given:
            if len(text) > MOST_CHARACTERS:
                message = f"{self.path(name)} holds a text of {len(text)} characters: {MOST_CHARACTERS} are allowed"
                raise ApiError(400, message, param=self.path(name))
        return given

    def token_ids(self, name: str) -> list[int]:
        value = self.listed(name)
        if not are_token_ids(value):
            raise wrong(self.path(name), value, "a list of token ids")
        return value

    def mapping(self, name: str) -> dict[str, Any]:
        value = self._values.get(name, {})
        if not isinstance(value, dict):
            raise wrong(self.path(name), value, "an object")
        self._check_length(name, value)
        return value

    def within(self, name: str) -> Fields:
        """The object that the field holds; an empty one where it is absent."""
        return Fields(self.mapping(name), self.path(name))

    def refuse(self, names: Mapping[str, str] | Iterable[str], harmless: Mapping[str, Collection[Any]] = {}) -> None:
        """Raises for the first of these fields that asks for something. ``names``: with what to do instead.
        ``harmless``: values that ask for what is done anyway."""
        remedies = names if isinstance(names, Mapping) else dict.fromkeys(names, "leave it out")
        for name, remedy in remedies.items():
            if name in self._values and self._values[name] not in (False, "", [], {}, *harmless.get(name, ())):
                raise not_supported(self.path(name), remedy)

    def _check_length(self, name: str, value: Sized) -> None:
        most = MOST.get(name, 1024)
        if len(value) > most:
            message = f"{self.path(name)} has {len(value)} entries: {most} are allowed"
            raise ApiError(400, message, param=self.path(name))


def are_token_ids(value: list[Any]) -> bool:
    return all(type(token) is int and 0 <= token < _INT_END for token in value)
