"""Step traces of a real engine replay without a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pagedcore
from pagedcore import LLM, BeamSearchParams, Corrupt, Io, SamplingParams
from pagedcore.cli import main


@pytest.fixture
def trace(tiny: Callable[..., tuple[Path, Any]], tmp_path: Path) -> Path:
    """Of an engine with few blocks: requests preempt each other, some by force, one is aborted."""
    path = tmp_path / "trace.txt"
    with LLM(tiny("llama")[0], num_blocks=12, max_batched_tokens=32, trace_file=path) as llm:
        llm.engine.force_preemption(5)
        prompts = [[(7 * i + j) % 300 for j in range(5 + 9 * i)] for i in range(6)]
        llm.generate(prompts, SamplingParams(max_tokens=30, ignore_eos=True, seed=1), progress=False)
        llm.stream(prompts[5], SamplingParams(max_tokens=50, ignore_eos=True)).close()
        llm.engine.clear_prefix_cache()
        llm.beam_search(prompts[1], BeamSearchParams(beam_width=3, max_tokens=12, ignore_eos=True), progress=False)
        assert llm.stats()["preemptions_recompute"] > 0
    return path


def test_every_step_is_planned_alike(trace: Path) -> None:
    report = pagedcore.replay_trace(str(trace))
    assert report.difference == "" and report.is_complete
    assert report.requests == 8
    assert report.steps > 60


def test_the_command(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(trace)]) == 0
    assert "8 requests" in capsys.readouterr().out
    text = trace.read_text()
    first = next(line for line in text.splitlines() if line.startswith("scheduler "))
    trace.write_text(text.replace(first, first.replace("max_batched_tokens=32 ", "max_batched_tokens=31 ")))
    assert main(["replay", str(trace)]) == 1
    assert "recorded: " in capsys.readouterr().out


def test_bad_traces(tiny: Callable[..., tuple[Path, Any]], tmp_path: Path) -> None:
    with pytest.raises(Io, match="cannot be opened"):
        pagedcore.replay_trace(str(tmp_path / "none"))
    (tmp_path / "other").write_text("hello\n")
    with pytest.raises(Corrupt, match="line 1: this is no trace"):
        pagedcore.replay_trace(str(tmp_path / "other"))
    with pytest.raises(Io, match="cannot be created"):
        LLM(tiny("llama")[0], num_blocks=12, trace_file=tmp_path / "no" / "trace")
