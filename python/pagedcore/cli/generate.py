"""``pagedcore generate``: prompts in, text out."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from ..errors import InvalidArgument
from .common import (
    Formatter,
    add_model_flags,
    add_option_flags,
    add_sampling_flags,
    engine_options,
    open_llm,
    print_json,
    read_texts,
    request_options,
    sampling_params,
)
from .streams import complain

if TYPE_CHECKING:
    from ..llm import LLM
    from ..outputs import RequestOutput
    from ..sampling_params import SamplingParams

__all__ = ["add_to", "as_dict"]

_EPILOG = """\
examples:
  pagedcore generate "Once upon a time" --max-tokens 100
  pagedcore generate --temperature 0 "2 + 2 =" "The sky is"      several prompts run as one batch
  echo "Dear Sir," | pagedcore generate --stop "Sincerely"
  pagedcore generate "A name for a cat:" -n 5 --temperature 0.8 --json    one JSON object per prompt

One prompt is printed as it is written by the model. Several are printed when all are done, with
--json one per line."""


def add_to(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "generate",
        help="continue prompts",
        description="Continues prompts. Without a prompt it is read from stdin.",
        epilog=_EPILOG,
        formatter_class=Formatter,
    )
    parser.add_argument("prompt", nargs="*", help="text to continue; none: all of stdin")
    parser.add_argument("-n", type=int, default=1, metavar="N", help="samples of each prompt")
    parser.add_argument("--chat", action="store_true", help="each prompt is a message: use the chat template")
    parser.add_argument("--json", action="store_true", help="print one JSON object per prompt")
    add_sampling_flags(
        parser, max_tokens="256", without=("prompt_logprobs", "prompt_logprob_start", "logprob_token_ids")
    )
    served = parser.add_argument_group("request")
    served.add_argument("--prefix", metavar="TEXT", help="computed once, and put before every prompt")
    add_option_flags(served, "RequestOptions", ("prefix", "request_id"))
    add_model_flags(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    # The checks that need no model come before it is loaded.
    ours = {"n": arguments.n, "max_tokens": 256}
    sampling_params(arguments, **ours)
    if arguments.logprobs is not None and not arguments.json:
        raise InvalidArgument("--logprobs are printed with --json only: give that too")
    options = request_options(arguments)
    engine_options(arguments)
    prompts = read_texts(arguments.prompt)
    with open_llm(arguments) as llm:
        params = sampling_params(arguments, llm, **ours)
        if llm.has_chat_template and not arguments.chat:
            complain("the model has a chat template: --chat makes a message of each prompt")
        if arguments.prefix is not None:
            llm.register_prefix("prefix", arguments.prefix, salt=options.get("salt", 0))
            options["prefix"] = "prefix"
        if arguments.json or len(prompts) * params.n > 1:
            return _print_all(llm, prompts, params, options, arguments)
        return _print_streaming(llm, prompts[0], params, options, arguments)


def _message(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


def _print_streaming(
    llm: LLM, prompt: str, params: SamplingParams, options: dict[str, Any], arguments: argparse.Namespace
) -> int:
    if arguments.chat:
        stream = llm.stream_chat(_message(prompt), params, **options)
    else:
        stream = llm.stream(prompt, params, **options)
    error = None
    for news in stream:
        print(news.outputs[0].text, end="", flush=True)
        error = news.error
    print()
    return _report(error)


def _print_all(
    llm: LLM, prompts: list[str], params: SamplingParams, options: dict[str, Any], arguments: argparse.Namespace
) -> int:
    if arguments.chat:
        outputs = llm.chat([_message(prompt) for prompt in prompts], params, **options)
    else:
        outputs = llm.generate(prompts, params, **options)
    status = 0
    for prompt, output in zip(prompts, outputs, strict=True):
        if arguments.json:
            print_json({"prompt": prompt, **as_dict(output)})
        else:
            for sample in output.outputs:
                print(f"=== {prompt!r}, sample {sample.index}\n{sample.text}")
        status = max(status, _report(output.error))
    return status


def as_dict(output: RequestOutput) -> dict[str, Any]:
    """What --json prints of it."""
    samples = []
    for sample in output.outputs:
        values = {
            "index": sample.index,
            "text": sample.text,
            "token_ids": sample.token_ids,
            "finish_reason": sample.finish_reason,
            "stop_reason": sample.stop_reason,
            "error": sample.error,
        }
        if sample.logprobs is not None:
            values["logprobs"] = [
                {token: entry._asdict() for token, entry in position.items()} for position in sample.logprobs
            ]
            values["cumulative_logprob"] = sample.cumulative_logprob
        samples.append(values)
    return {
        "num_prompt_tokens": len(output.prompt_token_ids),
        "num_cached_tokens": output.num_cached_tokens,
        "outputs": samples,
    }


def _report(error: str | None) -> int:
    if error is None:
        return 0
    print(f"pagedcore: the request failed: {error}", file=sys.stderr)
    return 1
