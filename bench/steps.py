"""Counts the instructions of a scheduler's steps with callgrind, which other load on the machine does not disturb:

python bench/steps.py BENCH_STEPS                    by running sequence, and how they grow with what runs and waits
python bench/steps.py OLD_BENCH_STEPS NEW_BENCH_STEPS    two builds of bench/cpp_steps.cpp; exits with 1 when plan() or
                                                        commit() of the new one takes over 2 % more at 256 running
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ORDERS = ("fcfs", "priority", "fair")
CALLS = ("plan", "commit", "submit")
ALLOWED = 1.02


class Workload(NamedTuple):
    order: str
    running: int
    waiting: int
    churn: int  # requests that end, and come, in every step
    steps: int = 64

    def __str__(self) -> str:
        return f"{self.order:>8} {self.running:>5} running {self.waiting:>6} waiting {self.churn:>2} come and go"


def instructions(program: str, workload: Workload) -> dict[str, float]:
    """Of plan() and commit() by running sequence, of submit() by request."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        toggles = [f"--toggle-collect=measured_{call}" for call in CALLS]
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", *toggles, program]
        command += [str(value) for value in workload]
        ran = subprocess.run(command, capture_output=True, text=True)
        if ran.returncode != 0:
            sys.exit(f"{' '.join(command)}\n{ran.stderr}")
        annotated = subprocess.run(
            ["callgrind_annotate", "--inclusive=yes", "--threshold=100", str(out)],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
    found = {}
    for call in CALLS:
        line = re.search(rf"^\s*([\d,]+)[^\n]*:measured_{call}\b", annotated, re.MULTILINE)
        times = workload.steps * (workload.churn if call == "submit" else workload.running)
        found[call] = int(line.group(1).replace(",", "")) / times if line and times else 0.0
    return found


def row(workload: Workload, found: dict[str, float]) -> str:
    return f"{workload}" + "".join(f"  {call} {found[call]:8.1f}" for call in CALLS)


def growth(program: str) -> None:
    for order in ORDERS:
        for churn in (0, 1):
            for running, waiting in ((256, 0), (256, 10_000), (256, 100_000), (2048, 0)):
                workload = Workload(order, running, waiting, churn * running // 256, 16)
                print(row(workload, instructions(program, workload)), flush=True)


def compare(old: str, new: str) -> int:
    worse = 0
    for order in ORDERS:
        for churn in (0, 1, 8):
            workload = Workload(order, 256, 0, churn)
            before, after = instructions(old, workload), instructions(new, workload)
            shares = {call: after[call] / before[call] for call in CALLS if before[call] > 0}
            worse += sum(shares[call] > ALLOWED for call in ("plan", "commit"))
            print(f"{row(workload, before)}  old\n{row(workload, after)}  new")
            print("  " + ", ".join(f"{call} {100 * (share - 1):+.1f} %" for call, share in shares.items()), flush=True)
    print(f"{worse} over {100 * (ALLOWED - 1):.0f} %")
    return 1 if worse else 0


if __name__ == "__main__":
    if len(sys.argv) == 2:
        growth(sys.argv[1])
    elif len(sys.argv) == 3:
        sys.exit(compare(*sys.argv[1:]))
    else:
        sys.exit(__doc__)
