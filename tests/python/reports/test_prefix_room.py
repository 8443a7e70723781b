"""Requests without max_tokens beside registered prefixes: they share the KV cache instead of excluding each other."""

from __future__ import annotations

from typing import Any

import pytest

from pagedcore import LLM, InvalidArgument, SamplingParams

OPEN = SamplingParams(max_tokens=None, temperature=0, ignore_eos=True)
BLOCKS = 12  # of 16 tokens: 192 slots


@pytest.fixture
def small(gguf: Any) -> Any:
    with LLM(gguf, num_blocks=BLOCKS) as llm:
        yield llm


def test_it_generates_what_the_cache_holds_beside_a_prefix(small: LLM) -> None:
    """40 tokens pin 3 of 12 blocks: the other 9 hold 144 slots, for a prompt of 10 and 135 tokens, since the last one
    needs none. Without the prefix the context, as long as the cache, is the limit: 192 - 10."""
    (before,) = small.generate([[3] * 10], OPEN)
    assert (len(before.outputs[0].token_ids), before.outputs[0].finish_reason) == (182, "length")
    assert small.register_prefix("system", [7] * 40) == 40
    (beside,) = small.generate([[3] * 10], OPEN)
    assert beside.error is None and beside.outputs[0].finish_reason == "length"
    assert beside.outputs[0].token_ids == before.outputs[0].token_ids[:135]


def test_it_shares_the_prefix_that_it_names(small: LLM) -> None:
    """Prompt 40 + 10 of which 2 whole blocks are the prefix's: 9 + 2 blocks hold 176 slots, so 127 tokens."""
    small.register_prefix("system", [7] * 40)
    (output,) = small.generate([[3] * 10], OPEN, prefix="system")
    assert output.error is None and output.num_cached_tokens == 40
    assert len(output.outputs[0].token_ids) == 176 - 50 + 1


def test_a_prefix_is_registered_while_one_runs(small: LLM) -> None:
    """It goes on, to the same tokens, and ends where the prefix's blocks begin."""
    (whole,) = small.generate([[3] * 10], OPEN)
    stream = small.stream([3] * 10, OPEN)
    tokens = [token for _ in range(3) for token in next(stream).outputs[0].token_ids]
    assert small.register_prefix("late", [7] * 40) == 40
    ends = []
    for output in stream:
        tokens += output.outputs[0].token_ids
        ends.append(output.outputs[0].finish_reason)
    assert ends[-1] == "length" and tokens == whole.outputs[0].token_ids[:135]
    (after,) = small.generate([[9] * 5], SamplingParams(max_tokens=4, ignore_eos=True), prefix="late")
    assert len(after.outputs[0].token_ids) == 4


def test_samples_without_a_limit_divide_what_there_is(small: LLM) -> None:
    """Three samples of a prompt of 32 (2 shared blocks) have (12 - 2) / 3 = 3 blocks each: 48 slots, 49 tokens."""
    (output,) = small.generate([[3] * 32], SamplingParams(n=3, max_tokens=None, seed=1, ignore_eos=True))
    assert [len(sample.token_ids) for sample in output.outputs] == [49] * 3


def test_what_cannot_fit_is_refused_with_the_arithmetic(small: LLM) -> None:
    small.register_prefix("system", [7] * 100)  # 7 of 12 blocks
    with pytest.raises(InvalidArgument, match="pin 7 KV blocks; with 7 pinned by other prefixes"):
        small.register_prefix("another", [8] * 100)
    (output,) = small.generate([[3] * 100], OPEN)  # 7 blocks for its prompt alone
    assert output.error is not None and "registered prefixes keep 7 of 12" in output.error
