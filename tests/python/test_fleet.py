"""The simulator's fleet: routers and autoscaler over replicas that run the shipped scheduler on a virtual clock."""

from __future__ import annotations

import json
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pagedcore import InvalidArgument
from pagedcore.cli import main
from pagedcore.lab import Deployment, Placement, Workload, read_mooncake, simulate
from pagedcore.lab.fleet import Fleet, FleetOutcome, capacity, side_by_side, simulate_fleet
from pagedcore.routing import Autoscaler

BLOCK = 512


def conversations(count: int, *, seed: int = 0, gap: float = 40.0) -> Workload:
    """A trace of Mooncake's shape: all prompts begin with one block, and each round of a conversation repeats what was
    said before."""
    draws = random.Random(seed)
    rows: list[tuple[float, list[tuple[int, int]], int]] = []
    fresh = 1
    while len(rows) < count:
        start, said = draws.uniform(0.0, 600.0), [(0, BLOCK)]
        for _ in range(min(1 + int(draws.expovariate(0.3)), 8)):
            new = 1 + int(draws.expovariate(0.12))
            said = said + [(fresh + n, BLOCK) for n in range(new)]
            fresh += new
            rows.append((start, list(said), 1 + int(draws.expovariate(1 / 250))))
            start += draws.expovariate(1 / gap)
    rows = sorted(rows[:count], key=lambda row: row[0])
    return Workload([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows])


def deployment_of() -> Deployment:
    return Placement.of("llama-3.1-8b", "h100").deploy(enable_prefix_caching=True, block_size=256)


@pytest.fixture(scope="module")
def deployment() -> Deployment:
    return deployment_of()


@pytest.fixture(scope="module")
def outcomes(deployment: Deployment) -> dict[str, FleetOutcome]:
    workload = conversations(500)
    played = workload.at_rate(0.7 * 10 * capacity(workload, deployment))
    return {
        policy: simulate_fleet(played, deployment, Fleet(policy=policy, replicas=10, routers=3))
        for policy in ("round-robin", "least-loaded", "prefix-aware", "predicted")
    }


@pytest.mark.parametrize("policy", ["prefix-aware", "predicted"])
def test_routing_by_prefix_finds_far_more_tokens_than_taking_turns(
    outcomes: dict[str, FleetOutcome], policy: str
) -> None:
    found, turns = outcomes[policy], outcomes["round-robin"]
    assert found.hit_tokens >= 1.5 * turns.hit_tokens
    first = [one.to_dict()["time_to_first_token"]["mean"] for one in (found, turns)]
    assert first[0] < first[1]


def test_every_request_is_served_once(outcomes: dict[str, FleetOutcome]) -> None:
    for outcome in outcomes.values():
        workload = outcome.workload
        assert sum(outcome.per_replica) == len(workload)
        assert (outcome.first_token >= workload.arrivals).all() and (outcome.finish >= outcome.first_token).all()
        assert outcome.to_dict()["most_replicas"] == 10


def test_the_same_arguments_give_the_same_outcome(deployment: Deployment) -> None:
    workload = conversations(60).at_rate(4.0)
    fleet = Fleet(replicas=3, routers=2)
    one, other = (simulate_fleet(workload, deployment, fleet) for _ in range(2))
    assert (one.finish == other.finish).all() and one.per_replica == other.per_replica


def test_a_fleet_of_one_is_the_simulator(deployment: Deployment) -> None:
    workload = conversations(60)
    alone = simulate(workload, deployment)
    outcome = simulate_fleet(workload, deployment, Fleet(replicas=1, routers=1))
    assert outcome.finish.tolist() == pytest.approx(alone.finish, abs=1e-9)
    assert outcome.first_token.tolist() == pytest.approx(alone.first_token, abs=1e-9)
    assert outcome.hit_tokens == alone.report.scheduler.prefix_hit_tokens


def test_two_replicas_do_almost_twice_as_much_as_one(deployment: Deployment) -> None:
    """Both with more to do than they can. One finds more in its cache, as everything is there: with twice the replicas
    a router must see to it that it stays so."""
    each = capacity(conversations(240), deployment)
    done = []
    for count in (1, 2):
        workload = conversations(240 * count).at_rate(1.3 * count * each)
        outcome = simulate_fleet(workload, deployment, Fleet(replicas=count))
        begin, end = workload.arrivals[len(workload) // 4], workload.arrivals[-1]
        done.append(float(((outcome.finish > begin) & (outcome.finish <= end)).sum() / (end - begin)))
    assert done[1] >= 1.9 * done[0]


def test_the_autoscaler_follows_the_load_and_loses_nobody(deployment: Deployment) -> None:
    workload = conversations(300)
    each = capacity(workload, deployment)
    quarter = len(workload) // 4
    arrivals, now = [], 0.0
    for number in range(len(workload)):
        now += 1 / (each * (6.0 if quarter < number < 3 * quarter else 0.5))
        arrivals.append(now)
    scaler = Autoscaler(min_replicas=1, max_replicas=20, down_delay=30.0)
    fleet = Fleet(replicas=1, autoscaler=scaler, start_seconds=5.0)
    outcome = simulate_fleet(replace(workload, arrivals=arrivals), deployment, fleet)
    sizes = [size for _, size in outcome.sizes]
    assert max(sizes) >= 5 and sizes[-1] < max(sizes)
    assert (outcome.finish > 0).all() and sum(outcome.per_replica) == len(workload)
    assert outcome.replica_seconds < max(sizes) * outcome.seconds


def test_copies_side_by_side_share_nothing(deployment: Deployment) -> None:
    workload = conversations(20)
    twice = side_by_side(workload, 2)
    assert len(twice) == 40 and twice.lengths[::2] == workload.lengths
    contents = [{content for prompt in twice.prompts[copy::2] for content, _ in prompt} for copy in (0, 1)]
    assert not contents[0] & contents[1]


def test_what_a_fleet_does_not_serve(deployment: Deployment) -> None:
    workload = conversations(20)
    with pytest.raises(InvalidArgument, match="the workload has none"):
        simulate_fleet(Workload([], [], []), deployment, Fleet())
    with pytest.raises(InvalidArgument, match="one sample"):
        simulate_fleet(workload.with_samples(2), deployment, Fleet())
    with pytest.raises(InvalidArgument, match="'sticky' is no way to route"):
        Fleet(policy="sticky")
    with pytest.raises(InvalidArgument, match="replicas=0"):
        Fleet(replicas=0)


def mooncake(workload: Workload, path: Path) -> str:
    with path.open("w") as file:
        for arrival, prompt, output in zip(workload.arrivals, workload.prompts, workload.outputs, strict=True):
            row = {"timestamp": 1000 * arrival, "input_length": BLOCK * len(prompt), "output_length": output}
            file.write(json.dumps({**row, "hash_ids": [content for content, _ in prompt]}) + "\n")
    return str(path)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = mooncake(conversations(80), tmp_path / "trace.jsonl")
    told = ["fleet", "--model", "llama-3.1-8b", "--device", "h100", "--trace", trace]
    assert main([*told, "--replicas", "2,3", "--policy", "round-robin,predicted", "--copies", "2"]) == 0
    text = capsys.readouterr().out
    assert "487,680 tokens of KV a replica" in text and "80 requests, 2 times side by side" in text
    assert text.count("predicted") == 2
    assert main([*told, "--replicas", "2", "--policy", "predicted", "--rate", "2", "--autoscale", "4", "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["runs"][0]["requests"] == 80 and found["slots"] == 487680
    assert 2 <= found["runs"][0]["most_replicas"] <= 4
    for more, message in (
        (["--rate", "2", "--load", "0.5"], "give one of them"),
        (["--seconds", "0.001"], "fewer than two requests"),
        (["--policy", "sticky"], "'sticky' is no way to route"),
        (["--replicas", "0"], "replicas=0"),
    ):
        assert main([*told, *more]) == 2
        assert message in capsys.readouterr().err
    assert main(["fleet", "--trace", trace]) == 2
    assert "--model and --device" in capsys.readouterr().err


def test_mooncakes_trace(deployment: Deployment) -> None:
    """Some minutes of the real one, where PAGEDCORE_TRACES names a folder that has it."""
    path = Path(os.environ.get("PAGEDCORE_TRACES", "traces")) / "mooncake_conversation.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not there: PAGEDCORE_TRACES is the folder of traces")
    workload = read_mooncake(path).first(300.0)
    played = workload.at_rate(0.7 * 20 * capacity(workload, deployment))
    found = [
        simulate_fleet(played, deployment, Fleet(policy=name, replicas=20)) for name in ("round-robin", "predicted")
    ]
    assert found[1].hit_tokens >= 1.5 * found[0].hit_tokens
