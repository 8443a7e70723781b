"""The merges of a vocabulary that has scores in their place, as SentencePiece's BPE has.

SentencePiece joins, of all neighbours whose union is a token, those with the best score. So there is a merge for every
way to cut a token in two others. Which cuts these are is told by hashes of all beginnings and ends (Karp and Rabin,
1987, with a base that nobody can foresee), so that the time grows with the length of the vocabulary, not with squares
of the lengths of tokens; what they find is compared as text.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..errors import Corrupt

__all__ = ["merges_of_scores"]

LONGEST_TOKEN = 1 << 16  # characters
_PRIME = 2**31 - 1  # products of two numbers below it, and sums of 2^32, fit 64 bits
_CHUNK = 1 << 18  # characters that are looked at together
_MOST_WAYS = 32
"""To cut a token, on average by length: published vocabularies have 2 to 4. Each becomes two texts in memory."""
_FEW = 4 << 20  # characters of merges that any vocabulary may have

_Array = np.ndarray[Any, Any]


def merges_of_scores(tokens: Sequence[str], scores: Sequence[float]) -> list[tuple[str, str]]:
    """Best score first; ties by the longer left part, then by the order of ids. Tokens are distinct. Raises Corrupt for
    tokens that can be put together in so many ways that the merges would fill the memory."""
    longest = max(map(len, tokens), default=0)
    if longest > LONGEST_TOKEN:
        raise Corrupt(f"a token has {longest} characters; at most {LONGEST_TOKEN} are served")
    hashes = _Hashes()
    known = np.sort(np.concatenate([hashes.of_tokens(chunk) for _, chunk in _chunks(tokens)] or [_ints([])]))
    most = _MOST_WAYS * sum(map(len, tokens)) + _FEW
    ids = {token: index for index, token in enumerate(tokens)}
    found: list[tuple[int, int, int]] = []  # token, left part, right part
    total = 0
    for first, chunk in _chunks(tokens):
        owners, middles = hashes.cuts(chunk, known)
        total += sum(len(chunk[owner]) for owner in owners)
        if total > most:
            raise Corrupt(
                f"its tokens can be put together in too many ways: the merges would have over {most} characters"
            )
        for owner, middle in zip(owners, middles, strict=True):
            token = chunk[owner]
            left, right = ids.get(token[:middle]), ids.get(token[middle:])
            if left is not None and right is not None:
                found.append((first + owner, left, right))
    return [(tokens[left], tokens[right]) for _, left, right in _ordered(found, tokens, scores)]


def _ordered(
    found: list[tuple[int, int, int]], tokens: Sequence[str], scores: Sequence[float]
) -> Iterator[tuple[int, int, int]]:
    if not found:
        return iter(())
    joined, left, right = np.array(found, np.int64).T
    lengths = _ints([len(token) for token in tokens])
    keys = (right, left, joined, -lengths[right], -lengths[left], -np.array(scores, np.float64)[joined])
    return (found[index] for index in np.lexsort(keys).tolist())


def _ints(values: Sequence[int]) -> _Array:
    return np.array(values, np.int64)


def _chunks(tokens: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Tokens that stand together, and the index of the first."""
    first, size = 0, 0
    for index, token in enumerate(tokens):
        if size and size + len(token) > _CHUNK:
            yield first, list(tokens[first:index])
            first, size = index, 0
        size += len(token)
    if first < len(tokens):
        yield first, list(tokens[first:])


class _Hashes:
    """Of texts: the sum of their characters times powers of a base, modulo a prime; with their lengths."""

    def __init__(self) -> None:
        base = secrets.randbelow(_PRIME - 2**20) + 2**20
        self._powers = _powers(base)
        self._inverse = _powers(pow(base, -1, _PRIME))

    def of_tokens(self, tokens: list[str]) -> _Array:
        sums, begins, ends = self._sums(tokens)
        return self._between(sums, begins, ends)

    def cuts(self, tokens: list[str], known: _Array) -> tuple[list[int], list[int]]:
        """Where tokens can be cut into two texts whose hashes are known: their indices, and how long the left parts
        are."""
        sums, begins, ends = self._sums(tokens)
        inner = np.maximum(ends - begins - 1, 0)
        owners = np.repeat(np.arange(len(tokens)), inner)
        middles = np.arange(len(owners)) - np.repeat(np.cumsum(inner) - inner, inner) + begins[owners] + 1
        fits = _among(self._between(sums, begins[owners], middles), known)
        owners, middles = owners[fits], middles[fits]
        fits = _among(self._between(sums, middles, ends[owners]), known)
        owners, middles = owners[fits], middles[fits]
        return owners.tolist(), (middles - begins[owners]).tolist()

    def _sums(self, tokens: list[str]) -> tuple[_Array, _Array, _Array]:
        """Sums over all characters before each place, and where tokens begin and end."""
        ends = np.cumsum(_ints([len(token) for token in tokens]))
        begins = np.concatenate([_ints([0]), ends[:-1]])
        characters = np.frombuffer("".join(tokens).encode("utf-32-le"), np.uint32).astype(np.int64) + 1
        sums = np.cumsum(characters * self._powers[: len(characters)] % _PRIME)
        return np.concatenate([_ints([0]), sums]) % _PRIME, begins, ends

    def _between(self, sums: _Array, begins: _Array, ends: _Array) -> _Array:
        hashes: _Array = (sums[ends] - sums[begins]) % _PRIME * self._inverse[begins] % _PRIME
        hashes += (ends - begins) * 2**31
        return hashes


def _powers(base: int) -> _Array:
    count = _CHUNK + LONGEST_TOKEN + 1
    powers = np.ones(count, np.int64)
    size = 1
    while size < count:
        step = powers[: min(size, count - size)]
        powers[size : size + len(step)] = step * pow(base, size, _PRIME) % _PRIME
        size *= 2
    return powers


def _among(values: _Array, known: _Array) -> _Array:
    at = np.minimum(np.searchsorted(known, values), len(known) - 1)
    found: _Array = known[at] == values
    return found
