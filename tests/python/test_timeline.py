"""`timeline_file`: every step and each of its operations with their times, as viewers of traces read them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pagedcore import LLM, Io, SamplingParams

Tiny = Callable[..., tuple[Path, Any]]
PROMPTS = [[(7 * i + j) % 300 for j in range(5 + 9 * i)] for i in range(4)]
PARAMS = SamplingParams(max_tokens=12, ignore_eos=True, seed=1)


def answers(model: Path, **options: Any) -> tuple[list[list[int]], float]:
    with LLM(model, num_blocks=64, max_batched_tokens=32, swap_space="1MiB", **options) as llm:
        llm.engine.force_preemption(3)
        tokens = [output.outputs[0].token_ids for output in llm.generate(PROMPTS, PARAMS, progress=False)]
        return tokens, llm.stats()["steps"]


@pytest.mark.parametrize("ranks", [1, 2])
def test_every_step_and_operation_has_its_time(tiny: Tiny, tmp_path: Path, ranks: int) -> None:
    model = tiny("llama")[0]
    path = tmp_path / "timeline.json"
    tokens, steps = answers(model, timeline_file=path, threads=2, tensor_parallel=ranks)
    assert tokens == answers(model, threads=2)[0]
    assert path.stat().st_mode & 0o777 == 0o600

    events = json.loads(path.read_text())
    names = [event["args"]["name"] for event in events if event["ph"] == "M"]
    assert names == ["engine", "rank 1"][:ranks]
    spans = [event for event in events if event["ph"] == "X"]
    of_steps = [span for span in spans if span["name"].startswith("step ")]
    assert len(of_steps) == steps
    assert sum(span["args"]["prefill_tokens"] + span["args"]["decode_tokens"] for span in of_steps) >= sum(
        len(prompt) + 11 for prompt in PROMPTS
    )
    for rank in range(ranks):
        operations = [span for span in spans if span["tid"] == rank and "rows" in span["args"]]
        assert {"embed" if ranks == 1 else "embed_some", "norm", "matmul", "rope_and_cache", "attention"} <= {
            operation["name"] for operation in operations
        }
        # In the order in which they ran, none inside another, all of them inside a step.
        ends = 0.0
        begun = iter(of_steps)
        step = next(begun)
        for operation in operations:
            assert operation["dur"] >= 0 and operation["ts"] >= ends
            ends = operation["ts"] + operation["dur"]
            while operation["ts"] > step["ts"] + step["dur"]:
                step = next(begun)
            assert step["ts"] <= operation["ts"]
    # A layer has four products, the head one more.
    assert sum(span["name"] == "matmul" for span in spans if span["tid"] == 0) >= 5 * steps


def test_what_is_there_is_left_alone(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    with pytest.raises(Io, match="file: is there already, and a timeline is written to a new file"):
        LLM(tiny("llama")[0], timeline_file=tmp_path / "file")
    assert (tmp_path / "file").read_text() == "precious"


def test_an_engine_that_computed_nothing_leaves_a_whole_file(tiny: Tiny, tmp_path: Path) -> None:
    LLM(tiny("llama")[0], timeline_file=tmp_path / "timeline.json").close()
    assert [event["ph"] for event in json.loads((tmp_path / "timeline.json").read_text())] == ["M"]
