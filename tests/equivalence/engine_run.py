"""Serves two waves of requests with a real engine: what comes out, and what was planned."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

import spelling
import workload
from configurations import Configuration
from held_engine import PLUG_TOKENS, HeldEngine, RaceLost

import pagedcore


def engine_run(configuration: Configuration) -> dict[str, list[str]]:
    pause, lost = 0.02, None
    for _ in range(5):
        try:
            with tempfile.TemporaryDirectory() as folder:
                outputs, trace = _run(configuration, Path(folder), pause)
            break
        except RaceLost as error:
            pause, lost = pause * 3, error
    else:
        raise RaceLost(f"configuration {configuration.name}: the engine could not be held") from lost
    plans = [without_time(line) for line in trace if line.startswith(("plan ", "commit "))]
    found = {"engine: outputs": outputs}
    if configuration.plans:
        found["engine: plan and commit lines"] = plans
    return found


def without_time(line: str) -> str:
    word, first, rest = line.split(" ", 2)
    return f"plan {rest}" if word == "plan" else f"{word} {first} {rest}"


def options_of(configuration: Configuration, model: Any, folder: Path) -> dict[str, Any]:
    """With the sizes of memory, which are counted in blocks of this model."""
    options = dict(configuration.options)
    block_size = options["block_size"]
    groups = 2 if configuration.model == "windows" else 1
    held = [PLUG_TOKENS + 1, *(count for count, _ in workload.PREFIXES.values())]
    options["num_blocks"] = groups * sum(-(-count // block_size) for count in held) + configuration.spare_blocks
    if "allocation" in options:  # each of up to 6 samples has a chunk, a power of two of blocks
        options["num_blocks"] = 6 * 2 ** (options["num_blocks"] - 1).bit_length() + 8
        options["max_reservation"] = PLUG_TOKENS + 50
    in_memory, in_file = configuration.swap
    if in_memory + in_file > 0:
        unswapped = {name: value for name, value in options.items() if name != "preemption"}  # "swap" needs a space
        block = pagedcore.plan_memory(model, spelling.engine_config(unswapped, configuration.cpu)).kv_block
        options["swap_bytes"] = in_memory * block
        if in_file > 0:
            options |= {"swap_file": str(folder / "swap"), "swap_file_bytes": in_file * block}
    return options


def _run(configuration: Configuration, folder: Path, pause: float) -> tuple[list[str], list[str]]:
    file = pagedcore.ModelFile(str(spelling.DATA / configuration.model))
    model = file.description()
    options = options_of(configuration, model, folder)
    held = HeldEngine(model, file, options, configuration.cpu, folder / "trace")
    lines: list[str] = []
    contiguous = "allocation" in options
    for number in (0, 1):
        wave = workload.wave(configuration.number, number)
        numbers: dict[int, int] = {}

        def submit_all(engine: Any, number: int = number, wave: Any = wave, numbers: dict[int, int] = numbers) -> None:
            if number == 0 and not contiguous:
                for name, (count, salt) in workload.PREFIXES.items():
                    spelling.register_prefix(engine, name, workload.tokens(name, count), salt)
            if number == 1:
                if not contiguous:
                    spelling.release_prefix(engine, "tenant", 3)
                    spelling.register_prefix(engine, "tenant", workload.tokens("tenant", 25), 3)
                if configuration.force[0]:
                    engine.force_preemption(*configuration.force)
                if random.Random(configuration.number).random() < 0.3:
                    engine.clear_prefix_cache()
            for i, request in enumerate(wave):
                numbers[_submit(engine, request, contiguous)] = i

        outputs = held.wave(submit_all, pause)
        known = sorted((o for o in outputs if o.request in numbers), key=lambda o: (numbers[o.request], o.sample))
        lines += [f"wave {number} request {numbers[o.request]} {text(o, configuration.plans)}" for o in known]
    return lines, held.close()


def _submit(engine: Any, request: workload.Request, contiguous: bool) -> int:
    beams = request.beams is not None
    params = spelling.beams(request.beams or {}) if beams else spelling.sampling(request.sampling or {})
    terms = dict(request.terms)
    if contiguous:  # nothing is shared there
        terms["prefix"] = ""
    return spelling.submit(engine, request.prompt, params, **terms)


def text(output: Any, with_cached: bool) -> str:
    """Every bit of it but the time."""
    if output.error:
        raise AssertionError(f"a request failed: {output.error}")
    cached = f" cached {output.cached_tokens}" if with_cached else ""
    return (
        f"sample {output.sample}{cached} {output.finish} score {float(output.score).hex()} "
        f"tokens {list(output.tokens)} logprobs {logprobs(output.logprobs)} "
        f"prompt_logprobs {logprobs(output.prompt_logprobs)}"
    )


def logprobs(positions: Any) -> str:
    def entry(e: Any) -> str:
        return f"{e.token}:{float(e.logprob).hex()}:{e.rank}"

    return " | ".join(" ".join(entry(e) for e in (position.chosen, *position.top)) for position in positions)
