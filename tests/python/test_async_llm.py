"""AsyncLLM gives what LLM gives, bit for bit, as coroutines and asynchronous iterators."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pagedcore import LLM, AsyncLLM, AsyncStream, BeamSearchParams, InvalidArgument, SamplingParams
from pagedcore.outputs import RequestOutput

GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
SAMPLES = SamplingParams(temperature=1.1, seed=3, n=3, logprobs=2, prompt_logprobs=1, max_tokens=9, ignore_eos=True)
PROMPT = "A page table maps"


@pytest.fixture(scope="module")
def served(gguf: Path) -> Iterator[AsyncLLM]:
    llm = AsyncLLM(gguf, kv_cache_memory="96MiB")
    yield llm
    llm.close()


@pytest.fixture(scope="module")
def tiny_served(tiny: Callable[..., tuple[Path, Any]]) -> Iterator[AsyncLLM]:
    llm = AsyncLLM(tiny("llama")[0], kv_cache_memory="4MiB", max_batched_tokens=64)
    yield llm
    llm.close()


def told(outputs: list[RequestOutput]) -> list[Any]:
    """All that does not depend on when it was run."""
    return [
        (
            output.prompt,
            output.prompt_token_ids,
            output.prompt_logprobs,
            output.finished,
            [
                (
                    s.index,
                    s.text,
                    s.token_ids,
                    s.finish_reason,
                    s.stop_reason,
                    s.logprobs,
                    s.cumulative_logprob,
                    s.score,
                )
                for s in output.outputs
            ],
        )
        for output in outputs
    ]


def test_every_call_gives_what_llm_gives(llm_bf16: LLM, served: AsyncLLM) -> None:
    messages = [{"role": "user", "content": "Name three colours."}]
    stops = SamplingParams(temperature=0, max_tokens=40, stop=[".", "\n\n"], include_stop_str_in_output=True)
    beams = BeamSearchParams(beam_width=3, max_tokens=8)

    async def run() -> None:
        for params in (GREEDY, SAMPLES, stops, [GREEDY, stops]):
            prompts = [PROMPT, [5, 6, 7]]
            assert told(await served.generate(prompts, params)) == told(llm_bf16.generate(prompts, params))
        assert told(await served.chat(messages, stops)) == told(llm_bf16.chat(messages, stops))
        several = [messages, [{"role": "user", "content": "Hi"}]]
        assert told(await served.chat(several, GREEDY)) == told(llm_bf16.chat(several, GREEDY))
        assert told(await served.beam_search([PROMPT, "One"], beams)) == told(
            llm_bf16.beam_search([PROMPT, "One"], beams)
        )
        for texts in (PROMPT, [PROMPT, PROMPT + " addresses"]):
            assert await served.score(texts, start=2) == llm_bf16.score(texts, start=2)
        n = await served.register_prefix("p", PROMPT)
        try:
            assert n == llm_bf16.register_prefix("p", PROMPT)
            options = {"prefix": "p", "salt": 0, "priority": 0, "tenant": 4}
            assert told(await served.generate(" pages", GREEDY, **options)) == told(
                llm_bf16.generate(" pages", GREEDY, **options)
            )
        finally:
            served.release_prefix("p")
            llm_bf16.release_prefix("p")

    asyncio.run(run())


def test_requests_beside_each_other(tiny_llm: LLM, tiny_served: AsyncLLM) -> None:
    prompts = [[i % 50, i % 7 + 1] for i in range(60)]
    expected = told(tiny_llm.generate(prompts, SAMPLES))

    async def run() -> list[RequestOutput]:
        return [output for (output,) in await asyncio.gather(*(tiny_served.generate([p], SAMPLES) for p in prompts))]

    assert told(asyncio.run(run())) == expected


def test_streams_add_up(served: AsyncLLM, llm_bf16: LLM) -> None:
    """Text, tokens and log-probabilities of the news; each kind of output."""
    whole = llm_bf16.generate(PROMPT, SAMPLES)[0]

    async def run() -> None:
        samples = {s.index: s for s in whole.outputs}
        text, tokens, logprobs = [{i: kind() for i in samples} for kind in (str, list, list)]
        ends = []
        async for news in served.stream(PROMPT, SAMPLES):
            (sample,) = news.outputs
            text[sample.index] += sample.text
            tokens[sample.index] += sample.token_ids
            logprobs[sample.index] += sample.logprobs
            ends.append(news.finished)
        assert text == {i: s.text for i, s in samples.items()}
        assert tokens == {i: s.token_ids for i, s in samples.items()}
        assert logprobs == {i: s.logprobs for i, s in samples.items()}
        assert ends == [False] * (len(ends) - 1) + [True]

        so_far = [news async for news in served.stream(PROMPT, SAMPLES, output_kind="cumulative")]
        assert told(so_far[-1:]) == told([whole])
        for before, after in itertools.pairwise(so_far):
            for a, b in zip(before.outputs, after.outputs, strict=True):
                assert b.text.startswith(a.text) and len(b.token_ids) >= len(a.token_ids)
        assert [news.finished for news in so_far].count(True) == 1

        assert told([news async for news in served.stream(PROMPT, SAMPLES, output_kind="final")]) == told([whole])
        with pytest.raises(InvalidArgument, match="output_kind='all' must be one of"):
            served.stream(PROMPT, output_kind="all")  # type: ignore[arg-type]

    asyncio.run(run())


def test_streams_of_conversations_and_beams(served: AsyncLLM, llm_bf16: LLM) -> None:
    messages = [{"role": "user", "content": "Say hello."}]
    beams = BeamSearchParams(beam_width=4, n=2, max_tokens=8)

    async def run() -> None:
        said = [news async for news in served.stream_chat(messages, GREEDY)]
        whole = llm_bf16.chat(messages, GREEDY)[0].outputs[0]
        assert "".join(news.outputs[0].text for news in said) == whole.text
        final = [news async for news in served.stream_beam_search(PROMPT, beams, output_kind="final")]
        assert told(final) == told(llm_bf16.beam_search(PROMPT, beams))
        tokens: dict[int, list[int]] = {0: [], 1: []}
        async for news in served.stream_beam_search(PROMPT, beams):
            tokens[news.outputs[0].index] += news.outputs[0].token_ids
        assert [tokens[0], tokens[1]] == [s.token_ids for s in final[0].outputs]

    asyncio.run(run())


def test_long_texts_leave_the_loop_running(served: AsyncLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    assert served.tokenizer is not None
    threads = []
    encode = served.tokenizer.encode

    def noted(text: str, **options: Any) -> list[int]:
        threads.append(threading.current_thread() is threading.main_thread())
        return encode(text, **options)

    monkeypatch.setattr(served.tokenizer, "encode", noted)
    one = SamplingParams(temperature=0, max_tokens=1)
    long = "word " * 1500

    async def run() -> None:
        await served.generate("short", one)
        await served.generate(long, one)
        await served.chat([{"role": "user", "content": long}], one)
        async for _ in served.stream({"prompt": long}, one):
            pass

    asyncio.run(run())
    assert threads == [True, False, False, False]


def test_several_loops_in_several_threads(tiny_llm: LLM, tiny_served: AsyncLLM) -> None:
    expected = {i: tiny_llm.generate([[i]], GREEDY)[0].outputs[0].token_ids for i in range(16)}
    found: dict[int, list[int]] = {}

    def client(first: int) -> None:
        async def one(i: int) -> None:
            found[i] = [t async for news in tiny_served.stream([i], GREEDY) for t in news.outputs[0].token_ids]

        async def run() -> None:
            await asyncio.gather(*(one(i) for i in range(first, first + 4)))

        asyncio.run(run())

    threads = [threading.Thread(target=client, args=(first,)) for first in range(0, 16, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


def test_a_stream_tells_at_once_what_is_wrong(served: AsyncLLM) -> None:
    async def run() -> None:
        with pytest.raises(TypeError, match="a request has no"):
            await served.stream(PROMPT, colour="red")  # type: ignore[call-arg]
        with pytest.raises(InvalidArgument, match="stream\\(\\) takes one prompt"):
            await served.stream([PROMPT, PROMPT])
        with pytest.raises(InvalidArgument, match="leaves no room"):
            await served.generate("word " * 5000)
        with pytest.raises(InvalidArgument, match="request 1: request_id 'x' is in use"):
            await served.generate([PROMPT, PROMPT], request_id="x")
        with pytest.raises(InvalidArgument, match="deadline = -1 is out of range"):
            await served.generate(PROMPT, deadline=-1)
        stream = await served.stream(PROMPT, GREEDY, request_id="mine")
        assert stream.request_id == "mine"
        with pytest.raises(InvalidArgument, match="request_id 'mine' is in use"):
            await served.stream(PROMPT, request_id="mine")
        outputs = [news async for news in stream]
        assert {news.request_id for news in outputs} == {"mine"}
        assert [news async for news in stream] == []  # it has ended
        assert (await served.generate(PROMPT, GREEDY, request_id="mine"))[0].request_id == "mine"

    asyncio.run(run())


def test_one_task_reads_a_stream(tiny_served: AsyncLLM) -> None:
    async def run() -> None:
        await tiny_served.pause()
        stream = await tiny_served.stream([1], SamplingParams(max_tokens=200, ignore_eos=True))
        task = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="another task"):
            await anext(stream)
        tiny_served.resume()
        assert (await task).outputs
        await stream.aclose()

    asyncio.run(run())


def test_facts_of_the_model(served: AsyncLLM, llm_bf16: LLM) -> None:
    assert served.chat_template_names == llm_bf16.chat_template_names == ("default",)
    assert served.max_context == llm_bf16.max_context and served.end_tokens == llm_bf16.end_tokens
    ids = served.tokenize("naïve 日本")
    assert ids == served.tokenizer.encode("naïve 日本")  # type: ignore[union-attr]
    assert served.detokenize(ids) == "naïve 日本"
    assert b"".join(map(served.tokenizer.token_bytes, ids)).decode() == "naïve 日本"  # type: ignore[union-attr]
    assert "AsyncLLM('" in repr(served)


def test_the_signatures_are_those_of_llm() -> None:
    """Plus how news comes, less the progress bar."""
    assert inspect.signature(AsyncLLM) == inspect.signature(LLM)
    waiting = ("generate", "chat", "beam_search", "score", "embed", "rerank")
    for name in (*waiting, "stream", "stream_chat", "stream_beam_search"):
        ours, theirs = (inspect.signature(getattr(cls, name)).parameters for cls in (AsyncLLM, LLM))
        assert [p for p in ours if p != "output_kind"] == [p for p in theirs if p != "progress"], name
        assert inspect.iscoroutinefunction(getattr(AsyncLLM, name)) != name.startswith("stream")
    assert inspect.signature(AsyncLLM.stream).return_annotation == AsyncStream.__name__


def test_times(served: AsyncLLM) -> None:
    async def run() -> None:
        (output,) = await served.generate(PROMPT, GREEDY)
        times = output.metrics
        assert times is not None
        order = [
            times.arrival_time,
            times.queued_time,
            times.scheduled_time,
            times.prefilled_time,
            times.last_token_time,
            times.finished_time,
        ]
        assert None not in order and order == sorted(order)  # type: ignore[type-var]
        assert times.first_token_time == times.prefilled_time
        assert 0 < times.time_to_first_token < times.latency  # type: ignore[operator]

    asyncio.run(run())
