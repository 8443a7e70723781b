"""Writes the files of a version that later ones must open, with the pagedcore of this interpreter:
python tests/equivalence/write_files.py FOLDER. Version 0.1 wrote tests/data/v0.1 so. The spelling is that of 0.1."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import models
import spelling
import workload

import pagedcore

CPU = {"threads": 1, "dtype": "f32", "isa": "portable"}
# Every value of every option of the scheduler; the last is of the preemption that is forced.
TRACES: dict[str, tuple[dict[str, Any], int, str]] = {
    "fcfs": ({"order": "fcfs", "admission": "watermark", "preemption": "recompute"}, 0, ""),
    "priority": ({"order": "priority", "admission": "known", "victim": "last_arrival", "watermark": 0.0}, 0, ""),
    "fair": ({"order": "fair", "admission": "adaptive", "enable_prefix_caching": False}, 9, "recompute"),
    "swap": ({"order": "fair", "admission": "never_evict", "preemption": "swap"}, 6, "swap"),
    "swap-auto": ({"order": "priority", "admission": "watermark", "preemption": "auto"}, 6, "swap"),
    "max": ({"allocation": "max", "max_reservation": 80, "num_blocks": 70}, 0, ""),
    "pow2": ({"allocation": "pow2", "max_reservation": 80, "num_blocks": 70, "order": "fair"}, 9, "recompute"),
    "oracle": ({"allocation": "oracle", "max_reservation": 80, "num_blocks": 70, "admission": "never_evict"}, 0, ""),
}


def serve(engine: Any, seed: str, count: int, paged: bool) -> None:
    """Requests of every kind, one of them aborted; all outputs are dropped."""
    source = random.Random(seed)
    if paged:
        spelling.register_prefix(engine, "tenant", workload.tokens("tenant", 25), 3)
    for _ in range(count):
        request = workload.request(source)
        terms = {**request.terms, "prefix": "tenant" if paged and request.terms["prefix"] else ""}
        begin = workload.tokens("tenant", 25) if terms["prefix"] else []
        prompt = begin + request.prompt[-7:]
        if request.beams is not None:
            last = spelling.submit(engine, prompt, spelling.beams(request.beams | {"max_tokens": 8}), **terms)
        else:
            sampling = {**(request.sampling or {}), "n": min((request.sampling or {})["n"], 3)}
            last = spelling.submit(engine, prompt, spelling.sampling(sampling), **terms)
    engine.abort(last)
    while engine.busy:
        engine.wait(1.0)
    if paged:
        spelling.release_prefix(engine, "tenant", 3)
    engine.clear_prefix_cache()
    spelling.submit(engine, [7, 8, 9], spelling.sampling({"max_tokens": 2}))  # when it is there, so is all before
    while engine.busy:
        engine.wait(1.0)


def write_trace(folder: Path, name: str) -> None:
    options, period, mode = TRACES[name]
    model, weights = models.windows() if name.startswith("swap") else models.full()
    options = {"num_blocks": 20, "block_size": 8, "max_batched_tokens": 64, "max_sequences": 16, **options}
    options["trace_file"] = str(folder / f"{name}.trace")
    if name.startswith("swap"):
        block = pagedcore.plan_memory(model, spelling.engine_config(options, CPU)).kv_block
        options["swap_bytes"] = 20 * block
        options["num_blocks"] = 40
    engine = pagedcore.Engine(model, weights, spelling.engine_config(options, CPU))
    if period:
        engine.force_preemption(period, mode)
    serve(engine, name, 12 if period == 0 else 7, "allocation" not in options)
    engine.close()


def greedy_tokens(container: Path) -> list[int]:
    file = pagedcore.ModelFile(str(container))
    engine = pagedcore.Engine(file.description(), file, spelling.engine_config({"num_blocks": 40}, CPU))
    fields = {"temperature": 0.0, "max_tokens": 60}
    spelling.submit(engine, list(range(100, 140)), spelling.sampling(fields))
    outputs = []
    while engine.busy:
        outputs += engine.wait(1.0)
    engine.close()
    return [token for output in outputs for token in output.tokens]


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    kept: dict[str, Any] = {}
    for name, make in (("full", models.full), ("windows", models.windows)):
        model, weights = make()
        pagedcore.save_model(str(folder / name), model, weights, {"note": "kept"})
        kept[name] = {"description": model.to_text(), "greedy_tokens": greedy_tokens(folder / name)}
    for name in TRACES:
        write_trace(folder, name)
        lines = (folder / f"{name}.trace").read_text().splitlines()
        steps = sum(line.startswith("plan ") for line in lines)
        kept[f"{name}.trace"] = {"steps": steps, "requests": sum(line.startswith("submit ") for line in lines)}
    (folder / "expected.json").write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
