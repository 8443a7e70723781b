"""Runs the configurations with the pagedcore of this interpreter, version 0.1 or later, and writes what came out as
JSON: {configuration: {part: lines}}. Called by compare.py; `python run.py OUT.json [NUMBER...]`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from configurations import configurations
from engine_run import engine_run
from llm_run import default_model_run, llm_run
from scheduler_run import scheduler_run

import pagedcore


def main(out: str, *numbers: str) -> None:
    found: dict[str, dict[str, list[str]]] = {}
    for configuration in configurations():
        if numbers and str(configuration.number) not in numbers:
            continue
        start = time.monotonic()
        parts = engine_run(configuration) | scheduler_run(configuration) | llm_run(configuration)
        found[configuration.name] = parts
        count = sum(map(len, parts.values()))
        print(f"{configuration.name}: {count} lines, {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)
    if not numbers:
        for dtype in ("float32", "bfloat16"):
            found[f"default model, {dtype}"] = default_model_run(dtype)
    print(f"pagedcore {pagedcore.__version__}: {pagedcore.__file__}", file=sys.stderr)
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
