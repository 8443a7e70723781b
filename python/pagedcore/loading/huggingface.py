"""A directory as ``save_pretrained`` writes it: config.json, weights in one or several files, tokenizer files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from ..config_files import can_be_a_name, is_there, read_object
from ..errors import Corrupt, Io
from ..families import of_config
from ..families.family import Described, Family
from ..families.fields import Fields
from ..families.tensors import Tensor
from .chat_templates import templates_of_directory
from .checkpoint import Checkpoint, TokenizerSource, canonical_tensors, source_dtype
from .end_tokens import known_ids
from .quantized import method_of, unquantized
from .safetensors import read_safetensors
from .sampling_defaults import sampling_of_generation_config
from .sentence_modules import sentence_modules

__all__ = ["describe", "load_directory"]


def load_directory(directory: Path, *, with_tensors: bool, mmap: bool) -> Checkpoint:
    path = directory / "config.json"
    if not is_there(path):
        raise Io(f"{directory}: has no config.json, so it is not a Hugging Face model")
    config = _read_json(path)
    family, described = describe(config)
    generation = _read_json(directory / "generation_config.json", optional=True)
    modules = sentence_modules(directory)
    tensors: dict[str, Tensor] = {}
    dtype = _dtype(config)
    quantization = _quantization(config)
    if with_tensors or (quantization is not None and _has_weights(directory)):  # their headers say in which types
        found = _read_tensors(directory, mmap)
        if quantization is not None:
            found = unquantized(found, quantization, str(directory))
        read = family.huggingface.prepare(found)
        tensors = canonical_tensors(read, family.huggingface, described, str(directory))
        tensors |= modules.tensors(mmap)
        dtype = source_dtype(tensors.values()) if quantization is None else dtype
    weight_types = {} if quantization is None else {name: tensor.dtype for name, tensor in tensors.items()}
    described.description.update(modules.description(described.description, str(directory)))
    vocab_size = described.description["vocab_size"]
    bos = [token for fields in (generation, config) for token in known_ids(fields, "bos_token_id", vocab_size)]
    ends = {
        token: f"{Path(fields.source).name}: eos_token_id"
        for fields in (config, generation)
        for token in known_ids(fields, "eos_token_id", vocab_size)
    }
    return Checkpoint(
        description=described.description,
        tensors=tensors if with_tensors else {},
        source_dtype=dtype,
        tokenizer=TokenizerSource("directory", path=directory),
        name=directory.resolve().name,
        chat_templates=templates_of_directory(directory),
        declared_ends=ends,
        bos_token_id=bos[0] if bos else None,
        sampling=sampling_of_generation_config(generation),
        weight_types=weight_types,
        quantization="" if quantization is None else method_of(quantization),
    )


def describe(config: Fields) -> tuple[Family, Described]:
    """The family that a config.json names, and what it reads in there."""
    architecture, family = of_config(config)
    if (quantization := _quantization(config)) is not None:
        method_of(quantization)
    described = family.huggingface.describe(config)
    described.description["architecture"] = architecture
    if architecture not in family.huggingface.architectures:
        described.description["head"] = False
    return family, described


def _quantization(config: Fields) -> Fields | None:
    """What says how weights were quantized; none where they were not."""
    for name in ("quantization_config", "compression_config"):
        if config.get(name) is not None:
            return config.mapping(name)
    return None


def _has_weights(directory: Path) -> bool:
    try:
        return bool(list(_weight_files(directory)))
    except Io:
        return False


def _dtype(config: Fields) -> str:
    name = config.text("dtype", config.text("torch_dtype", "float32"))
    return {"bfloat16": "bf16", "float16": "f16", "float32": "f32", "float64": "f64"}.get(name, "f32")


def _read_tensors(directory: Path, mmap: bool) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for path, wanted, read in _weight_files(directory):
        found = read(path, mmap)
        for name in found if wanted is None else wanted:
            if name not in found:
                raise Corrupt(f"{path}: has no tensor '{name}', which the index of the checkpoint says it has")
            if name in tensors:
                raise Corrupt(f"{path}: the tensor '{name}' occurs twice in the checkpoint")
            tensors[name] = found[name]
    return tensors


_Reader = Callable[[Path, bool], dict[str, Tensor]]  # of a file, mapped or not


def _weight_files(directory: Path) -> Iterable[tuple[Path, list[str] | None, _Reader]]:
    """(file, the names wanted from it or None for all, its reader), in transformers' order of preference."""

    def read_torch(path: Path, mmap: bool) -> dict[str, Tensor]:
        from .torch_files import read_torch_file

        return read_torch_file(path, mmap=mmap)

    for stem, reader in (("model.safetensors", read_safetensors), ("pytorch_model.bin", read_torch)):
        single, index = directory / stem, directory / f"{stem}.index.json"
        if is_there(single):
            return [(single, None, reader)]
        if is_there(index):
            return [(directory / name, wanted, reader) for name, wanted in _read_index(index).items()]
    raise Io(f"{directory}: has neither model.safetensors nor pytorch_model.bin, nor an index of such files")


def _read_index(path: Path) -> dict[str, list[str]]:
    weight_map = _read_json(path).mapping("weight_map")
    if not weight_map.values:
        raise Corrupt(f"{path}: has no weight_map, or an empty one: it says which file holds which tensor")
    files: dict[str, list[str]] = {}
    for name, file in weight_map.values.items():
        if not isinstance(file, str) or not file or Path(file).name != file or not can_be_a_name(file):
            raise Corrupt(
                f"{path}: the tensor {name[:200]!a} is said to be in {str(file)[:200]!a}, which is no file name"
            )
        files.setdefault(file, []).append(name)
    return files


def _read_json(path: Path, *, optional: bool = False) -> Fields:
    if optional and not is_there(path):
        return Fields({}, str(path))
    return Fields(read_object(path), str(path))
