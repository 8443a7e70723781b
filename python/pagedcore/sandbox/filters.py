"""Filters and tests whose results are bounded before they are made."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

from jinja2 import filters
from jinja2.nodes import EvalContext
from jinja2.runtime import Undefined
from jinja2.utils import pass_environment, pass_eval_context

from .budget import NODE, Budget, TemplateLimit
from .operations import METHODS, check_percent, check_replace, check_texts

__all__ = ["bounded_filters", "bounded_tests"]

_SLOW = 16384  # characters that filters with expressions which backtrack, or loops in Python, may get
_MOST_DIGITS = 400  # that a number is rounded to: no float has more before or behind its point
_MOST_INDENT = 256


def bounded_filters(environment: Any) -> dict[str, Any]:
    known: dict[str, Any] = dict(environment.filters) | {"join": _join, "sum": _sum, "tojson": _tojson}
    return {name: _bounded(environment, filter_, _CHECKS.get(name)) for name, filter_ in known.items()}


def bounded_tests(environment: Any) -> dict[str, Any]:
    """Those that compare; whatever else a test says of a value is known at once."""
    tests: dict[str, Any] = dict(environment.tests)
    compare = ("==", "eq", "equalto", "!=", "ne", ">", "gt", "greaterthan", "ge", ">=", "<", "lt", "lessthan", "<=")
    for name in (*compare, "le", "in", "divisibleby", "lower", "upper"):
        tests[name] = _bounded(environment, tests[name], None)
    return tests


def _bounded(environment: Any, function: Callable[..., Any], check: Callable[..., None] | None) -> Callable[..., Any]:
    own = 1 if hasattr(function, "jinja_pass_arg") else 0  # the context or environment

    @functools.wraps(function)  # and with that its jinja_pass_arg
    def bounded(*args: Any, **kwargs: Any) -> Any:
        budget = environment.budget
        budget.spend(NODE * (len(args) + len(kwargs)))
        if check is not None:
            check(budget, *args[own:], **kwargs)
        result = budget.made(function(*args, **kwargs))
        for arg in args[own:]:
            if isinstance(arg, (str, list, tuple, dict)):
                budget.work(len(arg) if isinstance(arg, str) else NODE * len(arg))
        return result

    return bounded


def _characters(budget: Budget, value: Any, *_: Any, **__: Any) -> None:
    """Of filters that make a list of what they are given: of a text, a list of its characters."""
    if isinstance(value, str):
        budget.fits(NODE * len(value))


def _slow(budget: Budget, value: Any, *args: Any, **kwargs: Any) -> None:
    for given in (value, *args, *kwargs.values()):
        if budget.weight(given) > _SLOW:
            raise TemplateLimit(f"it gives a text of more than {_SLOW} characters to a filter for short ones")


def _wordwrap(budget: Budget, value: Any, width: int = 79, *args: Any, **kwargs: Any) -> None:
    _slow(budget, value, *args, **kwargs)
    most = max((len(given) for given in (*args, *kwargs.values()) if isinstance(given, str)), default=1)
    budget.fits(budget.weight(value) * (1 + most))


def _center(budget: Budget, value: Any, width: int = 80) -> None:
    budget.fits(width)


def _indent(budget: Budget, s: Any, width: int | str = 4, *_: Any, **__: Any) -> None:
    lines = len(s.splitlines()) + 1 if isinstance(s, str) else budget.weight(s)
    budget.fits(budget.weight(s) + lines * (len(width) if isinstance(width, str) else width))


def _pieces(budget: Budget, value: Any, linecount: int = 0, fill_with: Any = None, slices: int = 0) -> None:
    _characters(budget, value)
    budget.fits(NODE * max(linecount, slices))


def _round(budget: Budget, value: Any, precision: int = 0, method: str = "common") -> None:
    if abs(precision) > _MOST_DIGITS:
        raise TemplateLimit(f"it rounds to {precision} digits; {_MOST_DIGITS} are possible")


def _replace(budget: Budget, s: Any, old: Any, new: Any, count: int | None = None) -> None:
    check_replace(budget, str(s), str(old), str(new), -1 if count is None else count)


def _int(budget: Budget, value: Any, default: Any = 0, base: int = 10) -> None:
    if isinstance(value, str) and len(value) > 4000:
        raise TemplateLimit(f"it reads a number of {len(value)} characters")


def _format(budget: Budget, value: Any, *args: Any, **kwargs: Any) -> None:
    check_percent(budget, str(value), kwargs or args)


_LISTING = "dictsort groupby list map max min reject rejectattr select selectattr sort unique"
_CHECKS: dict[str, Callable[..., None]] = {
    **dict.fromkeys(_LISTING.split(), _characters),
    **dict.fromkeys(("pprint", "striptags", "urlize", "xmlattr"), _slow),
    "batch": _pieces,
    "center": _center,
    "format": _format,
    "indent": _indent,
    "int": _int,
    "replace": _replace,
    "round": _round,
    "trim": lambda budget, value, chars=None: METHODS[str]["strip"](budget, str(value), chars),
    "slice": lambda budget, value, slices, fill_with=None: _pieces(budget, value, slices=slices),
    "wordwrap": _wordwrap,
}


@pass_eval_context
def _join(eval_ctx: EvalContext, value: Any, d: str = "", attribute: str | int | None = None) -> str:
    environment: Any = eval_ctx.environment
    if attribute is not None:
        value = map(filters.make_attrgetter(environment, attribute), value)
    parts = list(value)
    check_texts(environment.budget, str(d), parts)
    return str(filters.sync_do_join(eval_ctx, parts, d))


@pass_environment
def _sum(environment: Any, iterable: Any, attribute: str | int | None = None, start: Any = 0) -> Any:
    for item in iterable if attribute is None else map(filters.make_attrgetter(environment, attribute), iterable):
        start = environment.binary("+", start, item)
    return start


@pass_environment
def _tojson(
    environment: Any,
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers writes it: Jinja's own escapes HTML, which a prompt is not."""
    budget = environment.budget
    if isinstance(value, Undefined):
        raise TypeError(f"tojson is given {value._undefined_name!r}, which is undefined")
    widest = max(indent if isinstance(indent, int) else len(indent or ""), *(len(part) for part in separators or ("",)))
    if widest > _MOST_INDENT:
        raise TemplateLimit(f"it indents or separates JSON by {widest} characters; {_MOST_INDENT} are possible")
    budget.weight(value)
    encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    pieces, length = [], 0
    for piece in encoder.iterencode(value):  # piece by piece where it is written in Python: with indentation
        pieces.append(piece)
        length += len(piece)
        budget.spend(len(piece))
        budget.fits(length)
    return "".join(pieces)
