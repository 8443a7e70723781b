"""Scoring several continuations of one prompt: the same numbers as each text alone, and the prompt computed once.

The reference is the score of each text by a request of its own, all of whose tokens are computed, and, for the
log-probabilities of named tokens, those of the whole vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from pagedcore import LLM, InvalidArgument, SamplingParams

CONTINUATIONS = [[260, 354, 28], [260, 354, 905, 17], [1000], [345, 2, 345, 2, 345]]


@pytest.fixture(scope="module")
def prompt() -> list[int]:
    return [1 + 7 * i % 4999 for i in range(500)]


def alone(llm: LLM, ids: list[int]) -> list[float]:
    """By a request that nothing is cached for: its salt is its own."""
    (output,) = llm.generate([ids], SamplingParams(max_tokens=0, prompt_logprobs=0), salt=sum(ids) + len(ids))
    assert output.num_cached_tokens == 0 and output.prompt_logprobs is not None
    return [p[t].logprob for t, p in zip(ids[1:], output.prompt_logprobs[1:], strict=True) if p is not None]


def test_texts_that_begin_alike_are_scored_as_alone_and_computed_once(llm: LLM, prompt: list[int]) -> None:
    """The same floats, and 500 tokens and some computed instead of 4 times 500."""
    texts = [prompt + more for more in CONTINUATIONS] + [prompt[:300], [5], prompt + CONTINUATIONS[0]]
    before = llm.stats()["tokens_computed"]
    scores = llm.score(texts, salt=77)
    computed = llm.stats()["tokens_computed"] - before
    assert computed < 500 + 7 * 20
    for ids, score in zip(texts, scores, strict=True):
        assert score.token_ids == ids and score.start == 1
        assert score.logprobs == alone(llm, ids)


def test_only_what_is_asked_for_is_scored(llm: LLM, prompt: list[int]) -> None:
    """From ``start`` on: the last numbers of the whole text's score, the same bits; None before in the output."""
    texts = [prompt + more for more in CONTINUATIONS]
    scores = llm.score(texts, start=len(prompt), salt=78)
    for ids, more, score in zip(texts, CONTINUATIONS, scores, strict=True):
        assert score.start == len(prompt) and len(score.logprobs) == len(more)
        assert score.logprobs == alone(llm, ids)[-len(more) :]
    (output,) = llm.generate(
        [texts[0]], SamplingParams(max_tokens=2, prompt_logprobs=0, prompt_logprob_start=501), salt=78
    )
    assert output.num_cached_tokens == 500  # row 500 scores token 501
    assert output.prompt_logprobs is not None and len(output.prompt_logprobs) == 503
    assert [p is None for p in output.prompt_logprobs] == [True] * 501 + [False] * 2
    different = llm.score(texts[:2], start=[1, 502])
    assert [len(score.logprobs) for score in different] == [502, 2]


@pytest.mark.parametrize("preempted", [False, True])
def test_the_same_in_pieces_and_after_preemption(gguf: Any, prompt: list[int], preempted: bool) -> None:
    """Steps of 64 tokens cut the prompt where nothing is scored, where scoring begins, and behind it."""
    ids = prompt[:200]
    params = SamplingParams(max_tokens=6, temperature=0, prompt_logprobs=2, prompt_logprob_start=70, ignore_eos=True)
    with LLM(gguf, dtype="float32", kv_cache_memory="32MiB", max_batched_tokens=64) as llm:
        if preempted:
            llm.engine.force_preemption(2)
        (output,) = llm.generate([ids], params)
        (whole,) = llm.generate([ids], SamplingParams(max_tokens=0, prompt_logprobs=2), salt=1)
    assert output.prompt_logprobs is not None and whole.prompt_logprobs is not None
    assert list(output.prompt_logprobs[:70]) == [None] * 70
    assert list(output.prompt_logprobs[70:]) == list(whole.prompt_logprobs[70:])


def test_named_tokens_beside_the_chosen_one(llm: LLM, prompt: list[int]) -> None:
    """One request answers a question of several choices. Numbers and ranks are those of the whole vocabulary."""
    choices = [330, 365, 340, 400]
    params = SamplingParams(max_tokens=2, temperature=0, logprob_token_ids=choices, ignore_eos=True)
    (output,) = llm.generate([prompt], params)
    (every,) = llm.generate([prompt], SamplingParams(max_tokens=2, temperature=0, logprobs=-1, ignore_eos=True))
    found, reference = output.outputs[0], every.outputs[0]
    assert found.logprobs is not None and reference.logprobs is not None
    assert found.cumulative_logprob == reference.cumulative_logprob
    for position, all_tokens, chosen in zip(found.logprobs, reference.logprobs, found.token_ids, strict=True):
        assert list(position) == list(dict.fromkeys([chosen, *choices]))
        assert all(position[token] == all_tokens[token] for token in position)
    both = SamplingParams(max_tokens=0, prompt_logprobs=1, prompt_logprob_start=499, logprob_token_ids=choices)
    (prompted,) = llm.generate([prompt], both)
    assert prompted.prompt_logprobs is not None and prompted.prompt_logprobs[499] is not None
    assert set(choices) <= set(prompted.prompt_logprobs[499])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"prompt_logprob_start": 3}, "prompt_logprob_start = 3 says from where prompt_logprobs are wanted"),
        ({"logprob_token_ids": [10**9]}, "names token 1000000000, but the vocabulary is"),
        ({"prompt_logprobs": 0, "prompt_logprob_start": 500}, "prompt_logprob_start is 500, but .* 0 to 499"),
        ({"logprob_token_ids": range(2000)}, "names 2000 tokens; at most 1024"),
    ],
)
def test_refusals_name_value_and_limit(llm: LLM, prompt: list[int], params: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        llm.generate([prompt], SamplingParams(**params))
    with pytest.raises(InvalidArgument, match=r"start=5 must be an integer in \[0, 4\]"):
        llm.score([[1, 2, 3, 4, 5]], start=5)


def test_multiple_choice_takes_a_third_of_the_time(llm_bf16: LLM, prompt: list[int]) -> None:
    """A prompt of 500 tokens and four continuations, against four requests that share nothing. Counted: the tokens that
    were computed. And processor time, a fifth; the least of three, for waiting threads spin.
    """
    texts = [prompt + more for more in CONTINUATIONS]

    def cost(score: Callable[[], object]) -> tuple[float, float]:
        spent = []
        for _ in range(3):
            llm_bf16.engine.clear_prefix_cache()
            before, begun = llm_bf16.stats()["tokens_computed"], time.process_time()
            score()
            computed = llm_bf16.stats()["tokens_computed"] - before
            spent.append(time.process_time() - begun)
        return computed, min(spent)

    all_tokens, apart = cost(lambda: [llm_bf16.score(ids) for ids in texts])
    tokens, together = cost(lambda: llm_bf16.score(texts, start=len(prompt)))
    assert all_tokens == sum(map(len, texts)) == 2013
    assert 500 + 13 - 4 <= tokens <= 500 + 13 + 4  # the prompt once; its last token, which scores the next, by each
    assert together * 3 < apart, (together, apart)
