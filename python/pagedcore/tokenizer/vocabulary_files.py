"""Vocabularies of directories without a ``tokenizer.json``: ``tokenizer.model``, or ``vocab.json`` and ``merges.txt``.

They become what transformers' AutoTokenizer makes of them: the files say what the tokens are, the class that
tokenizer_config.json names (or the model's) how a text is cut.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config_files import is_there, read_object, read_text
from ..errors import Corrupt, Unsupported
from .gguf import build_from_gguf
from .gguf_fields import checked_fields
from .sentencepiece import read_sentencepiece

if TYPE_CHECKING:
    import tokenizers

    from .settings import TokenizerSettings

__all__ = ["build_from_files", "has_vocabulary"]

_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt")
_OTHERS = ("tekken.json", "spiece.model", "vocab.txt", "tiktoken.model", "qwen.tiktoken", "sentencepiece.bpe.model")
_SPLITS = {"Qwen2Tokenizer": "qwen2", "GPT2Tokenizer": "gpt-2"}  # class to the name of its cut in GGUF files
_NAMES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
_MOST_MERGES = 1 << 20
_log = logging.getLogger("pagedcore")


def has_vocabulary(directory: Path) -> bool:
    """Whether a directory has a tokenizer in a form that is read. Warns of one in another."""
    if any(is_there(directory / name) for name in _FILES):
        return True
    for name in _OTHERS:
        if is_there(directory / name):
            _log.warning(
                "%s: a tokenizer of this kind is not read (these are: %s): texts need tokenizer=",
                directory / name,
                ", ".join(_FILES),
            )
    return False


def build_from_files(
    directory: Path, settings: TokenizerSettings
) -> tuple[tokenizers.Tokenizer, dict[str, str | list[str]]]:
    """The tokenizer, and the special tokens that the files themselves name. Raises Corrupt for files that contradict
    themselves, Unsupported for kinds that are not served. Tokens that ``settings`` add are not added here."""
    path = directory / "tokenizer.model"
    if is_there(path):
        metadata = read_sentencepiece(path)
        begins = True
    else:
        path = directory / "vocab.json"
        metadata = _read_vocabulary(directory, settings)
        begins = False
    flags = {"add_bos_token": settings.add_bos_token, "add_eos_token": settings.add_eos_token}
    flags["add_bos_token"] = begins if flags["add_bos_token"] is None else flags["add_bos_token"]
    metadata |= {f"tokenizer.ggml.{name}": flag for name, flag in flags.items() if flag is not None}
    tokens = metadata["tokenizer.ggml.tokens"]
    for name in ("bos", "eos"):
        token = settings.named.get(f"{name}_token")
        if token is not None and token.content in tokens:
            metadata[f"tokenizer.ggml.{name}_token_id"] = tokens.index(token.content)
    ids = {name: metadata.get(f"tokenizer.ggml.{key}_token_id") for name, key in _NAMES.items()}
    named: dict[str, str | list[str]] = {name: tokens[index] for name, index in ids.items() if index is not None}
    try:
        return build_from_gguf(checked_fields(metadata, str(path))), named
    except (Corrupt, Unsupported) as error:
        text = str(error).replace("the GGUF file", "the file")
        raise type(error)(text if str(path) in text else f"{path}: {text}") from None


def _read_vocabulary(directory: Path, settings: TokenizerSettings) -> dict[str, Any]:
    vocabulary, merges = directory / "vocab.json", directory / "merges.txt"
    for path, other in ((vocabulary, merges), (merges, vocabulary)):
        if not is_there(path):
            raise Corrupt(f"{other}: is one half of a tokenizer; {path.name} is missing beside it")
    if settings.kind not in _SPLITS:
        raise Unsupported(
            f"{vocabulary}: how a {settings.kind or 'tokenizer without a tokenizer_class'} cuts texts is not known "
            f"(known: {', '.join(_SPLITS)}): name a tokenizer.json with tokenizer="
        )
    ids = read_object(vocabulary)
    tokens = {index: token for token, index in ids.items() if isinstance(index, int) and not isinstance(index, bool)}
    if sorted(tokens) != list(range(len(ids))):
        raise Corrupt(f"{vocabulary}: its ids are not the numbers from 0 to {len(ids) - 1}, each once")
    lines = read_text(merges).split("\n")
    if len(lines) > _MOST_MERGES:
        raise Corrupt(f"{merges}: has {len(lines)} lines; at most {_MOST_MERGES} are possible")
    pairs = [line.rstrip("\r") for line in lines if line.strip() and not line.startswith("#version")]
    for line in pairs:
        left, separator, right = line.partition(" ")
        if not separator or not {left, right, left + right} <= ids.keys():
            raise Corrupt(f"{merges}: the merge {line[:80]!r} does not join two tokens of vocab.json into a third")
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": _SPLITS[settings.kind],
        "tokenizer.ggml.tokens": [tokens[index] for index in range(len(tokens))],
        "tokenizer.ggml.merges": pairs,
    }
