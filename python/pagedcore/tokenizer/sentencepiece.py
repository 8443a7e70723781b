"""``tokenizer.model``: a vocabulary as SentencePiece writes it, in the form that GGUF files have.

The file is a ``ModelProto`` in the wire format of protocol buffers:
https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto,
https://protobuf.dev/programming-guides/encoding/. The types of pieces are the numbers that GGUF has for tokens.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config_files import read_bytes
from ..errors import Corrupt
from .judge import longest_of_map

__all__ = ["SentencePieceModel", "read_sentencepiece"]

_BPE = 2  # of TrainerSpec.model_type; the others are 1 unigram, 3 word, 4 char
_KINDS = {1: "unigram", 3: "word", 4: "char"}
_MOST_PIECES = 1 << 19
_MOST_FIELDS = 1000  # of a message; those of published files have some 50


@dataclass
class SentencePieceModel:
    data: bytes
    """The file's."""
    metadata: dict[str, Any]
    """``tokenizer.ggml.*``."""
    why: str
    """Why it takes the sentencepiece package; empty: it does not, a BPE vocabulary that takes texts as they are."""
    normalizes: bool
    """Texts may lose characters, or get others."""
    drops_spaces: bool
    """At the ends of a text, and all but one of several."""
    byte_fallback: bool
    growth: int
    """How many times as long normalizing may make a text."""


def read_sentencepiece(path: Path) -> SentencePieceModel:
    """Raises Corrupt for what is no model of SentencePiece."""
    file = read_bytes(path)
    data = memoryview(file)
    fields: dict[str, Any] = {"tokens": [], "scores": array("f"), "token_type": []}
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    denormalizes = False
    try:
        for number, value in _fields(data):
            if number == 1:
                if len(fields["tokens"]) == _MOST_PIECES:
                    raise ValueError(f"it has more than {_MOST_PIECES} pieces")
                piece = _message(value)
                fields["tokens"].append(str(piece.get(1, b""), "utf-8"))
                fields["scores"].append(struct.unpack("<f", piece.get(2, bytes(4)))[0])
                fields["token_type"].append(piece.get(3, 1))
            elif number == 2:
                trainer |= _message(value)
            elif number == 3:
                normalizer |= _message(value)
            elif number == 5:
                denormalizes = denormalizes or bool(_message(value).get(2))
        if not fields["tokens"]:
            raise ValueError("it has no pieces")
        if len(set(fields["tokens"])) < len(fields["tokens"]):
            raise ValueError("a piece is there twice")
        if not all(map(math.isfinite, fields["scores"])) or not all(isinstance(t, int) for t in fields["token_type"]):
            raise ValueError("a piece has a score or type that is none")
        ids = {name: _id(trainer, number, default) for name, number, default in _SPECIAL}
        characters = normalizer.get(2, b"")
        if isinstance(characters, int):
            raise ValueError("its precompiled_charsmap is a number")
    except (IndexError, TypeError, ValueError, struct.error) as error:
        raise Corrupt(f"{path}: is not a SentencePiece model: {error}") from None
    count = len(fields["tokens"])
    fields |= {f"{name}_token_id": index for name, index in ids.items() if 0 <= index < count}
    fields |= {"model": "llama", "scores": memoryview(fields["scores"]), "add_space_prefix": bool(normalizer.get(3, 1))}
    kind, drops_spaces = trainer.get(3, 1), bool(normalizer.get(4, 1))
    why = ""
    if kind != _BPE:
        why = f"is a SentencePiece model of the type {_KINDS.get(kind, 'unknown')}"
    elif characters or drops_spaces:
        why = "its texts are normalized (precompiled_charsmap, remove_extra_whitespaces)"
    elif denormalizes or trainer.get(24) or trainer.get(53) or not normalizer.get(5, 1):
        why = "its spaces or outputs are not those of other models (escape_whitespaces, denormalizer_spec and the like)"
    return SentencePieceModel(
        data=file,
        metadata={f"tokenizer.ggml.{name}": value for name, value in fields.items()},
        why=why,
        normalizes=bool(characters) or drops_spaces,
        drops_spaces=drops_spaces,
        byte_fallback=bool(trainer.get(35)),
        growth=longest_of_map(bytes(characters)),
    )


_SPECIAL = (("unknown", 40, 0), ("bos", 41, 1), ("eos", 42, 2), ("padding", 43, -1))  # fields of TrainerSpec


def _id(trainer: dict[int, Any], number: int, default: int) -> int:
    value = trainer.get(number, default)
    if not isinstance(value, int):
        raise ValueError("a special id is no number")
    return value - 2**64 if value >= 2**63 else value


def _message(data: memoryview) -> dict[int, Any]:
    """Its fields by number; of one that comes again, the last."""
    message: dict[int, Any] = {}
    for number, value in _fields(data):
        message[number] = value
        if len(message) > _MOST_FIELDS:
            raise ValueError(f"a message has more than {_MOST_FIELDS} kinds of fields")
    return message


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """Number and value of each field: integers, 4 or 8 bytes, or the bytes of a text or message."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"the wire type {wire} is none")
        if size > len(data) - at:
            raise ValueError("it ends in the middle of a field")
        yield number, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number has more than 64 bits")
