"""Typed access to the values of a configuration that anybody may have written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeVar

from ..errors import Corrupt

__all__ = ["Fields"]

_INT32_MAX = 2**31 - 1
_T = TypeVar("_T")


class Fields:
    """A mapping whose values are checked when they are asked for. ``None`` and absence are the same, unless ``in`` is
    asked. Every message begins with ``source``, the file."""

    def __init__(self, values: Mapping[str, Any], source: str, prefix: str = "") -> None:
        self.values = values
        self.source = source
        self.prefix = prefix

    def __contains__(self, name: str) -> bool:
        return self.prefix + name in self.values

    def get(self, name: str) -> Any:
        return self.values.get(self.prefix + name)

    def refuse(self, name: str, problem: str) -> Corrupt:
        value = repr(self.get(name))
        if len(value) > 80:
            value = value[:77] + "..."
        return Corrupt(f"{self.source}: {self.prefix}{name} = {value} {problem}")

    def _or_missing(self, name: str, default: _T | None) -> _T:
        if default is None:
            raise Corrupt(f"{self.source}: {self.prefix}{name} is missing")
        return default

    def integer(self, name: str, default: int | None = None, *, minimum: int = 1, maximum: int = _INT32_MAX) -> int:
        """Required when there is no default."""
        value = self.get(name)
        if value is None:
            return self._or_missing(name, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.refuse(name, "is not an integer")
        if not minimum <= value <= maximum:
            raise self.refuse(name, f"is outside [{minimum}, {maximum}]")
        return value

    def number(self, name: str, default: float | None = None, *, above: float | None = None) -> float:
        """A finite number greater than ``above``. Required when there is no default."""
        value = self.get(name)
        if value is None:
            return self._or_missing(name, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.refuse(name, "is not a number")
        try:
            number = float(value)
        except OverflowError:
            raise self.refuse(name, "is too large") from None
        if not math.isfinite(number) or (above is not None and number <= above):
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
        return Fields(value, f"{self.source}: {self.prefix}{name}")

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
