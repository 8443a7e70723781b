"""A GGUF file as a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config_files import is_there, read_object
from ..families import of_gguf
from ..families.family import Described
from ..families.family import Gguf as Form
from ..families.fields import Fields
from ..families.tensors import Tensor
from ..tokenizer.special_ids import without_foreign_ids
from .chat_templates import templates_of_gguf
from .checkpoint import Checkpoint, TokenizerSource, canonical_tensors, canonical_types, source_dtype
from .end_tokens import known_ids
from .gguf_header import Texts
from .gguf_split import Gguf, open_gguf
from .sampling_defaults import sampling_of_generation_config, sampling_of_gguf

__all__ = ["load_gguf"]

# Besides the end of the text: the ends of a turn and of a message, and what ends a gap that is filled in.
_ENDS = ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep")


def load_gguf(path: Path, *, with_tensors: bool, mmap: bool) -> Checkpoint:
    file = open_gguf(path, mmap=mmap)
    metadata = Fields(file.metadata, str(file.path))
    form, described = _describe(file, metadata)
    tensors: dict[str, Tensor] = {}
    if with_tensors:
        tensors = canonical_tensors(file.tensors, form, described, str(path))
    vocab_size = described.description["vocab_size"]
    spellings = file.metadata.get("tokenizer.ggml.tokens")
    num_tokens = min(vocab_size, len(spellings)) if isinstance(spellings, Texts) and spellings else vocab_size
    known = without_foreign_ids(file.metadata, num_tokens, str(path))
    tokens = Fields(known, str(path), "tokenizer.ggml.")
    ends = {
        token: f"tokenizer.ggml.{name}_token_id"
        for name in reversed(_ENDS)
        for token in known_ids(tokens, f"{name}_token_id", vocab_size)
    }
    bos = known_ids(tokens, "bos_token_id", vocab_size)
    return Checkpoint(
        description=described.description,
        tensors=tensors,
        source_dtype=source_dtype(file.tensors.values()),
        tokenizer=TokenizerSource("gguf", metadata=known, path=path),
        name=metadata.text("general.name", path.stem),
        chat_templates=templates_of_gguf(metadata),
        declared_ends=dict(reversed(ends.items())),
        bos_token_id=bos[0] if bos else None,
        sampling=_sampling(path, file.metadata),
        weight_types=canonical_types(file.tensors, form, described.description),
    )


def _sampling(path: Path, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A generation_config.json beside the file comes before what is in the file."""
    given = sampling_of_gguf(metadata, str(path))
    config = path.parent / "generation_config.json"
    if is_there(config):
        given |= sampling_of_generation_config(Fields(read_object(config), str(config)))
    return given


def _describe(file: Gguf, metadata: Fields) -> tuple[Form, Described]:
    architecture, family = of_gguf(metadata)
    assert family.gguf is not None
    described = family.gguf.describe(Fields(file.metadata, metadata.source, f"{architecture}."), file.tensors)
    described.description["architecture"] = family.huggingface.architectures[0]
    return family.gguf, described
