"""``pagedcore score``: how likely a model finds texts, or which of several continuations it prefers."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..errors import InvalidArgument
from .common import (
    Command,
    Formatter,
    add_model_flags,
    engine_options,
    open_llm,
    print_json,
    read_texts,
    refuse_unused,
)

if TYPE_CHECKING:
    from ..divergence import Distributions
    from ..llm import LLM
    from ..outputs import Score
    from ..tokenizer import Tokenizer

__all__ = ["add_to"]

_EPILOG = """\
examples:
  pagedcore score "Paris is the capital of France."
  echo "Rain falls." | pagedcore score --json
  pagedcore score "The capital of France is" --choice " Paris" --choice " Rome" --choice " a cat"
  pagedcore score --dtype int8 --against dtype=float32 --window 160 < texts.txt

A text is scored after its first token, which nothing predicts. With --choice, each continuation is scored after the
prompt, whose KV they share; the best comes first. `per token` divides by the tokens of a continuation, so that a long
one is not worse for its length alone. With --against, texts say how far the model's distributions are from those of the
same model with other options, or of another one with the same vocabulary (model=PATH): Kullback-Leibler divergence a
token, of the 100 likeliest tokens and the others as one."""


def add_to(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "score",
        help="likelihood of texts, or of continuations",
        description="Says how likely a model finds texts. Without a text it is read from stdin.",
        epilog=_EPILOG,
        formatter_class=Formatter,
    )
    parser.add_argument("text", nargs="*", help="what to score; none: all of stdin")
    parser.add_argument("--choice", action="append", metavar="TEXT", help="a continuation of the text (repeat it)")
    parser.add_argument(
        "--against", action="append", metavar="NAME=VALUE", help="an option of the reference, such as dtype=float32"
    )
    parser.add_argument("--window", type=int, metavar="N", help="with --against: texts in pieces of N tokens")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each text, with every token")
    add_model_flags(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    engine_options(arguments)  # before stdin is read
    if arguments.against is not None:
        return _compare(arguments)
    refuse_unused(arguments, ("window",), "has no effect: give --against too")
    texts = read_texts(arguments.text)
    with open_llm(arguments) as llm:
        if arguments.choice is None:
            for text, score in zip(texts, llm.score(texts), strict=True):
                _print_text(llm, text, score, arguments.json)
        else:
            for text in texts:
                _print_choices(llm, text, _choices(llm, text, arguments.choice), arguments.json)
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from ..divergence import divergence

    refuse_unused(arguments, ("choice",), "has no effect: --against compares whole texts")
    if arguments.window is not None and arguments.window < 2:
        raise InvalidArgument(f"--window is {arguments.window}: at least 2, since a first token is not predicted")
    reference = _reference(arguments)
    engine_options(reference)
    texts = read_texts(arguments.text)
    ids, exact = _distributions(reference, texts)
    other_ids, other = _distributions(arguments, texts)
    if other_ids != ids:
        raise InvalidArgument("the two models cut the texts into other tokens: their distributions cannot be compared")
    found = divergence(exact, other)
    if arguments.json:
        print_json({"against": arguments.against, **asdict(found)})
        return 0
    print(f"divergence {found.mean:.3g} a token, of {found.tokens} tokens; the largest {found.largest:.3g}")
    print(f"the same likeliest token for {100 * found.same_first:.2f} %")
    print(f"perplexity {found.perplexity:.4f}, the reference's {found.reference_perplexity:.4f}")
    return 0


def _reference(arguments: argparse.Namespace) -> argparse.Namespace:
    """The command's own flags, but for those that --against names."""
    parser = Command(prog="pagedcore score --against")
    add_model_flags(parser)
    flags = []
    for text in arguments.against:
        name, sign, value = text.partition("=")
        if not (name and sign):
            raise InvalidArgument(f"--against {text!r} is no NAME=VALUE, such as dtype=float32")
        flags.append(f"--{name.replace('_', '-')}={value}")
    return parser.parse_args(flags, copy.copy(arguments))


def _distributions(arguments: argparse.Namespace, texts: Sequence[str]) -> tuple[list[list[int]], Distributions]:
    """Token ids of the pieces of the texts, and what the model says of them."""
    from ..divergence import distributions

    with open_llm(arguments) as llm:
        size = arguments.window
        ids = [llm.tokenize(text) for text in texts]
        pieces = [
            whole[at : at + (size or len(whole))] for whole in ids for at in range(0, len(whole), size or len(whole))
        ]
        pieces = [piece for piece in pieces if len(piece) > 1]
        if not pieces:
            raise InvalidArgument("no text has two tokens, and a first one is not predicted")
        return pieces, distributions(llm, pieces)


def _choices(llm: LLM, prompt: str, continuations: list[str]) -> list[tuple[str, list[int], list[float]]]:
    """(continuation, its token ids, their log-probabilities), the best first."""
    tokenizer = llm.tokenizer
    if tokenizer is None:
        raise InvalidArgument("the model has no tokenizer, which a text needs")
    before = tokenizer.encode(prompt)
    whole = [_encoded(tokenizer, prompt, before, text) for text in continuations]
    for text, ids in zip(continuations, whole, strict=True):
        if len(ids) == len(before):
            raise InvalidArgument(f"--choice {text!r} has no token")
    start = len(before)
    scores = llm.score(whole, start=start)
    found = [(text, ids[start:], score.logprobs) for text, ids, score in zip(continuations, whole, scores, strict=True)]
    return sorted(found, key=lambda choice: -sum(choice[2]))


def _encoded(tokenizer: Tokenizer, prompt: str, before: list[int], text: str) -> list[int]:
    """Prompt and continuation as one text, where that leaves the prompt's tokens as they are."""
    whole = tokenizer.encode(prompt + text)
    return whole if whole[: len(before)] == before else before + tokenizer.encode(text, add_special_tokens=False)


def _print_choices(llm: LLM, prompt: str, choices: list[tuple[str, list[int], list[float]]], as_json: bool) -> None:
    if as_json:
        named = [
            {
                "text": text,
                "logprob": sum(logprobs),
                "per_token": sum(logprobs) / len(ids),
                "tokens": _tokens(llm, ids, logprobs),
            }
            for text, ids, logprobs in choices
        ]
        print_json({"prompt": prompt, "choices": named})
        return
    print(f"{'logprob':>10}{'per token':>11}  {prompt!r}")
    for text, ids, logprobs in choices:
        print(f"{sum(logprobs):>10.3f}{sum(logprobs) / len(ids):>11.3f}  {text!r}")


def _print_text(llm: LLM, text: str, score: Score, as_json: bool) -> None:
    ids = score.token_ids[len(score.token_ids) - len(score.logprobs) :]
    if as_json:
        perplexity = score.perplexity if score.logprobs else None
        tokens = _tokens(llm, ids, score.logprobs)
        print_json({"text": text, "logprob": score.logprob, "perplexity": perplexity, "tokens": tokens})
        return
    beginning = text if len(text) <= 60 else text[:57] + "..."
    print(f"logprob {score.logprob:.3f}, perplexity {score.perplexity:.3f}, {len(ids)} tokens scored: {beginning!r}")


def _tokens(llm: LLM, ids: list[int], logprobs: list[float]) -> list[dict[str, Any]]:
    assert llm.tokenizer is not None  # it made the ids
    return [
        {"id": token, "text": llm.tokenizer.token_text(token), "logprob": logprob}
        for token, logprob in zip(ids, logprobs, strict=True)
    ]
