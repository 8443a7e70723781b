"""pagedcore containers: one safetensors file that carries its description (see ``save_model``).

What else a checkpoint knows is JSON under ``checkpoint`` in the metadata, the vocabulary of a GGUF file included. A
tokenizer.json is found beside the container.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .. import _core
from ..errors import Corrupt
from ..families.fields import Fields
from .checkpoint import Checkpoint, TokenizerSource, source_dtype
from .safetensors import tensors_of

__all__ = ["load_container", "save_container"]

_KEY = "checkpoint"


def save_container(path: Path, checkpoint: Checkpoint) -> None:
    """Writes an opened checkpoint as one file, atomically."""
    weights = _core.WeightMap()
    for name, tensor in checkpoint.tensors.items():
        weights.add(name, tensor.dtype, tensor.shape, tensor.buffer)
    rest: dict[str, Any] = {
        "name": checkpoint.name,
        "source_dtype": checkpoint.source_dtype,
        "chat_template": checkpoint.chat_template,
        "eos_token_ids": checkpoint.eos_token_ids,
        "bos_token_id": checkpoint.bos_token_id,
    }
    if checkpoint.tokenizer is not None and checkpoint.tokenizer.metadata is not None:
        metadata = checkpoint.tokenizer.metadata
        rest["tokenizer"] = {k: v for k, v in metadata.items() if k.startswith(("tokenizer.", "general.architecture"))}
    description = _core.ModelDescription(**checkpoint.description)
    extra = {_KEY: json.dumps(rest)}
    if checkpoint.eos_token_ids:  # for C and C++ programs, which read no JSON
        extra["eos_token_ids"] = ",".join(map(str, checkpoint.eos_token_ids))
    _core.save_model(str(path), description, weights, extra)


def load_container(path: Path, *, with_tensors: bool) -> Checkpoint:
    file = _core.ModelFile(str(path))
    fields = Fields(_rest(path, file.metadata.get(_KEY, "{}")), f"{path}: {_KEY}")
    tensors = tensors_of(file)
    tokenizer = None
    if fields.get("tokenizer") is not None:
        tokenizer = TokenizerSource("gguf", metadata=fields.mapping("tokenizer").values)
    elif (path.parent / "tokenizer.json").is_file():
        tokenizer = TokenizerSource("directory", path=path.parent)
    bos = fields.token_ids("bos_token_id")
    return Checkpoint(
        description=file.description().to_dict(),
        tensors=tensors if with_tensors else {},
        source_dtype=fields.text("source_dtype", source_dtype(tensors.values())),
        tokenizer=tokenizer,
        name=fields.text("name", path.stem),
        chat_template=fields.text("chat_template", "") or None,
        eos_token_ids=fields.token_ids("eos_token_ids"),
        bos_token_id=bos[0] if bos else None,
    )


def _rest(path: Path, text: str) -> dict[str, Any]:
    try:
        rest = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"{path}: '{_KEY}' in the metadata is not JSON: {error}") from None
    if not isinstance(rest, dict):
        raise Corrupt(f"{path}: '{_KEY}' in the metadata is not a JSON object")
    return rest
