"""A directory as ``save_pretrained`` writes it: config.json, weights in one or several files, tokenizer files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ..errors import Corrupt, Io
from .checkpoint import Checkpoint, Tensor, TokenizerSource, check_names, expected_names, source_dtype
from .config import Config, parse_config
from .fields import Fields
from .safetensors import read_safetensors

__all__ = ["load_directory"]

_TOP = {
    "model.embed_tokens.weight": "embed.weight",
    "model.norm.weight": "final_norm.weight",
    "lm_head.weight": "lm_head.weight",
}
_IN_LAYER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "mlp_norm",
    "self_attn.q_proj": "attn.q",
    "self_attn.k_proj": "attn.k",
    "self_attn.v_proj": "attn.v",
    "self_attn.o_proj": "attn.o",
    "self_attn.q_norm": "attn.q_norm",
    "self_attn.k_norm": "attn.k_norm",
    "mlp.gate_proj": "mlp.gate",
    "mlp.up_proj": "mlp.up",
    "mlp.down_proj": "mlp.down",
}
_LAYER = re.compile(r"model\.layers\.(0|[1-9][0-9]{0,5})\.(.+)\.(weight|bias)")
# Buffers that older versions of transformers saved; they follow from the configuration.
_IGNORED = re.compile(r"(model\.)?(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq")


def load_directory(directory: Path, *, with_tensors: bool) -> Checkpoint:
    path = directory / "config.json"
    if not path.is_file():
        raise Io(f"{directory}: has no config.json, so it is not a Hugging Face model")
    config = parse_config(_read_json(path))
    generation = _read_json(directory / "generation_config.json", optional=True)
    tensors: dict[str, Tensor] = {}
    dtype = config.dtype
    if with_tensors:
        tensors = _read_tensors(directory, config)
        dtype = source_dtype(tensors.values())
    bos = generation.token_ids("bos_token_id") or config.bos_token_ids
    return Checkpoint(
        description=config.description,
        tensors=tensors,
        source_dtype=dtype,
        tokenizer=TokenizerSource("directory", path=directory),
        name=directory.resolve().name,
        chat_template=_chat_template(directory),
        eos_token_ids=generation.token_ids("eos_token_id") or config.eos_token_ids,
        bos_token_id=bos[0] if bos else None,
    )


def canonical_name(name: str) -> str | None:
    """pagedcore's name of a weight; None for one that has none."""
    if name in _TOP:
        return _TOP[name]
    match = _LAYER.fullmatch(name)
    if match is None or match[2] not in _IN_LAYER:
        return None
    return f"layers.{match[1]}.{_IN_LAYER[match[2]]}.{match[3]}"


def _read_tensors(directory: Path, config: Config) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for path, wanted, read in _weight_files(directory):
        found = read(path)
        for name in found if wanted is None else wanted:
            if name not in found:
                raise Corrupt(f"{path}: has no tensor '{name}', which the index of the checkpoint says it has")
            if _IGNORED.fullmatch(name):
                continue
            canonical = canonical_name(name)
            if canonical is None:
                architecture = config.description["architecture"]
                raise Corrupt(f"{path}: the tensor '{name[:200]}' is not part of a {architecture}")
            if canonical in tensors:
                raise Corrupt(f"{path}: the tensor '{name}' occurs twice in the checkpoint")
            tensors[canonical] = found[name]
    if config.description["tied_embeddings"]:
        tensors.pop("lm_head.weight", None)  # a copy of the embedding
    check_names(tensors, expected_names(config.description, config.biases), str(directory))
    return tensors


_Reader = Callable[[Path], dict[str, Tensor]]


def _weight_files(directory: Path) -> Iterable[tuple[Path, list[str] | None, _Reader]]:
    """(file, the names wanted from it or None for all, its reader), in transformers' order of preference."""

    def read_torch(path: Path) -> dict[str, Tensor]:
        from .torch_files import read_torch_file

        return read_torch_file(path)

    for stem, reader in (("model.safetensors", read_safetensors), ("pytorch_model.bin", read_torch)):
        single, index = directory / stem, directory / f"{stem}.index.json"
        if single.is_file():
            return [(single, None, reader)]
        if index.is_file():
            return [(directory / name, wanted, reader) for name, wanted in _read_index(index).items()]
    raise Io(f"{directory}: has neither model.safetensors nor pytorch_model.bin, nor an index of such files")


def _read_index(path: Path) -> dict[str, list[str]]:
    weight_map = _read_json(path).mapping("weight_map")
    files: dict[str, list[str]] = {}
    for name, file in weight_map.values.items():
        if not isinstance(file, str) or not file or Path(file).name != file:
            raise Corrupt(
                f"{path}: the tensor '{name[:200]}' is said to be in {str(file)[:200]!r}, which is no file name"
            )
        files.setdefault(file, []).append(name)
    return files


def _chat_template(directory: Path) -> str | None:
    path = directory / "chat_template.jinja"
    if path.is_file():
        return _read_text(path)
    for name in ("chat_template.json", "tokenizer_config.json"):
        template = _read_json(directory / name, optional=True).get("chat_template")
        if isinstance(template, list):  # several, by name
            named = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
            template = named.get("default")
        if isinstance(template, str):
            return template
    return None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise Corrupt(f"{path}: is not UTF-8: {error}") from None
    except OSError as error:
        raise Io(f"{path}: cannot be read: {error.strerror}") from None


def _read_json(path: Path, *, optional: bool = False) -> Fields:
    if optional and not path.exists():
        return Fields({}, str(path))
    try:
        values: Any = json.loads(_read_text(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, Corrupt):
            raise
        raise Corrupt(f"{path}: is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise Corrupt(f"{path}: is not a JSON object")
    return Fields(values, str(path))
