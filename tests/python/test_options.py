"""The options of an engine and of a request: names, signatures, other systems' names, and what is refused."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pagedcore import LLM, BeamSearchParams, InvalidArgument, SamplingParams, _core

REQUEST = {"prefix", "salt", "priority", "tenant"}


@pytest.mark.parametrize("function", [LLM, LLM.plan], ids=["LLM", "LLM.plan"])
def test_signatures_show_every_engine_option(function: Any) -> None:
    parameters = inspect.signature(function).parameters
    for info in _core.options_of("EngineConfig"):
        assert info.name in parameters
        assert parameters[info.name].kind is inspect.Parameter.KEYWORD_ONLY
        if info.zero:
            assert parameters[info.name].default is None
    assert "block_size: Tokens per block" in (inspect.getdoc(LLM.__init__) or "")


@pytest.mark.parametrize(
    "name", ["generate", "chat", "stream", "stream_chat", "beam_search", "stream_beam_search", "score", "embed"]
)
def test_every_entry_point_takes_the_same_request_options(name: str, llm_bf16: LLM) -> None:
    parameters = inspect.signature(getattr(LLM, name)).parameters
    assert set(parameters) >= REQUEST
    prompt = [{"role": "user", "content": "x"}] if "chat" in name else [1, 2]
    with pytest.raises(TypeError, match="a request has no option 'prioritty'; did you mean 'priority'"):
        getattr(llm_bf16, name)(prompt, prioritty=1)
    with pytest.raises(InvalidArgument, match="priority"):  # it reaches the scheduler, or the check before it
        getattr(llm_bf16, name)(prompt, priority=2_000_000)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("max_model_len", "max_context"), ("n_ctx", "max_context"), ("max_num_seqs", "max_sequences")],
)
def test_names_of_others_that_mean_the_same(gguf: Path, theirs: str, ours: str) -> None:
    assert LLM.plan(gguf, kv_cache_memory="1MiB", **{theirs: 64}) == LLM.plan(
        gguf, kv_cache_memory="1MiB", **{ours: 64}
    )
    with pytest.raises(TypeError, match=f"'{theirs}' is another name of '{ours}'"):
        LLM.plan(gguf, **{theirs: 64, ours: 64})


def test_names_of_others_that_mean_something_else_name_ours(gguf: Path) -> None:
    with pytest.raises(TypeError, match="'n_gpu_layers'; use device"):
        LLM(gguf, n_gpu_layers=99)  # type: ignore[call-arg]
    with pytest.raises(
        InvalidArgument, match=r"gpu_memory_utilization = 0\.5 has no effect: .*'cuda'; .* kv_cache_memory"
    ):
        LLM(gguf, gpu_memory_utilization=0.5)
    with pytest.raises(TypeError, match=r"BeamSearchParams has no option 'num_return_sequences'; use n$"):
        BeamSearchParams(num_return_sequences=2)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"BeamSearchParams has no option 'max_new_tokens'; use max_tokens$"):
        BeamSearchParams(max_new_tokens=2)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="'temp'; use temperature of SamplingParams, which"):
        BeamSearchParams(temp=0.5)  # type: ignore[call-arg]


def test_a_seed_of_none_is_drawn(gguf: Path) -> None:
    outputs = set()
    for _ in range(2):
        with LLM(gguf, seed=None, num_blocks=8) as llm:
            (output,) = llm.generate([1, 2], SamplingParams(temperature=100.0, max_tokens=16, ignore_eos=True))
        outputs.add(tuple(output.outputs[0].token_ids))
    assert len(outputs) == 2


def test_an_unknown_option_names_the_nearest(gguf: Path) -> None:
    with pytest.raises(TypeError, match="no option 'block_sise'; did you mean 'block_size'"):
        LLM(gguf, block_sise=16)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"swap_space": 4}, "swap_space = 4 bytes holds no block: .* say 4GiB"),
        ({"num_blocks": 0}, r"num_blocks=0 is out of range: .* or be left out for what kv_cache_memory holds"),
        ({"max_context": True}, "max_context = True is not a whole number or None"),
        ({"preemption": "swap"}, "preemption = 'swap' needs a swap space: set swap_space, such as 1GiB"),
        ({"max_reservation": 64}, "max_reservation = 64 is for the baselines"),
        ({"swap_file_size": "1MiB"}, "swap_file_size = 1048576 needs swap_file"),
        ({"watermark": 1.5}, r"watermark = 1.5 is out of range: it must lie in \[0, 1\]"),
        ({"cache_events": -1}, r"cache_events = -1 is out of range.* \[0, 2147483647\]"),
        ({"swap_space": 4.0}, r"swap_space = 4\.0 is not a size: give bytes, or a text .* 1\.5GiB"),
        ({"swap_space": "much"}, "swap_space = 'much' is not a size: .*512MB or 1.5GiB"),
    ],
    ids=str,
)
def test_options_that_are_refused_say_value_limit_and_remedy(gguf: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        LLM(gguf, **options)


def test_sizes_take_text(gguf: Path) -> None:
    assert LLM.plan(gguf, num_blocks=4, swap_space="1MiB") == LLM.plan(gguf, num_blocks=4, swap_space=1 << 20)


def test_prompts_as_others_write_them(llm_bf16: LLM) -> None:
    params = SamplingParams(temperature=0, max_tokens=3, ignore_eos=True)
    expected = llm_bf16.generate([1, 2, 3], params)[0].outputs
    for prompt in (
        {"prompt_token_ids": [1, 2, 3]},
        np.array([1, 2, 3]),
        np.array([1, 2, 3], dtype=np.uint16),
        [{"prompt_token_ids": np.array([1, 2, 3])}],
        np.array([[1, 2, 3]]),
        {"prompt": None, "prompt_token_ids": [1, 2, 3]},
        {"prompt": "another text", "prompt_token_ids": [1, 2, 3]},
    ):
        assert llm_bf16.generate(prompt, params)[0].outputs == expected
    assert llm_bf16.generate({"prompt": "a text", "prompt_token_ids": [1]}, params)[0].prompt == "a text"
    for bad, message in (
        ({"prompt": [1]}, "'prompt' holds a list"),
        ({"prompt": "x", "more": 1}, "a mapping has 'prompt', a text, or .* not 'prompt', 'more'"),
        ({"prompt": None}, "not nothing"),
        ({}, "not nothing"),
        (np.array([1.5]), "token 0 of the prompt is"),
        ([[1, [2]]], r"token 1 of the prompt is \[2\]"),
        (np.array(5), "prompts are a text"),
        ([[2**70]], "token 0 of the prompt"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            llm_bf16.generate(bad, params)


def test_parameters_as_others_write_them() -> None:
    params = SamplingParams(stop_token_ids=None, banned_tokens=None, seed=None, logit_bias={"7": 1, 8: -1})  # type: ignore[arg-type]
    assert params.stop_token_ids == params.banned_tokens == ()
    assert params.logit_bias == {7: 1.0, 8: -1.0}
    assert SamplingParams(stop_token_ids=np.array([3, 4])).stop_token_ids == (3, 4)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match=r"logit_bias\['x'\]"):
        SamplingParams(logit_bias={"x": 1.0})  # type: ignore[dict-item]
    with pytest.raises(InvalidArgument, match="early_stopping"):
        BeamSearchParams(early_stopping="sometimes")  # type: ignore[arg-type]


def test_the_work_of_an_output_does_not_grow_with_samples(llm_bf16: LLM) -> None:
    """Python's share of n samples is linear in n: counted in lines of our own code that are run."""
    import sys

    def lines(n: int) -> int:
        count = 0

        def trace(frame: Any, event: str, _: Any) -> Any:
            nonlocal count
            if "pagedcore" not in frame.f_code.co_filename or frame.f_code.co_name == "_step":  # waits, by the clock
                return None
            count += event == "line"
            return trace

        params = SamplingParams(n=n, max_tokens=1, temperature=1.0, seed=1, detokenize=False)
        sys.settrace(trace)
        try:
            llm_bf16.generate([1, 2], params)
        finally:
            sys.settrace(None)
        return count

    lines(8)
    few, many = lines(100), lines(800)
    assert many < 12 * few  # 8 times the samples; quadratic would be 64


def test_many_stop_strings_cost_little_more_than_one() -> None:
    from pagedcore.detokenizer import StopIndex

    index = StopIndex([f"stop{i}" for i in range(20_000)])
    assert index.first_in("a stop123 b") == (2, "stop1")
    assert index.overlap("xx stop1999") == len("stop1999")
    assert index.overlap("xx stop") == 4
    assert index.overlap("stop19999") == 0
    calls = 0

    class Counting(str):
        def __lt__(self, other: str) -> bool:
            nonlocal calls
            calls += 1
            return str.__lt__(self, other)

    index._sorted = [Counting(s) for s in index._sorted]
    index.overlap(Counting("xx stop"))
    assert calls < 15 * 8  # a search by halves for each end of the text
