"""``pagedcore simulate`` for runs of one's own: loads, policies, tables, JSON, and errors."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pagedcore import InvalidArgument
from pagedcore.cli import main
from pagedcore.lab import Deployment, Trial, Workload, compare, poisson_workload, read_trace, simulate
from pagedcore.progress import Progress

OPT_13B = ["simulate", "--setting", "opt-13b"]
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(
    f"2023-11-16 18:15:{second:02d}.0000000,{100 + second},{20 + second}\n" for second in range(0, 40, 2)
)
MOONCAKE = "".join(
    json.dumps({"timestamp": 500 * n, "input_length": 1000, "output_length": 9, "hash_ids": [7, 8 + n]}) + "\n"
    for n in range(12)
)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    found = {}
    for name, text in {
        "azure": AZURE,
        "mooncake": MOONCAKE,
        "lengths": "input_tokens,output_tokens\n10,20\n30,40\n3000,50\n",
        "unknown": "a,b\n1,2\n",
        "empty": "",
        "header": "input_tokens,output_tokens\n",
        "device": json.dumps({"memory": 16e9, "bandwidth": 3e11, "arithmetic": 6e13}),
    }.items():
        path = tmp_path / f"{name}{'.json' if name == 'device' else ''}"
        path.write_text(text)
        found[name] = str(path)
    return found


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            status = main(arguments)
        except SystemExit as refused:  # argparse
            status = int(refused.code or 0)
        streams = capsys.readouterr()
        return status, streams.out, streams.err

    return run


def test_rates_and_policies_make_a_table(run: Any) -> None:
    status, out, err = run(*OPT_13B, "--seconds", "120", "--rate", "0.5,1", "--allocation", "paged,max")
    assert (status, err) == (0, "")
    head, load, costs, empty, groups, names, *rows = out.splitlines()
    assert head == "opt-13b on A100 40 GB, 15,728 slots of KV"
    assert load == "sharegpt lengths (from the paper's histograms), arriving at random for 120 s"
    assert costs.startswith("costs in s: step 0.0085, weights 0.019, ")
    assert not empty
    assert groups.split()[:1] == ["s/token"]
    assert names.split()[:5] == ["allocation", "rate", "mean", "p50", "p99"]
    assert [row.split()[:2] for row in rows] == [["paged", "0.5"], ["paged", "1.0"], ["max", "0.5"], ["max", "1.0"]]


def test_json_is_what_the_library_says(run: Any, files: dict[str, str]) -> None:
    flags = ["--rate", "2", "--seconds", "60", "--block-size", "8", "--samples", "3", "--lengths", files["lengths"]]
    found = json.loads(run(*OPT_13B, *flags, "--json")[1])
    assert found["constants"]["weights"] == 0.019
    assert found["requests"].endswith("1 of 3 left out, as they have 2,048 tokens or more")
    workload = poisson_workload([(10, 20), (30, 40)], 2, 60).with_samples(3)
    deployment = Deployment.of_paper("opt-13b")
    outcome = simulate(workload, replace(deployment, block_size=8, enable_prefix_caching=True))
    assert found["runs"] == [json.loads(json.dumps({"block-size": 8, "samples": 3, "rate": 2.0, **outcome.to_dict()}))]
    assert 0.05 < outcome.to_dict()["sharing_saves"] < 0.6


def test_outcomes_are_arithmetic() -> None:
    workload = Workload([0.0, 1.0, 5.0], [[(1, 10)], [(2, 10)], [(3, 10)]], [4, 1, 2])
    outcome = simulate(workload, Deployment.of_paper("opt-13b"))
    arrivals, first, finish = (np.array(v) for v in (workload.arrivals, outcome.first_token, outcome.finish))
    found = outcome.to_dict()
    assert found["requests"] == found["finished"] == 3
    assert found["time_to_first_token"]["max"] == pytest.approx(max(first - arrivals))
    assert found["normalized_latency"]["mean"] == pytest.approx(np.mean((finish - arrivals) / [4, 1, 2]))
    per_token = [(finish[0] - first[0]) / 3, finish[2] - first[2]]  # the second request has one token
    assert outcome.times_per_output_token.tolist() == pytest.approx(per_token)
    assert found["requests_per_second"] == pytest.approx(3 / finish[2])
    assert found["output_tokens_per_second"] == pytest.approx(7 / finish[2])
    assert found["sharing_saves"] == pytest.approx(0)  # although nothing runs for most of the time
    stopped = simulate(workload, Deployment.of_paper("opt-13b"), stop=0.01).to_dict()  # within the first step
    assert stopped["time_to_first_token"]["max"] > 0.01
    assert stopped["normalized_latency"] is stopped["time_per_output_token"] is None


def test_traces_are_played_or_stretched(run: Any, files: dict[str, str]) -> None:
    status, out, err = run(*OPT_13B, "--trace", files["azure"])
    assert (status, err) == (0, "")
    assert f"{files['azure']}: 20 requests, 0.5 a second, at their times" in out
    assert "time to first token" in out
    assert "requests                20 in " in out
    fast = json.loads(run(*OPT_13B, "--trace", files["azure"], "--rate", "1,4", "--seconds", "6", "--json")[1])
    assert [(found["rate"], found["requests"]) for found in fast["runs"]] == [(1.0, 6), (4.0, 20)]
    # As lengths, they come at random.
    random = json.loads(run(*OPT_13B, "--lengths", files["azure"], "--rate", "1", "--seconds", "30", "--json")[1])
    assert random["requests"] == f"{files['azure']}, arriving at random for 30 s"


def test_prefixes_of_a_trace_are_shared(run: Any, files: dict[str, str]) -> None:
    flags = ["--trace", files["mooncake"], "--prefix-caching", "on,off", "--json"]
    on, off = json.loads(run(*OPT_13B, *flags)[1])["runs"]
    assert on["prefix-caching"] == "on"
    assert on["prefix_hits"] == pytest.approx(11 * 512 / 12_000)
    assert off["prefix_hits"] == 0
    assert on["time_to_first_token"]["mean"] < off["time_to_first_token"]["mean"]


def test_models_on_devices(run: Any, files: dict[str, str]) -> None:
    flags = ["--model", "llama-7b", "--rate", "0.2", "--seconds", "60"]
    status, out, _ = run("simulate", *flags, "--device", files["device"])
    assert status == 0
    assert out.startswith("llama-7b on device, ")
    wide = json.loads(run("simulate", *flags, "--device", "a100-40gb", "--tensor-parallel", "2", "--json")[1])
    one = json.loads(run("simulate", *flags, "--device", "a100-40gb", "--json")[1])
    assert wide["deployment"] == "llama-7b on 2 x a100-40gb"
    assert wide["constants"]["weights"] == pytest.approx(one["constants"]["weights"] / 2)


def test_bits_make_room(run: Any) -> None:
    flags = ["simulate", "--model", "llama-7b", "--device", "l4", "--rate", "0.2", "--seconds", "60", "--json"]
    whole = json.loads(run(*flags)[1])
    small = json.loads(run(*flags, "--weight-bits", "4", "--kv-bits", "8")[1])
    assert small["constants"]["weights"] == pytest.approx(whole["constants"]["weights"] / 4)
    assert small["constants"]["context_token"] == pytest.approx(whole["constants"]["context_token"] / 2)
    assert small["runs"][0]["kv_allocated"] < 0.3 * whole["runs"][0]["kv_allocated"]


def test_tenants_are_told_apart(run: Any) -> None:
    flags = [*OPT_13B, "--rate", "1", "--seconds", "100", "--tenants", "1,3", "--order", "fcfs,fair"]
    found = json.loads(run(*flags, "--json")[1])["runs"][0]
    assert [one["tenant"] for one in found["tenants"]] == [0, 1]
    means = [one["time_to_first_token"]["mean"] for one in found["tenants"]]
    assert min(means) < found["time_to_first_token"]["mean"] < max(means)
    head, _, _, _, _, names, *rows = run(*flags)[1].splitlines()
    assert head.endswith(", rate 1.0")  # of all runs: no column
    assert names.split()[:3] == ["order", "tenant", "mean"]
    assert [row.split()[:2] for row in rows] == [[o, t] for o in ("fcfs", "fair") for t in ("all", "0", "1")]
    dealt = poisson_workload([(10, 20)], 10, 100).among([1, 3])
    assert dealt.tenants is not None
    assert 0.7 < np.mean(dealt.tenants) < 0.8
    assert dealt.of_tenant(1).priorities == [-1] * sum(dealt.tenants)


def test_swapping_and_beams(run: Any) -> None:
    flags = ["--rate", "6", "--seconds", "60", "--beam-width", "4", "--preemption", "recompute,swap", "--json"]
    recompute, swap = json.loads(run(*OPT_13B, *flags)[1])["runs"]
    assert recompute["preemptions_recompute"] > 0 == recompute["preemptions_swap"]
    assert swap["preemptions_swap"] > 0 == swap["preemptions_recompute"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["simulate"], 2, "say what serves, with --model and --device, or --setting"),
        (["simulate", "--model", "llama-7b"], 2, "--device"),
        (["simulate", "--plot", "x.svg", "--setting", "opt-13b"], 2, "--plot is for a figure of the paper"),
        (["simulate", "--figure", "21"], 2, "figure '21' is not simulated; there are: 2, 12a"),
        (["simulate", "--figure", "2", "--rate", "3"], 2, "--rate is for runs of your own"),
        (["simulate", "--figure", "2", "--plot", "x.gif"], 2, "x.gif: a plot is a file that ends in"),
        (["simulate", "--setting", "opt-30b"], 2, "'opt-30b' is none of the paper's settings"),
        ([*OPT_13B, "--device", "l4"], 2, "--setting opt-13b has its own device"),
        (["simulate", "--device", "abacus", "--model", "llama-7b"], 2, "device 'abacus' is neither one of"),
        (["simulate", "--device", "l4", "--model", "abacus"], 2, "model 'abacus' is no file or directory"),
        (["simulate", "--device", "l4", "--model", "opt-66b"], 2, "l4 is too small for opt-66b"),
        (OPT_13B, 2, "--rate is missing: sharegpt lengths"),
        ([*OPT_13B, "--rate", "fast"], 2, "--rate fast: 'fast' is no number"),
        ([*OPT_13B, "--rate", "1,,2"], 2, "'' is no number"),
        ([*OPT_13B, "--rate", "1,1"], 2, "names a value twice"),
        ([*OPT_13B, "--rate", "0"], 2, "rate=0.0 is requests a second, a positive number"),
        ([*OPT_13B, "--rate", "1", "--seconds", "-1"], 2, "seconds=-1.0 is how long"),
        ([*OPT_13B, "--rate", "1e-9", "--seconds", "1"], 2, "at --rate 1e-09 no request arrives in 1 s"),
        ([*OPT_13B, "--rate", "1", "--allocation", "malloc"], 2, "allocation = 'malloc' is not one of paged, max"),
        ([*OPT_13B, "--rate", "1", "--preemption", "kill"], 2, "preemption = 'kill' is not one of"),
        ([*OPT_13B, "--rate", "1", "--prefix-caching", "maybe"], 2, "--prefix-caching maybe is not one of on, off"),
        ([*OPT_13B, "--rate", "1", "--block-size", "0"], 2, "--block-size 0 must be at least 1"),
        ([*OPT_13B, "--rate", "1", "--block-size", "99999"], 2, "15728 slots hold no block of 99999 tokens"),
        ([*OPT_13B, "--rate", "1", "--samples", "2,0"], 2, "--samples 2,0 must be at least 1"),
        ([*OPT_13B, "--rate", "1", "--order", "lifo"], 2, "order = 'lifo' is not one of fcfs, priority, fair"),
        ([*OPT_13B, "--rate", "1", "--tenants", "1,0"], 2, "shares of tenants are positive numbers"),
        ([*OPT_13B, "--rate", "1", "--max-tokens", "0"], 2, "max_tokens=0 must be an integer in"),
        ([*OPT_13B, "--rate", "1", "--max-tokens", "3"], 2, "more than its max_tokens = 3; raise that"),
        (["simulate", "--device", "l4", "--model", "llama-7b", "--tensor-parallel", "0"], 2, "tensor_parallel=0"),
        ([*OPT_13B, "--rate", "1", "--samples", "2", "--beam-width", "2"], 2, "num_samples=2 and beam_width=2"),
        ([*OPT_13B, "--rate", "1", "--lengths", "/no/such.csv"], 1, "/no/such.csv: No such file"),
        ([*OPT_13B, "--trace", "{unknown}"], 1, "this is no trace of a known format. There are CSV files"),
        ([*OPT_13B, "--trace", "{empty}"], 1, "this is no trace of a known format"),
        ([*OPT_13B, "--trace", "{header}"], 1, "has no requests"),
        ([*OPT_13B, "--trace", "{lengths}"], 2, "--rate is missing"),
        ([*OPT_13B, "--trace", "{azure}", "--lengths", "alpaca"], 2, "give one of them"),
        ([*OPT_13B, "--trace", "{azure}", "--seconds", "0"], 2, "has no request in the first 0 s"),
    ],
    ids=str,
)
def test_errors_are_one_line_and_a_status(
    arguments: list[str], status: int, message: str, run: Any, files: dict[str, str]
) -> None:
    found, out, err = run(*(argument.format(**files) if argument[:1] == "{" else argument for argument in arguments))
    assert (found, out) == (status, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_request_that_no_cache_holds() -> None:
    with pytest.raises(InvalidArgument, match=r"request 1: .* need .* but the cache has 983"):
        compare([Trial({}, Workload([0.0], [[(1, 20_000)]], [5]), Deployment.of_paper("opt-13b"))])


def test_formats_are_told_apart(files: dict[str, str]) -> None:
    lengths, azure, mooncake = (read_trace(files[name]) for name in ("lengths", "azure", "mooncake"))
    assert lengths == [(10, 20), (30, 40), (3000, 50)]
    assert isinstance(azure, Workload)
    assert azure.lengths[0] == (100, 20)
    assert isinstance(mooncake, Workload)
    assert mooncake.prompts[1] == [(7, 512), (9, 488)]


def test_workloads_are_cut_and_stretched() -> None:
    workload = Workload([1.0, 2.0, 4.0], [[(1, 10)], [(2, 20)], [(3, 30)]], [5, 6, 7])
    assert workload.rate == pytest.approx(2 / 3)
    assert workload.at_rate(2).arrivals == pytest.approx([1, 1 + 1 / 3, 2])
    assert workload.first(4).outputs == [5, 6]
    assert workload.shorter_than(37).outputs == [5, 6]
    assert workload.lengths == [(10, 5), (20, 6), (30, 7)]
    with pytest.raises(InvalidArgument, match="rate=nan is requests a second"):
        workload.at_rate(float("nan"))
    with pytest.raises(InvalidArgument, match="1 requests that arrive at one time"):
        workload.first(2).at_rate(1)


def test_progress_towards_a_total() -> None:
    stream = io.StringIO()
    with Progress(1, "runs", enabled=True, stream=stream) as bar:
        bar.reach(3, 12)
    assert re.search(r"25%\|.*\| 3/12 ", stream.getvalue())
