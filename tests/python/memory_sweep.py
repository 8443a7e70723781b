"""Requests under a hard limit on the address space, step by step: python memory_sweep.py STEPS.

Each of STEPS steps leaves a little more than the process has, from nothing to 8 MB. A neighbour runs already; another
request, which asks for much, is submitted under the limit; then the limit goes, and everything is drained. Prompts are
token ids: what the Rust tokenizer does when it has no memory is its own. Prints one line of counts. A process that dies
says nothing.
"""

from __future__ import annotations

import gc
import resource
import sys
import threading
from typing import Any

import native_model
import pagedcore
from pagedcore import _core

MOST = 8 << 20  # bytes
NEIGHBOUR = _core.SamplingParams(max_tokens=24, temperature=0)


def free_address_space(spare: int | None) -> None:
    most = resource.RLIM_INFINITY
    if spare is not None:
        with open("/proc/self/statm") as file:
            most = int(file.read().split()[0]) * resource.getpagesize() + spare
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


def greedy(step: int) -> _core.SamplingParams | _core.BeamSearchParams | _core.EmbeddingParams:
    """What the step asks for, by turns: scores, samples, a stream of log-probabilities, beams, embeddings."""
    return [
        _core.SamplingParams(max_tokens=0, prompt_logprobs=-1),
        _core.SamplingParams(max_tokens=12, n=40, logprobs=-1),
        _core.SamplingParams(max_tokens=1, n=20000),
        _core.SamplingParams(max_tokens=60, logprobs=-1, top_p=0.9, repetition_penalty=1.2),
        _core.BeamSearchParams(beam_width=30, max_tokens=20),
        _core.EmbeddingParams(pooling="mean"),
        _core.SamplingParams(max_tokens=4, prompt_logprobs=20, prompt_logprob_start=50, logprob_token_ids=range(128)),
    ][step % 7]


def drain(engine: Any, ids: list[int], into: dict[int, list[Any]], lasts: set[int]) -> int:
    """Until all of them have ended. Returns how often there was no memory for the news."""
    short = 0
    while not set(ids) <= lasts:
        try:
            for output in engine.wait(0.2):
                into.setdefault(output.request, []).append(output)
                if output.last:
                    lasts.add(output.request)
        except MemoryError:
            short += 1
            free_address_space(None)
    return short


def alone(engine: Any) -> list[int]:
    engine.submit([5, 6, 7], NEIGHBOUR)
    tokens: list[int] = []
    while engine.busy:
        for output in engine.wait(1.0):
            tokens += output.tokens
    return tokens


def main(steps: int) -> None:
    model, weights = native_model.make_model(vocab=20000)
    config = _core.EngineConfig(num_blocks=400, max_sequences=64, max_batched_tokens=128, threads=2, dtype="float32")
    engine = _core.Engine(model, weights, config)
    expected = alone(engine)
    counts = dict.fromkeys(("steps", "memory_errors", "ended", "served", "lost_neighbours"), 0)
    gc.disable()  # nothing but what is asked for
    for step in range(steps):
        beside = engine.submit([5, 6, 7], NEIGHBOUR)
        free_address_space(MOST * step // max(steps - 1, 1))
        ids = [beside]

        def ask() -> None:
            try:
                ids.append(engine.submit(list(range(1, 100)), greedy(step), stream=step % 3 == 0))  # noqa: B023
            except MemoryError:
                counts["memory_errors"] += 1

        # Every other step from a thread that has never thrown nor touched anything thread-local.
        try:
            if step % 2:
                thread = threading.Thread(target=ask)
                thread.start()
                thread.join()
            else:
                ask()
        except (MemoryError, RuntimeError):  # "can't start new thread"
            counts["memory_errors"] += 1
        news: dict[int, list[Any]] = {}
        counts["memory_errors"] += drain(engine, ids, news, set())
        free_address_space(None)
        tokens = [token for output in news[beside] for token in output.tokens]
        counts["lost_neighbours"] += tokens != expected
        for asked in ids[1:]:
            errors = {output.error for output in news[asked] if output.finish == "error"}
            if errors - {"out of memory"}:
                raise SystemExit(f"step {step}: {errors}")
            counts["ended"] += bool(errors)
            counts["served"] += not errors
        counts["steps"] += 1
    if alone(engine) != expected or engine.stats()["blocks_used"] != 0:
        raise SystemExit("the engine does not serve as before")
    engine.close()
    print(pagedcore.__version__, counts)


if __name__ == "__main__":
    main(int(sys.argv[1]))
