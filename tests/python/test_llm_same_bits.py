"""Same request, same bits: whatever else runs, however the work is cut, cached, repeated or spread over threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pagedcore import LLM, SamplingParams
from texts import PROMPTS

Result = list[tuple[list[int], Any, Any]]


def bits(output: Any) -> Result:
    """All that a request's result depends on, exactly."""
    return [(s.token_ids, s.logprobs, s.finish_reason) for s in output.outputs]


def alone(llm: LLM, prompt: Any, params: SamplingParams) -> Result:
    llm.engine.clear_prefix_cache()
    return bits(llm.generate([prompt], params, progress=False)[0])


# The default model, in both compute types, in integers, and with its KV in int8

SAMPLED = SamplingParams(temperature=0.8, top_p=0.95, seed=11, max_tokens=24, logprobs=2, ignore_eos=True)
LONG = "".join(PROMPTS[:12])  # several blocks and chunks


Numerics = dict[str, Any]


@pytest.fixture(
    scope="module",
    params=[
        {"dtype": "float32"},
        {"dtype": "bfloat16"},
        {"dtype": "int8"},
        {"dtype": "bfloat16", "kv_cache_dtype": "int8"},
    ],
    ids=str,
)
def numerics(request: pytest.FixtureRequest) -> Numerics:
    return dict(request.param)


@pytest.fixture(scope="module")
def baseline(numerics: Numerics, gguf: Path) -> Result:
    with LLM(gguf, **numerics, kv_cache_memory="48MiB", threads=1) as llm:
        return alone(llm, LONG, SAMPLED)


@pytest.mark.parametrize(
    "options",
    [
        {"threads": 2},
        {"threads": 2, "max_batched_tokens": 33},
        {"threads": 1, "max_batched_tokens": 64, "block_size": 32},
        {"threads": 2, "enable_prefix_caching": False},
        {"threads": 2, "max_batched_tokens": 100, "weights": "native"},
    ],
    ids=str,
)
def test_default_model(numerics: Numerics, baseline: Result, gguf: Path, options: dict[str, Any]) -> None:
    """Alone, then among 32 strangers, then with its prefix cached, then preempted all the time."""
    with LLM(gguf, **numerics, kv_cache_memory="64MiB", **options) as llm:
        assert alone(llm, LONG, SAMPLED) == baseline
        strangers = [PROMPTS[i % len(PROMPTS)] + str(i) for i in range(32)]
        greedy = SamplingParams(max_tokens=12, temperature=1.0)
        params = [*[greedy] * 16, SAMPLED, *[greedy] * 16]
        outputs = llm.generate([*strangers[:16], LONG, *strangers[16:]], params, progress=False)
        assert bits(outputs[16]) == baseline
        again = llm.generate([LONG], SAMPLED, progress=False)[0]
        assert (again.num_cached_tokens > 0) == options.get("enable_prefix_caching", True)
        assert bits(again) == baseline
        llm.engine.force_preemption(3)
        both = llm.generate([LONG, strangers[0]], [SAMPLED, greedy], progress=False)
        assert bits(both[0]) == baseline
        assert llm.stats()["preemptions_recompute"] > 0


# Random mixes on a tiny model

request = st.builds(
    lambda start, length, repeat, params: ([(start + 7 * i * i) % 320 for i in range(length)] * repeat, params),
    start=st.integers(0, 3),  # few: prefixes are shared
    length=st.integers(1, 40),
    repeat=st.integers(1, 3),
    params=st.builds(
        SamplingParams,
        n=st.integers(1, 3),
        temperature=st.sampled_from([0.0, 0.7, 1.5]),
        top_k=st.sampled_from([0, 5]),
        top_p=st.sampled_from([1.0, 0.9]),
        min_p=st.sampled_from([0.0, 0.05]),
        presence_penalty=st.sampled_from([0.0, 0.5]),
        repetition_penalty=st.sampled_from([1.0, 1.3]),
        seed=st.integers(0, 3),
        max_tokens=st.integers(0, 20),
        logprobs=st.sampled_from([None, 0, 3]),
        prompt_logprobs=st.sampled_from([None, None, 1]),
        ignore_eos=st.booleans(),
    ),
)


@pytest.fixture(scope="module")
def engines(tiny: Callable[..., tuple[Path, Any]]) -> Iterator[tuple[LLM, list[LLM]]]:
    """A plain one to compute requests alone, and others that cut and place the work differently. The last has too few
    blocks for a batch, so that it preempts by itself."""
    folder, _ = tiny("llama")
    options: list[dict[str, Any]] = [
        {"threads": 1, "enable_prefix_caching": False, "num_blocks": 400},
        {"threads": 2, "max_batched_tokens": 16, "num_blocks": 400},
        {"threads": 2, "block_size": 4, "max_batched_tokens": 70, "max_sequences": 5, "num_blocks": 800},
        {"threads": 1, "num_blocks": 36},
    ]
    made = [LLM(folder, **chosen) for chosen in options]
    yield made[0], made[1:]
    for llm in made:
        llm.close()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mix=st.lists(request, min_size=1, max_size=12), which=st.integers(0, 2), preempt=st.sampled_from([0, 0, 1, 2]))
def test_random_mixes(engines: tuple[LLM, list[LLM]], mix: list[Any], which: int, preempt: int) -> None:
    plain, others = engines
    expected = [plain.generate([prompt], params, progress=False)[0] for prompt, params in mix]
    llm = others[which]
    llm.engine.force_preemption(preempt)
    try:
        outputs = llm.generate([prompt for prompt, _ in mix], [params for _, params in mix], progress=False)
    finally:
        llm.engine.force_preemption(0)
    for output, single in zip(outputs, expected, strict=True):
        assert bits(output) == bits(single)
        assert output.prompt_logprobs == single.prompt_logprobs


def test_preemption_happened_by_itself(engines: tuple[LLM, list[LLM]]) -> None:
    """Otherwise the mixes would not test it."""
    _, others = engines
    small = others[-1]
    before = small.stats()["preemptions_recompute"]
    params = SamplingParams(temperature=1, max_tokens=60, ignore_eos=True)
    outputs = small.generate([[i] * 50 for i in range(8)], params, progress=False)
    assert small.stats()["preemptions_recompute"] > before
    assert all(len(output.outputs[0].token_ids) == 60 for output in outputs)


def test_samples_of_one_request_do_not_depend_on_their_number(tiny_llm: LLM) -> None:
    params = SamplingParams(temperature=1.2, seed=5, max_tokens=12, n=4, ignore_eos=True, logprobs=0)
    four = bits(tiny_llm.generate([[1, 2, 3]], params)[0])
    assert bits(tiny_llm.generate([[1, 2, 3]], replace(params, n=2))[0]) == four[:2]
    assert len({tuple(tokens) for tokens, _, _ in four}) == 4


def test_streamed_and_whole_are_the_same(tiny_llm: LLM) -> None:
    params = SamplingParams(temperature=1.2, seed=5, max_tokens=12, n=3, logprobs=2, ignore_eos=True)
    whole = tiny_llm.generate([[4, 5, 6]], params)[0]
    tokens: dict[int, list[int]] = {0: [], 1: [], 2: []}
    logprobs: dict[int, list[Any]] = {0: [], 1: [], 2: []}
    for news in tiny_llm.stream([4, 5, 6], params):
        (sample,) = news.outputs
        tokens[sample.index] += sample.token_ids
        logprobs[sample.index] += sample.logprobs or []
    assert [tokens[s.index] for s in whole.outputs] == [s.token_ids for s in whole.outputs]
    assert [logprobs[s.index] for s in whole.outputs] == [s.logprobs for s in whole.outputs]
