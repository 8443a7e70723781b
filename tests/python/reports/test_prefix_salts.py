"""A registered prefix belongs to its salt. Whoever has another salt learns nothing of it, and cannot use or release it;
one that is shared is usable by all and shown to none."""

from __future__ import annotations

from typing import Any

import pytest

from pagedcore import (
    LLM,
    BeamSearchParams,
    InvalidArgument,
    KvCacheConfig,
    SamplingParams,
    Scheduler,
    SchedulerConfig,
    SchedulerRequest,
)

TOKENS = [(7 * i + 3) % 90 + 5 for i in range(40)]
MORE = [9, 8, 7]
GREEDY = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)


@pytest.fixture
def llm(tiny: Any) -> Any:
    # Without a prefix cache: then what is not computed was registered.
    with LLM(tiny("llama")[0], kv_cache_memory="4MiB", enable_prefix_caching=False) as llm:
        yield llm


def test_a_private_prefix_is_unknown_under_any_other_salt(llm: LLM) -> None:
    """Every way to name it: expected is one error that has neither its tokens nor the names of other salts."""
    llm.register_prefix("secret plan", TOKENS, salt=1)
    llm.register_prefix("mine", TOKENS, salt=2)
    calls: list[Any] = [
        lambda salt: llm.generate([MORE], GREEDY, prefix="secret plan", salt=salt),
        lambda salt: llm.score([MORE], prefix="secret plan", salt=salt),
        lambda salt: llm.stream(MORE, GREEDY, prefix="secret plan", salt=salt),
        lambda salt: llm.beam_search([MORE], BeamSearchParams(max_tokens=2), prefix="secret plan", salt=salt),
        lambda salt: llm.release_prefix("secret plan", salt=salt),
        lambda salt: llm.engine.submit(TOKENS + MORE, options=_options("secret plan", salt)),
    ]
    for call in calls:
        for salt in (0, 2, 2**64 - 1):
            with pytest.raises(InvalidArgument) as error:
                call(salt)
            text = str(error.value).replace("'secret plan'", "", 1)  # as the caller wrote it
            assert "secret" not in text
            assert str(TOKENS[0]) + ", " + str(TOKENS[1]) not in text
            assert ("mine" in text) <= (salt == 2)
    # Nothing was taken from its owner.
    (output,) = llm.generate([MORE], GREEDY, prefix="secret plan", salt=1)
    assert output.num_cached_tokens == len(TOKENS)
    assert output.prompt_token_ids == TOKENS + MORE  # the owner's own text is shown to it


def _options(prefix: str, salt: int) -> Any:
    from pagedcore import RequestOptions

    return RequestOptions(prefix=prefix, salt=salt)


def test_each_salt_has_names_of_its_own(llm: LLM) -> None:
    """Two tenants call theirs "system": both get their own, by the number of its tokens."""
    llm.register_prefix("system", TOKENS[:20], salt=1)
    llm.register_prefix("system", TOKENS[:30], salt=2)
    for salt, length in ((1, 20), (2, 30)):
        assert llm.generate([MORE], GREEDY, prefix="system", salt=salt)[0].num_cached_tokens == length
    with pytest.raises(InvalidArgument, match="'system' is registered"):
        llm.register_prefix("system", TOKENS, salt=1)
    llm.release_prefix("system", salt=1)
    assert llm.generate([MORE], GREEDY, prefix="system", salt=2)[0].num_cached_tokens == 30
    llm.release_prefix("system", salt=2)
    llm.generate([MORE], GREEDY)
    assert llm.stats()["prefixes_registered"] == 0


def test_a_shared_prefix_is_used_by_all_and_shown_to_none(llm: LLM) -> None:
    """Outputs are those of the whole prompt, given as such; its tokens and their log-probabilities are left out."""
    logprobs = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True, prompt_logprobs=1)
    llm.register_prefix("common", TOKENS, salt=5, shared=True)
    whole = llm.generate([TOKENS + MORE], logprobs)[0]
    for salt in (0, 5, 77):
        (output,) = llm.generate([MORE], logprobs, prefix="common", salt=salt)
        assert output.outputs[0].token_ids == whole.outputs[0].token_ids
        assert output.prompt_token_ids == MORE
        assert list(output.prompt_logprobs or []) == list(whole.prompt_logprobs or [])[len(TOKENS) :]
        computed = llm.stats()["tokens_computed"]
        (found,) = llm.generate([MORE], GREEDY, prefix="common", salt=salt)
        # Its tokens are not computed again, nor counted: they are not among those that are shown.
        assert llm.stats()["tokens_computed"] - computed == len(MORE) + 4 - 1
        assert found.num_cached_tokens == 0
        score, all_of_it = llm.score(MORE, prefix="common", salt=salt), llm.score(TOKENS + MORE)
        assert score.token_ids == MORE
        assert score.logprobs == all_of_it.logprobs[len(TOKENS) - 1 :]
        news = list(llm.stream(MORE, GREEDY, prefix="common", salt=salt))
        assert all(part.prompt_token_ids == MORE for part in news)
        searched = llm.beam_search([MORE], BeamSearchParams(max_tokens=2), prefix="common", salt=salt)[0]
        assert searched.prompt_token_ids == MORE
    with pytest.raises(InvalidArgument, match="only who registered it releases it"):
        llm.release_prefix("common", salt=6)
    with pytest.raises(InvalidArgument, match="'common' is registered"):
        llm.register_prefix("common", TOKENS, salt=6, shared=True)
    # An own one comes before it, and registering one tells nothing of others.
    llm.register_prefix("common", TOKENS[:10], salt=6)
    assert llm.generate([MORE], GREEDY, prefix="common", salt=6)[0].num_cached_tokens == 10
    llm.release_prefix("common", salt=6)
    assert llm.generate([MORE], GREEDY, prefix="common", salt=6)[0].num_cached_tokens == 0
    llm.release_prefix("common", salt=5)
    with pytest.raises(InvalidArgument, match="'common' is not registered"):
        llm.generate([MORE], GREEDY, prefix="common", salt=5)


def test_a_wrong_guess_says_not_where_it_is_wrong(llm: LLM) -> None:
    """Through the engine whole prompts are given. For a shared prefix the error is the same wherever they part, else
    its tokens could be guessed one by one; the owner of a private one is told."""
    llm.register_prefix("common", TOKENS, shared=True)
    llm.register_prefix("own", TOKENS, salt=3)
    texts = set()
    for wrong in (0, 5, 39):
        guess = [*TOKENS[:wrong], 3, *TOKENS[wrong + 1 :]]
        with pytest.raises(InvalidArgument, match="leaves prefix 'common'") as error:
            llm.engine.submit(guess, options=_options("common", 1))
        texts.add(str(error.value))
        with pytest.raises(InvalidArgument, match=f"leaves prefix 'own' at token {wrong} of 40"):
            llm.engine.submit(guess, options=_options("own", 3))
    assert len(texts) == 1


def test_the_scheduler_keeps_them_apart_too() -> None:
    scheduler = Scheduler(SchedulerConfig(), KvCacheConfig(num_blocks=100))
    scheduler.register_prefix(1, SchedulerRequest(id=1, prompt=TOKENS, salt=1))
    scheduler.register_prefix(2, SchedulerRequest(id=2, prompt=TOKENS, salt=1), shared=True)
    for prefix, salt, known in ((1, 1, True), (1, 2, False), (1, 0, False), (2, 1, True), (2, 9, True)):
        request = SchedulerRequest(id=10, prompt=TOKENS + MORE, prefix=prefix, salt=salt)
        if known:
            scheduler.submit(request)
            scheduler.abort(10)
        else:
            with pytest.raises(InvalidArgument, match="prefix 1 is unknown"):
                scheduler.submit(request)
