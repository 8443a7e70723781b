"""``pagedcore convert``: any checkpoint to a container, one file that C, C++ and Python open."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..errors import InvalidArgument
from .common import Formatter, add_checkpoint_flags, check_output, hub_options

__all__ = ["add_to"]

_EPILOG = """\
examples:
  pagedcore convert -o smollm2.pagedcore
  pagedcore generate "Once upon a time" --model smollm2.pagedcore

The file holds the weights in their element types, the description of the model, and what concerns text: the tokenizer
(as tokenizer.json), chat templates and the tokens that end a turn. C++ finds the latter by text_of() of
pagedcore/container_text.hpp, C by pc_container_text()."""


def add_to(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "convert",
        help="make a container of a checkpoint",
        description="Writes a checkpoint (GGUF file, Hugging Face directory or hub id) as one file of pagedcore's own.",
        epilog=_EPILOG,
        formatter_class=Formatter,
    )
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="where the container goes")
    parser.add_argument("--force", action="store_true", help="replace what is there")
    add_checkpoint_flags(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from ..default_model import default_model
    from ..loading import load_checkpoint
    from ..loading.container import save_container
    from ..memory import format_bytes
    from ..tokenizer import Tokenizer

    output = Path(arguments.output)
    if output.exists() and not arguments.force:
        raise InvalidArgument(f"{output} is there already: name another file, or give --force")
    check_output(output)
    tokenizer = None if arguments.tokenizer is None else Tokenizer.from_path(arguments.tokenizer)
    model = default_model() if arguments.model is None else arguments.model
    with load_checkpoint(model, **hub_options(arguments)) as checkpoint:
        save_container(output, checkpoint, tokenizer)
        name = checkpoint.name
    print(f"{output}: {name}, {format_bytes(output.stat().st_size)}")
    return 0
