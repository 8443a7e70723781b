"""24 configurations: every triple of order, admission and victim once, the other options dealt out by a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import product
from typing import Any

ORDERS = ("fcfs", "priority", "fair")
ADMISSIONS = ("known", "watermark", "never_evict", "adaptive")
VICTIMS = ("cheapest", "last_arrival")


@dataclass(frozen=True)
class Configuration:
    number: int
    model: str  # a container of tests/data/v0.1
    options: dict[str, Any]  # of an engine, but for the sizes of its memory
    cpu: dict[str, Any]
    spare_blocks: int  # beside those that one request of HeldEngine needs
    swap: tuple[int, int]  # blocks in memory, in a file
    force: tuple[int, str]  # preempt before every so-manyth step, and how
    plans: bool  # an engine's plans are equal whatever the clock says

    @property
    def name(self) -> str:
        return " ".join([f"{self.number:2}", *(self.options[key] for key in ("order", "admission", "victim"))])


def _dealt(values: list[Any], count: int, seed: int) -> list[Any]:
    dealt = [values[i % len(values)] for i in range(count)]
    random.Random(seed).shuffle(dealt)
    return dealt


def _memories(seed: int) -> list[dict[str, Any]]:
    """For the configurations with either victim. The price of a victim depends on measured rates where there is a swap
    space, by a rounding error at least, so that plans are compared where the last one to arrive goes, or none swaps."""
    priced = _dealt(
        [
            {"preemption": "recompute"},
            {"preemption": "auto"},
            {"preemption": "recompute", "enable_prefix_caching": False},
            {"allocation": "max"},
            {"allocation": "pow2"},
            {"allocation": "oracle"},
            {"preemption": "auto", "swap": (30, 0), "plans": False},
            {"preemption": "swap", "swap": (12, 40), "plans": False},
            {"preemption": "auto"},
            {"preemption": "auto", "enable_prefix_caching": False},
            {"preemption": "recompute"},
            {"preemption": "auto", "swap": (0, 60), "plans": False},
        ],
        12,
        seed,
    )
    swapped = _dealt(
        [
            {"preemption": "swap", "swap": (80, 0)},
            {"preemption": "swap", "swap": (0, 80)},
            {"preemption": "swap", "swap": (10, 50)},
            {"preemption": "swap", "swap": (6, 0)},
            {"preemption": "swap", "swap": (40, 0), "enable_prefix_caching": False},
            {"preemption": "recompute", "swap": (40, 0)},
            {"preemption": "auto"},
            {"preemption": "recompute"},
        ],
        12,
        seed + 1,
    )
    return priced + swapped


def configurations() -> list[Configuration]:
    count = 24
    policies = [(order, admission, victim) for victim, order, admission in product(VICTIMS, ORDERS, ADMISSIONS)]
    chunks = _dealt([7, 16, 33, 64, 200], count, 11)
    sequences = _dealt([8, 24, 256], count, 12)
    block_sizes = _dealt([4, 8, 16, 32], count, 13)
    watermarks = _dealt([0.0, 0.01, 0.1], count, 14)
    threads = _dealt([1, 2, 3], count, 15)
    types = _dealt(["f32", "bf16"], count, 16)
    isas = _dealt(["auto", "auto", "portable"], count, 17)
    models = _dealt(["full", "windows"], count, 18)
    spare = _dealt([4, 12, 30], count, 19)
    forces = _dealt([(0, ""), (3, "recompute"), (5, "swap")], count, 20)
    found = []
    for i, memory in enumerate(_memories(21)):
        rest = {key: value for key, value in memory.items() if key not in ("swap", "plans")}
        options = dict(zip(("order", "admission", "victim"), policies[i], strict=True)) | rest
        options |= {"max_batched_tokens": chunks[i], "max_sequences": sequences[i]}
        options |= {"block_size": block_sizes[i], "watermark": watermarks[i]}
        contiguous = "allocation" in memory
        found.append(
            Configuration(
                number=i,
                model="full" if contiguous else models[i],
                options=options,
                cpu={"threads": threads[i], "dtype": types[i], "isa": isas[i]},
                spare_blocks=spare[i],
                swap=memory.get("swap", (0, 0)),
                force=(0, "") if contiguous else forces[i],
                plans=memory.get("plans", True),
            )
        )
    return found
