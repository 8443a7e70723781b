"""Containers and traces that version 0.1 wrote still open, and mean what they meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import pagedcore
from pagedcore import LLM, SamplingParams

DATA = Path(__file__).parent.parent / "data" / "v0.1"
EXPECTED: dict[str, dict[str, Any]] = json.loads((DATA / "expected.json").read_text())
CONTAINERS = ["full", "windows"]
TRACES = sorted(path.name for path in DATA.glob("*.trace"))


def test_every_file_is_expected() -> None:
    assert sorted(EXPECTED) == sorted([*CONTAINERS, *TRACES])
    assert len(TRACES) == 8


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_has_its_description_and_metadata(name: str) -> None:
    file = pagedcore.ModelFile(str(DATA / name))
    assert file.metadata["note"] == "kept"
    description = file.description()
    description.validate()
    assert description == pagedcore.ModelDescription.from_text(EXPECTED[name]["description"])
    assert description.architecture == f"random-{name}"
    assert (description.vocab_size, description.hidden_size) == (320, 24)


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_generates_the_same_tokens(name: str) -> None:
    with LLM(DATA / name, num_blocks=40, dtype="float32", isa="portable", threads=1) as llm:
        greedy = SamplingParams(temperature=0, max_tokens=60)
        (output,) = llm.generate([list(range(100, 140))], greedy, progress=False)
    assert output.outputs[0].token_ids == EXPECTED[name]["greedy_tokens"]


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_survives_being_written_anew(name: str, tmp_path: Path) -> None:
    file = pagedcore.ModelFile(str(DATA / name))
    weights = pagedcore.WeightMap()
    for tensor in file.names():
        weights.add(tensor, *file.tensor(tensor))
    pagedcore.save_model(str(tmp_path / name), file.description(), weights)
    anew = pagedcore.ModelFile(str(tmp_path / name))
    assert anew.description() == file.description()
    assert [anew.tensor(tensor)[2].tobytes() for tensor in anew.names()] == [
        file.tensor(tensor)[2].tobytes() for tensor in file.names()
    ]


@pytest.mark.parametrize("name", TRACES)
def test_a_trace_is_planned_alike(name: str) -> None:
    replay = pagedcore.replay_trace(str(DATA / name))
    assert replay.difference == "" and replay.is_complete
    assert (replay.steps, replay.requests) == (EXPECTED[name]["steps"], EXPECTED[name]["requests"])
    assert replay.steps > 10


@pytest.mark.parametrize("name", TRACES)
def test_a_change_of_a_trace_is_seen(name: str, tmp_path: Path) -> None:
    """Of the last digest of a plan: the replay above compared something."""
    lines = (DATA / name).read_text().splitlines()
    last = max(i for i, line in enumerate(lines) if line.startswith("plan "))
    lines[last] = lines[last][:-1] + ("0" if lines[last][-1] != "0" else "1")
    (tmp_path / name).write_text("\n".join(lines) + "\n")
    replay = pagedcore.replay_trace(str(tmp_path / name))
    assert replay.difference.startswith(f"line {last + 1}\n")


def test_the_traces_hold_what_they_are_kept_for() -> None:
    text = "".join((DATA / name).read_text() for name in TRACES)
    for word in ("submit", "abort", "preempt", "register", "release", "clear", "costs", "commit"):
        assert f"\n{word}" in text, word
    plans = [line for line in text.splitlines() if line.startswith("plan ")]
    assert any(" out " in plan for plan in plans) and any(" in " in plan for plan in plans)
    assert any(" preempted 0 " not in plan for plan in plans)
