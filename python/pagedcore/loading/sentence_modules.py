"""What lies beside a checkpoint that sentence-transformers wrote: modules.json, the steps from a text's rows to its
embedding. https://sbert.net/docs/sentence_transformer/usage/custom_models.html"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config_files import is_there, read_object, read_text
from ..errors import Corrupt, Unsupported
from ..families.fields import Fields
from ..families.tensors import Tensor
from .safetensors import read_safetensors

__all__ = ["SentenceModules", "sentence_modules"]

_POOLING = {"cls_token": "cls", "mean_tokens": "mean", "lasttoken": "last"}
_MOST_MODULES = 64


@dataclass
class SentenceModules:
    """``pooling`` None: there is no modules.json."""

    pooling: str | None = None
    longest: int | None = None  # tokens of a text
    dense: list[tuple[Path, int, bool, str]] = field(default_factory=list)  # directory, outputs, bias, activation

    def description(self, known: Mapping[str, Any], source: str) -> dict[str, Any]:
        """Fields of ModelDescription, of a model of which these are known."""
        found: dict[str, Any] = {}
        if self.pooling is not None:
            found["pooling"] = self.pooling
            if self.pooling == "cls" and not known.get("bidirectional"):
                raise Unsupported(
                    f"{source}: modules.json pools the first token (cls), which in a {known['architecture']} sees no "
                    "other; supported are lasttoken, mean_tokens"
                )
        if self.longest is not None:
            found["max_context"] = min(self.longest, known["max_context"])
        if self.dense:
            found["dense_sizes"] = [outputs for _, outputs, _, _ in self.dense]
            found["dense_tanh"] = [int(activation == "Tanh") for *_, activation in self.dense]
        return found

    def tensors(self, mmap: bool) -> dict[str, Tensor]:
        """By canonical name."""
        found: dict[str, Tensor] = {}
        for index, (directory, _, bias, _) in enumerate(self.dense):
            held = _weights(directory, mmap)
            for kind in ("weight", "bias") if bias else ("weight",):
                if f"linear.{kind}" not in held:
                    raise Corrupt(f"{directory}: has no tensor 'linear.{kind}', which its config.json speaks of")
                found[f"dense.{index}.{kind}"] = held[f"linear.{kind}"]
        return found


def sentence_modules(directory: Path) -> SentenceModules:
    path = directory / "modules.json"
    if not is_there(path):
        return SentenceModules()
    found = SentenceModules()
    kinds: list[str] = []
    for kind, folder in _modules(path):
        kinds.append(kind)
        if kind == "Transformer":
            found.longest = _longest(folder)
        elif kind == "Pooling":
            found.pooling = _pooling(folder / "config.json")
        elif kind == "Dense":
            found.dense.append(_dense(folder))
    order = ["Transformer", "Pooling", *["Dense"] * len(found.dense)]
    if kinds not in (order, [*order, "Normalize"]):
        raise Unsupported(
            f"{path}: its modules are {', '.join(kinds) or 'none'}; supported are Transformer, Pooling, any number of "
            "Dense and perhaps Normalize, in this order"
        )
    return found


def _modules(path: Path) -> list[tuple[str, Path]]:
    """The kind of each, and its folder, which lies in that of the model."""
    try:
        listed = json.loads(read_text(path, most=1 << 20))
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"{path}: is no JSON: {str(error)[:200]}") from None
    if not isinstance(listed, list) or len(listed) > _MOST_MODULES:
        raise Corrupt(f"{path}: is not a list of at most {_MOST_MODULES} modules")
    found = []
    for index, entry in enumerate(listed):
        if not isinstance(entry, dict):
            raise Corrupt(f"{path}: module {index} is not an object with a type and a path")
        module = Fields(entry, f"{path}: module {index}")
        folder = module.text("path", "")
        if folder.startswith(("/", "\\")) or ".." in Path(folder).parts or "\0" in folder:
            raise module.refuse("path", "lies outside the model's directory")
        found.append((module.text("type").rpartition(".")[2], path.parent / folder))
    return found


def _longest(folder: Path) -> int | None:
    """Of the text that a model takes, in tokens; None: as many as its configuration says."""
    places = (("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length"))
    for file, name in places:  # later versions leave it to the tokenizer, for which 1e30 is no limit
        path = folder / file
        config = Fields(read_object(path) if is_there(path) else {}, str(path))
        if name == "max_seq_length" and config.flag("do_lower_case", False):
            raise config.unsupported("do_lower_case", ("false", "a tokenizer.json that does it"))
        if config.get(name) is not None and config.number(name) < 1e9:
            return config.integer(name, minimum=2)  # a context of less holds no text
    return None


def _pooling(path: Path) -> str:
    config = Fields(read_object(path), str(path))
    mode = config.get("pooling_mode")
    if mode is None:
        prefix = "pooling_mode_"
        names = [name.removeprefix(prefix) for name in config.values if name.startswith(prefix)]
        modes = [name for name in names if config.flag(prefix + name, False)]
    else:
        given = mode if isinstance(mode, list) else [mode]
        modes = [{"cls": "cls_token", "mean": "mean_tokens"}.get(str(name), str(name)) for name in given]
    if len(modes) != 1 or modes[0] not in _POOLING:
        raise Unsupported(
            f"{path}: it pools by {' and '.join(modes)[:200] or 'nothing'}; supported is one of {', '.join(_POOLING)}"
        )
    return _POOLING[modes[0]]


def _dense(folder: Path) -> tuple[Path, int, bool, str]:
    path = folder / "config.json"
    config = Fields(read_object(path), str(path))
    if config.text("module_input_name", "sentence_embedding") != "sentence_embedding":
        raise config.unsupported("module_input_name", ("sentence_embedding",))
    activation = config.text("activation_function", "torch.nn.modules.activation.Tanh").rpartition(".")[2]
    if activation not in ("Identity", "Tanh"):
        raise config.unsupported("activation_function", ("Identity", "Tanh"))
    return folder, config.integer("out_features"), config.flag("bias", True), activation


def _weights(folder: Path, mmap: bool) -> dict[str, Tensor]:
    if is_there(folder / "model.safetensors"):
        return read_safetensors(folder / "model.safetensors", mmap)
    from .torch_files import read_torch_file

    return read_torch_file(folder / "pytorch_model.bin", mmap=mmap)
