"""``pagedcore batch``: requests from a file of JSON lines, answers to another, in their order."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TextIO

from .. import _core
from ..checks import check_int
from ..errors import Aborted, InvalidArgument, Io
from ..request import derived_seed
from ..sampling_params import with_changes
from .common import (
    Formatter,
    add_model_flags,
    add_sampling_flags,
    check_output,
    engine_options,
    open_llm,
    sampling_params,
    write_json,
)
from .generate import as_dict
from .streams import complain

if TYPE_CHECKING:
    from ..llm import LLM
    from ..outputs import RequestOutput
    from ..sampling_params import SamplingParams

__all__ = ["add_to"]

_EPILOG = """\
examples:
  echo '{"prompt": "The sky is", "max_tokens": 8}' > requests.jsonl
  echo '{"id": 7, "messages": [{"role": "user", "content": "Name a colour."}], "n": 2}' >> requests.jsonl
  pagedcore batch requests.jsonl -o answers.jsonl
  pagedcore batch requests.jsonl -o answers.jsonl --resume      goes on where an earlier run ended

A line of the input is a JSON object with `prompt` (text), `prompt_token_ids` or `messages`; any sampling parameter or
option of a request, by its name; and, if you like, an `id`. The flags are for lines that say nothing else. A line of
the output has the `line` of its request and its `id`, and `outputs`, or `error`: a line that is wrong or fails costs no
other. The exit status is then 1."""

_UNTOLD = ("prompt_logprobs", "prompt_logprob_start", "logprob_token_ids")  # answers have no place for these
_PROMPTS = ("prompt", "prompt_token_ids", "messages")


def add_to(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "batch",
        help="answer a file of requests",
        description="Serves requests from JSON lines, as many at a time as fit, and writes answers in their order.",
        epilog=_EPILOG,
        formatter_class=Formatter,
    )
    parser.add_argument("input", nargs="?", metavar="FILE", help="JSON lines; none: stdin")
    parser.add_argument("-o", "--output", metavar="FILE", help="where the answers go (default: stdout)")
    parser.add_argument("--resume", action="store_true", help="keep the answers that are there, and serve the rest")
    parser.add_argument("--in-flight", type=int, default=64, metavar="N", help="requests at a time (default: 64)")
    add_sampling_flags(parser, max_tokens="256", without=_UNTOLD)
    add_model_flags(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from ..progress import Progress

    ours: dict[str, Any] = {"max_tokens": 256}
    sampling_params(arguments, **ours)
    engine_options(arguments)
    check_int("--in-flight", arguments.in_flight, 1, 4096)
    if arguments.resume and arguments.output is None:
        raise InvalidArgument("--resume needs -o: the file that has the answers so far")
    with ExitStack() as stack:
        lines = _lines_of(arguments.input, stack)
        output, answered = _output_of(arguments, stack)
        # The engine is closed before the pool waits for its threads: Ctrl-C ends what they wait for.
        pool = stack.enter_context(ThreadPoolExecutor(arguments.in_flight))
        llm = stack.enter_context(open_llm(arguments))
        worker = _Worker(llm, sampling_params(arguments, llm, **ours))
        rest = (line for line in lines if line[0] > answered)
        failed = 0
        with Progress(None, "lines") as bar:
            for answer in _in_order(pool, worker, rest, 2 * arguments.in_flight):
                failed += "error" in answer
                _write(output, answer)
                bar.add(1)
    if failed:
        complain(f"{failed} lines failed: their answers have an error")
    return 1 if failed else 0


def _in_order(
    pool: ThreadPoolExecutor, worker: _Worker, lines: Iterable[tuple[int, bytes]], most: int
) -> Iterator[dict[str, Any]]:
    running: deque[Future[dict[str, Any]]] = deque()
    for number, line in lines:
        if len(running) == most:
            yield running.popleft().result()
        running.append(pool.submit(worker.answer, number, line))
    while running:
        yield running.popleft().result()


class _Worker:
    """Answers lines, in any thread."""

    def __init__(self, llm: LLM, params: SamplingParams) -> None:
        self._llm = llm
        self._params = params
        self._sampling = {field.name for field in fields(params)} - set(_UNTOLD)
        self._options = {info.name for info in _core.options_of("RequestOptions")}

    def answer(self, number: int, line: bytes) -> dict[str, Any]:
        about: dict[str, Any] = {"line": number}
        try:
            request = _parse(line)
            if "id" in request:
                about["id"] = request.pop("id")
            output = self._serve(number, request)
        except Aborted:  # the engine has failed or was closed: so has the run
            raise
        except Exception as error:  # whatever a line brings about costs no other
            return about | {"error": " ".join(str(error).split()) or type(error).__name__}
        answer = about | as_dict(output)
        return answer if output.error is None else answer | {"error": output.error}

    def _serve(self, number: int, request: dict[str, Any]) -> RequestOutput:
        from ..names import unknown_name

        kinds = [name for name in _PROMPTS if name in request]
        if len(kinds) != 1:
            raise InvalidArgument(f"a request has one of {', '.join(_PROMPTS)}, not {' and '.join(kinds) or 'none'}")
        prompt = request.pop(kinds[0])
        for name in request:
            if name not in self._sampling and name not in self._options:
                raise unknown_name("a request", name, ["id", *_PROMPTS, *self._options, *self._sampling])
        options = {name: request.pop(name) for name in list(request) if name in self._options}
        # The same whichever thread comes first, and after --resume.
        own = {"seed": derived_seed(self._params.seed or 0, number)}
        limits = {name: getattr(self._params, name) for name in ("min_tokens", "max_tokens")}
        params = replace(self._params, **own | with_changes(limits, request))
        if kinds[0] == "messages":
            return self._llm.chat(prompt, params, progress=False, **options)[0]
        return self._llm.generate({kinds[0]: prompt}, params, progress=False, **options)[0]


def _parse(line: bytes) -> dict[str, Any]:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"the line is not JSON: {error}") from None
    if not isinstance(request, dict):
        raise InvalidArgument(f"the line is a {type(request).__name__}: a request is a JSON object")
    return request


def _lines_of(path: str | None, stack: ExitStack) -> Iterator[tuple[int, bytes]]:
    """Lines with something in them, and their numbers, counted from 1."""
    try:
        file: IO[bytes] = sys.stdin.buffer if path is None else stack.enter_context(Path(path).open("rb"))  # noqa: SIM115
    except OSError as error:
        raise Io(f"{path}: {error.strerror}") from None
    return ((number, line) for number, line in enumerate(file, 1) if line.strip())


def _output_of(arguments: argparse.Namespace, stack: ExitStack) -> tuple[TextIO, int]:
    """The file, and the last line of the input that it answers."""
    path = arguments.output
    if path is None:
        return sys.stdout, 0
    if os.path.exists(path) and not arguments.resume:
        raise InvalidArgument(f"{path} is there already: --resume goes on with it; or name another file")
    check_output(path)
    answered, end = _answered(path) if os.path.exists(path) else (0, 0)
    file: TextIO = stack.enter_context(Path(path).open("a", encoding="utf-8"))  # noqa: SIM115
    file.truncate(end)  # what an interrupted run wrote of a line
    return file, answered


def _answered(path: str) -> tuple[int, int]:
    """The line of the last whole answer, and where it ends."""
    line, end = 0, 0
    with open(path, "rb") as file:
        for answer in file:
            if not answer.endswith(b"\n"):
                break
            try:
                line, end = int(json.loads(answer)["line"]), end + len(answer)
            except (ValueError, TypeError, KeyError, RecursionError):
                raise InvalidArgument(f"{path} holds no answers of `pagedcore batch`: it stays as it is") from None
    return line, end


def _write(output: TextIO, answer: dict[str, Any]) -> None:
    name = getattr(output, "name", "stdout")
    try:
        write_json(answer, output)
        output.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Io(f"{name}: {error.strerror}") from None
