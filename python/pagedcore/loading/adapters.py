"""LoRA adapters as PEFT keeps them: a directory with adapter_config.json and adapter_model.safetensors."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import _core
from ..config_files import is_there, read_object
from ..errors import Corrupt, Io, Unsupported
from ..families import ENCODERS, FAMILIES
from ..families.family import Family
from ..families.fields import Fields
from ..families.tensors import Tensor
from ..families.transforms import turned
from .safetensors import read_safetensors

__all__ = ["Adapter", "adapter_rank", "load_adapter"]

_CONFIG, _TENSORS = "adapter_config.json", "adapter_model.safetensors"
_ROOT = "base_model.model."
# Initialisations that leave the model's own weights as they are.
_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
# What changes the mathematics, or weights besides the two matrices, and the value that does nothing of the kind.
_REFUSED: dict[str, tuple[str, tuple[Any, ...]]] = {
    "use_dora": ("DoRA, which scales the columns of whole weights", (False, None)),
    "modules_to_save": ("modules that were trained whole", (None, [])),
    "bias": ("trained biases", ("none", None)),
    "lora_bias": ("a bias of its own matrices", (False, None)),
    "use_qalora": ("QALoRA", (False, None)),
    "layer_replication": ("layers that are repeated", (None, [])),
    "trainable_token_indices": ("trained embeddings of tokens", (None, [], {})),
    "target_parameters": ("parameters that are no linear layer's", (None, [])),
    "alora_invocation_tokens": ("tokens from which on it works (aLoRA)", (None, [])),
}


@dataclass(frozen=True)
class Adapter:
    """Its matrices by canonical name (``layers.0.attn.q``): down [rank, in], up [out, rank], and the scale."""

    matrices: Mapping[str, tuple[Tensor, Tensor, float]]

    def native(self) -> tuple[_core.WeightMap, dict[str, float]]:
        weights = _core.WeightMap()
        for name, (down, up, _) in self.matrices.items():
            weights.add(f"{name}.down", *down)
            weights.add(f"{name}.up", *up)
        return weights, {name: scale for name, (_, _, scale) in self.matrices.items()}


class _Config:
    """adapter_config.json."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / _CONFIG
        if not is_there(self.path):
            raise Io(f"{directory}: no adapter is there: a directory of PEFT has {_CONFIG}")
        self.fields = fields = Fields(read_object(self.path), str(self.path))
        kind = fields.text("peft_type")
        if kind != "LORA":
            raise Unsupported(f"{self.path}: peft_type = '{kind[:40]}' is not supported; supported is LORA")
        for name, (what, nothing) in _REFUSED.items():
            if fields.get(name) not in nothing:
                raise Unsupported(
                    f"{self.path}: {name} = {str(fields.get(name))[:60]} is not supported: {what}; train without it, "
                    "or merge the adapter into the model"
                )
        start = fields.get("init_lora_weights")
        if start not in _PLAIN_STARTS:
            raise Unsupported(
                f"{self.path}: init_lora_weights = '{str(start)[:40]}' changed the model's own weights; convert the "
                "adapter to a plain one when it is saved (PEFT: path_initial_model_for_weight_conversion)"
            )
        self.rank = fields.integer("r")
        self.alpha = fields.number("lora_alpha", above=0.0)
        self.rank_pattern = {key: self._pattern("rank_pattern", key, value) for key, value in self._of("rank_pattern")}
        self.alpha_pattern = {
            key: self._pattern("alpha_pattern", key, value) for key, value in self._of("alpha_pattern")
        }
        self.by_root = fields.flag("use_rslora", False)

    def _of(self, name: str) -> list[tuple[str, Any]]:
        value = self.fields.get(name)
        if value is None:
            return []
        if not isinstance(value, dict):
            raise self.fields.refuse(name, "is not a mapping of module names to numbers")
        return list(value.items())

    def _pattern(self, name: str, key: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
            raise self.fields.refuse(name, f"says {str(value)[:40]} for '{key[:80]}', which is no positive number")
        try:
            re.compile(key)
        except re.error:
            raise self.fields.refuse(name, f"has the key '{key[:80]}', which is no expression") from None
        return value

    @property
    def most(self) -> int:
        return int(max([self.rank, *self.rank_pattern.values()]))

    def scale(self, module: str, rank: int) -> float:
        """Raises Corrupt for a rank that is not the one that the configuration says."""
        said = int(_matching(self.rank_pattern, module, self.rank))
        if rank != said:
            raise Corrupt(f"{self.path}: '{module[:200]}' has rank {rank}; the configuration says {said}")
        alpha = _matching(self.alpha_pattern, module, self.alpha)
        return alpha / math.sqrt(rank) if self.by_root else alpha / rank


def _matching(patterns: Mapping[str, float], module: str, default: float) -> float:
    """As PEFT looks a module up: the first key that its name ends with."""
    for key, value in patterns.items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return default


def adapter_rank(path: str | os.PathLike[str]) -> int:
    """The largest rank that an adapter's configuration names."""
    return _Config(Path(path)).most


def load_adapter(path: str | os.PathLike[str], description: _core.ModelDescription) -> Adapter:
    """Raises Io for files that are not there, Corrupt for damaged ones, and Unsupported for what is no plain LoRA of
    attention and MLP."""
    directory = Path(path)
    config = _Config(directory)
    file = directory / _TENSORS
    if not is_there(file):
        raise Io(f"{directory}: the adapter has no {_TENSORS}; save it with safe_serialization=True")
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in read_safetensors(file, False).items():
        match = re.fullmatch(r"(?:base_model\.model\.)?(.+)\.lora_([AB])(?:\.default)?\.weight", name)
        if match is None:
            what = "DoRA" if "magnitude" in name else "only lora_A and lora_B of linear layers are"
            raise Unsupported(f"{file}: the tensor '{name[:200]}' is not supported ({what})")
        if len(tensor.shape) != 2:
            raise Corrupt(f"{file}: the tensor '{name[:200]}' has {len(tensor.shape)} dimensions; expected 2")
        found.setdefault(match[1], {})[match[2]] = tensor
    if not found:
        raise Corrupt(f"{file}: the adapter has no matrices")
    matrices: dict[str, tuple[Tensor, Tensor, float]] = {}
    family = _family(description.architecture)
    for module, pair in found.items():
        if pair.keys() != {"A", "B"}:
            raise Corrupt(f"{file}: '{module[:200]}' has lora_{''.join(pair)} alone; A and B belong together")
        down, up = pair["A"], pair["B"]
        if down.shape[0] != up.shape[1]:
            raise Corrupt(f"{file}: '{module[:200]}' has A {list(down.shape)} and B {list(up.shape)} of unequal ranks")
        scale = config.scale(module, down.shape[0])
        for name, part in _parts(family, module, up, description, str(file)).items():
            matrices[name] = (down, part, scale)
    return Adapter(matrices)


def _family(architecture: str) -> Family:
    for family in (*FAMILIES, *ENCODERS):
        if architecture in family.huggingface.architectures:
            return family
    for family in FAMILIES:  # of a GGUF file
        if family.gguf is not None and architecture in family.gguf.architectures:
            return family
    raise Unsupported(f"adapters of the architecture '{architecture[:80]}' are not supported")


def _parts(
    family: Family, module: str, up: Tensor, description: _core.ModelDescription, source: str
) -> dict[str, Tensor]:
    """The matrices that a module of the checkpoint is, with the rows of B that are theirs."""
    canonical = family.huggingface.names.canonical(f"{module}.weight")
    if canonical is None or not canonical.startswith("layers."):
        raise Unsupported(
            f"{source}: the adapter changes '{module[:200]}'; supported are the linear layers of attention and MLP"
        )
    _, layer, name = canonical.removesuffix(".weight").split(".", 2)
    transform = family.huggingface.transforms.get(name)
    if transform is None or transform is turned:  # of a B no dimensions are swapped
        return {f"layers.{layer}.{name}": up}
    try:
        made = transform(up, description.to_dict(), f"{source}: {module[:200]}.lora_B")
    except Corrupt:
        made = up
    if isinstance(made, Tensor):
        raise Unsupported(
            f"{source}: '{module[:200]}' of a {family.name} model is laid out so that adapters of it are not supported"
        )
    return {f"layers.{layer}.{part}": tensor for part, tensor in made.items()}
