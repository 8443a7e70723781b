"""What a call of the native module is told when its arguments do not fit: which one, and what it must be."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from .errors import InvalidArgument

__all__ = ["refuse", "shown"]


def shown(value: object, most: int = 64) -> str:
    """The value as a message shows it, cut when it is long. Never fails, whatever its own repr() does."""
    try:
        text = repr(value)
    except Exception:  # an int of more digits than Python prints; a class of the caller's
        return f"a huge {type(value).__name__}" if isinstance(value, int) else f"a {type(value).__name__}"
    return text if len(text) <= most else text[:most] + "..."


class _Parameter(NamedTuple):
    name: str
    type: str
    has_default: bool
    by_name: bool = False
    """It cannot be given by its place."""


class _Misfit(NamedTuple):
    fitting: int
    """Arguments before it that fit."""
    error: Exception


def refuse(
    overloads: Iterable[Sequence[Any]], owner: str, args: Sequence[Any], keywords: Mapping[str, Any]
) -> NoReturn:
    """Raises TypeError, or InvalidArgument for a number that is out of range. ``overloads``: (signature, ...) of each.
    Of several the one that the call comes nearest to is explained."""
    misfits = [_misfit(signature, owner, args, keywords) for signature, *_ in overloads]
    raise max(misfits, key=lambda misfit: misfit.fitting).error from None


def _misfit(signature: str, owner: str, args: Sequence[Any], keywords: Mapping[str, Any]) -> _Misfit:
    name, parameters = _parsed(signature)
    if parameters and parameters[0].name == "self":
        me, *args = args or [None]
        if owner not in [base.__name__ for base in type(me).__mro__]:
            return _Misfit(-1, TypeError(f"{owner}.{name}() is of a {owner}, not of {shown(me)}"))
        parameters = parameters[1:]
    called = name if not owner else owner if name in ("", "__init__") else f"{owner}.{name}"
    spelled = f"{called}({', '.join(p.name if not p.has_default else p.name + '=...' for p in parameters)})"
    if len(args) > len(parameters):
        return _Misfit(0, TypeError(f"{spelled} takes {len(parameters)} arguments, not {len(args)}"))
    by_place = sum(not p.by_name for p in parameters)
    if len(args) > by_place:
        first = parameters[by_place].name
        return _Misfit(0, TypeError(f"{called}(): {first} is given by name: {called}({first}={shown(args[by_place])})"))
    given = dict(zip((p.name for p in parameters), args, strict=False))
    known = [p.name for p in parameters]
    for word in keywords:
        if word not in known:
            return _Misfit(0, TypeError(f"{spelled} has no argument {word!r}"))
        if word in given:
            return _Misfit(0, TypeError(f"{spelled}: {word} is given twice"))
    given.update(keywords)
    for fitting, parameter in enumerate(parameters):
        if parameter.name not in given:
            if parameter.has_default:
                continue
            return _Misfit(fitting, TypeError(f"{spelled}: {parameter.name} is missing"))
        value = given[parameter.name]
        if not any(_fits(kind, value) for kind in _split(parameter.type, "|")):
            return _Misfit(
                fitting, TypeError(f"{called}(): {parameter.name} = {shown(value)} is not {_named(parameter.type)}")
            )
    for parameter in parameters:  # of the right types: a number that is too large for its own
        for number in _numbers(given.get(parameter.name)):
            if number < 0 or number >= 2**31:
                limit = "it is too small or too large" if abs(number) < 2**64 else "it has more than 64 bits"
                limit = "it must be at least 0" if -(2**31) <= number < 0 else limit
                return _Misfit(
                    len(parameters),
                    InvalidArgument(f"{called}(): {parameter.name} = {shown(number)} is out of range: {limit}"),
                )
        value = given.get(parameter.name)
        if isinstance(value, str) and not _is_unicode(value):
            why = "is not valid Unicode: it holds half of a surrogate pair"
            return _Misfit(len(parameters), InvalidArgument(f"{called}(): {parameter.name} = {shown(value)} {why}"))
    why = (
        "the arguments do not fit" if not owner else f"the {owner} is not initialized, or is already: make another one"
    )
    return _Misfit(len(parameters), TypeError(f"{spelled}: {why}"))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _parsed(signature: str) -> tuple[str, list[_Parameter]]:
    match = re.match(r"(?:def (\w*))?\((.*)\)(?: -> .*)?$", signature, re.DOTALL)
    if match is None:
        return signature, []
    parameters: list[_Parameter] = []
    by_name = False
    for part in _split(match[2], ","):
        if part in ("*", "/", ""):
            by_name = by_name or part == "*"
            continue
        declared, equals, _ = part.partition(" = ")
        name, _, kind = declared.partition(":")
        parameters.append(_Parameter(name.strip(), kind.strip() or "object", bool(equals), by_name))
    return match[1] or "", parameters


def _split(text: str, separator: str) -> list[str]:
    """At the separators outside brackets and texts."""
    parts, depth, begin, quoted = [], 0, 0, ""
    for at, character in enumerate(text):
        if quoted:
            quoted = "" if character == quoted else quoted
        elif character in "'\"":
            quoted = character
        elif character in "[(":
            depth += 1
        elif character in "])":
            depth -= 1
        elif character == separator and depth == 0:
            parts.append(text[begin:at].strip())
            begin = at + 1
    return [*parts, text[begin:].strip()]


_ARRAYS = ("Annotated", "NDArray", "ndarray")


def _fits(kind: str, value: object) -> bool:
    base, bracket, inner = kind.partition("[")
    base = base.rpartition(".")[2]
    if base in _ARRAYS or base in ("object", "Any"):
        is_buffer = isinstance(value, (bytes, bytearray, memoryview))
        return base not in _ARRAYS or is_buffer or hasattr(value, "__array_interface__") or hasattr(value, "__dlpack__")
    if base == "None":
        return value is None
    if base == "int":
        return hasattr(value, "__index__") and not isinstance(value, bool)
    if base == "float":
        return hasattr(value, "__float__") and not isinstance(value, bool)
    if base in ("str", "Literal"):
        return isinstance(value, str)
    if base in ("Sequence", "list"):
        if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
            return False
        kinds = _split(inner[:-1], "|") if bracket else ["object"]
        return all(any(_fits(one, item) for one in kinds) for item in value)
    if base == "tuple":
        kinds = _split(inner[:-1], ",")
        return isinstance(value, (tuple, list)) and len(value) == len(kinds) and all(map(_fits, kinds, value))
    if base in ("dict", "Mapping"):
        kinds = _split(inner[:-1], ",")
        return isinstance(value, Mapping) and all(
            _fits(kinds[0], key) and _fits(kinds[1], item) for key, item in value.items()
        )
    return base in [each.__name__ for each in type(value).__mro__]


_WORDS = {"int": "a whole number", "float": "a number", "str": "a text", "bool": "True or False", "None": "None"}


def _named(kind: str) -> str:
    names = []
    for part in _split(kind, "|"):
        base, _, inner = part.partition("[")
        base = base.rpartition(".")[2]
        if base == "Literal":
            names.append(f"one of {inner[:-1]}")
        elif base in ("Sequence", "list"):
            items = {"int": "whole numbers", "float": "numbers", "str": "texts"}
            names.append(f"a list of {items.get(inner[:-1], re.sub(r'[a-z_.]*[.]', '', inner[:-1]))}")
        elif base in _ARRAYS:
            names.append("an array")
        elif base in ("dict", "Mapping"):
            names.append("a dict")
        else:
            names.append(_WORDS.get(base, f"a {base}"))
    return " or ".join(names)


def _numbers(value: object) -> Iterable[int]:
    if isinstance(value, int):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _numbers(item)
