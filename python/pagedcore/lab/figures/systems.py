"""What the figures compare, and from which lengths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from ..conversations import Conversation
from ..deployment import Deployment
from ..lengths import paper_lengths

__all__ = [
    "BEAM_MIXING",
    "BEAM_MIXING_NOTE",
    "SWAP_SLOTS",
    "SYSTEMS",
    "Inputs",
    "Lengths",
    "for_groups",
    "run_all",
    "systems",
]

Lengths = Sequence[tuple[int, int]]
SWAP_SLOTS = 26_214
"""Tokens of OPT-13B in 20 GiB of the host's memory."""
BEAM_MIXING = 0.09
"""Fitted to figure 15 (b), all widths together."""
BEAM_MIXING_NOTE = (
    f"FITTED: in every step a beam goes on from the past of a random one with probability {BEAM_MIXING}, fitted to the "
    "savings of figure 15 (b)"
)
SYSTEMS: dict[str, Literal["paged", "max", "pow2", "oracle"]] = {
    "Orca (Max)": "max",
    "Orca (Pow2)": "pow2",
    "Orca (Oracle)": "oracle",
    "vLLM": "paged",
}

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Inputs:
    """What a figure is made from."""

    lengths: Lengths | None = None
    """Real ShareGPT lengths; None: the paper's histograms."""
    conversations: Sequence[Conversation] | None = None
    """Real chats; None: chats that are made of first rounds."""
    seconds: float | None = None
    """Length of a trace; None: the paper's."""
    progress: Callable[[int, int], None] = lambda done, total: None
    """Called with the number of runs that have ended, and of all."""

    def dataset(self, name: str) -> Lengths:
        return self.lengths if self.lengths is not None and name == "sharegpt" else paper_lengths(name)

    def source(self, name: str) -> str:
        given = self.lengths is not None and name == "sharegpt"
        return f"{'ShareGPT' if name == 'sharegpt' else 'Alpaca'} lengths: " + (
            "a list of real ones" if given else "drawn from the paper's histograms"
        )


def systems(deployment: Deployment) -> dict[str, Deployment]:
    """A deployment under every allocation policy, by the paper's names; only paged allocation can swap."""
    return {
        system: replace(deployment, allocation=policy, swap_slots=deployment.swap_slots if policy == "paged" else 0)
        for system, policy in SYSTEMS.items()
    }


def for_groups(deployment: Deployment) -> Deployment:
    """For requests of several sequences: those are swapped, as in the paper, and a step has many."""
    return replace(deployment, max_sequences=2048, preemption="swap", swap_slots=SWAP_SLOTS)


def run_all(jobs: Sequence[Callable[[], _Result]], progress: Callable[[int, int], None]) -> list[_Result]:
    """In parallel: simulations run without the interpreter's lock."""
    with ThreadPoolExecutor() as pool:
        futures = [pool.submit(job) for job in jobs]
        results = []
        for future in futures:
            results.append(future.result())
            progress(len(results), len(jobs))
        return results
