"""best_of: the n samples with the highest log-probability in sum, of one prefill."""

from __future__ import annotations

import pytest

from pagedcore import LLM, InvalidArgument, SamplingParams


@pytest.mark.parametrize("logprobs", [None, 2])
def test_the_n_best_are_returned_best_first(tiny_llm: LLM, logprobs: int | None) -> None:
    every = tiny_llm.generate([[5, 6, 7]], SamplingParams(n=6, max_tokens=8, seed=1, logprobs=0))[0].outputs
    ranked = sorted(every, key=lambda sample: -(sample.cumulative_logprob or 0.0))
    params = SamplingParams(n=2, best_of=6, max_tokens=8, seed=1, logprobs=logprobs)
    (output,) = tiny_llm.generate([[5, 6, 7]], params)
    assert [sample.token_ids for sample in output.outputs] == [sample.token_ids for sample in ranked[:2]]
    assert [sample.index for sample in output.outputs] == [0, 1]
    for sample, expected in zip(output.outputs, ranked, strict=False):
        if logprobs is None:
            assert sample.logprobs is None and sample.cumulative_logprob is None
        else:
            assert sample.cumulative_logprob == expected.cumulative_logprob
            assert sample.logprobs is not None and len(sample.logprobs) == len(sample.token_ids)


def test_one_prefill_and_one_prompt_in_the_cache(tiny_llm: LLM) -> None:
    prompt = [(3 * i) % 300 for i in range(50)]
    tiny_llm.engine.clear_prefix_cache()
    before = tiny_llm.stats()["tokens_computed"]
    tiny_llm.generate([prompt], SamplingParams(n=1, best_of=5, max_tokens=4, ignore_eos=True, seed=2))
    assert tiny_llm.stats()["tokens_computed"] - before == 50 + 5 * 3  # the last token of a sample is never computed


def test_bad_values() -> None:
    with pytest.raises(InvalidArgument, match="best_of=2 is less than n=3"):
        SamplingParams(n=3, best_of=2)
    with pytest.raises(InvalidArgument, match="best_of=0"):
        SamplingParams(best_of=0)


def test_streams_refuse_to_rank(tiny_llm: LLM) -> None:
    with pytest.raises(InvalidArgument, match="best_of=3 with n=1 cannot be streamed"):
        tiny_llm.stream([1], SamplingParams(best_of=3))
    tiny_llm.stream([1], SamplingParams(n=2, best_of=2)).close()
