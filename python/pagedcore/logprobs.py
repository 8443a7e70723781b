"""Log-probabilities as they come from the engine, in arrays: what is looked at becomes a dictionary, nothing else."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Sequence
from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple, overload

if TYPE_CHECKING:
    import numpy as np

    from . import _core

__all__ = ["Logprob", "Logprobs"]

_ENTRY = Struct("=ifi")  # token, log-probability, rank: pagedcore::TokenLogprob


class Logprob(NamedTuple):
    """A token's natural-log probability under the model, before penalties and temperature."""

    logprob: float
    rank: int
    """1 is the most likely token."""
    decoded_token: str | None


class _Table(NamedTuple):
    """Native memory, which lives as long as this."""

    chosen: memoryview
    counts: memoryview
    others: memoryview
    width: int
    size: int
    """Positions, of those that there are, that count."""


class Logprobs(Sequence[Any]):
    """For each token a dictionary from token ids to :class:`Logprob`: the token itself first, then the most likely,
    then those of ``logprob_token_ids``; None for a token of a prompt that was not scored.

    A sequence that equals the list of its elements. They are made when they are looked at: thousands of positions of a
    whole vocabulary are 12 bytes a number. :meth:`chosen` and :meth:`others` give the arrays.
    """

    __slots__ = ("_ends", "_tables", "_text", "_unscored")

    def __init__(self, token_text: Callable[[int], str] | None, unscored: int = 0) -> None:
        self._text = token_text
        self._unscored = unscored
        self._tables: list[_Table] = []
        self._ends: list[int] = []  # the number of positions up to the end of each table

    def add(self, native: _core.LogprobTable, size: int) -> float:
        """Appends the first ``size`` positions of a table. Returns the sum of their tokens' log-probabilities."""
        if size == 0:
            return 0.0
        chosen, counts, others = native.views()
        self._tables.append(_Table(chosen, counts.cast("I"), others, native.width, size))
        self._ends.append(len(self) + size)
        return float(sum(entry[1] for entry in _ENTRY.iter_unpack(chosen[: size * _ENTRY.size])))

    def extend(self, other: Logprobs) -> None:
        for table in other._tables:
            self._tables.append(table)
            self._ends.append(len(self) + table.size)

    def without_first(self, count: int) -> Logprobs:
        """Of the same memory, less so many positions."""
        rest = Logprobs(self._text, max(self._unscored - count, 0))
        left_out = max(count - self._unscored, 0)
        for chosen, counts, others, width, size in self._tables:
            skip = min(left_out, size)
            left_out -= skip
            if skip < size:
                cut = skip * _ENTRY.size
                rest._tables.append(_Table(chosen[cut:], counts[skip:], others[cut * width :], width, size - skip))
                rest._ends.append(len(rest) + size - skip)
        return rest

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else self._unscored

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self._position(at) for at in range(*index.indices(len(self)))]
        at = index.__index__()
        if not -len(self) <= at < len(self):
            raise IndexError(f"position {index} of {len(self)}")
        return self._position(at % len(self))

    def __iter__(self) -> Iterator[Any]:
        return map(self._position, range(len(self)))

    def _position(self, at: int) -> dict[int, Logprob] | None:
        if at < self._unscored:
            return None
        table = bisect.bisect_right(self._ends, at)
        chosen, counts, others, width, size = self._tables[table]
        at -= self._ends[table] - size
        begin = at * width * _ENTRY.size
        found: dict[int, Logprob] = {}
        for entries in (
            chosen[at * _ENTRY.size : (at + 1) * _ENTRY.size],
            others[begin : begin + counts[at] * _ENTRY.size],
        ):
            for token, logprob, rank in _ENTRY.iter_unpack(entries):
                found[token] = Logprob(logprob, rank, None if self._text is None else self._text(token))
        return found

    def chosen(self) -> np.ndarray[Any, Any]:
        """``[scored positions]`` of the fields token, logprob and rank: the tokens themselves. One table is no copy."""
        return self._array(lambda table: (table.chosen, (table.size,)))

    def others(self) -> np.ndarray[Any, Any]:
        """``[scored positions, width]`` of the same fields: what else was reported. Token -1, rank 0 where a position
        has fewer, since tokens of probability 0 are left out."""
        return self._array(lambda table: (table.others, (table.size, table.width)))

    def _array(self, part: Callable[[_Table], tuple[memoryview, tuple[int, ...]]]) -> np.ndarray[Any, Any]:
        import numpy as np

        kind = np.dtype([("token", np.int32), ("logprob", np.float32), ("rank", np.int32)])
        arrays: list[np.ndarray[Any, Any]] = []
        for table in self._tables:
            view, shape = part(table)
            count = int(np.prod(shape))
            array = np.frombuffer(view, kind, count) if count else np.empty(0, kind)
            arrays.append(array.reshape(shape))
        if len(arrays) == 1:
            return arrays[0]
        width = max((table.width for table in self._tables), default=0)
        missing = np.array((-1, 0.0, 0), kind)
        for at, array in enumerate(arrays):
            if array.ndim == 2 and array.shape[1] < width:
                wider = np.full((array.shape[0], width), missing)
                wider[:, : array.shape[1]] = array
                arrays[at] = wider
        return np.concatenate(arrays) if arrays else np.empty(part(_NOTHING)[1], kind)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, (str, bytes)):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # it grows while its request runs

    def __repr__(self) -> str:
        return repr(list(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)


_NOTHING = _Table(memoryview(b""), memoryview(b""), memoryview(b""), 0, 0)
