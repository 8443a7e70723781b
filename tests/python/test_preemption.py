"""Preemption: whatever happens to a request's KV on the way, its output has the same bits."""

from __future__ import annotations

import random
import resource
from pathlib import Path
from typing import Any

import pytest

from pagedcore import LLM, BeamSearchParams, InvalidArgument, Io, SamplingParams
from texts import PROMPTS

KV = "40MiB"  # holds less than all requests need
SAMPLES = SamplingParams(max_tokens=32, temperature=0.9, seed=5, n=2, logprobs=1, ignore_eos=True)
GREEDY = SamplingParams(max_tokens=40, temperature=0, logprobs=0, ignore_eos=True)
BEAMS = BeamSearchParams(beam_width=3, max_tokens=20, ignore_eos=True)


def everything(llm: LLM) -> list[Any]:
    """Sampling, greedy and beam requests in one batch of each kind; all that a user sees of them."""
    outputs = [
        *llm.generate(PROMPTS[:10], [SAMPLES, GREEDY] * 5),
        *llm.beam_search(PROMPTS[:4], BEAMS),
        *llm.generate([PROMPTS[0] * 3], SAMPLES),
    ]
    return [
        (sample.token_ids, sample.text, sample.score, sample.cumulative_logprob, sample.logprobs, sample.finish_reason)
        for output in outputs
        for sample in output.outputs
    ]


@pytest.fixture(scope="module")
def undisturbed(gguf: Any) -> list[Any]:
    with LLM(gguf, kv_cache_memory="200MiB") as llm:
        found = everything(llm)
        stats = llm.stats()
    assert stats["preemptions_recompute"] == stats["preemptions_swap"] == 0
    return found


MODES: dict[str, dict[str, Any]] = {
    "recompute": {"preemption": "recompute"},
    "recompute, nothing cached": {"preemption": "recompute", "enable_prefix_caching": False},
    "swap to memory": {"preemption": "swap", "swap_space": "64MiB"},
    "swap to a file": {"preemption": "swap", "swap_file": "swap"},
    "swap to both": {"preemption": "swap", "swap_space": "2MiB", "swap_file": "swap", "swap_file_size": "64MiB"},
    "swap space too small": {"preemption": "swap", "swap_space": "1MiB"},
    "auto": {"preemption": "auto", "swap_space": "64MiB"},
}


@pytest.mark.parametrize("small", [False, True], ids=["", "small chunks, one thread"])
@pytest.mark.parametrize("mode", MODES)
def test_same_bits(mode: str, small: bool, gguf: Any, undisturbed: list[Any], tmp_path: Path) -> None:
    options = dict(MODES[mode])
    if "swap_file" in options:
        options["swap_file"] = tmp_path / options["swap_file"]
    if small:
        options |= {"max_batched_tokens": 19, "threads": 1, "block_size": 8}
    with LLM(gguf, kv_cache_memory=KV, **options) as llm:
        llm.engine.force_preemption(4, "recompute" if mode.startswith("recompute") else "swap")
        assert everything(llm) == undisturbed
        stats = llm.stats()
    assert stats["blocks_used"] == stats["blocks_swapped"] == stats["requests_swapped"] == 0
    if mode.startswith("recompute"):
        assert stats["preemptions_recompute"] > 5 and stats["preemptions_swap"] == 0
        assert stats["preemption_hit_tokens"] > 0  # only what others took is computed again
    else:
        assert stats["preemptions_swap"] + stats["swap_fallbacks"] > 5
        assert stats["swap_bytes_out"] > 0 and stats["swap_errors"] == 0
    if mode in ("swap to memory", "swap to a file", "swap to both"):
        assert stats["swap_fallbacks"] == 0 and stats["tokens_recomputed"] == 0
    if mode == "swap to a file":
        assert stats["swap_file_bytes_out"] == stats["swap_bytes_out"] == stats["swap_bytes_in"]
    if mode == "swap space too small":
        assert stats["swap_fallbacks"] > 0


def test_a_short_cache_preempts_by_itself(gguf: Any, undisturbed: list[Any]) -> None:
    with LLM(gguf, num_blocks=40, swap_space="64MiB") as llm:
        assert everything(llm) == undisturbed
        stats = llm.stats()
    assert stats["preemptions_swap"] + stats["preemptions_recompute"] > 0


def test_a_full_disk_costs_time_and_no_request(gguf: Any, undisturbed: list[Any], tmp_path: Path) -> None:
    """The kernel refuses to let the swap file grow beyond two blocks."""
    with LLM(gguf, kv_cache_memory=KV, preemption="swap", swap_file=tmp_path / "swap") as llm:
        llm.engine.force_preemption(4, "swap")
        block = llm.memory_plan().kv_block
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 * block, hard))
        try:
            assert everything(llm) == undisturbed
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        stats = llm.stats()
    assert stats["swap_errors"] > 0 and stats["swap_fallbacks"] > 0
    assert stats["requests_failed"] == stats["blocks_used"] == stats["blocks_swapped"] == 0


def test_requests_are_aborted_in_any_state(gguf: Any) -> None:
    """Streams of every kind, closed after a random number of tokens, while everything is being swapped."""
    source = random.Random(2)
    with LLM(gguf, kv_cache_memory=KV, swap_space="64MiB") as llm:
        llm.register_prefix("p", PROMPTS[0])
        llm.engine.force_preemption(2, "swap")
        for round_ in range(12):
            streams = [
                llm.stream(PROMPTS[1], SAMPLES),
                llm.stream(PROMPTS[2], GREEDY, prefix="p"),
                llm.stream_beam_search(PROMPTS[3], BEAMS),
            ]
            for stream in streams:
                for _ in range(source.randrange(4)):
                    next(stream, None)
            if round_ % 2:
                source.shuffle(streams)
            for stream in streams:
                stream.close()
        llm.engine.force_preemption(0)
        llm.release_prefix("p")
        llm.generate("x", SamplingParams(max_tokens=1))
        stats = llm.stats()
    assert stats["preemptions_swap"] > 0
    assert stats["blocks_used"] == stats["blocks_swapped"] == stats["requests_failed"] == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"preemption": "drop"}, "preemption = 'drop' is not one of auto, swap, recompute"),
        ({"preemption": "swap"}, "needs a swap space"),
        ({"swap_file_size": "1MiB"}, "needs swap_file"),
        ({"swap_space": 5}, "swap_space = 5 bytes holds no block"),
        ({"swap_space": "much"}, "much"),
        ({"cache_events": -1}, "cache_events = -1"),
    ],
)
def test_options_that_make_no_sense(gguf: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        LLM(gguf, kv_cache_memory=KV, **options)


def test_a_swap_file_that_cannot_be_had(gguf: Any, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("precious")
    with pytest.raises(Io, match="no file yet"):
        LLM(gguf, kv_cache_memory=KV, swap_file=taken)
    assert taken.read_text() == "precious"
    with pytest.raises(Io, match="directory"):
        LLM(gguf, kv_cache_memory=KV, swap_file=tmp_path / "no" / "such")


def test_the_memory_plan_counts_the_swap_space(gguf: Any, tmp_path: Path) -> None:
    plain = LLM.plan(gguf, kv_cache_memory=KV)
    plan = LLM.plan(gguf, kv_cache_memory=KV, swap_space="32MiB", swap_file=tmp_path / "swap")
    assert plan.swap // plan.kv_block + plan.num_blocks == plan.num_swap_blocks
    assert plan.swap_file == plan.kv_cache
    assert plan.total == plain.total + plan.swap
    assert "swap space" in str(plan)
    assert not (tmp_path / "swap").exists()
