"""What a template may use, and how large values are."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jinja2.utils import Namespace

from ..arguments import shown
from ..errors import InvalidArgument

__all__ = ["MOST_BITS", "NODE", "Budget", "Given", "TemplateLimit"]

NODE = 32
"""What an element of a list or dictionary weighs; a character of a text weighs 1."""

MOST_BITS = 256
"""Of an integer: arithmetic with huge ones is slow, and no prompt needs them."""

_DEEPEST = 100
_MOST_STEPS = 2_000_000
_MOST_INPUT = 512 << 20
_MOST_VALUES = 1_000_000
_BETWEEN_LOOKS = 32768  # units of work, some 30 microseconds, between two looks at the clock


class TemplateLimit(Exception):
    """A template asks for more than it may have."""


class Budget:
    """What one use of a template may take, in all: seconds of its thread's processor time (that of other threads, for
    which it may have to wait, is not its own), steps (turns of loops, calls, operators), and what its values weigh.
    Limits grow with the weight of the input, as what templates make of it does. For one thread."""

    def __init__(self, given: Given | None = None, *, seconds: float = 0.6) -> None:
        """``given``: what is passed to the template."""
        weight_of_input = 0 if given is None else given.weight
        self._known = {} if given is None else given.weights
        self.largest = (4 << 20) + 8 * weight_of_input
        """Weight of the largest value."""
        self._seconds = seconds
        self._total = (64 << 20) + 64 * weight_of_input
        self._left = self._total
        self._steps = _MOST_STEPS
        self._until_look = _BETWEEN_LOOKS
        self._end = time.thread_time() + seconds

    def spend(self, weight: int) -> None:
        """Counts a step that makes a value of this weight."""
        self._left -= weight
        self._steps -= 1
        self._until_look -= weight + 64
        if self._until_look < 0:
            self.look()

    def work(self, amount: int) -> None:
        """Counts work that makes no value: characters that are looked at."""
        self._until_look -= amount
        if self._until_look < 0:
            self.look()

    def look(self) -> None:
        """Raises TemplateLimit if the budget is used up."""
        self._until_look = _BETWEEN_LOOKS
        if time.thread_time() > self._end:
            raise TemplateLimit(f"it takes more than {self._seconds:g} s of processor time")
        if self._steps < 0:
            raise TemplateLimit(f"it takes more than {_MOST_STEPS} steps (turns of loops, calls and operators)")
        if self._left < 0:
            raise TemplateLimit(f"it makes texts and lists of more than {self._total} characters in all")

    def fits(self, weight: Any) -> None:
        """Raises TemplateLimit if a value of this weight, which is to be made, is too large."""
        if isinstance(weight, (int, float)) and weight > self.largest:
            size = f"{weight:d}" if isinstance(weight, int) and weight < 10**18 else "more than 10^18"
            raise TemplateLimit(f"it makes a text or list of {size} characters; at most {self.largest} are possible")

    def weight(self, value: Any) -> int:
        """What a value weighs with all that is in it, each as often as it is there. Raises TemplateLimit if that is
        more than the largest value may weigh, or nests too deep."""
        if isinstance(value, str):
            return len(value)
        total, rest = NODE, [(value, 0)]
        while rest:
            item, depth = rest.pop()
            if isinstance(item, str):
                total += len(item)
            elif isinstance(item, (list, tuple, dict, set, frozenset)):
                if (known := self._known.get(id(item))) is not None:
                    total += known
                    continue
                if depth >= _DEEPEST:
                    raise TemplateLimit(f"it nests lists more than {_DEEPEST} deep")
                total += NODE * len(item)
                self.fits(total)
                rest.extend((inner, depth + 1) for inner in item)
                if isinstance(item, dict):
                    total += NODE * len(item)
                    rest.extend((inner, depth + 1) for inner in item.values())
            elif isinstance(item, Namespace):
                raise TemplateLimit("it keeps a namespace in a list or dictionary")
        self.fits(total)
        self.work(total)
        return total

    def made(self, value: Any) -> Any:
        """Accepts a value that an operation has made."""
        if isinstance(value, str):
            self.fits(len(value))
            self.spend(len(value))
        elif isinstance(value, (list, tuple, dict, set)):
            self.weight(value)
            self.spend(NODE * len(value))
        elif isinstance(value, int):
            _check_bits(value)
            self.spend(0)
        elif isinstance(value, Iterator):
            self.spend(0)
            return self._counted(value)
        else:
            self.spend(0)
        return value

    def _counted(self, iterator: Any) -> Any:
        for item in iterator:
            self.spend(0)
            yield item


def _check_bits(value: int) -> None:
    if value.bit_length() > MOST_BITS:
        raise TemplateLimit(f"it computes with an integer of {value.bit_length()} bits; {MOST_BITS} are possible")


class Given:
    """What a caller passes to a template, copied by ``plain``."""

    def __init__(self) -> None:
        self.weight = 0
        self._values = 0
        self._path: list[Any] = []  # to the value that is being copied
        self.weights: dict[int, int] = {}
        """Of each list and dictionary of the copies, by its id: they live as long as the copies do."""

    def plain(self, value: Any, where: str) -> Any:
        """A copy that is made of nothing but JSON's types: methods of other objects are nothing that a template should
        reach. Dataclasses and objects with ``model_dump`` become dictionaries, numpy's scalars numbers. ``where``: what
        the value is, for errors. Raises InvalidArgument, with the place in there, for anything else."""
        self._path = [where]
        return self._plain(value, 0)

    def _plain(self, value: Any, depth: int) -> Any:
        before = self.weight
        self.weight += len(value) + NODE if isinstance(value, str) else NODE
        self._values += 1
        if depth > _DEEPEST or self.weight > _MOST_INPUT or self._values > _MOST_VALUES:
            raise InvalidArgument(
                f"what is passed to the chat template has more than {_MOST_VALUES} values or {_MOST_INPUT} characters, "
                f"or nests them more than {_DEEPEST} deep"
            )
        if value is None or type(value) in (str, int, float, bool):
            return value
        for kind, make in _SCALARS:
            if isinstance(value, kind):
                return make(value)
        made: Any
        if isinstance(value, Mapping):
            made = {self._key(key): self._inner(key, inner, depth) for key, inner in value.items()}
        elif isinstance(value, (list, tuple)):
            made = [self._inner(at, inner, depth) for at, inner in enumerate(value)]
        elif isinstance(value, type):
            raise self._refused(value)
        elif callable(getattr(value, "model_dump", None)):
            return self._plain(value.model_dump(), depth + 1)
        elif dataclasses.is_dataclass(value):
            made = {f.name: self._inner(f.name, getattr(value, f.name), depth) for f in dataclasses.fields(value)}
        elif getattr(value, "ndim", None) == 0 and callable(getattr(value, "item", None)):  # numpy's scalars
            item = value.item()
            if type(item) is type(value):
                raise self._refused(value)
            return self._plain(item, depth + 1)
        else:
            raise self._refused(value)
        self.weights[id(made)] = self.weight - before
        return made

    def _inner(self, step: Any, value: Any, depth: int) -> Any:
        self._path.append(step)
        made = self._plain(value, depth + 1)
        self._path.pop()
        return made

    def _key(self, key: Any) -> Any:
        if key is None or isinstance(key, (str, int, float)):
            return self._plain(key, 0)
        raise InvalidArgument(f"{self._place()} has the key {shown(key)}: keys are texts")

    def _refused(self, value: Any) -> InvalidArgument:
        hint = "; decode it first" if isinstance(value, (bytes, bytearray)) else ""
        return InvalidArgument(
            f"{self._place()} is {shown(value)}, of the type {type(value).__name__}: a chat template takes texts, "
            f"numbers, lists and dictionaries{hint}"
        )

    def _place(self) -> str:
        inside = "".join(f"[{shown(step)}]" for step in self._path[1:])
        return f"{inside} of {self._path[0]}" if inside else str(self._path[0])


# Subclasses have methods of their own: enumerations, numpy's float64.
_SCALARS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
)
