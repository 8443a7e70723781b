"""LLM, command line and self-test with device="cuda": a real model through the whole package, on an emulated GPU."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

PROMPT = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def cuda() -> Iterator[Any]:
    from pagedcore import LLM

    with LLM(device="cuda", num_blocks=40, max_batched_tokens=64, swap_space="16MiB") as llm:
        yield llm


def test_the_device_is_found_and_says_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    from pagedcore.cli import main

    main(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)["cuda"]
    assert found["problem"] == ""
    assert [device["problem"] for device in found["devices"]] == [""]


def test_a_real_model_answers(cuda: Any) -> None:
    from pagedcore import SamplingParams

    plan = cuda.memory_plan()
    assert plan.num_blocks == 40
    (answer,) = cuda.chat(PROMPT, SamplingParams(temperature=0.0, max_tokens=8, logprobs=2))
    (completion,) = answer.outputs
    assert completion.text == "The capital of France is Paris."


def test_greedy_tokens_are_those_of_the_cpu_until_two_logits_contest(cuda: Any) -> None:
    from pagedcore import LLM, SamplingParams

    tolerance = 0.1  # of log-probabilities: 30 layers of bf16 activations, rounded in another order
    params = SamplingParams(temperature=0.0, max_tokens=6, logprobs=2)
    prompts = ["The sea is", "One, two, three,"]
    with LLM(num_blocks=40, dtype="bfloat16") as llm:
        expected = llm.generate(prompts, params)
    compared = 0
    for got, want in zip(cuda.generate(prompts, params), expected, strict=True):
        for mine, theirs in zip(got.outputs[0].logprobs, want.outputs[0].logprobs, strict=True):
            (token, first), (_, second) = theirs.items()
            if first.logprob - second.logprob < tolerance:
                break
            assert next(iter(mine)) == token
            assert mine[token].logprob == pytest.approx(first.logprob, abs=tolerance)
            compared += 1
    assert compared >= 6  # else nothing was compared


def test_same_request_same_bits(cuda: Any) -> None:
    from pagedcore import BeamSearchParams, SamplingParams

    params = SamplingParams(temperature=0.8, top_p=0.9, max_tokens=3, n=2, seed=7, logprobs=1)
    alone = cuda.generate("The sea", params)
    again, _ = cuda.generate(["The sea", "Another tale of"], params)
    assert again.outputs == alone[0].outputs
    (found,) = cuda.beam_search("The sea", BeamSearchParams(beam_width=3, n=2, max_tokens=3))
    assert len(found.outputs) == 2
    assert found.outputs[0].score >= found.outputs[1].score
    assert cuda.stats()["blocks_used"] == 0


def test_bad_choices_are_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    from pagedcore import LLM, InvalidArgument, OutOfMemory, Unsupported

    with pytest.raises(InvalidArgument, match="1 NVIDIA GPU"):
        LLM(device="cuda:3")
    with pytest.raises(OutOfMemory, match="bytes free"):
        LLM(device="cuda", kv_cache_memory="900GiB")
    monkeypatch.setenv("PAGEDCORE_CUBLASLT", "/nowhere/libcublasLt.so")
    with pytest.raises(Unsupported, match=r"/nowhere/libcublasLt\.so.*nvidia-cublas"):
        LLM(device="cuda", cublas_lt=True)


def test_the_selftest_passes(capsys: pytest.CaptureFixture[str]) -> None:
    from pagedcore.cli import main

    status = main(["selftest", "--device", "cuda", "--quick", "--no-rates", "--dtype", "bfloat16", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert (status or 0, report["passed"]) == (0, True)
    checks = report["tested"][0]["checks"]
    left_out = {check["what"] for check in checks if check["outcome"] != "passed"}
    assert left_out == {
        "tokens behind a row",
        "tokens behind a row, within a window",
        "sinks, within a window",
        "gated, clamped_swiglu, with bias",
    }, "there are no kernels for these"
