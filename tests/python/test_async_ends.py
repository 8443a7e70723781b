"""Whoever leaves takes the request along, in every state: no blocks, waiters, tasks or descriptors remain."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pagedcore import Aborted, AsyncLLM, InvalidArgument, Overloaded, SamplingParams

LONG = SamplingParams(temperature=0, max_tokens=400, ignore_eos=True)
SHORT = SamplingParams(temperature=0, max_tokens=3, ignore_eos=True)


@pytest.fixture(scope="module")
def folder(tiny: Callable[..., tuple[Path, Any]]) -> Path:
    return tiny("llama")[0]


@pytest.fixture
def llm(folder: Path) -> Iterator[AsyncLLM]:
    llm = AsyncLLM(folder, kv_cache_memory="4MiB", max_batched_tokens=64, max_sequences=8)
    yield llm
    llm.close()


def stat(llm: AsyncLLM, name: str) -> float:
    return llm.stats()[name]


def busy(llm: AsyncLLM) -> float:
    return sum(stat(llm, name) for name in ("requests_running", "requests_waiting", "blocks_used"))


async def idle(llm: AsyncLLM) -> None:
    """Returns when nothing runs. What ends by itself takes hundreds of steps, which are paused: it would not."""
    for _ in range(2000):
        if busy(llm) == 0:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(llm.stats())


def descriptors() -> int:
    gc.collect()  # loops of earlier tests
    return len(os.listdir("/proc/self/fd"))


async def read(llm: AsyncLLM, i: int) -> None:
    async for _ in llm.stream([i + 1], LONG):
        pass


async def begun(llm: AsyncLLM, running: int) -> None:
    while stat(llm, "requests_running") < running:
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("way", ["cancel", "aclose", "drop", "drop task", "break"])
def test_fifty_clients_leave(llm: AsyncLLM, way: str) -> None:
    """Eight run, the others wait. The engine stands still meanwhile, so that no request can end by itself."""

    async def run() -> None:
        await llm.generate([[1]], SHORT)
        before = descriptors(), len(asyncio.all_tasks())
        if way in ("cancel", "drop task"):
            tasks = [asyncio.create_task(read(llm, i)) for i in range(50)]
            await begun(llm, 8)
            await llm.pause()
            if way == "cancel":
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            del tasks
            with contextlib.suppress(UnboundLocalError):
                del task
            logged: list[dict[str, Any]] = []
            asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
            for _ in range(3):
                await asyncio.sleep(0)  # those that were about to read wait again
                gc.collect()
        else:
            streams = [await llm.stream([i + 1], LONG) for i in range(50)]
            await begun(llm, 8)
            await llm.pause()
            gc.disable()
            if way == "aclose":
                for stream in streams:
                    await stream.aclose()
            elif way == "break":
                for stream in streams[:8]:
                    async for _ in stream:
                        break
            with contextlib.suppress(UnboundLocalError):
                del stream
            del streams
        await idle(llm)
        gc.enable()
        llm.resume()
        assert stat(llm, "requests_aborted") > 0
        assert stat(llm, "requests_aborted") + stat(llm, "requests_finished") == 51
        assert (descriptors(), len(asyncio.all_tasks())) == before
        assert (await llm.generate([[1]], SHORT))[0].finished
        queue = llm._queue()
        assert queue._takers == {}

    asyncio.run(run())


def test_a_batch_that_is_cancelled_or_times_out(llm: AsyncLLM) -> None:
    async def run() -> None:
        for call in (
            lambda: llm.generate([[i + 1] for i in range(30)], LONG),
            lambda: llm.beam_search([[1], [2]]),
            lambda: llm.score([[i + 1] * 60 for i in range(30)]),
        ):
            await llm.pause()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(call(), 0.02)
            await idle(llm)
            llm.resume()
        assert stat(llm, "requests_aborted") == 30 + 2 + 30

    asyncio.run(run())


def test_finished_and_unread(llm: AsyncLLM) -> None:
    """Streams whose requests have ended while nobody read: what is unread is one piece of news, and goes with them."""

    async def run() -> None:
        streams = [await llm.stream([i + 1], LONG) for i in range(10)]
        while stat(llm, "requests_finished") < 10:
            await asyncio.sleep(0.01)
        (news,) = [news async for news in streams[0]]
        assert len(news.outputs[0].token_ids) == 400 and news.finished
        engine = llm.engine
        assert not engine.busy
        del streams
        assert busy(llm) == 0

    asyncio.run(run())


def test_an_unread_stream_has_bounded_memory(llm: AsyncLLM) -> None:
    """While the loop does not turn, news is joined in the engine: one output for each stream, not for each token."""

    async def run() -> None:
        streams = [await llm.stream([i + 1], LONG) for i in range(8)]
        while stat(llm, "requests_finished") < 8:
            time.sleep(0.01)  # the loop stands still
        outputs = llm.engine.wait(0.0, llm._queue().number)
        assert len(outputs) == 8
        assert {len(output.tokens) for output in outputs} == {400}
        del streams

    asyncio.run(run())


def test_one_wake_up_for_all_news_of_a_step(llm: AsyncLLM) -> None:
    wakes = 0

    async def run() -> None:
        nonlocal wakes
        queue = llm._queue()
        wait = type(queue).__call__

        def counted(self: Any) -> int:
            nonlocal wakes
            wakes += 1
            return wait(self)

        type(queue).__call__ = counted  # type: ignore[method-assign]
        try:
            await asyncio.gather(*(read(llm, i) for i in range(8)))
        finally:
            type(queue).__call__ = wait  # type: ignore[method-assign]

    asyncio.run(run())
    assert 0 < wakes <= 2 * 400 + 50  # not 8 * 400


def test_a_loop_that_is_closed_with_streams_open(llm: AsyncLLM) -> None:
    streams = []
    tasks = []

    async def begin() -> None:
        llm.engine.pause()  # nothing can end by itself
        streams.extend([await llm.stream([i + 1], LONG) for i in range(10)])
        tasks.append(asyncio.ensure_future(llm.generate([[1], [2]], LONG)))
        tasks.append(asyncio.ensure_future(read(llm, 3)))
        await asyncio.sleep(0)

    before = descriptors()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    loop.close()
    del loop
    asyncio.run(idle(llm))
    gc.collect()
    assert descriptors() == before
    llm.resume()
    for task in tasks:
        task._log_destroy_pending = False

    async def read_on() -> None:
        with pytest.raises(Aborted, match="event loop on which this stream began is closed"):
            async for _ in streams[0]:
                pass

    asyncio.run(read_on())


def test_a_loop_that_is_dropped(llm: AsyncLLM) -> None:
    async def begin() -> None:
        tasks.append(asyncio.ensure_future(read(llm, 1)))
        await begun(llm, 1)
        llm.engine.pause()

    tasks: list[Any] = []
    with pytest.warns(ResourceWarning, match="unclosed event loop"):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(begin())
        loop.set_exception_handler(lambda *_: None)
        tasks.clear()
        del loop
        gc.collect()
        asyncio.run(idle(llm))
    llm.resume()


def test_a_stream_is_read_where_it_began(llm: AsyncLLM) -> None:
    loop = asyncio.new_event_loop()

    async def begin() -> Any:
        return await llm.stream([1], LONG)

    stream = loop.run_until_complete(begin())

    async def elsewhere() -> None:
        with pytest.raises(InvalidArgument, match="read on the event loop on which it began"):
            async for _ in stream:  # news that came while its own loop ran may be there
                pass
        await idle(llm)

    asyncio.run(elsewhere())
    loop.close()


def test_closing_tells_whoever_waits(llm: AsyncLLM) -> None:
    async def run() -> None:
        before = descriptors()
        await llm.pause()  # nothing can end by itself
        stream = await llm.stream([9], LONG)
        tasks = [asyncio.create_task(read(llm, i)) for i in range(4)]
        tasks += [asyncio.create_task(llm.generate([[3]], LONG)) for _ in range(4)]  # type: ignore[arg-type]
        await asyncio.sleep(0)
        await llm.aclose()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(end) for end in ends} == {Aborted}
        with pytest.raises(Aborted, match="closed"):
            async for _ in stream:
                pass
        for call in (lambda: llm.generate([[1]]), lambda: llm.drain(1), lambda: llm.pause()):
            with pytest.raises(Aborted, match="closed"):
                await call()
        with pytest.raises(Aborted, match="closed"):
            llm.stream([1])
        await llm.aclose()
        assert descriptors() == before

    asyncio.run(run())


def test_async_with(folder: Path) -> None:
    async def run() -> None:
        before = descriptors()
        async with AsyncLLM(folder, kv_cache_memory="1MiB") as llm:
            async with llm.stream([1], LONG) as stream:
                await anext(stream)
            await idle(llm)
        with pytest.raises(Aborted):
            llm.stats()
        assert descriptors() == before

    asyncio.run(run())


def test_deadlines(llm: AsyncLLM) -> None:
    async def run() -> None:
        await llm.pause()  # nothing can end by itself
        waiting = asyncio.create_task(llm.generate([[1]], LONG, deadline=0.02))
        (output,) = await waiting
        assert output.outputs[0].finish_reason == "deadline" and output.outputs[0].token_ids == []
        llm.resume()
        *_, last = [news async for news in llm.stream([2], LONG, deadline=0.001)]  # 400 steps take longer
        assert last.outputs[0].finish_reason == "deadline" and last.finished
        assert stat(llm, "requests_expired") == 2 and busy(llm) == 0
        (output,) = await llm.generate([[1]], SHORT, deadline=1e6)
        assert output.outputs[0].finish_reason == "length"

    asyncio.run(run())


def test_abort_by_name_and_number_from_another_thread(llm: AsyncLLM) -> None:
    async def run() -> None:
        await llm.pause()
        named = asyncio.create_task(llm.generate([[1]], LONG, request_id="client 7"))
        stream = await llm.stream([2], LONG)
        await asyncio.sleep(0)
        await asyncio.to_thread(llm.abort, "client 7")
        await asyncio.to_thread(llm.abort, stream.request_id)
        llm.abort("nobody")
        llm.abort(10**9)
        assert (await named)[0].outputs[0].finish_reason == "abort"
        assert [news.outputs[0].finish_reason async for news in stream] == ["abort"]
        llm.resume()
        for wrong in (1.5, None, True, -1):
            with pytest.raises((TypeError, ValueError)):
                llm.abort(wrong)  # type: ignore[arg-type]

    asyncio.run(run())


def test_waiting_is_bounded(folder: Path) -> None:
    async def run() -> None:
        async with AsyncLLM(folder, kv_cache_memory="1MiB", max_waiting=2) as llm:
            await llm.pause()
            waiting = [await llm.stream([1], SHORT) for _ in range(2)]
            for call in (lambda: llm.generate([[1]]), lambda: llm.stream([1])):
                with pytest.raises(Overloaded, match=r"2 requests wait to begin.*max_waiting = 2"):
                    await call()
            assert llm.stats()["requests_refused"] == 2
            llm.resume()
            for stream in waiting:
                assert [news async for news in stream][-1].finished
            assert (await llm.generate([[1]], SHORT))[0].finished

    asyncio.run(run())


def test_drain(llm: AsyncLLM) -> None:
    async def run() -> None:
        stream = await llm.stream([1], LONG)
        await llm.pause()
        assert await llm.drain(0.01) == [stream.request_id]
        with pytest.raises(Aborted, match="drains"):
            await llm.generate([[1]], SHORT)
        waits = asyncio.create_task(llm.drain(1000))
        await asyncio.sleep(0.01)
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits
        llm.resume()
        assert await llm.drain(60) == []
        assert [news async for news in stream][-1].finished
        llm.resume()
        assert (await llm.generate([[1]], SHORT))[0].finished

    asyncio.run(run())


def test_idle_costs_no_cpu(llm: AsyncLLM) -> None:
    """An open stream of a paused engine, for half a second: the loop is not woken once."""

    async def run() -> None:
        await llm.generate([[1]], SHORT)
        await llm.pause()
        stream = await llm.stream([1], LONG)
        task = asyncio.create_task(anext(stream))
        await asyncio.sleep(0.05)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
        await asyncio.sleep(0.5)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before < 20
        task.cancel()

    asyncio.run(run())
    llm.resume()


def test_after_fork_it_raises(llm: AsyncLLM) -> None:
    asyncio.run(llm.generate([[1]], SHORT))
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(llm.generate([[1]], SHORT))
        except Aborted as error:
            os._exit(7 if "child of fork()" in str(error) else 8)
        except BaseException:
            os._exit(9)
        os._exit(10)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert asyncio.run(llm.generate([[1]], SHORT))[0].finished


PROGRAM = """
import asyncio, os, signal, sys, threading
import pagedcore
from pagedcore import SamplingParams
LONG = SamplingParams(temperature=0, max_tokens=400, ignore_eos=True)
llm = pagedcore.AsyncLLM(sys.argv[1], kv_cache_memory="4MiB")
async def read(i):
    async for news in llm.stream([i + 1], LONG):
        if i == 3:
            os.kill(os.getpid(), signal.SIGINT)
            i = 4
async def main():
    await asyncio.gather(*(read(i) for i in range(8)))
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
async def idle():
    while llm.engine.busy or llm.stats()["blocks_used"]:
        llm.engine.wait(0.0)
        await asyncio.sleep(0.001)
    print(llm.stats()["requests_aborted"])
asyncio.run(idle())
print(asyncio.run(llm.generate([[1]], SamplingParams(max_tokens=2)))[0].finished)
"""


def test_ctrl_c_ends_all_requests(folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(folder)], capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["interrupted", "8.0", "True"], done
    assert done.stderr == ""


def test_an_interpreter_that_ends_with_streams_open(folder: Path) -> None:
    program = PROGRAM.split("try:")[0].replace("i == 3", "i == 33") + (
        "loop = asyncio.new_event_loop()\n"
        "task = loop.create_task(main())\n"
        "loop.call_later(0.2, loop.stop)\n"
        "loop.run_forever()\n"
        "print('end')\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout == "end\n", done


def test_threads_that_abort_while_loops_read(llm: AsyncLLM) -> None:
    """Aborts from other threads, at any point: each stream ends once, one way or the other."""
    stop = threading.Event()
    names = [f"r{i}" for i in range(40)]

    def abort() -> None:
        while not stop.is_set():
            for name in names:
                llm.abort(name)

    async def one(i: int) -> str | None:
        reason = None
        async for news in llm.stream([i + 1], LONG, request_id=names[i]):
            assert reason is None
            reason = news.outputs[0].finish_reason
        return reason

    async def run() -> list[str | None]:
        return await asyncio.gather(*(one(i) for i in range(40)))

    thread = threading.Thread(target=abort)
    thread.start()
    try:
        assert set(asyncio.run(run())) <= {"abort", "length"}
    finally:
        stop.set()
        thread.join()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert busy(llm) == 0
