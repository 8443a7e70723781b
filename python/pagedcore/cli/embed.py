"""``pagedcore embed``: what a model makes of texts, as numbers."""

from __future__ import annotations

import argparse
from typing import Any

from .common import Formatter, add_model_flags, engine_options, open_llm, print_json, read_texts

__all__ = ["add_to"]

_EPILOG = """\
examples:
  pagedcore embed -m YOUR_MODEL "Rain falls." "It is raining."
  pagedcore embed -m YOUR_MODEL --lines < texts.txt > vectors.jsonl
  pagedcore embed -m YOUR_MODEL --similarity "Rain falls." "It is raining." "A cat sleeps."

One JSON object for each text: {"text": ..., "embedding": [...]}. With --similarity, a table of how alike the texts are
(cosines) instead."""


def add_to(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "embed",
        help="embeddings of texts",
        description="Prints what a model makes of texts, as numbers. Without a text it is read from stdin.",
        epilog=_EPILOG,
        formatter_class=Formatter,
    )
    parser.add_argument("text", nargs="*", help="what to embed; none: all of stdin")
    parser.add_argument("--lines", action="store_true", help="each line of stdin is a text")
    parser.add_argument("--pooling", choices=("auto", "last", "mean", "cls"), default="auto", help="which rows count")
    parser.add_argument("--dimensions", type=int, metavar="N", help="keep the first N numbers")
    parser.add_argument(
        "--no-normalize", dest="normalize", action="store_false", help="leave embeddings as long as they are"
    )
    parser.add_argument("--similarity", action="store_true", help="print how alike the texts are")
    add_model_flags(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    engine_options(arguments)  # before stdin is read
    texts = read_texts(arguments.text)
    if arguments.lines and not arguments.text:
        texts = [line for text in texts for line in text.splitlines() if line]
    with open_llm(arguments) as llm:
        normalize = arguments.normalize or arguments.similarity
        found = llm.embed(texts, arguments.pooling, normalize, arguments.dimensions)
    if arguments.similarity:
        for row, text in zip(found @ found.T, texts, strict=True):
            print("".join(f"{cosine:>8.3f}" for cosine in row) + f"  {text[:60]!r}")
        return 0
    for text, vector in zip(texts, found, strict=True):
        print_json({"text": text, "embedding": vector.tolist()})
    return 0
