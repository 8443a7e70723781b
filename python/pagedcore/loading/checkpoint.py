"""What every loader returns, and how the tensors of a file become it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ..chat import TemplateSource
from ..config_files import is_there
from ..errors import Corrupt
from ..families.family import Described, Gguf, HuggingFace
from ..families.tensors import Tensor, check_names, expected_names

if TYPE_CHECKING:
    from ..tokenizer import Tokenizer

__all__ = ["Checkpoint", "TokenizerSource", "canonical_tensors", "source_dtype"]


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
    whose buffers keep their files mapped."""

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

        source = self.tokenizer
        if source is None:
            return None
        if source.metadata is not None:
            return Tokenizer.from_gguf(source.metadata) if "tokenizer.ggml.model" in source.metadata else None
        if source.text is not None:
            return Tokenizer.from_text(source.text, source.special_tokens)
        if source.path is None or not is_there(source.path / "tokenizer.json"):
            return None
        return Tokenizer.from_path(source.path)

    def close(self) -> None:
        """Drops the tensors. A file is unmapped when the last buffer that points into it is gone."""
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


def canonical_tensors(
    tensors: Mapping[str, Tensor], form: HuggingFace | Gguf, described: Described, source: str
) -> dict[str, Tensor]:
    """What files hold under the names of ``form``, one of a family's two formats, under canonical names and as
    pagedcore wants it. Raises Corrupt when anything is missing or not part of the model."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if form.names.is_ignored(name):
            continue
        canonical = form.names.canonical(name)
        if canonical is None:
            architecture = described.description["architecture"]
            raise Corrupt(f"{source}: the tensor '{name[:200]}' is not part of a {architecture}")
        module = re.sub(r"^layers\.\d+\.|\.(weight|bias)$", "", canonical)
        if module in form.transforms:
            tensor = form.transforms[module](tensor, described.description, f"{source}: '{name}'")
        found[canonical] = tensor
    if described.description["tied_embeddings"]:
        found.pop("lm_head.weight", None)  # a copy of the embedding
    check_names(found, expected_names(described.description, described.biases), source)
    return found
