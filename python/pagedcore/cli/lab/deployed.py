"""Flags that say what serves: a model on a device, or a setting of the paper."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ...errors import InvalidArgument

if TYPE_CHECKING:
    from ...lab import Deployment, Placement

__all__ = ["add_deployed_flags", "read_deployed"]

_PLACED = ("device", "model", "tensor_parallel", "weight_bits", "kv_bits", "kv_cache_memory", "swap_space")


def add_deployed_flags(group: argparse._ArgumentGroup) -> None:
    """Besides --model."""
    group.add_argument(
        "--device", metavar="NAME", help="the device: a100-40gb and others, or a .json file with its numbers"
    )
    group.add_argument(
        "--tensor-parallel",
        type=int,
        metavar="N",
        help="number of devices that share every step (default 1); of plan without --device: of ranks here",
    )
    group.add_argument("--weight-bits", type=float, metavar="N", help="bits of a weight (default 16)")
    group.add_argument("--kv-bits", type=float, metavar="N", help="bits of an element of the KV cache (default 16)")
    group.add_argument(
        "--setting",
        metavar="NAME",
        help="instead of a model and a device, a setting of the paper: opt-13b and others, on A100s",
    )


def read_deployed(arguments: argparse.Namespace, *, bits: float = 16.0, **others: Any) -> Deployment | Placement:
    """`bits`: of weights and KV where no flag says; `others`: of the Placement."""
    from ...lab import Deployment, Placement

    given = [name for name in _PLACED if getattr(arguments, name, None) is not None]
    if arguments.setting is not None:
        if given:
            raise InvalidArgument(f"--setting {arguments.setting} has its own {given[0].replace('_', ' ')}")
        return Deployment.of_paper(arguments.setting)
    return Placement.of(
        arguments.model,
        arguments.device,
        tensor_parallel=1 if arguments.tensor_parallel is None else arguments.tensor_parallel,
        weight_bytes=(bits if arguments.weight_bits is None else arguments.weight_bits) / 8,
        kv_bytes=(bits if arguments.kv_bits is None else arguments.kv_bits) / 8,
        **others,
    )
