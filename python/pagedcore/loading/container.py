"""pagedcore containers: one safetensors file that carries its description (see ``save_model``).

The metadata hold what C and C++ programs want too (``pagedcore/container_text.hpp``): ``tokenizer.json``,
``chat_template``, ``eos_token_ids``, ``bos_token_id``. What else a checkpoint knows is JSON under ``checkpoint``. In
containers of earlier versions that has the vocabulary of a GGUF file, or a tokenizer.json lies beside the container.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import _core
from ..chat import TemplateSource
from ..errors import Corrupt
from ..families.fields import Fields
from ..families.tensors import check_names, expected_names
from .checkpoint import Checkpoint, TokenizerSource, source_dtype
from .end_tokens import all_ends, known_ids
from .safetensors import tensors_of
from .sampling_defaults import sampling_of_container

if TYPE_CHECKING:
    from ..tokenizer import Tokenizer

__all__ = ["load_container", "save_container"]

_KEY = "checkpoint"


def save_container(path: Path, checkpoint: Checkpoint, tokenizer: Tokenizer | None = None) -> None:
    """Writes an opened checkpoint as one file, atomically. ``tokenizer``: instead of the checkpoint's."""
    tokenizer = tokenizer or checkpoint.build_tokenizer()
    weights = _core.WeightMap()
    for name, tensor in checkpoint.tensors.items():
        weights.add(name, tensor.dtype, tensor.shape, tensor.buffer)
    vocab_size = checkpoint.description["vocab_size"]
    ends = [end.id for end in all_ends(checkpoint.declared_ends, tokenizer, vocab_size)]
    rest: dict[str, Any] = {
        "name": checkpoint.name,
        "source_dtype": checkpoint.source_dtype,
        "chat_template": checkpoint.chat_template,
        "chat_templates": {name: template.text for name, template in checkpoint.chat_templates.items()},
        "eos_token_ids": ends,
        "bos_token_id": checkpoint.bos_token_id,
        "sampling": checkpoint.sampling,
    }
    description = _core.ModelDescription(**checkpoint.description)
    extra = {}
    if tokenizer is not None:
        rest["special_tokens"] = tokenizer.special_tokens
        extra["tokenizer.json"] = tokenizer.to_text()
    if checkpoint.chat_template:
        extra["chat_template"] = checkpoint.chat_template
    if ends:
        extra["eos_token_ids"] = ",".join(map(str, ends))
    if checkpoint.bos_token_id is not None:
        extra["bos_token_id"] = str(checkpoint.bos_token_id)
    extra[_KEY] = json.dumps(rest)
    _core.save_model(str(path), description, weights, extra)


def load_container(path: Path, *, with_tensors: bool, mmap: bool) -> Checkpoint:
    file = _core.ModelFile(str(path), mmap)
    fields = Fields(_rest(path, file.metadata.get(_KEY, "{}")), f"{path}: {_KEY}")
    tensors = tensors_of(file)
    tokenizer = None
    if "tokenizer.json" in file.metadata:
        special = fields.mapping("special_tokens").values
        tokenizer = TokenizerSource("text", text=file.metadata["tokenizer.json"], special_tokens=special)
    elif fields.get("tokenizer") is not None:
        tokenizer = TokenizerSource("gguf", metadata=fields.mapping("tokenizer").values)
    elif (path.parent / "tokenizer.json").is_file():
        tokenizer = TokenizerSource("directory", path=path.parent)
    description = file.description().to_dict()
    if with_tensors:
        check_names(tensors, expected_names(description), str(path))
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
        weight_types={name: tensor.dtype for name, tensor in tensors.items()},
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
