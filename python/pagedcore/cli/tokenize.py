"""``pagedcore tokenize``: text to token ids and back."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..errors import InvalidArgument
from .common import Formatter, add_checkpoint_flags, hub_options, print_json, read_texts

if TYPE_CHECKING:
    from ..tokenizer import Tokenizer

__all__ = ["add_to"]

_EPILOG = """\
examples:
  pagedcore tokenize "The capital of France is"
  echo "How many are these?" | pagedcore tokenize --count
  pagedcore tokenize --json "One text." "Another one."      one JSON object for each
  pagedcore tokenize --decode 504 3575 282 4649

Prints one line a token: its id and the text that it stands for. Loads no weights."""


def add_to(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "tokenize",
        help="text to token ids and back",
        description="Shows the tokens that a text is made of. Without a text it is read from stdin.",
        epilog=_EPILOG,
        formatter_class=Formatter,
    )
    parser.add_argument("text", nargs="*", help="what to encode; none: all of stdin")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--count", action="store_true", help="print the number of tokens only")
    form.add_argument("--ids", action="store_true", help="print the ids only, on one line")
    form.add_argument("--json", action="store_true", help="print one JSON object for each text")
    form.add_argument("--decode", action="store_true", help="the other way round: ids to their text")
    parser.add_argument("--no-special-tokens", action="store_true", help="without those that a prompt begins with")
    add_checkpoint_flags(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from ..engine_options import open_model

    texts = read_texts(arguments.text)
    if arguments.decode and arguments.no_special_tokens:
        raise InvalidArgument("--no-special-tokens is for encoding: --decode takes the ids as they are")
    model = open_model(arguments.model, {}, weights=False, **hub_options(arguments))
    tokenizer = model.tokenizer(arguments.tokenizer)
    if tokenizer is None:
        raise InvalidArgument(f"{model.path} has no tokenizer: name one with --tokenizer")
    if arguments.decode:
        print(tokenizer.decode(_ids_of(texts, tokenizer)))
        return 0
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=not arguments.no_special_tokens)
        _print(text, ids, tokenizer, arguments)
    return 0


def _ids_of(texts: Sequence[str], tokenizer: Tokenizer) -> list[int]:
    words = " ".join(texts).replace(",", " ").split()
    for word in words:
        if not word.isascii() or not word.isdecimal() or len(word) > 9 or tokenizer.id_to_token(int(word)) is None:
            raise InvalidArgument(f"{word!r} is no id of a token: there are 0 to {tokenizer.vocab_size - 1}")
    return [int(word) for word in words]


def _print(text: str, ids: list[int], tokenizer: Tokenizer, arguments: argparse.Namespace) -> None:
    if arguments.count:
        print(len(ids))
    elif arguments.ids:
        print(*ids)
    elif arguments.json:
        texts = [tokenizer.token_text(token) for token in ids]
        print_json({"text": text, "count": len(ids), "token_ids": ids, "tokens": texts})
    else:
        for token in ids:
            mark = "  special" if tokenizer.is_special(token) else ""
            print(f"{token:>8}  {tokenizer.token_text(token)!r}{mark}")
