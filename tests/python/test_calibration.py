"""Cost models fitted to the steps of the real engine, and the device that follows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pagedcore import LLM, InvalidArgument, SamplingParams, _core
from pagedcore.cli import main
from pagedcore.lab import Device, ModelShape, model_cost
from pagedcore.lab.calibration import calibrate, fit_costs

COSTS = _core.CostModel(
    step=2e-3,
    weights=2e-2,
    row=4e-3,
    pair=2e-6,
    context_token=5e-6,
    sample=1e-3,
    copy_block=4e-5,
    swap_out_block=3e-5,
    swap_in_block=2e-5,
)


def steps_of(costs: _core.CostModel, number: int = 400) -> list[_core.TimedStep]:
    """What an engine with these costs would take. The costs of blocks of 16 are of one token."""
    source = np.random.default_rng(3)
    steps = []
    for _ in range(number):
        rows = int(source.choice([1, 2, 3, 5, 8, 20, 64, 300]))
        context = float(source.integers(1, 4000))
        work = _core.StepWork(
            rows=rows,
            pairs=context * (1 if rows < 20 else rows),
            context=context,
            samples=int(source.integers(0, min(rows, 16) + 1)),
            copies=int(source.choice([0, 0, 0, 7])),
            swap_outs=int(source.choice([0, 0, 0, 30])),
            swap_ins=int(source.choice([0, 0, 0, 25])),
        )
        seconds = costs.step + max(costs.weights, work.rows * costs.row + work.pairs * costs.pair)
        seconds += work.context * costs.context_token + work.samples * costs.sample
        blocks = work.copies * costs.copy_block + work.swap_outs * costs.swap_out_block
        seconds += 16 * (blocks + work.swap_ins * costs.swap_in_block)
        steps.append(_core.TimedStep(work=work, seconds=seconds))
    return steps


def test_fit_finds_the_constants_among_interruptions() -> None:
    steps = steps_of(COSTS)
    source = np.random.default_rng(4)
    for step in steps:
        step.seconds *= 3.0 if source.random() < 0.2 else source.uniform(0.99, 1.01)
    fit = fit_costs(steps, block_size=16)
    assert fit.steps == len(steps)
    assert fit.error < 0.02
    for name, value in COSTS.to_dict().items():
        assert fit.cost.to_dict()[name] == pytest.approx(value, rel=0.1), name


def test_fit_has_no_negative_constants_and_needs_steps() -> None:
    costs = _core.CostModel(step=1e-3, row=1e-3)
    fit = fit_costs(steps_of(costs), block_size=16)
    assert min(fit.cost.to_dict().values()) >= 0
    assert fit.error < 1e-6
    with pytest.raises(InvalidArgument, match="19 steps are too few"):
        fit_costs(steps_of(costs, 19), block_size=16)


def test_timed_steps_are_those_of_the_engine(tiny: Any, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    with LLM(tiny("llama")[0], kv_cache_memory="4MiB", enable_prefix_caching=False, trace_file=trace) as llm:
        params = SamplingParams(max_tokens=5, ignore_eos=True, n=2)
        for _ in range(2):
            llm.generate([[1] * 20], params, progress=False)
        stats = llm.stats()
    steps = _core.timed_steps(str(trace))
    assert len(steps) == stats["steps"] - 2  # nobody knows when the last one of each call ended
    assert sum(step.work.rows for step in steps) == stats["tokens_computed"] - 2 * 2
    assert sum(step.work.samples for step in steps) == stats["tokens_sampled"] - 2 * 2
    assert sum(step.work.copies for step in steps) == stats["block_copies"] == 2
    assert steps[0].work.to_dict() == {**_core.StepWork(rows=20, pairs=210, samples=2).to_dict()}
    assert steps[1].work.context == 21 + 21
    assert min(step.seconds for step in steps) > 0


QUICK = _core.CostModel(**{name: cost / 100 for name, cost in COSTS.to_dict().items()})


@pytest.fixture
def known_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The engine runs, but how long its steps take is made up: on a small model and a busy machine it says nothing.
    Returns the numbers of steps that were measured."""
    measured = _core.timed_steps
    numbers = []

    def timed_steps(trace: str) -> list[_core.TimedStep]:
        numbers.append(len(measured(trace)))
        return steps_of(QUICK)

    monkeypatch.setattr(_core, "timed_steps", timed_steps)
    return numbers


def test_calibrate_gives_a_device(tiny: Any, known_steps: list[int], tmp_path: Path) -> None:
    calibration = calibrate(tiny("llama")[0], name="here", check=True, threads=1)
    assert known_steps[0] > 200
    assert calibration.fit.cost.weights == pytest.approx(QUICK.weights, rel=1e-6)
    assert [check.unit for check in calibration.checks] == ["s", "s/token"]
    for check in calibration.checks:
        assert check.measured > 0
        assert check.simulated > 0
    calibration.device.save(tmp_path / "here.json")
    device = Device.load(tmp_path / "here.json")
    assert device == calibration.device
    assert device.name == "here"
    # What was measured comes back when the same model is placed on the device.
    cost = model_cost(ModelShape.load(tiny("llama")[0]), device, weight_bytes=4, kv_bytes=4)
    for name in ("step", "weights", "row", "pair", "context_token", "sample"):
        assert cost.to_dict()[name] == pytest.approx(calibration.fit.cost.to_dict()[name], rel=1e-6), name


def test_the_command_prints_constants_and_writes_the_file(
    tiny: Any, known_steps: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "here.json"
    command = ["calibrate", "-m", str(tiny("llama")[0]), "--threads", "1"]
    assert main([*command, "-o", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "context_token" in printed
    assert "reading the KV of a token" in printed
    assert "400 steps; predicted within 0.0 % in the median" in printed
    assert Device.load(path).bandwidth > 0
    assert main([*command, "--json", "--name", "x"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["device"]["name"] == "x"
    assert values["cost"]["step"] == pytest.approx(QUICK.step)
    assert len(known_steps) == 2
    with pytest.raises(SystemExit) as end:  # argparse's own check of choices
        main([*command, "--dtype", "int3"])
    assert end.value.code == 2
    assert "--dtype: invalid choice: 'int3'" in capsys.readouterr().err
