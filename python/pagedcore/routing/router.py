"""What one router knows, and what it does with it."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..checks import check_real
from ..errors import InvalidArgument
from .digest import PrefixDigest
from .load import Load, predicted_wait
from .prefix_map import PrefixMap

__all__ = ["Arriving", "Choice", "News", "Policy", "Router"]

_MOST_REPLICAS = 1 << 16
_KEPT = ("outstanding", "waits", "token_seconds", "crowd_seconds", "heard", "_there")
"""Arrays of a router, by slot."""


@dataclass(frozen=True)
class News:
    """What a replica says of itself."""

    load: Load
    digest: PrefixDigest | None = None
    """None: it keeps no prefixes, or does not say which."""

    def to_dict(self) -> dict[str, Any]:
        return {"load": self.load.to_dict(), "digest": None if self.digest is None else self.digest.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> News:
        """Raises InvalidArgument for what no replica of this version says."""
        try:
            digest = values["digest"]
            return cls(Load(**values["load"]), None if digest is None else PrefixDigest(**digest))
        except (KeyError, TypeError) as error:
            raise InvalidArgument(f"a replica's news have no load and digest of this version: {error}") from None


@dataclass(frozen=True)
class Arriving:
    """A request that wants a replica."""

    tokens: int
    """Of its prompt, or about so many."""
    chain: Sequence[int] = ()
    """Hashes of its blocks (chain_hashes()); none: it shares no prefix that routers may know of."""


@dataclass(frozen=True)
class Choice:
    replica: Hashable
    cached: int
    """Tokens of the prompt that it is thought to have."""


@dataclass
class _Replica:
    name: Hashable
    load: Load = field(default_factory=Load)
    heard: float | None = None
    """When there was news; None: never."""
    own: dict[Hashable, tuple[float, int]] = field(default_factory=dict)
    """Requests of this router on it: when each was sent, and its tokens that were not cached."""


class Policy(ABC):
    """Chooses among the replicas that `router` knows. Subclasses say how."""

    wants_prefixes = False
    """Whether an arriving request needs the hashes of its blocks."""

    @abstractmethod
    def choose(self, router: Router, arriving: Arriving, usable: npt.NDArray[np.bool_]) -> tuple[int, int]:
        """Slot, and cached blocks. ``usable``: one at least."""


class Router:
    """One of any number of routers that know nothing of each other. Seconds are on the owner's clock. Not thread-safe:
    one event loop owns it."""

    def __init__(self, policy: Policy, *, max_age: float = 30.0, lag: float = 1.0, seed: int = 0) -> None:
        """
        Args:
            max_age: Seconds after which news are none: nothing but what this router sent itself counts then.
            lag: Seconds that news may have been on their way. What was sent later is not in them.
        """
        check_real("max_age", max_age, 0, 1e6, above_low=True)
        check_real("lag", lag, 0, 1e6)
        self.policy = policy
        self.prefixes = PrefixMap()
        self.random = random.Random(seed)
        self.max_age, self.lag = max_age, lag
        self._replicas: list[_Replica | None] = []
        self._slots: dict[Hashable, int] = {}
        self._on: dict[Hashable, int] = {}
        """Slots of the requests that are on their way."""
        self.outstanding = np.zeros(0)
        """Requests by slot: those that were there when it last said so, and those that were sent since."""
        self.waits = np.zeros(0)
        """Seconds by slot that a newcomer would wait."""
        self.token_seconds = np.zeros(0)
        self.crowd_seconds = np.zeros(0)
        self.heard = np.zeros(0)
        """When each said something last; -infinity: never."""
        self.now = 0.0
        self._there = np.zeros(0, bool)

    def __len__(self) -> int:
        return len(self._slots)

    def set_replicas(self, names: Iterable[Hashable]) -> None:
        """Those that there are from now on."""
        wanted = dict.fromkeys(names)
        for name in [name for name in self._slots if name not in wanted]:
            self._remove(name)
        for name in wanted:
            if name not in self._slots:
                self._add(name)

    def _add(self, name: Hashable) -> None:
        if len(self._slots) >= _MOST_REPLICAS:
            raise InvalidArgument(f"more than {_MOST_REPLICAS:,} replicas: a router knows so many at most")
        slot = next((at for at, replica in enumerate(self._replicas) if replica is None), len(self._replicas))
        if slot == len(self._replicas):
            self._replicas.append(None)
            for kept in _KEPT:
                values = getattr(self, kept)
                setattr(self, kept, np.append(values, np.zeros(1, values.dtype)))
        self._replicas[slot] = _Replica(name)
        self._slots[name] = slot
        self._there[slot] = True
        for values in (self.outstanding, self.waits, self.token_seconds, self.crowd_seconds):
            values[slot] = 0.0
        self.heard[slot] = -np.inf

    def _remove(self, name: Hashable) -> None:
        slot = self._slots.pop(name)
        replica = self._replicas[slot]
        assert replica is not None
        for request in replica.own:
            self._on.pop(request, None)
        self._replicas[slot] = None
        self._there[slot] = False
        self.prefixes.forget(slot)

    def news(self, name: Hashable, news: News, now: float) -> None:
        """Of a replica that is not known: nothing happens."""
        slot = self._slots.get(name)
        replica = None if slot is None else self._replicas[slot]
        if slot is None or replica is None:
            return
        replica.load, replica.heard = news.load, now
        self.heard[slot] = now
        self.token_seconds[slot] = news.load.token_seconds
        self.crowd_seconds[slot] = news.load.crowd_seconds
        if news.digest is not None:
            self.prefixes.report(slot, news.digest)
        self._count(slot, replica)

    def choose(self, arriving: Arriving, now: float, among: Iterable[Hashable] | None = None) -> Choice:
        """Raises InvalidArgument where there is no replica."""
        self.now = max(self.now, now)
        self.prefixes.expire(now)
        for stale in np.flatnonzero(self._there & ~self.fresh() & (self.heard > -np.inf)):
            self.prefixes.forget_report(int(stale))
        usable = self._there
        if among is not None:
            usable = np.zeros(len(self._there), bool)
            usable[[self._slots[name] for name in among if name in self._slots]] = True
        if not usable.any():
            raise InvalidArgument("there is no replica to send a request to")
        slot, blocks = self.policy.choose(self, arriving, usable)
        replica = self._replicas[slot]
        assert replica is not None
        return Choice(replica.name, min(blocks * self.prefixes.block_size, max(arriving.tokens - 1, 0)))

    def sent(self, request: Hashable, choice: Choice, arriving: Arriving, now: float) -> None:
        slot = self._slots.get(choice.replica)
        replica = None if slot is None else self._replicas[slot]
        if slot is None or replica is None:
            return
        replica.own[request] = now, arriving.tokens - choice.cached
        self._on[request] = slot
        if arriving.chain and self.policy.wants_prefixes:
            self.prefixes.sent(slot, arriving.chain, now + self.max_age)
        self.outstanding[slot] += 1
        self._predict(slot, replica)

    def ended(self, request: Hashable) -> None:
        slot = self._on.pop(request, None)
        replica = None if slot is None else self._replicas[slot]
        if slot is None or replica is None:
            return
        replica.own.pop(request, None)
        self.outstanding[slot] = max(self.outstanding[slot] - 1, 0)
        self._predict(slot, replica)

    def fresh(self) -> npt.NDArray[np.bool_]:
        """Slots with news that are not too old."""
        fresh: npt.NDArray[np.bool_] = self._there & (self.heard >= self.now - self.max_age)
        return fresh

    def wait(self, slot: int, tokens: int) -> float:
        """Of a newcomer with so many tokens to compute."""
        replica = self._replicas[slot]
        assert replica is not None
        return predicted_wait(self._loaded(replica), tokens)

    def _count(self, slot: int, replica: _Replica) -> None:
        unheard = self._unheard(replica)
        self.outstanding[slot] = replica.load.waiting + replica.load.running + len(unheard)
        self._predict(slot, replica)

    def _predict(self, slot: int, replica: _Replica) -> None:
        self.waits[slot] = predicted_wait(self._loaded(replica))

    def _unheard(self, replica: _Replica) -> list[int]:
        """Tokens of the requests that its news do not count yet."""
        heard = -np.inf if replica.heard is None else replica.heard - self.lag
        return [tokens for sent, tokens in replica.own.values() if sent > heard]

    def _loaded(self, replica: _Replica) -> Load:
        unheard = self._unheard(replica)
        if not unheard:
            return replica.load
        load = replica.load
        return replace(load, waiting=load.waiting + len(unheard), pending_tokens=load.pending_tokens + sum(unheard))
