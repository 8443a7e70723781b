"""Holds the machine code of every CUDA kernel to what is expected of it: wide accesses, asynchronous copies, tensor
cores, no local memory, few calls.

    python tests/cuda/sass_gate.py build/release/cpp/libpagedcore_cuda.so
    python tests/cuda/sass_gate.py --list ...    # what there is: the counts of all instructions that facts speak of

sass_expectations.json says what is expected, and README.md what that means. Prints what does not hold, and exits with 1
if there is any such thing.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sass

EXPECTATIONS = Path(__file__).with_name("sass_expectations.json")


@dataclass(frozen=True)
class Fact:
    instruction: str
    relation: str
    limit: int

    @classmethod
    def parse(cls, instruction: str, text: str) -> Fact:
        match = re.fullmatch(r"(>=|<=|==) (\d+)", text)
        if match is None:
            raise ValueError(f"{instruction}: '{text}' is no fact; write '>= 4', '<= 4' or '== 4'")
        return cls(instruction, match[1], int(match[2]))

    def holds(self, count: int) -> bool:
        if self.relation == "==":
            return count == self.limit
        return count >= self.limit if self.relation == ">=" else count <= self.limit


@dataclass(frozen=True)
class Expectation:
    kernels: re.Pattern[str]
    count: int
    facts: tuple[Fact, ...]


def load(data: dict[str, Any], architecture: str) -> list[Expectation]:
    """An expectation that loosens what holds for every kernel says why. Under `on` it has facts of one architecture."""
    every: dict[str, str] = data["every"]
    expectations = []
    for entry in data["expectations"]:
        unknown = set(entry) - {"kernels", "count", "facts", "why", "on"}
        if unknown:
            raise ValueError(f"{entry['kernels']}: {', '.join(sorted(unknown))} is unknown")
        own: dict[str, str] = {**entry["facts"], **entry.get("on", {}).get(architecture, {})}
        if set(own) & set(every) and not entry.get("why"):
            raise ValueError(f"{entry['kernels']}: departs from what holds for every kernel, and no 'why' says why")
        facts = tuple(Fact.parse(*item) for item in {**every, **own}.items())
        expectations.append(Expectation(re.compile(entry["kernels"]), entry["count"], facts))
    return expectations


def problems(kernels: list[sass.Kernel], expectations: list[Expectation]) -> list[str]:
    found = []
    matched = dict.fromkeys(expectations, 0)
    for kernel in kernels:
        mine = [e for e in expectations if e.kernels.fullmatch(kernel.name)]
        if len(mine) != 1:
            which = " and ".join(f"'{e.kernels.pattern}'" for e in mine) or "none"
            found.append(f"{kernel.name}: matched by {which} of the expectations, not by one")
            continue
        matched[mine[0]] += 1
        for fact in mine[0].facts:
            count = kernel.count(fact.instruction)
            if not fact.holds(count):
                found.append(f"{kernel.name}: {count} {fact.instruction}, not {fact.relation} {fact.limit}")
    for expectation, count in matched.items():
        if count != expectation.count:
            found.append(f"'{expectation.kernels.pattern}': matches {count} kernels, not {expectation.count}")
    return found


def show(kernels: list[sass.Kernel], expectations: list[Expectation], architecture: str) -> None:
    instructions = sorted({f.instruction for e in expectations for f in e.facts})
    for kernel in sorted(kernels, key=lambda k: k.name):
        counts = (f"{i} {n}" for i in instructions if (n := kernel.count(i)))
        print(f"{architecture} {kernel.name}: {', '.join(counts)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path)
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    data = json.loads(EXPECTATIONS.read_text())
    status = 0
    try:
        there = sass.architectures(arguments.library)
        gated = [name for name in there if name in data["architectures"]]
        if not gated:
            raise ValueError(f"{arguments.library} holds machine code for {there}, none of {data['architectures']}")
        for architecture in gated:
            kernels = sass.disassemble(arguments.library, architecture)
            expectations = load(data, architecture)
            if arguments.list:
                show(kernels, expectations, architecture)
            else:
                found = problems(kernels, expectations)
                print(
                    *(f"{architecture}: {problem}" for problem in found),
                    sep="\n",
                    file=sys.stderr,
                    end="\n" * bool(found),
                )
                print(f"{len(kernels)} kernels for {architecture}, {len(found)} problems")
                status |= bool(found)
    except (sass.ToolMissing, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    if set(there) - set(gated):
        print(f"no expectations for {', '.join(sorted(set(there) - set(gated)))}")
    return status


if __name__ == "__main__":
    sys.exit(main())
