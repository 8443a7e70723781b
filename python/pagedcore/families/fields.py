"""Typed access to the values of a configuration that anybody may have written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from ..errors import Corrupt, Unsupported

__all__ = ["Fields"]

_INT32_MAX = 2**31 - 1
_MOST, _LEAST = 3.4e38, 1.2e-38  # of floats of 32 bits: what is computed with them, and their inverses, are finite
_MOST_ELEMENTS = 1 << 16
_T = TypeVar("_T")


class Fields:
    """A mapping whose values are checked when they are asked for. ``None`` and absence are the same, unless ``in`` is
    asked. Every message begins with ``source``, the file."""

    def __init__(
        self, values: Mapping[str, Any], source: str, prefix: str = "", names: Mapping[str, str] | None = None
    ) -> None:
        self.values = values
        self.source = source
        self.prefix = prefix
        self.names = names or {}

    def renamed(self, **names: str) -> Fields:
        """The same values, of which some have another name than the one they are asked for by."""
        return Fields(self.values, self.source, self.prefix, {**self.names, **names})

    def defaulting(self, **values: Any) -> Fields:
        """With what is taken to be there when a name is not."""
        known = {self.name_of(name): value for name, value in values.items()}
        return Fields({**known, **self.values}, self.source, self.prefix, self.names)

    def replacing(self, **values: Any) -> Fields:
        """With these in place of what is there."""
        known = {self.name_of(name): value for name, value in values.items()}
        return Fields({**self.values, **known}, self.source, self.prefix, self.names)

    def name_of(self, name: str) -> str:
        """What the file calls it."""
        return self.prefix + self.names.get(name, name)

    def __contains__(self, name: str) -> bool:
        return self.name_of(name) in self.values

    def get(self, name: str) -> Any:
        """An array, as GGUF files have them, is a list, unless it has more elements than any field."""
        value: Any = self.values.get(self.name_of(name))
        return value.tolist() if isinstance(value, memoryview) and len(value) <= _MOST_ELEMENTS else value

    def refuse(self, name: str, problem: str) -> Corrupt:
        value = repr(self.get(name))
        if len(value) > 80:
            value = value[:77] + "..."
        return Corrupt(f"{self.source}: {self.name_of(name)} = {value} {problem}")

    def unsupported(self, name: str, served: Iterable[str]) -> Unsupported:
        value = str(self.get(name))
        return Unsupported(
            f"{self.source}: {self.name_of(name)} '{value[:80]}' is not supported; supported are {', '.join(served)}"
        )

    def _or_missing(self, name: str, default: _T | None) -> _T:
        if default is None:
            raise Corrupt(f"{self.source}: {self.name_of(name)} is missing")
        return default

    def integer(self, name: str, default: int | None = None, *, minimum: int = 1, maximum: int = _INT32_MAX) -> int:
        """Required when there is no default, which has the same limits."""
        value = self.get(name)
        if value is None:
            value = self._or_missing(name, default)
            if minimum <= value <= maximum:
                return value
            raise Corrupt(
                f"{self.source}: {self.name_of(name)} is missing; what follows from the rest, {value}, is outside "
                f"[{minimum}, {maximum}]"
            )
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.refuse(name, "is not an integer")
        if not minimum <= value <= maximum:
            raise self.refuse(name, f"is outside [{minimum}, {maximum}]")
        return value

    def number(self, name: str, default: float | None = None, *, above: float | None = None) -> float:
        """A finite number greater than ``above``, as those of 32 bits are. Required when there is no default."""
        value = self.get(name)
        if value is None:
            return self._or_missing(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.refuse(name, "is not a number")
        try:
            number = float(value)
        except OverflowError:
            raise self.refuse(name, "is too large") from None
        if not abs(number) <= _MOST or (above is not None and (number <= above or number < _LEAST)):
            raise self.refuse(name, "is not finite" if above is None else f"is not a finite number above {above}")
        return number

    def flag(self, name: str, default: bool) -> bool:
        value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.refuse(name, "is neither true nor false")
        return value

    def text(self, name: str, default: str | None = None) -> str:
        value = self.get(name)
        if value is None:
            return self._or_missing(name, default)
        if not isinstance(value, str):
            raise self.refuse(name, "is not text")
        return value

    def mapping(self, name: str) -> Fields:
        """A nested object; empty when absent."""
        value = self.get(name)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise self.refuse(name, "is not an object")
        return Fields(value, f"{self.source}: {self.name_of(name)}")

    def numbers(self, name: str, length: int, *, above: float) -> list[float]:
        """A list of that many finite numbers, all greater than ``above``. Required."""
        value = self.get(name)
        if not isinstance(value, list) or len(value) != length:
            raise self.refuse(name, f"is not a list of {length} numbers")
        for number in value:
            if isinstance(number, bool) or not isinstance(number, (int, float)) or not above < number < 1e38:
                raise self.refuse(name, f"is not a list of finite numbers above {above}")
        return [float(number) for number in value]

    def token_ids(self, name: str) -> list[int]:
        """One id or a list of them; empty when absent."""
        value = self.get(name)
        if value is None:
            return []
        ids = value if isinstance(value, list) else [value]
        for token in ids:
            if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token <= _INT32_MAX:
                raise self.refuse(name, "is neither a token id nor a list of them")
        return list(dict.fromkeys(ids))
