"""The environment that templates run in, and templates."""

from __future__ import annotations

import contextlib
import datetime
import threading
from collections.abc import Iterator, Mapping, Sequence
from types import BuiltinMethodType, MethodType
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import loopcontrols
from jinja2.runtime import Context, markup_join, str_join
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.utils import Namespace, pass_context

from .budget import NODE, Budget, TemplateLimit
from .compiler import BoundedCompiler, CountTokens, Generation
from .filters import bounded_filters, bounded_tests
from .operations import COMPARISONS, METHODS, check_binary, check_spec, check_texts

__all__ = ["BoundedEnvironment", "BoundedTemplate", "TemplateRefusal"]

_LONGEST_SOURCE = 128 << 10
_LONGEST_CODE = 1 << 20
_MOST_NAMES_IN_BRANCHES = 1_000_000
_AT_ONCE = (int, float, type(None))  # compared in constant time


class TemplateRefusal(Exception):
    """What a template says with ``raise_exception``."""


class _Namespace(Namespace):
    """Without names of Python's own, and without namespaces in namespaces: a value is never larger than it was when it
    was put where it is."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args
        values = dict(*rest, **kwargs)
        Namespace.__init__(self)
        for name, value in values.items():
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        if not isinstance(name, str) or name.startswith("_"):
            raise SecurityError(f"a namespace cannot have the attribute {name!r}")
        if isinstance(value, Namespace):
            raise TemplateLimit("it keeps a namespace in a namespace")
        Namespace.__setitem__(self, name, value)

    def __repr__(self) -> str:
        return "<Namespace>"


class _Dict:
    """``dict(...)`` and ``dict.fromkeys(...)``: the class itself has more methods than a template should reach."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, keys: Any, value: Any = None) -> dict[Any, Any]:
        return dict.fromkeys(keys, value)


class _Formatter(SandboxedFormatter):
    def __init__(self, environment: BoundedEnvironment) -> None:
        super().__init__(environment)
        self._budget = environment.budget

    def format_field(self, value: Any, format_spec: str) -> str:
        check_spec(format_spec)
        check_texts(self._budget, "", [value])
        text: str = super().format_field(value, format_spec)
        self._budget.made(text)
        return text


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """For all templates and threads: a thread's budget is its own."""

    code_generator_class = BoundedCompiler
    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))

    def __init__(self) -> None:
        # As transformers renders them: templates are written for its settings. Nothing is computed while compiling.
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            finalize=_finalize,
            cache_size=0,
            extensions=[CountTokens, loopcontrols, Generation],
        )
        self._local = threading.local()
        self.filters = bounded_filters(self)
        self.tests = bounded_tests(self)
        self.globals.pop("lipsum")  # text at random, for designers
        self.globals |= {
            "dict": _Dict(),
            "namespace": _Namespace,
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
        }

    # The budget of the thread

    @property
    def budget(self) -> Budget:
        budget: Budget = self._local.budget
        return budget

    @contextlib.contextmanager
    def spending(self, budget: Budget) -> Iterator[None]:
        before = getattr(self._local, "budget", None)
        self._local.budget = budget
        try:
            yield
        finally:
            self._local.budget = before

    def spend(self, weight: int) -> None:
        self._local.budget.spend(weight)

    def count_turn(self) -> bool:
        self._local.budget.spend(0)
        return True

    def made(self, value: Any) -> Any:
        return self._local.budget.made(value)

    # What compiled templates call

    def binary(self, sign: str, left: Any, right: Any) -> Any:
        budget = self.budget
        check_binary(budget, sign, left, right)
        return budget.made(self.binop_table[sign](left, right))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        return self.binary(operator, left, right)

    def joined(self, context: Context, parts: Sequence[Any]) -> str:
        budget = self.budget
        check_texts(budget, "", list(parts))
        join = markup_join if context.eval_ctx.autoescape else str_join
        text: str = budget.made(join(parts))
        return text

    def compared(self, left: Any, *rest: Any) -> Any:
        """``left``, then signs and operands in turn."""
        result: Any = True
        for sign, right in zip(rest[::2], rest[1::2], strict=True):
            result = COMPARISONS[sign](left, right)
            self._local.budget.spend(0)
            if not isinstance(left, _AT_ONCE) and not isinstance(right, _AT_ONCE):
                self._local.budget.work(NODE * len(_sized(right)))
            if not result:
                return result
            left = right
        return result

    def dictionary(self, items: Sequence[Any]) -> dict[Any, Any]:
        budget = self.budget
        for key in items[::2]:
            budget.weight(key)
        made: dict[Any, Any] = budget.made(dict(zip(items[::2], items[1::2], strict=True)))
        return made

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        budget = __self.budget
        budget.spend(NODE * (len(args) + len(kwargs)))
        owner = getattr(__obj, "__self__", None) if isinstance(__obj, (BuiltinMethodType, MethodType)) else None
        if owner is not None:
            args = _checked(budget, owner, __obj.__name__, args, kwargs)
        return budget.made(super().call(__context, __obj, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Any:
        """``str.format`` and ``str.format_map``, wherever a template gets hold of one."""
        if not isinstance(value, (MethodType, BuiltinMethodType)) or value.__name__ not in ("format", "format_map"):
            return None
        text = value.__self__
        if not isinstance(text, str):
            return None

        def format_text(*args: Any, **kwargs: Any) -> str:
            values = args[0] if value.__name__ == "format_map" else kwargs
            made: str = _Formatter(self).vformat(text, () if values is not kwargs else args, values)
            return made

        return format_text

    def _generate(self, source: nodes.Template, *args: Any, **kwargs: Any) -> str:
        # Jinja copies the table of names for each branch.
        names = len({node.name for node in source.find_all(nodes.Name)})
        if names * sum(1 for _ in source.find_all(nodes.If)) > _MOST_NAMES_IN_BRANCHES:
            raise TemplateLimit("it has too many branches for its number of variables")
        code: str = super()._generate(source, *args, **kwargs)
        if len(code) > _LONGEST_CODE:
            raise TemplateLimit(f"it is {len(code)} characters of code; at most {_LONGEST_CODE} are possible")
        return code


def _checked(
    budget: Budget, owner: Any, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Any, ...]:
    """The arguments of a method of a builtin type; other methods are those of Jinja's own objects."""
    kind = next((kind for kind in METHODS if isinstance(owner, kind)), None)
    if kind is None:
        if type(owner).__module__ == "builtins" and not hasattr(owner, "__next__"):
            raise SecurityError(f"{type(owner).__name__}.{name} is nothing that a template may call")
        return args
    if name not in METHODS[kind]:
        raise SecurityError(f"{kind.__name__}.{name} is nothing that a template may call")
    if kind is str and name == "join":
        args = (list(*args),)
    budget.work(len(owner) if kind is str else 0)
    own = {key: value for key, value in kwargs.items() if not key.startswith("_")}  # Jinja adds variables of a loop
    METHODS[kind][name](budget, owner, *args, **own)
    return args


def _sized(value: Any) -> Any:
    return value if hasattr(value, "__len__") else ()


@pass_context
def _finalize(context: Context, value: Any) -> Any:
    """What is printed. It takes the context so that nothing is printed while compiling."""
    budget: Budget = context.environment.budget  # type: ignore[attr-defined]
    if isinstance(value, str):
        budget.spend(len(value))
        return value
    if isinstance(value, (list, tuple, dict, set)):
        check_texts(budget, "", [value])
    if hasattr(value, "__html__"):
        return value
    text = str(value)
    budget.spend(len(text))
    return text


def _raise_exception(message: Any) -> None:
    raise TemplateRefusal(str(message)[:1000])


def _strftime_now(format: str) -> str:
    if len(format) > 1000:
        raise TemplateLimit("it formats a date with more than 1000 characters")
    return datetime.datetime.now().strftime(format)


_environment = BoundedEnvironment()


class BoundedTemplate:
    """A compiled template. Thread-safe."""

    def __init__(self, source: str) -> None:
        """Raises TemplateLimit, or whatever Jinja and Python raise for what they cannot compile."""
        if len(source) > _LONGEST_SOURCE:
            raise TemplateLimit(f"it has {len(source)} characters; at most {_LONGEST_SOURCE} are possible")
        with _environment.spending(Budget(seconds=0.4)):
            self._template = _environment.from_string(source)

    def render(self, variables: Mapping[str, Any], budget: Budget) -> str:
        with _environment.spending(budget):
            text = self._template.render(variables)
        budget.look()
        budget.fits(len(text))
        return text
