"""Keywords of other systems, and ours in the wrong place: the error names our word and whose it is.

Expected: what docs/coming-from.md says of each.
"""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pagedcore import LLM, BeamSearchParams, SamplingParams

SAMPLING = {
    "max_new_tokens": "max_tokens",  # transformers, TGI
    "max_completion_tokens": "max_tokens",  # the OpenAI API
    "n_predict": "max_tokens",  # llama.cpp
    "do_sample": "temperature",
    "repeat_penalty": "repetition_penalty",
    "num_return_sequences": "n",
    "bad_words_ids": "banned_tokens",
    "eos_token_id": "stop_token_ids",
    "output_scores": "logprobs",
    "stop_sequences": "stop",
    # ours, of which LLM() knows nothing
    "temperature": "temperature",
    "top_p": "top_p",
    "max_tokens": "max_tokens",
    "stop": "stop",
    "logprobs": "logprobs",
}
ENGINE = {
    "n_gpu_layers": "device",
    "n_batch": "max_batched_tokens",
    "tensor_parallel_size": "tensor_parallel",
    "n_ctx": "max_context",
    "enforce_eager": "graph_rows",
    "cache_dir": "HF_HOME",
}


def error_of(call: Any) -> str:
    with pytest.raises(TypeError) as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize(("theirs", "ours"), SAMPLING.items())
def test_sampling_parameters(theirs: str, ours: str, tiny_llm: LLM) -> None:
    where = f"use {ours}"
    if theirs != ours:
        assert where in error_of(lambda: SamplingParams(**{theirs: 1}))
    for call in (
        lambda: LLM("unused", **{theirs: 1}),
        lambda: tiny_llm.generate([1], **{theirs: 1}),
        lambda: tiny_llm.stream([1], **{theirs: 1}),
    ):
        message = error_of(call)
        assert where in message and "of SamplingParams" in message and repr(theirs) in message


@pytest.mark.parametrize(("theirs", "ours"), ENGINE.items())
def test_options_of_an_engine(theirs: str, ours: str, tiny_llm: LLM) -> None:
    message = error_of(lambda: tiny_llm.generate([1], **{theirs: 1}))
    assert f"use {ours}" in message and "of LLM()" in message
    assert f"use {ours}" in error_of(lambda: SamplingParams(**{theirs: 1}))


def test_beams_and_requests(tiny_llm: LLM) -> None:
    for call in (lambda: SamplingParams(num_beams=4), lambda: LLM(num_beams=4)):  # type: ignore[call-arg]
        assert "use beam_width of BeamSearchParams" in error_of(call)
    assert "use beam_width" in error_of(lambda: BeamSearchParams(num_beams=4))  # type: ignore[call-arg]
    assert "use length_penalty of BeamSearchParams" in error_of(lambda: SamplingParams(length_penalty=1.0))  # type: ignore[call-arg]
    assert "use salt" in error_of(lambda: tiny_llm.generate([1], cache_salt=1))
    assert "LLM.stream()" in error_of(lambda: tiny_llm.generate([1], stream=True))
    assert "did you mean 'temperature'" in error_of(lambda: SamplingParams(temperatur=1))  # type: ignore[call-arg]


def test_a_word_unlike_all_of_ours_gets_no_guess() -> None:
    for call in (lambda: SamplingParams(trust_remote_code=True), lambda: LLM("unused", trust_remote_code=True)):  # type: ignore[call-arg]
        assert "; it has " in error_of(call) and "did you mean" not in error_of(call)


def test_keywords_of_the_constructor_alone(gguf: Path) -> None:
    """A memory plan depends on neither: not "LLM has no option 'seed'; did you mean 'seed'?"."""
    for name in ("seed", "tokenizer"):
        assert f"{name!r} is a keyword of LLM() alone" in error_of(lambda name=name: LLM.plan(gguf, **{name: 1}))


def test_parameters_stay_dataclasses() -> None:
    params = SamplingParams(temperature=0.5, stop="x")
    assert replace(params, temperature=0) == SamplingParams(temperature=0, stop=["x"])
    assert pickle.loads(pickle.dumps(params)) == params
