"""A GGUF file as a checkpoint."""

from __future__ import annotations

from pathlib import Path

from ..families import of_gguf
from ..families.family import Described, Family
from ..families.fields import Fields
from ..families.tensors import Tensor
from .checkpoint import Checkpoint, TokenizerSource, canonical_tensors, source_dtype
from .gguf import GgufFile

__all__ = ["load_gguf"]


def load_gguf(path: Path, *, with_tensors: bool) -> Checkpoint:
    file = GgufFile(path)
    metadata = Fields(file.metadata, str(path))
    family, described = _describe(file, metadata)
    tensors: dict[str, Tensor] = {}
    if with_tensors:
        tensors = canonical_tensors(file.tensors, family.gguf, described, str(path))
    tokens = Fields(file.metadata, str(path), "tokenizer.ggml.")
    # Besides the end of the text: the ends of a turn and of a message, where generation stops just as well.
    ends = [i for name in ("eos", "eot", "eom") for i in tokens.token_ids(f"{name}_token_id")]
    bos = tokens.token_ids("bos_token_id")
    return Checkpoint(
        description=described.description,
        tensors=tensors,
        source_dtype=source_dtype(file.tensors.values()),
        tokenizer=TokenizerSource("gguf", metadata=file.metadata),
        name=metadata.text("general.name", path.stem),
        chat_template=metadata.text("tokenizer.chat_template", "") or None,
        eos_token_ids=list(dict.fromkeys(ends)),
        bos_token_id=bos[0] if bos else None,
    )


def _describe(file: GgufFile, metadata: Fields) -> tuple[Family, Described]:
    architecture, family = of_gguf(metadata)
    described = family.gguf.describe(Fields(file.metadata, metadata.source, f"{architecture}."), file.tensors)
    described.description["architecture"] = family.huggingface.architectures[0]
    return family, described
