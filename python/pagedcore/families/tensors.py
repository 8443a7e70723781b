"""Weights as files hold them, and their canonical names (see ``WeightSource`` in pagedcore/model.hpp)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import _core
from ..errors import Corrupt

if TYPE_CHECKING:
    from typing_extensions import Self

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
    those of a layer have ``<layers>.<number>.`` before that, ``layers.<number>.`` here. ``#`` in a name stands for the
    number of an expert. A stack of them may lack ``.weight``; a canonical name that ends in ``!bias`` says that its
    tensors are biases, whatever they are called."""

    layers: str
    outside: Mapping[str, str]
    in_layer: Mapping[str, str]
    ignored: str = r"(?!)"  # an expression; of tensors that are no weights
    prefixes: tuple[tuple[str, str], ...] = ()  # beginnings of names, and what they stand for

    def canonical(self, name: str) -> str | None:
        """pagedcore's name of a weight; None for one that has none."""
        for prefix, plain in self.prefixes:
            if name.startswith(prefix):
                name = plain + name[len(prefix) :]
                break
        match = re.fullmatch(rf"(?:{re.escape(self.layers)}\.(0|[1-9][0-9]{{0,5}})\.)?(.+?)(?:\.(weight|bias))?", name)
        if match is None:
            return None
        layer, module, kind = match[1], match[2], match[3] or "weight"
        expert = re.search(r"\.(0|[1-9][0-9]{0,5})(?=\.|$)", module)
        if expert is not None:
            module = f"{module[: expert.start()]}.#{module[expert.end() :]}"
        found = (self.outside if layer is None else self.in_layer).get(module)
        if found is None:
            return None
        if expert is not None:
            found = found.replace("#", expert[1])
        found, _, said = found.partition("!")  # a name may say what its tensors are
        kind = said or kind
        return f"{found}.{kind}" if layer is None else f"layers.{layer}.{found}.{kind}"

    def is_ignored(self, name: str) -> bool:
        return re.fullmatch(self.ignored, name) is not None

    def changed(self, *, outside: Mapping[str, str] | None = None, in_layer: Mapping[str, str] | None = None) -> Self:
        """With other names in these places; an empty one: there is none."""

        def changed(names: Mapping[str, str], changes: Mapping[str, str] | None) -> dict[str, str]:
            return {name: module for name, module in {**names, **(changes or {})}.items() if module}

        return replace(self, outside=changed(self.outside, outside), in_layer=changed(self.in_layer, in_layer))


def expected_names(description: Mapping[str, Any], biases: Iterable[str] = ()) -> Iterator[str]:
    """Canonical names of all weights; ``biases`` names the modules that have one, such as ``attn.q``."""
    d = description
    place = d.get("norm_place", "before")
    norms = d.get("norm_weights", True)
    outside_if = {
        "embed": True,
        "embed_in": d.get("embedding_size"),
        "embed_out": d.get("embedding_size"),
        "positions": d.get("learned_positions"),
        "embed_norm": norms and d.get("embedding_norm"),
        "final_norm": norms and d.get("final_norm", True),
        "lm_head": d.get("head", True) and not d["tied_embeddings"],
        **{f"dense.{index}": True for index in range(len(d.get("dense_sizes", ())))},
    }
    in_every_layer_if = {
        "attn_norm": norms and place in ("before", "both"),
        "attn_post_norm": norms and place != "before",
        **dict.fromkeys(("attn.q", "attn.k", "attn.v", "attn.o"), True),
        **dict.fromkeys(("attn.q_norm", "attn.k_norm"), norms and d["qk_norm"]),
        "attn.sinks": d.get("attention_sinks"),
        "mlp_norm": norms and place in ("before", "both"),
        "mlp_post_norm": norms and place != "before",
    }
    outside = [module for module, there in outside_if.items() if there]
    in_layer = [module for module, there in in_every_layer_if.items() if there]
    mlp = ["mlp.gate", "mlp.up", "mlp.down"] if d["gated_mlp"] else ["mlp.up", "mlp.down"]
    mixture = _mixture(d)
    mixed = d.get("mixture_layers") or [int(bool(mixture))] * d["num_layers"]
    names = {module: [f"{module}.weight"] for module in (*outside, *in_layer, *mlp, *mixture)}
    for module in (*biases, *(mixture if d.get("mixture_biases") else ())):
        names.setdefault(module, []).append(f"{module}.bias")
    for module in outside:
        yield from names[module]
    if "lm_head" not in outside and "lm_head" in biases:
        yield "lm_head.bias"
    for layer in range(description["num_layers"]):
        for module in (*in_layer, *(mixture if mixed[layer] else mlp)):
            for name in names[module]:
                yield f"layers.{layer}.{name}"


def _mixture(description: Mapping[str, Any]) -> list[str]:
    """The modules of a mixture of experts; none where there is none."""
    experts = description.get("num_experts", 0)
    if not experts:
        return []
    modules = ["mlp.router"]
    for expert in range(experts):
        modules += [f"mlp.experts.{expert}.{part}" for part in ("gate", "up", "down")]
    if description.get("shared_expert_size", 0):
        modules += [f"mlp.shared.{part}" for part in ("gate", "up", "down")]
    if description.get("shared_expert_gate", False):
        modules.append("mlp.shared_gate")
    return modules


def check_names(found: Mapping[str, Tensor], expected: Iterable[str], source: str) -> set[str]:
    """Raises Corrupt for a weight that is missing. Returns those that are not expected."""
    wanted = set(expected)
    missing = sorted(wanted - found.keys())
    if missing:
        raise Corrupt(f"{source}: {len(missing)} weights are missing, the first is '{missing[0]}'")
    return found.keys() - wanted
