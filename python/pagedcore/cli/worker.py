"""``pagedcore worker``: a rank of an engine that runs elsewhere."""

from __future__ import annotations

import argparse
import signal
from contextlib import closing
from typing import Any

from ..errors import InvalidArgument
from .common import Formatter, add_model_flags, given

__all__ = ["add_to"]

_EPILOG = """\
examples:
  head -c 32 /dev/urandom | base64 > token && chmod 600 token      once; then copy it to every host
  pagedcore serve -m MODEL --tensor-parallel 2 --rank-address 10.0.0.1:29500 --rank-token-file token     on the first
  pagedcore worker -m MODEL --connect 10.0.0.1:29500 --token-file token                                  on the second

It needs the same version of pagedcore and the same model, in a file of its own; options come from rank 0, and those
that are given here must not differ from its. It ends with status 0 when rank 0's engine is closed, and with 1 when
rank 0 is lost: let a supervisor start it anew. What ranks say is authenticated when they meet, but not encrypted: use
a network that you trust."""

_OWN = ("threads", "swap_file", "rank_deadline", "rank_patience")
"""Options of this process; all others are the engine's."""
_LOCAL = ("rank_address", "rank_token_file", "tensor_parallel", "trace_file", "kv_store", "kv_store_size")
_NO_RANKS = ("kv_transfer", "device")


def add_to(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "worker",
        help="computes a part of a model for an engine elsewhere",
        description="Is a rank of an engine whose ranks are processes (--rank-address): loads its part of the model,\n"
        "and computes what that engine plans.",
        epilog=_EPILOG,
        formatter_class=Formatter,
    )
    parser.add_argument(
        "--connect", required=True, metavar="HOST:PORT", help="where rank 0 listens: its --rank-address, or unix:/PATH"
    )
    parser.add_argument("--token-file", required=True, metavar="PATH", help="the secret that all ranks have")
    parser.add_argument("--rank", type=int, default=-1, metavar="N", help="1 and up (default: any that is free)")
    add_model_flags(parser, tokenizer=False, without=(*_LOCAL, *_NO_RANKS))
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from ..engine_options import open_model

    if arguments.rank == 0 or arguments.rank < -1:
        raise InvalidArgument(f"--rank {arguments.rank} is no rank of a worker: they are 1 and up; 0 is the engine")
    options = given(arguments, "EngineConfig")
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # it waits in native code
    with closing(
        open_model(
            arguments.model,
            {
                **options,
                "rank_address": arguments.connect,
                "rank_token_file": arguments.token_file,
                "tensor_parallel": 2,  # for the check of options: how many there are rank 0 says
            },
            mmap=arguments.mmap,
            revision=arguments.revision,
            token=arguments.token,
        )
    ) as model:
        wants = {name: _text(getattr(model.config, name)) for name in options if name not in _OWN}
        model.serve_rank(arguments.rank, {name: text for name, text in wants.items() if text != "auto"})
    return 0


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
