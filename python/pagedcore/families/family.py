"""What a model family says about itself. Readers of files and the tokenizer ask it; nothing else knows models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .fields import Fields
from .splits import Split
from .tensors import Tensor, TensorNames

__all__ = ["Described", "Family", "Gguf", "HuggingFace", "Parts", "Tensors", "Transform"]

Tensors = Mapping[str, Tensor]


class Described(NamedTuple):
    description: dict[str, Any]  # fields of ModelDescription but for ``architecture``; absent ones have its defaults
    biases: tuple[str, ...] = ()  # modules that have one, by canonical name, such as ``attn.q``


Transform = Callable[[Tensor, Mapping[str, Any], str], "Tensor | Parts"]
"""From a tensor as a format keeps it, the description, and what to call the tensor in an error. One that holds several
weights, such as q, k and v, or is used in several places gives each by its canonical module."""
Parts = Mapping[str, Tensor]


@dataclass(frozen=True)
class HuggingFace:
    """``describe`` takes config.json and has transformers' semantics, defaults included."""

    architectures: tuple[str, ...]  # names in ``architectures``
    model_type: str  # of a config.json without ``architectures``
    describe: Callable[[Fields], Described]
    names: TensorNames
    transforms: Mapping[str, Transform] = field(default_factory=dict)  # by what ``names`` calls a module: ``attn.q``
    prepare: Callable[[Tensors], Tensors] = dict  # of the files' tensors, before ``names`` sees them


@dataclass(frozen=True)
class Gguf:
    """``describe`` takes the architecture's metadata (without the prefix in its names) and the file's tensors, under
    the file's names, for a part of the configuration is in them."""

    architectures: tuple[str, ...]  # names in ``general.architecture``
    describe: Callable[[Fields, Tensors], Described]
    names: TensorNames
    transforms: Mapping[str, Transform] = field(default_factory=dict)


@dataclass(frozen=True)
class Family:
    """Where two families have an architecture name in common, files under it are read as the first one says."""

    name: str
    huggingface: HuggingFace
    gguf: Gguf | None  # none where llama.cpp does not know the architecture
    tiny_config: Callable[[], dict[str, Any]]  # of the smallest checkpoint for tests: what transformers' config takes
    odd: Mapping[str, Any] = field(default_factory=dict)  # what a second one, of sizes that divide nothing, changes
    splits: Mapping[str, Split] = field(default_factory=dict)  # by the name that GGUF files give a pre-tokenizer
