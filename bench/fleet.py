"""Draws the figures of docs/fleet.md from what `pagedcore fleet --json` printed, and prints their tables.

python bench/fleet.py LARGE.json CURVE.json

LARGE: several policies at one load; CURVE: several loads. docs/fleet.md has the commands.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pagedcore.lab import Figure, draw
from pagedcore.lab.figures.figure import Axes, Value

PLOTS = Path(__file__).parents[1] / "docs" / "fleet"


def main() -> None:
    large, curve = (json.loads(Path(path).read_text(encoding="utf-8")) for path in sys.argv[1:3])
    PLOTS.mkdir(exist_ok=True)
    bars = [Value(run["policy"], "", 100 * run["prefix_hits"], None) for run in large["runs"]]
    title = f"prompt tokens from the prefix caches of {large['runs'][0]['replicas']:,} replicas"
    draw(Figure("a", title, "%", bars, Axes("bars", "", "% of prompt tokens")), PLOTS / "hits.svg")
    lines = []
    for panel, metric, which in (
        ("mean", "time_to_first_token", "mean"),
        ("99 of 100", "time_to_first_token", "p99"),
    ):
        lines += [
            Value(run["policy"], f"{run['load']:g}", run[metric][which], None, x=run["load"], panel=panel)
            for run in curve["runs"]
        ]
    title = f"time to first token of {curve['runs'][0]['replicas']:,} replicas by load"
    axes = Axes("curves", "share of the fleet's load", "seconds")
    draw(Figure("b", title, "s", lines, axes), PLOTS / "first_token.svg")
    for told in (large, curve):
        print(table(told["runs"]), end="\n\n")


def table(runs: list[dict[str, Any]]) -> str:
    head = ("policy", "load", "hits, % of prompt tokens", "first token s, p50", "p99", "s per token", "took, CPU s")
    rows = [head, ("---", *["---:"] * 6)]
    for run in runs:
        first = run["time_to_first_token"]
        values = (100 * run["prefix_hits"], first["p50"], first["p99"], run["normalized_latency"]["mean"], run["took"])
        rows.append((run["policy"], f"{run['load']:g}", *(f"{value:.3g}" for value in values)))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    main()
