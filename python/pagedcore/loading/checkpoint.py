"""What every loader returns, and how the tensors of a file become it."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ..chat import TemplateSource
from ..errors import Corrupt
from ..families.family import Described, Gguf, HuggingFace
from ..families.tensors import Tensor, check_names, expected_names

if TYPE_CHECKING:
    from ..tokenizer import Tokenizer

_log = logging.getLogger("pagedcore")

__all__ = ["Checkpoint", "TokenizerSource", "canonical_tensors", "canonical_types", "source_dtype"]


class TokenizerSource(NamedTuple):
    """Where the tokenizer's data are: the metadata of a GGUF file, the directory with a ``tokenizer.json``, or, of a
    container, its text and the ``special_tokens`` that templates may name."""

    kind: Literal["gguf", "directory", "text"]
    metadata: Mapping[str, Any] | None = None
    path: Path | None = None
    text: str | None = None
    special_tokens: Mapping[str, Any] | None = None


@dataclass
class Checkpoint:
    """An opened model. ``tensors`` maps canonical names (see ``WeightSource`` in ``pagedcore/model.hpp``) to tensors
    that keep their files open."""

    description: dict[str, Any]  # fields of ModelDescription; absent ones have its defaults
    tensors: dict[str, Tensor]
    source_dtype: str  # the element type of most weights; for a directory read without tensors, the configured one
    tokenizer: TokenizerSource | None
    name: str
    chat_templates: dict[str, TemplateSource] = field(default_factory=dict)
    declared_ends: dict[int, str] = field(default_factory=dict)
    """Token ids that end a turn or text, and the field that says so. The tokenizer may know more: ``end_tokens``."""
    bos_token_id: int | None = None
    sampling: dict[str, Any] = field(default_factory=dict)
    """Fields of SamplingParams that the model's publishers recommend."""
    weight_types: dict[str, str] = field(default_factory=dict)
    """Element types of weights by canonical name, of files that may hold block formats; known without the tensors."""
    quantization: str = ""
    """The method that a configuration names; empty: none."""

    @property
    def chat_template(self) -> str | None:
        """The one called default."""
        default = self.chat_templates.get("default")
        return None if default is None else default.text

    @property
    def eos_token_ids(self) -> list[int]:
        """Those that are declared."""
        return list(self.declared_ends)

    def build_tokenizer(self) -> Tokenizer | None:
        """None when it comes with none."""
        from ..tokenizer import Tokenizer
        from ..tokenizer.vocabulary_files import has_vocabulary

        source = self.tokenizer
        if source is None:
            return None
        if source.metadata is not None:
            if "tokenizer.ggml.model" not in source.metadata:
                return None
            return Tokenizer.from_gguf(source.metadata, str(source.path) if source.path else "the GGUF file")
        if source.text is not None:
            return Tokenizer.from_text(source.text, source.special_tokens)
        if source.path is None or not has_vocabulary(source.path):
            return None
        return Tokenizer.from_path(source.path)

    def close(self) -> None:
        """Drops the tensors. A file is closed when the last of its tensors is gone."""
        self.tensors = {}

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def source_dtype(tensors: Iterable[Tensor]) -> str:
    """The element type of most elements."""
    totals: dict[str, int] = {}
    for tensor in tensors:
        totals[tensor.dtype] = totals.get(tensor.dtype, 0) + math.prod(tensor.shape)
    return max(totals, key=lambda dtype: totals[dtype], default="f32")


_FUSED = {"attn.qkv": ("attn.q", "attn.k", "attn.v"), "mlp.gate_up": ("mlp.gate", "mlp.up")}


def canonical_types(
    tensors: Mapping[str, Tensor], form: HuggingFace | Gguf, description: Mapping[str, Any]
) -> dict[str, str]:
    """What files hold, by canonical name; no byte of it is read. Transforms keep the types."""
    fused = dict(_FUSED)
    for part in ("gate", "up", "down"):
        of_each = (f"mlp.experts.{expert}.{part}" for expert in range(description.get("num_experts", 0)))
        fused[f"mlp.experts.{part}"] = tuple(of_each)
    types: dict[str, str] = {}
    for name, tensor in tensors.items():
        canonical = None if form.names.is_ignored(name) else form.names.canonical(name)
        if canonical is None:
            continue
        module = re.sub(r"^layers\.\d+\.|\.(weight|bias)$", "", canonical)
        for part in fused.get(module, (module,)):
            types.setdefault(canonical.replace(module, part), tensor.dtype)
    return types


def _check_experts(extra: Iterable[str], description: Mapping[str, Any], source: str) -> None:
    """More experts than the configuration says may not be left out silently: a router was trained with all of them."""
    count = description.get("num_experts", 0)
    for name in sorted(extra):
        match = re.match(r"layers\.(\d+)\.mlp\.experts\.(\d+)\.", name)
        if count and match is not None and int(match[1]) < description["num_layers"] and int(match[2]) >= count:
            raise Corrupt(f"{source}: has the weight '{name}', but the configuration says {count} experts")


def canonical_tensors(
    tensors: Mapping[str, Tensor], form: HuggingFace | Gguf, described: Described, source: str
) -> dict[str, Tensor]:
    """What files hold under the names of ``form``, one of a family's two formats, under canonical names and as
    pagedcore wants it. Raises Corrupt when anything is missing; what the model does not use is left out, and a warning
    names it."""
    found: dict[str, Tensor] = {}
    unused: list[str] = []
    for name, tensor in tensors.items():
        if form.names.is_ignored(name):
            continue
        canonical = form.names.canonical(name)
        if canonical is None:
            unused.append(name)
            continue
        module = re.sub(r"^layers\.\d+\.|\.(weight|bias)$", "", canonical)
        if module not in form.transforms:
            found[canonical] = tensor
            continue
        made = form.transforms[module](tensor, described.description, f"{source}: '{name}'")
        if isinstance(made, Tensor):
            found[canonical] = made
        else:  # what has a tensor of its own stays that
            for part, value in made.items():
                found.setdefault(canonical.replace(module, part), value)
    if described.description["tied_embeddings"]:
        found.pop("lm_head.weight", None)  # a copy of the embedding
    extra = check_names(found, expected_names(described.description, described.biases), source)
    _check_experts(extra, described.description, source)
    if isinstance(form, Gguf):
        # No configuration says whether such a file's architecture has a bias or norm: its tensors do.
        for name in sorted(extra):
            layer = re.match(r"layers\.(\d+)\.", name)
            if layer is None or int(layer[1]) < described.description["num_layers"]:
                raise Corrupt(
                    f"{source}: the weight '{name}' is not part of a {described.description['architecture']}, and "
                    "would change what it computes"
                )
    for name in extra:
        del found[name]
    unused += extra
    if unused:
        shown = ", ".join(f"'{name[:80]}'" for name in sorted(unused)[:3])
        _log.warning(
            "%s: %d tensors are not part of a %s of %d layers and are ignored: %s%s",
            source,
            len(unused),
            described.description["architecture"],
            described.description["num_layers"],
            shown,
            ", ..." if len(unused) > 3 else "",
        )
    return found
