"""The contiguous baselines in the engine: other memory, the same outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pagedcore import LLM, BeamSearchParams, InvalidArgument, SamplingParams, replay_trace
from texts import PROMPTS

SAMPLES = SamplingParams(max_tokens=20, temperature=0.9, seed=5, n=2, ignore_eos=True)
GREEDY = SamplingParams(max_tokens=24, temperature=0)
BEAMS = BeamSearchParams(beam_width=3, max_tokens=12)


def everything(llm: LLM) -> list[Any]:
    outputs = [*llm.generate(PROMPTS[:6], [SAMPLES, GREEDY] * 3), *llm.beam_search(PROMPTS[:3], BEAMS)]
    return [(sample.token_ids, sample.finish_reason) for output in outputs for sample in output.outputs]


@pytest.fixture(scope="module")
def paged(gguf: Any) -> list[Any]:
    with LLM(gguf, num_blocks=512) as llm:
        return everything(llm)


@pytest.mark.parametrize("allocation", ["max", "pow2", "oracle"])
def test_same_bits(allocation: str, gguf: Any, paged: list[Any], tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with LLM(gguf, num_blocks=512, allocation=allocation, max_reservation=1024, trace_file=trace) as llm:
        assert everything(llm) == paged
        stats = llm.stats()
        assert llm.memory_plan().max_context == 1024
    assert stats["blocks_used"] == stats["blocks_reserved"] == 0
    assert stats["preemptions_recompute"] == stats["prefix_hit_tokens"] == 0
    replay = replay_trace(str(trace))
    assert replay.steps > 20
    assert not replay.difference


def test_max_reservation_bounds_the_batch(gguf: Any) -> None:
    with LLM(gguf, num_blocks=512, allocation="max", max_reservation=2048) as llm:  # four chunks of 128 blocks
        running = []
        for _ in llm.stream(PROMPTS[0], SamplingParams(max_tokens=100, n=4, ignore_eos=True)):
            running.append(llm.stats()["blocks_reserved"])
        assert max(running) == 512
        with pytest.raises(InvalidArgument, match="has 4 such chunks"):
            llm.generate(PROMPTS[0], SamplingParams(max_tokens=16, n=5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"allocation": "buddy"}, "allocation = 'buddy' is not one of paged, max, pow2, oracle"),
        ({"max_reservation": 100}, "is for the baselines"),
        ({"allocation": "max", "max_reservation": 0}, "max_reservation=0 is out of range"),
        ({"allocation": "max", "swap_space": "64MiB"}, "use paged allocation"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str, gguf: Any) -> None:
    with pytest.raises(InvalidArgument, match=message):
        LLM(gguf, num_blocks=512, **options)
