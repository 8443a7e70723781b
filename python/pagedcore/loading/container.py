"""pagedcore containers: one safetensors file that carries its description (see ``save_model``).

What else a checkpoint knows is JSON under ``checkpoint`` in the metadata, the vocabulary of a GGUF file included. A
tokenizer.json is found beside the container.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .. import _core
from ..chat import TemplateSource
from ..errors import Corrupt
from ..families.fields import Fields
from .checkpoint import Checkpoint, TokenizerSource, source_dtype
from .end_tokens import all_ends, known_ids
from .safetensors import tensors_of
from .sampling_defaults import sampling_of_container

__all__ = ["load_container", "save_container"]

_KEY = "checkpoint"


def save_container(path: Path, checkpoint: Checkpoint) -> None:
    """Writes an opened checkpoint as one file, atomically."""
    weights = _core.WeightMap()
    for name, tensor in checkpoint.tensors.items():
        weights.add(name, tensor.dtype, tensor.shape, tensor.buffer)
    vocab_size = checkpoint.description["vocab_size"]
    ends = [end.id for end in all_ends(checkpoint.declared_ends, checkpoint.build_tokenizer(), vocab_size)]
    rest: dict[str, Any] = {
        "name": checkpoint.name,
        "source_dtype": checkpoint.source_dtype,
        "chat_template": checkpoint.chat_template,
        "chat_templates": {name: template.text for name, template in checkpoint.chat_templates.items()},
        "eos_token_ids": ends,
        "bos_token_id": checkpoint.bos_token_id,
        "sampling": checkpoint.sampling,
    }
    if checkpoint.tokenizer is not None and checkpoint.tokenizer.metadata is not None:
        metadata = checkpoint.tokenizer.metadata
        rest["tokenizer"] = {k: v for k, v in metadata.items() if k.startswith(("tokenizer.", "general.architecture"))}
    description = _core.ModelDescription(**checkpoint.description)
    extra = {_KEY: json.dumps(rest)}
    if ends:  # for C and C++ programs, which read no JSON
        extra["eos_token_ids"] = ",".join(map(str, ends))
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
    description = file.description().to_dict()
    bos = known_ids(fields, "bos_token_id", description["vocab_size"])
    ends = known_ids(fields, "eos_token_ids", description["vocab_size"])
    return Checkpoint(
        description=description,
        tensors=tensors if with_tensors else {},
        source_dtype=fields.text("source_dtype", source_dtype(tensors.values())),
        tokenizer=tokenizer,
        name=fields.text("name", path.stem),
        chat_templates=_templates(fields),
        declared_ends=dict.fromkeys(ends, "the container"),
        bos_token_id=bos[0] if bos else None,
        sampling=sampling_of_container(fields.mapping("sampling")),
    )


def _templates(fields: Fields) -> dict[str, TemplateSource]:
    named = fields.mapping("chat_templates")
    found = {
        name: TemplateSource(named.text(name), f"{fields.source}: chat_templates {name!r}") for name in named.values
    }
    default = fields.text("chat_template", "")  # all that containers of earlier versions have
    if default:
        found.setdefault("default", TemplateSource(default, f"{fields.source}: chat_template"))
    return found


def _rest(path: Path, text: str) -> dict[str, Any]:
    try:
        rest = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"{path}: '{_KEY}' in the metadata is not JSON: {error}") from None
    if not isinstance(rest, dict):
        raise Corrupt(f"{path}: '{_KEY}' in the metadata is not a JSON object")
    return rest
