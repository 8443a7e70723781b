"""Which replica: the policies that are compared. See :mod:`.router` for what they know."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..errors import InvalidArgument
from .router import Arriving, Policy, Router

__all__ = ["POLICIES", "LeastLoaded", "Policy", "Predicted", "PrefixAware", "RoundRobin", "policy_of"]

Slots = npt.NDArray[np.bool_]


class RoundRobin(Policy):
    """One after the other, whatever they say."""

    def __init__(self) -> None:
        self._next = 0

    def choose(self, router: Router, arriving: Arriving, usable: Slots) -> tuple[int, int]:
        for _ in range(len(usable)):
            slot = self._next % len(usable)
            self._next = slot + 1
            if usable[slot]:
                break
        return slot, 0


class LeastLoaded(Policy):
    """The one with the fewest requests, one of them at random where several have as few."""

    def choose(self, router: Router, arriving: Arriving, usable: Slots) -> tuple[int, int]:
        return _least(router, router.outstanding, usable), 0


class PrefixAware(Policy):
    """The one with most of the prompt in its cache, as others route: unless that is little of the prompt, or that
    replica has far more requests than the least loaded one. Then the least loaded one."""

    wants_prefixes = True

    def __init__(self, *, least_share: float = 0.1, most_more: int = 16, most_times: float = 1.5) -> None:
        """
        Args:
            least_share: Of the prompt that must be cached.
            most_more, most_times: A replica with more than so many requests more than the least loaded one, and with
                more than so many times as many, is passed over.
        """
        self.least_share, self.most_more, self.most_times = least_share, most_more, most_times

    def choose(self, router: Router, arriving: Arriving, usable: Slots) -> tuple[int, int]:
        least = _least(router, router.outstanding, usable)
        fewest = router.outstanding[least]
        for blocks, replicas in router.prefixes.matches(arriving.chain):
            if blocks * router.prefixes.block_size < self.least_share * arriving.tokens:
                break
            holders = _chosen(replicas, usable)
            if not holders.any():
                continue
            slot = _least(router, router.outstanding, holders)
            many = router.outstanding[slot]
            if many > fewest + self.most_more and many > fewest * self.most_times:
                break
            return slot, blocks
        return least, 0


class Predicted(Policy):
    """Ours: where the request costs the fewest seconds, its own and others'. That is the predicted wait; the time for
    the tokens that the replica has not cached, which everybody who is there waits for; and what the requests there add
    to its steps, as it adds to theirs. Replicas without fresh news are asked only when no other is there; when none has
    news, the one with the fewest requests is taken."""

    wants_prefixes = True

    def __init__(self, *, most_matches: int = 4, others: float = 1.0) -> None:
        """
        Args:
            most_matches: Lengths of cached chains that are looked at, the longest first.
            others: How much a second of somebody else counts, of its own.
        """
        self.most_matches, self.others = most_matches, others

    def choose(self, router: Router, arriving: Arriving, usable: Slots) -> tuple[int, int]:
        known = usable & router.fresh()
        if not known.any():
            return _least(router, router.outstanding, usable), 0
        there = router.outstanding
        delayed = router.token_seconds * (1 + self.others * there)
        crowds = ((1 + self.others) * router.crowd_seconds + 1e-9) * there
        size = router.prefixes.block_size
        candidates = [(_least(router, router.waits + crowds + arriving.tokens * delayed, known), 0)]
        looked = 0
        for blocks, replicas in router.prefixes.matches(arriving.chain):
            holders = _chosen(replicas, known)
            if holders.any():
                tokens = max(arriving.tokens - blocks * size, 1)
                candidates.append((_least(router, router.waits + crowds + tokens * delayed, holders), blocks))
                looked += 1
                if looked == self.most_matches:
                    break

        def seconds(candidate: tuple[int, int]) -> float:
            slot, blocks = candidate
            tokens = max(arriving.tokens - blocks * size, 1)
            return float(router.wait(slot, tokens) + tokens * delayed[slot] + crowds[slot])

        return min(candidates, key=seconds)


POLICIES: dict[str, type[Policy]] = {
    "round-robin": RoundRobin,
    "least-loaded": LeastLoaded,
    "prefix-aware": PrefixAware,
    "predicted": Predicted,
}
"""By name."""


def policy_of(name: str) -> Policy:
    """Raises InvalidArgument for a name that there is not."""
    if name not in POLICIES:
        raise InvalidArgument(f"{name!r} is no way to route; there are: {', '.join(POLICIES)}")
    return POLICIES[name]()


def _least(router: Router, values: npt.NDArray[np.float64], usable: Slots) -> int:
    """The slot with the smallest value, at random among several."""
    slots = np.flatnonzero(usable)
    mine = values[slots]
    best = slots[mine <= mine.min()]
    return int(best[router.random.randrange(len(best))])


def _chosen(replicas: int, usable: Slots) -> Slots:
    """From bits to slots."""
    count = len(usable)
    data = np.frombuffer(replicas.to_bytes(-(-max(count, replicas.bit_length()) // 8), "little"), np.uint8)
    bits = np.unpackbits(data, bitorder="little")[:count]
    return bits.astype(bool) & usable
