"""Weights as files hold them, and their canonical names (see ``WeightSource`` in pagedcore/model.hpp)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from .. import _core
from ..errors import Corrupt

__all__ = ["Tensor", "TensorNames", "check_names", "expected_names"]


class Tensor(NamedTuple):
    """A weight as it lies on disk: ``dtype`` is a name of pagedcore's element types, ``buffer`` its bytes, in memory or
    still in a file (``_core.FileBytes``)."""

    dtype: str
    shape: tuple[int, ...]
    buffer: Any

    def read(self) -> memoryview:
        """Its bytes in memory. Raises Io when they are in a file that has changed."""
        return self.buffer.read() if isinstance(self.buffer, _core.FileBytes) else memoryview(self.buffer)


@dataclass(frozen=True)
class TensorNames:
    """A format's names of modules, and their canonical ones. Weights are ``<module>.weight`` and ``<module>.bias``;
    those of a layer have ``<layers>.<number>.`` before that, ``layers.<number>.`` here."""

    layers: str
    outside: Mapping[str, str]
    in_layer: Mapping[str, str]
    ignored: str = r"(?!)"  # an expression; of tensors that are no weights

    def canonical(self, name: str) -> str | None:
        """pagedcore's name of a weight; None for one that has none."""
        match = re.fullmatch(rf"(?:{re.escape(self.layers)}\.(0|[1-9][0-9]{{0,5}})\.)?(.+)\.(weight|bias)", name)
        if match is None:
            return None
        layer, module, kind = match.groups()
        found = (self.outside if layer is None else self.in_layer).get(module)
        if found is None:
            return None
        return f"{found}.{kind}" if layer is None else f"layers.{layer}.{found}.{kind}"

    def is_ignored(self, name: str) -> bool:
        return re.fullmatch(self.ignored, name) is not None


def expected_names(description: Mapping[str, Any], biases: Iterable[str] = ()) -> Iterator[str]:
    """Canonical names of all weights; ``biases`` names the modules that have one, such as ``attn.q``."""
    outside = ["embed", "final_norm"] + ([] if description["tied_embeddings"] else ["lm_head"])
    in_layer = ["attn_norm", "attn.q", "attn.k", "attn.v", "attn.o", "mlp_norm", "mlp.up", "mlp.down"]
    if description["gated_mlp"]:
        in_layer.append("mlp.gate")
    if description["qk_norm"]:
        in_layer += ["attn.q_norm", "attn.k_norm"]
    names = {module: [f"{module}.weight"] for module in (*outside, *in_layer)}
    for module in biases:
        names[module].append(f"{module}.bias")
    for module in outside:
        yield from names[module]
    for layer in range(description["num_layers"]):
        for module in in_layer:
            for name in names[module]:
                yield f"layers.{layer}.{name}"


def check_names(found: Mapping[str, Tensor], expected: Iterable[str], source: str) -> set[str]:
    """Raises Corrupt for a weight that is missing. Returns those that are not expected."""
    wanted = set(expected)
    missing = sorted(wanted - found.keys())
    if missing:
        raise Corrupt(f"{source}: {len(missing)} weights are missing, the first is '{missing[0]}'")
    return found.keys() - wanted
