"""Shared prefixes: registered ones, hits that end inside a block, tenants, and the events of the cache."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from pagedcore import LLM, BeamSearchParams, InvalidArgument, SamplingParams

KV = "64MiB"
SYSTEM = "You are a patient librarian. Answer in one short sentence, and name one book. " * 4
QUESTIONS = ["What should I read?", "Who wrote about whales?", "Why?"]
GREEDY = SamplingParams(max_tokens=12, temperature=0, logprobs=0, ignore_eos=True)


def seen(outputs: list[Any]) -> list[Any]:
    return [(s.token_ids, s.text, s.cumulative_logprob, s.score) for output in outputs for s in output.outputs]


@pytest.mark.parametrize("caching", [True, False])
def test_a_registered_prefix_is_computed_once(gguf: Any, caching: bool) -> None:
    beams = BeamSearchParams(beam_width=3, max_tokens=8, ignore_eos=True)
    samples = SamplingParams(max_tokens=8, n=3, seed=1, ignore_eos=True)
    with LLM(gguf, kv_cache_memory=KV, enable_prefix_caching=caching) as llm:
        size = llm.register_prefix("librarian", SYSTEM)
        ids = llm.tokenizer.encode(SYSTEM)  # type: ignore[union-attr]
        assert size == len(ids)
        whole = [ids + llm.tokenizer.encode(q, add_special_tokens=False) for q in QUESTIONS]  # type: ignore[union-attr]
        stats = llm.stats()
        assert stats["prefixes_registered"] == 1 and stats["blocks_pinned"] == -(-size // 16)
        computed = stats["tokens_computed"]
        outputs = llm.generate(QUESTIONS, GREEDY, prefix="librarian")
        assert [output.num_cached_tokens for output in outputs] == [size] * 3
        assert [output.prompt_token_ids for output in outputs] == whole
        rest = sum(len(prompt) - size for prompt in whole)
        assert llm.stats()["tokens_computed"] - computed == rest + 3 * (GREEDY.max_tokens - 1)
        found = seen(outputs)
        found += seen(llm.beam_search(QUESTIONS, beams, prefix="librarian"))
        found += seen(llm.generate(QUESTIONS, samples, prefix="librarian"))
        streamed = [
            t for news in llm.stream(QUESTIONS[0], GREEDY, prefix="librarian") for t in news.outputs[0].token_ids
        ]
        assert streamed == outputs[0].outputs[0].token_ids
    with LLM(gguf, kv_cache_memory=KV, enable_prefix_caching=False) as llm:
        expected = seen(llm.generate(whole, GREEDY)) + seen(llm.beam_search(whole, beams))
        assert found == expected + seen(llm.generate(whole, samples))


def test_a_prefix_in_use_is_released_when_its_last_user_ends(gguf: Any) -> None:
    with LLM(gguf, kv_cache_memory=KV) as llm:
        llm.register_prefix("system", SYSTEM)
        pinned = llm.stats()["blocks_pinned"]
        stream = llm.stream(QUESTIONS[0], SamplingParams(max_tokens=200, ignore_eos=True), prefix="system")
        next(stream)
        llm.release_prefix("system")
        next(stream)
        assert llm.stats()["prefixes_registered"] == 1
        assert llm.stats()["blocks_pinned"] == pinned
        with pytest.raises(InvalidArgument, match="'system' is not registered"):
            llm.generate("x", prefix="system")
        with pytest.raises(InvalidArgument, match="'system' is not registered"):
            llm.release_prefix("system")
        stream.close()
        llm.generate("x", GREEDY)
        stats = llm.stats()
        assert stats["prefixes_registered"] == stats["blocks_pinned"] == stats["blocks_used"] == 0
        llm.register_prefix("system", SYSTEM)  # the name is free again


def test_what_cannot_be_registered(gguf: Any) -> None:
    with LLM(gguf, num_blocks=40) as llm:
        with pytest.raises(InvalidArgument, match="is empty"):
            llm.register_prefix("", "text")
        with pytest.raises(InvalidArgument, match="one text"):
            llm.register_prefix("two", ["a", "b"])  # type: ignore[arg-type]
        llm.register_prefix("a", [5] * 320)
        with pytest.raises(InvalidArgument, match="'a' is registered"):
            llm.register_prefix("a", "text")
        with pytest.raises(InvalidArgument, match=r"pin 21 KV blocks.*20 pinned by other prefixes"):
            llm.register_prefix("b", [6] * 335)
        with pytest.raises(InvalidArgument, match="'b' is not registered"):
            llm.generate("x", prefix="b")
        # What a request needs beside the pinned blocks is told when it cannot fit.
        (output,) = llm.generate([[7] * 330], SamplingParams(max_tokens=4))
        assert output.outputs[0].finish_reason == "error"
        assert "registered prefixes keep 20 of 40" in (output.outputs[0].error or "")
        (output,) = llm.generate([[9] * 12], SamplingParams(max_tokens=4), prefix="a")
        assert output.outputs[0].finish_reason == "length"
        llm.release_prefix("a")
        (output,) = llm.generate([[7] * 330], SamplingParams(max_tokens=4, ignore_eos=True))
        assert output.outputs[0].finish_reason == "length"
        with pytest.raises(InvalidArgument, match="salt = -1"):
            llm.generate("x", salt=-1)


def test_prefixes_survive_a_crowd(gguf: Any) -> None:
    """Registered, used and released by several threads in a cache that is too small for all of them."""
    with LLM(gguf, num_blocks=60, swap_space="64MiB") as llm:
        llm.register_prefix("p", SYSTEM)
        expected = seen(llm.generate(QUESTIONS, GREEDY, prefix="p"))
        failures: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for _ in range(3):
                    name = f"mine {number}"
                    llm.register_prefix(name, SYSTEM)
                    assert seen(llm.generate(QUESTIONS, GREEDY, prefix="p")) == expected
                    assert seen(llm.generate(QUESTIONS, GREEDY, prefix=name)) == expected
                    llm.release_prefix(name)
            except BaseException as failure:
                failures.append(failure)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        llm.release_prefix("p")
        llm.generate("x", GREEDY)
        assert llm.stats()["blocks_used"] == 0


def test_hits_end_anywhere(gguf: Any) -> None:
    tokens = [(13 * i * i + 5) % 40000 for i in range(200)]
    with LLM(gguf, kv_cache_memory=KV, enable_prefix_caching=False) as llm:
        lengths = [17, 31, 32, 33, 100, 157, 199]
        prompts = [[*tokens[:length], 7, 8, 9] for length in lengths]
        expected = seen(llm.generate(prompts, GREEDY))
    with LLM(gguf, kv_cache_memory=KV) as llm:
        llm.generate([tokens], SamplingParams(max_tokens=1))
        outputs = [llm.generate([prompt], GREEDY)[0] for prompt in prompts]
        assert [output.num_cached_tokens for output in outputs] == lengths
        assert seen(outputs) == expected
        assert llm.stats()["block_copies"] >= len(lengths) - 1  # one ends with a block
        # The end of an answer is cached too: the next turn of a conversation computes only what is new.
        last = outputs[-1]
        turn = last.prompt_token_ids + last.outputs[0].token_ids
        (answer,) = llm.generate([[*turn, 50, 51, 52]], GREEDY)
        assert answer.num_cached_tokens == len(turn) - 1  # of the last token no KV was computed


def test_tenants_share_nothing(gguf: Any) -> None:
    with LLM(gguf, kv_cache_memory=KV) as llm:
        first = llm.generate([SYSTEM], GREEDY, salt=1)[0]
        again = llm.generate([SYSTEM], GREEDY, salt=1)[0]
        other = llm.generate([SYSTEM], GREEDY, salt=2)[0]
        assert first.num_cached_tokens == other.num_cached_tokens == 0
        assert again.num_cached_tokens == len(again.prompt_token_ids) - 1
        assert first.outputs[0].token_ids == other.outputs[0].token_ids
        # A registered prefix may be shared by tenants; what they add to it may not.
        llm.register_prefix("p", SYSTEM, shared=True)
        long = "Tell me about the sea, the wind and the ships that came before us. " * 3
        computed = llm.stats()["tokens_computed"]
        mine = llm.generate([long], GREEDY, prefix="p", salt=3)[0]
        theirs = llm.generate([long], GREEDY, prefix="p", salt=4)[0]
        assert mine.num_cached_tokens == theirs.num_cached_tokens == 0
        computed = llm.stats()["tokens_computed"] - computed
        assert computed == 2 * (len(mine.prompt_token_ids) + len(mine.outputs[0].token_ids) - 1)


def test_events_tell_what_can_be_found(gguf: Any) -> None:
    with LLM(gguf, num_blocks=30, cache_events=1000) as llm:
        tokens = [(17 * i) % 40000 for i in range(100)]
        llm.generate([tokens], SamplingParams(max_tokens=1), salt=5)
        events = llm.cache_events()
        stored = [event for event in events if event.kind == "stored"]
        assert [event.tokens for event in stored] == [tokens[i : i + 16] for i in range(0, 100, 16)]
        assert [event.parent for event in stored] == [0, *(event.id for event in stored[:-1])]
        assert stored[0].salt == 5
        assert llm.cache_events() == []
        llm.generate([[9] * 400], SamplingParams(max_tokens=1))
        gone = {event.id for event in llm.cache_events() if event.kind == "removed"}
        assert gone and gone <= {event.id for event in stored}
        llm.engine.clear_prefix_cache()
        llm.generate("x", SamplingParams(max_tokens=1))
        assert llm.cache_events()[0].kind == "cleared"
    with LLM(gguf, num_blocks=30) as llm:
        llm.generate([tokens], SamplingParams(max_tokens=1))
        assert llm.cache_events() == []
