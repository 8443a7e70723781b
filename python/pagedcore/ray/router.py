"""Ray's hook for routers, over ours."""

from __future__ import annotations

import time
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from ..routing import Arriving, Choice, News, Router, policy_of
from .hint import Hint

__all__ = ["RayRouter"]


class RayRouter(RequestRouter):  # type: ignore[misc]
    """One in every process that sends calls to replicas."""

    def initialize_state(self, policy: str = "predicted", report_every: float = 1.0) -> None:
        self._ours = Router(policy_of(policy), max_age=max(10.0, 5 * report_every), lag=report_every)
        self._numbers: dict[ReplicaID, int] = {}
        self._choices: dict[str, tuple[Choice, Arriving]] = {}

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        super().update_replicas(replicas)
        if not hasattr(self, "_ours"):
            return
        now = time.monotonic()
        self._ours.set_replicas(replica.replica_id for replica in replicas)
        self._numbers = {replica.replica_id: self._numbers.get(replica.replica_id, 0) for replica in replicas}
        for replica in replicas:
            said = replica.routing_stats or {}
            number = said.get("number", 0)
            if number > self._numbers[replica.replica_id]:
                self._numbers[replica.replica_id] = number
                self._ours.news(replica.replica_id, News.from_dict(said["news"]), now)

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """The chosen one, and behind it all others, should it have no room."""
        if not candidate_replicas:
            return []
        arriving = _arriving(pending_request)
        by_id = {replica.replica_id: replica for replica in candidate_replicas}
        choice = self._ours.choose(arriving, time.monotonic(), among=by_id)
        if pending_request is not None:
            self._choices[pending_request.metadata.internal_request_id] = choice, arriving
        best: Any = choice.replica
        others = [replica for id, replica in by_id.items() if id != best]
        return [[by_id[best]], others] if others else [[by_id[best]]]

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any) -> None:
        id = pending_request.metadata.internal_request_id
        choice, arriving = self._choices.pop(id, (Choice(replica_id, 0), _arriving(pending_request)))
        if choice.replica != replica_id:
            choice = Choice(replica_id, 0)
        self._ours.sent(id, choice, arriving, time.monotonic())

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        self._choices.pop(internal_request_id, None)
        self._ours.ended(internal_request_id)


def _arriving(pending: PendingRequest | None) -> Arriving:
    """What the front said of the prompt, which stands behind what the replica is called with."""
    hint = pending.kwargs.get("hint") if pending is not None else None
    return hint.arriving() if isinstance(hint, Hint) else Arriving(1)
