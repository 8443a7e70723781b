"""Vocabularies of directories without a ``tokenizer.json``: ``tokenizer.model``, or ``vocab.json`` and ``merges.txt``.

They become what transformers' AutoTokenizer makes of them: the files say what the tokens are, the class that
tokenizer_config.json names (or the model's) how a text is cut.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config_files import is_there, read_bytes
from ..errors import Corrupt, Unsupported
from .gguf import add_template, build_from_gguf
from .gguf_fields import checked_fields
from .long_json import LongJson
from .sentencepiece import SentencePieceModel, read_sentencepiece
from .sentencepiece_library import vocabulary_alone

if TYPE_CHECKING:
    import tokenizers

    from .settings import TokenizerSettings

__all__ = ["build_from_files", "has_vocabulary"]

_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt")
_OTHERS = ("tekken.json", "spiece.model", "vocab.txt", "tiktoken.model", "qwen.tiktoken", "sentencepiece.bpe.model")
_SPLITS = {"Qwen2Tokenizer": "qwen2", "GPT2Tokenizer": "gpt-2"}  # class to the name of its cut in GGUF files
_NAMES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
_MOST_MERGES = 1 << 20
_MOST_TOKENS = 1 << 19
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
) -> tuple[tokenizers.Tokenizer, dict[str, str | list[str]], SentencePieceModel | None]:
    """The tokenizer, the special tokens that the files themselves name, and the model whose texts the sentencepiece
    package takes, where the tokenizer has the vocabulary alone. Raises Corrupt for files that contradict themselves,
    Unsupported for kinds that are not served. Tokens that ``settings`` add are added."""
    model: SentencePieceModel | None = None
    path = directory / "tokenizer.model"
    if is_there(path):
        model = read_sentencepiece(path)
        metadata = model.metadata
        begins = True
    else:
        path = directory / "vocab.json"
        metadata = _read_vocabulary(directory, settings)
        begins = False
    flags = {"add_bos_token": settings.add_bos_token, "add_eos_token": settings.add_eos_token}
    flags["add_bos_token"] = begins if flags["add_bos_token"] is None else flags["add_bos_token"]
    metadata |= {f"tokenizer.ggml.{name}": flag for name, flag in flags.items() if flag is not None}
    tokens = metadata["tokenizer.ggml.tokens"]
    ids = {name: metadata.get(f"tokenizer.ggml.{key}_token_id") for name, key in _NAMES.items()}
    named: dict[str, str | list[str]] = {name: tokens[index] for name, index in ids.items() if index is not None}
    try:
        checked = checked_fields(metadata, str(path))
        taken = model if model is not None and model.why else None
        backend = build_from_gguf(checked) if taken is None else vocabulary_alone(checked)
        settings.apply(backend)
        for name in ("bos", "eos"):  # perhaps one of those that were added
            token = settings.named.get(f"{name}_token")
            if token is not None:
                checked[f"tokenizer.ggml.{name}_token_id"] = backend.token_to_id(token.content)
        add_template(backend, checked, begins)
        return backend, named, taken
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
    tokens = _by_id(vocabulary)
    data = read_bytes(merges)
    if data.count(b"\n") >= _MOST_MERGES:
        raise Corrupt(f"{merges}: has {data.count(10) + 1} lines; at most {_MOST_MERGES} are possible")
    spelled = set(tokens)
    for line in _merges_of(data, merges):
        left, separator, right = line.partition(" ")
        if not separator or not spelled.issuperset((left, right, left + right)):
            raise Corrupt(f"{merges}: the merge {line[:80]!r} does not join two tokens of vocab.json into a third")
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": _SPLITS[settings.kind],
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.merges": list(_merges_of(data, merges)),
    }


def _by_id(path: Path) -> list[str]:
    """The tokens of a vocab.json, in the order of their ids."""
    reader = LongJson(read_bytes(path), str(path))
    tokens: list[str] = []
    ids = array("q")
    for piece in reader.pieces():
        numbers: list[Any] = list(piece.values()) if isinstance(piece, dict) else [None]
        if not all(type(index) is int and 0 <= index < _MOST_TOKENS for index in numbers):
            raise Corrupt(f"{path}: its ids are not the numbers from 0, or it is no object of tokens and ids")
        tokens += piece
        ids.extend(numbers)
        if len(tokens) > _MOST_TOKENS:
            raise Corrupt(f"{path}: has more than {_MOST_TOKENS} tokens, which are not served")
    reader.finish()
    ordered = [""] * len(tokens)
    for index, token in zip(ids, tokens, strict=True):
        if index < len(ordered):
            ordered[index] = token
    if len(set(ids)) < len(tokens) or max(ids, default=0) >= len(tokens):
        raise Corrupt(f"{path}: its ids are not the numbers from 0 to {len(tokens) - 1}, each once")
    return ordered


def _merges_of(data: bytes, path: Path) -> Iterator[str]:
    """The lines of a merges.txt, one by one."""
    at = 0
    while at < len(data):
        end = data.find(b"\n", at) % (len(data) + 1)
        try:
            line = data[at:end].decode().rstrip("\r")
        except UnicodeDecodeError as error:
            raise Corrupt(f"{path}: is not UTF-8: {error}") from None
        if line.strip() and not line.startswith("#version"):
            yield line
        at = end + 1
