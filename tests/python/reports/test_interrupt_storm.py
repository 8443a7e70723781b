"""Storms of Ctrl-C: thousands of them strike inside the library, at any bytecode, and nothing of an interrupted call is
left behind: no inbox, no waiter, no pinned prefix, no block."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import interrupts

_STORM = """
    import gc, os, random, signal, sys, threading, time
    from contextlib import suppress
    import pagedcore
    from pagedcore import LLM, BeamSearchParams, InvalidArgument, SamplingParams

    package = os.path.dirname(pagedcore.__file__)
    llm = LLM(sys.argv[1], num_blocks=300, block_size=4, threads=1)
    wanted = int(sys.argv[2])
    short = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
    expected = llm.generate([[1, 2, 3]], short)[0].outputs[0].token_ids
    llm.engine.clear_prefix_cache()
    struck = 0

    def strike(number, frame):  # where a call of the library runs: between calls the program has its own state
        global struck
        while frame is not None:
            if frame.f_code.co_filename.startswith(package):
                struck += 1
                raise KeyboardInterrupt
            frame = frame.f_back

    signal.signal(signal.SIGINT, strike)
    over = threading.Event()

    def storm():
        source = random.Random(5)
        while not over.is_set():
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            time.sleep(source.random() * 0.002)

    beside = []  # another thread's calls, which wait for what the interrupted ones drain

    def neighbour():
        while not over.is_set():
            beside.append(llm.generate([[1, 2, 3]], short)[0].outputs[0].token_ids)

    long = SamplingParams(n=2, max_tokens=100, ignore_eos=True)
    calls = [
        lambda step: llm.generate([[step % 300] * 40, [7, 8, 9]], long),
        lambda step: [news for news in llm.stream([step % 300] * 30, long)],
        lambda step: llm.register_prefix(f"prefix {step}", [step % 300] * 50),
        lambda step: llm.beam_search([[step % 300] * 9], BeamSearchParams(beam_width=3, max_tokens=50)),
    ]
    threads = [threading.Thread(target=storm), threading.Thread(target=neighbour)]
    for thread in threads:
        thread.start()
    step = ended = 0
    while struck < wanted:
        step += 1
        try:
            calls[step % len(calls)](step)
            ended += 1
            if step % len(calls) == 2:
                llm.release_prefix(f"prefix {step}")
        except KeyboardInterrupt:
            pass
    over.set()
    for thread in threads:
        thread.join()
    time.sleep(0.05)  # one that was sent last
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    # A prefix that was there when the last bytecode of its registration, or the first of its release, was struck.
    known = [f"prefix {number}" for number in range(step + 1)]
    whole = 0
    for name in known:
        with suppress(InvalidArgument):
            llm.release_prefix(name)
            whole += 1
    gc.collect()
    assert llm.generate([[1, 2, 3]], short)[0].outputs[0].token_ids == expected
    assert beside and all(tokens == expected for tokens in beside), len(beside)
    llm.engine.clear_prefix_cache()
    stats = llm.stats()
    gauges = ("blocks_used", "blocks_pinned", "prefixes_registered", "requests_running", "requests_waiting")
    left = {name: stats[name] for name in gauges}
    assert not any(left.values()), left
    assert not llm.engine.busy
    dispatcher = llm._dispatcher
    held = {name: len(getattr(dispatcher, "_" + name)) for name in (
        "gone", "owned", "prefixes", "inboxes", "waiting", "drainer", "arrived")}
    # What the last call of all left is swept by the next.
    assert held.pop("gone") <= 1 and held.pop("owned") <= 1 and not any(held.values()), held
    assert len(llm._prefixes) == 0
    print("struck", struck, "ended", ended, "whole", whole, "beside", len(beside))
"""


# rule: bindings.signals-act
def test_nothing_of_an_interrupted_call_is_left(tiny: Any) -> None:
    """300 blocks: what a few dozen interrupted calls kept would not leave room for the next."""
    folder: Path = tiny("llama")[0]
    command = [sys.executable, "-c", textwrap.dedent(_STORM), str(folder), "2000"]
    process = interrupts.start(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        out, err = process.communicate(timeout=300)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, err
    assert out.startswith("struck 2000 ") or int(out.split()[1]) > 2000, out
