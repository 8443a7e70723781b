"""``pagedcore chat``: a conversation in the terminal."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from ..errors import InvalidArgument
from ..history import TOKEN_IDS
from .common import (
    Formatter,
    add_model_flags,
    add_option_flags,
    add_sampling_flags,
    open_llm,
    request_options,
    sampling_params,
)

if TYPE_CHECKING:
    from ..llm import LLM
    from ..sampling_params import SamplingParams

__all__ = ["add_to"]

_COMMANDS = """\
/reset   forget the conversation
/help    this list
/exit    leave (so does Ctrl-D)
Ctrl-C stops an answer; what was said stays in the conversation."""

_EPILOG = f"""\
examples:
  pagedcore chat
  pagedcore chat --system "You are a pirate." --temperature 0.7 --seed 1
  echo "Name three rivers." | pagedcore chat        one answer per line of stdin

in the conversation:
{_COMMANDS}"""


def add_to(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "chat",
        help="talk to a model",
        description="A conversation, with the model's chat template. What was said stays in the prefix cache.",
        epilog=_EPILOG,
        formatter_class=Formatter,
    )
    parser.add_argument("--system", metavar="TEXT", help="instructions that precede the conversation")
    add_sampling_flags(
        parser,
        max_tokens="as many as the context holds",
        without=("logprobs", "prompt_logprobs", "prompt_logprob_start", "logprob_token_ids"),
    )
    add_option_flags(parser.add_argument_group("request"), "RequestOptions", ("prefix", "request_id"))
    add_model_flags(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    sampling_params(arguments)
    options = request_options(arguments)
    with open_llm(arguments) as llm:
        params = sampling_params(arguments, llm)
        conversation = _Conversation(llm, params, arguments.system, options)
        interactive = sys.stdin.isatty()
        if interactive:
            import readline  # noqa: F401  (line editing and history for input())

            print(f"{llm.model}\n{_COMMANDS}\n", file=sys.stderr)
        while (line := _read(interactive)) is not None:
            if line == "/exit":
                break
            if line == "/help":
                print(_COMMANDS, file=sys.stderr)
            elif line == "/reset":
                conversation.reset()
            elif line.startswith("/"):
                print(f"no command {line.split()[0]}; /help lists them", file=sys.stderr)
            elif line:
                conversation.say(line)
    return 0


def _read(interactive: bool) -> str | None:
    while True:
        try:
            return input("> " if interactive else "").strip()
        except EOFError:
            if interactive:
                print(file=sys.stderr)
            return None
        except KeyboardInterrupt:
            if not interactive:
                raise
            print("\n(/exit or Ctrl-D leaves)", file=sys.stderr)


class _Conversation:
    def __init__(self, llm: LLM, params: SamplingParams, system: str | None, options: dict[str, Any]) -> None:
        self._llm = llm
        self._params = params
        self._options = options
        self._system = [] if system is None else [{"role": "system", "content": system}]
        self._messages: list[dict[str, Any]] = []
        self.reset()

    def reset(self) -> None:
        self._messages = list(self._system)

    def say(self, text: str) -> None:
        """Prints the answer as it comes, and remembers both. A turn that fails is forgotten."""
        messages = [*self._messages, {"role": "user", "content": text}]
        answer: list[str] = []
        ids: list[int] = []
        error = None
        try:
            for news in self._llm.stream_chat(messages, self._params, **self._options):
                answer.append(news.outputs[0].text)
                ids += news.outputs[0].token_ids
                error = news.error
                print(answer[-1], end="", flush=True)
        except KeyboardInterrupt:
            print(" (stopped)", end="", file=sys.stderr, flush=True)
        except InvalidArgument as invalid:  # the conversation outgrew the context, or the template refuses it
            error = f"{invalid} (/reset starts anew)"
        print(flush=True)
        if error is not None:
            print(f"pagedcore: {error}", file=sys.stderr)
            return
        self._messages = [*messages, {"role": "assistant", "content": "".join(answer), TOKEN_IDS: ids}]
