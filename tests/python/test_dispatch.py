"""Ctrl-C strikes wherever it can in the dispatcher, place after place, and nobody hangs or loses an output."""

from __future__ import annotations

import dis
import itertools
import sys
import threading
from types import FrameType
from typing import Any

import pytest

from pagedcore import LLM, SamplingParams, dispatch

SHORT = SamplingParams(temperature=0, max_tokens=3, ignore_eos=True)
ENDLESS = SamplingParams(temperature=0, max_tokens=60, ignore_eos=True)


class CtrlC:
    """Raises KeyboardInterrupt in this thread at the nth place in dispatch.py where the interpreter looks for signals:
    as a function begins, behind a call, before a loop goes round. Not between the bytecodes that enter or leave a
    `with`: there it does not look."""

    _LOOKS = ("RESUME", "CALL", "JUMP_BACKWARD", "JUMP_ABSOLUTE")

    def __init__(self, nth: int) -> None:
        self._left = nth
        self._behind: dict[FrameType, str] = {}

    def __enter__(self) -> None:
        sys.settrace(self._call)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename != dispatch.__file__:
            return None
        frame.f_trace_opcodes = True
        return self._opcode

    def _opcode(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "opcode":
            looks = self._behind.get(frame, "RESUME").startswith(self._LOOKS)
            self._behind[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            self._left -= looks
            if self._left < 0:
                raise KeyboardInterrupt
        return self._opcode


@pytest.mark.parametrize("drains", [True, False], ids=["alone", "beside-another-thread"])
@pytest.mark.parametrize("call", ["generate", "stream"])
def test_ctrl_c_anywhere(tiny_llm: LLM, call: str, drains: bool) -> None:
    expected = tiny_llm.generate([[7]], SHORT)[0].outputs[0].token_ids
    struck: list[int] = []
    failures: list[object] = []
    done = threading.Event()

    def interrupted() -> None:
        for nth in itertools.count():
            stream = tiny_llm.stream([5], ENDLESS)
            try:
                with CtrlC(nth):
                    if call == "generate":
                        tiny_llm.generate([[6]], SHORT)
                    else:
                        next(stream)
                break  # there is no nth place
            except KeyboardInterrupt:
                struck.append(nth)
            finally:
                stream.close()
            found = tiny_llm.generate([[7]], SHORT)[0].outputs[0].token_ids
            if found != expected:
                failures.append((nth, found))

    def beside() -> None:
        while not done.is_set():
            found = tiny_llm.generate([[7]], SHORT)[0].outputs[0].token_ids
            if found != expected:
                failures.append(found)

    threads = [threading.Thread(target=work, daemon=True) for work in (interrupted, beside)[: 1 if drains else 2]]
    for thread in threads:
        thread.start()
    threads[0].join(timeout=60)
    done.set()
    threads[-1].join(timeout=10)
    assert not any(thread.is_alive() for thread in threads), f"hangs after a Ctrl-C at place {len(struck) - 1}"
    assert not failures
    assert len(struck) > (20 if drains else 5)  # beside another thread some calls only wait for what that one drains
