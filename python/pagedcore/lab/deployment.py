"""What serves: a cache of so many slots, the costs of a step, and the policies."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any, Literal

from .. import _core
from ..errors import InvalidArgument

__all__ = ["Deployment", "costs_text", "paper_batch"]


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A model on a device under some policies, for :func:`simulate`."""

    name: str
    slots: int
    """Tokens of KV that fit."""
    cost: _core.CostModel
    """In seconds. The costs of block operations are those of one token: they grow with the block."""
    block_size: int = 16
    allocation: Literal["paged", "max", "pow2", "oracle"] = "paged"
    max_reservation: int = 2048
    """Tokens of the longest sequence, unless paged."""
    batch_requests: int = 0
    """Request-level batches of so many, the FasterTransformer baseline; 0: iteration-level."""
    max_batched_tokens: int = 2560
    max_sequences: int = 256
    preemption: Literal["auto", "swap", "recompute"] = "recompute"
    order: Literal["fcfs", "priority", "fair"] = "fcfs"
    """Who is served first: by arrival, by priority, or the tenant that was served least."""
    admission: Literal["known", "watermark", "never_evict", "adaptive"] = "known"
    """When a request comes in: room for the tokens that are known, those but for the next, all that may come, or what
    is expected to come."""
    victim: Literal["cheapest", "last_arrival"] = "cheapest"
    """Who makes room when blocks are short."""
    swap_slots: int = 0
    enable_prefix_caching: bool = False
    swap_out_overhead: float = 0.0
    """Seconds of a block, whatever its size."""
    swap_in_overhead: float = 0.0
    beam_mixing: float = 0.0
    """Chance, in every step, that a beam goes on from the past of a random one: fitted, not measured."""
    copy_reservations: bool = False
    """Unless paged: a fork costs a copy of all that was set aside, as in the paper's baselines."""

    @classmethod
    def of_paper(cls, model: str) -> Deployment:
        """A setting of the PagedAttention paper: "opt-13b", "opt-66b" or "opt-175b"."""
        settings = _paper()
        if model not in settings:
            raise InvalidArgument(f"{model!r} is none of the paper's settings: {', '.join(settings)}")
        setting = settings[model]
        cost = _core.CostModel(
            **setting["seconds"],
            copy_block=setting["copy_seconds"],
            swap_out_block=setting["swap_seconds"]["out"],
            swap_in_block=setting["swap_seconds"]["in"],
        )
        return cls(
            name=f"{model} on {setting['gpus']}",
            slots=setting["slots"],
            cost=cost,
            swap_out_overhead=setting["swap_seconds"]["block_out"],
            swap_in_overhead=setting["swap_seconds"]["block_in"],
        )

    def request_level(self, batch_requests: int, *, step: float) -> Deployment:
        """FasterTransformer's way: batches that run to their end, on an engine with this overhead of a step. Their
        memory was set aside by whoever chose the size of the batch."""
        cost = _core.CostModel(**{**self.cost.to_dict(), "step": step, "sample": 0.0})
        return replace(
            self,
            cost=cost,
            batch_requests=batch_requests,
            slots=max(self.slots, 2 * batch_requests * self.max_reservation),
            max_batched_tokens=batch_requests * self.max_reservation,
        )

    def config(self) -> _core.SimulationConfig:
        """Raises InvalidArgument for sizes out of their ranges, and for a cache of less than a block."""
        for name in ("block_size", "max_batched_tokens"):  # 0 has no meaning here
            if getattr(self, name) < 1:
                raise InvalidArgument(f"{name}={getattr(self, name)} is a number of tokens, 1 at least")
        num_blocks = self.slots // self.block_size
        if num_blocks == 0:
            raise InvalidArgument(
                f"{self.slots} slots hold no block of {self.block_size} tokens: {self.name} is too small"
            )
        per_block = ("copy_block", "swap_out_block", "swap_in_block")
        cost = self.cost.to_dict()
        cost |= {name: cost[name] * self.block_size for name in per_block}
        cost["swap_out_block"] += self.swap_out_overhead
        cost["swap_in_block"] += self.swap_in_overhead
        config = _core.SimulationConfig(
            scheduler=_core.SchedulerConfig(
                max_batched_tokens=self.max_batched_tokens,
                max_sequences=self.max_sequences,
                preemption=self.preemption,
                order=self.order,
                admission=self.admission,
                victim=self.victim,
            ),
            cache=_core.KvCacheConfig(
                num_blocks=num_blocks,
                block_size=self.block_size,
                enable_prefix_caching=self.enable_prefix_caching,
                num_swap_blocks=self.swap_slots // self.block_size,
                allocation=self.allocation,
                max_reservation=self.max_reservation,
            ),
            cost=_core.CostModel(**cost),
            batch_requests=self.batch_requests,
            beam_mixing=self.beam_mixing,
            copy_reservations=self.copy_reservations,
        )
        _core.validate(config.scheduler)
        _core.validate(config.cache)
        return config


def paper_batch(model: str, dataset: str) -> tuple[int, float]:
    """The requests in a FasterTransformer batch of the paper, and the seconds of a step besides reading the weights."""
    batch = _paper()[model]["batch"]
    return batch[dataset], batch["step"]


def costs_text(cost: _core.CostModel) -> str:
    """The constants that are not 0."""
    return "costs in s: " + ", ".join(f"{name} {value:.3g}" for name, value in cost.to_dict().items() if value)


def _paper() -> dict[str, Any]:
    text = resources.files(__package__).joinpath("data/paper.json").read_text(encoding="utf-8")
    return {name: value for name, value in json.loads(text).items() if name != "about"}
