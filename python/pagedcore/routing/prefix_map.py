"""Which replicas have which chains of blocks, as far as a router knows."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from .digest import PrefixDigest

__all__ = ["PrefixMap"]


class PrefixMap:
    """Replicas are small numbers. What they report replaces what they reported before; what was sent to them counts
    for a while besides, until their reports can show it. Not thread-safe."""

    def __init__(self, most_sent: int = 1 << 18) -> None:
        """``most_sent``: chains of what was sent that are remembered, the latest."""
        self._most_sent = most_sent
        self._holders: dict[int, int] = {}
        """Replicas by chain, a bit for each."""
        self._reported: dict[int, tuple[PrefixDigest, set[int]]] = {}
        self._sent: OrderedDict[tuple[int, int], float] = OrderedDict()
        """(chain, replica), and until when that counts."""
        self._promised: dict[int, int] = {}
        self.block_size = 0
        """Of the replicas; 0: none has said anything."""

    def __len__(self) -> int:
        """Chains that are known, however many have them."""
        return len(self._holders.keys() | self._promised.keys())

    def report(self, replica: int, digest: PrefixDigest) -> None:
        before = self._reported.get(replica)
        if before is not None and before[0] == digest:
            return
        known = before[1] if before is not None else set()
        now = set(digest.values())
        for chain in known - now:
            _unset(self._holders, chain, replica)
        bit = 1 << replica
        for chain in now - known:
            self._holders[chain] = self._holders.get(chain, 0) | bit
        self._reported[replica] = digest, now
        self.block_size = digest.block_size

    def sent(self, replica: int, chain: Sequence[int], until: float) -> None:
        """The replica is going to have this."""
        bit = 1 << replica
        for hash in chain:
            self._promised[hash] = self._promised.get(hash, 0) | bit
            self._sent[hash, replica] = until
            self._sent.move_to_end((hash, replica))
        while len(self._sent) > self._most_sent:
            self._drop(*self._sent.popitem(last=False)[0])

    def expire(self, now: float) -> None:
        """Forgets what was sent so long ago that reports would show it."""
        while self._sent:
            key, until = next(iter(self._sent.items()))
            if until > now:
                return
            del self._sent[key]
            self._drop(*key)

    def forget_report(self, replica: int) -> None:
        """What it said is too old."""
        before = self._reported.pop(replica, None)
        for chain in before[1] if before is not None else ():
            _unset(self._holders, chain, replica)

    def forget(self, replica: int) -> None:
        """It is gone, or its cache is."""
        self.forget_report(replica)
        for chain, of in [key for key in self._sent if key[1] == replica]:
            del self._sent[chain, of]
            self._drop(chain, of)

    def _drop(self, chain: int, replica: int) -> None:
        _unset(self._promised, chain, replica)

    def matches(self, chain: Sequence[int]) -> Iterator[tuple[int, int]]:
        """(blocks, replicas): the longest chains first, with the replicas that have so much and no more, as bits."""
        seen = 0
        for blocks in range(len(chain), 0, -1):
            hash = chain[blocks - 1]
            found = (self._holders.get(hash, 0) | self._promised.get(hash, 0)) & ~seen
            if found:
                seen |= found
                yield blocks, found


def _unset(holders: dict[int, int], chain: int, replica: int) -> None:
    left = holders.get(chain, 0) & ~(1 << replica)
    if left:
        holders[chain] = left
    else:
        holders.pop(chain, None)
