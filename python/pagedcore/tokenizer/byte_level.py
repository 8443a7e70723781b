"""The bytes behind each token, so that text can be put together without decoding everything again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tokenizers

__all__ = ["BYTE_TO_CHAR", "bytes_of_token"]


def _byte_to_char() -> dict[int, str]:
    """GPT-2's spelling of bytes: printable ones as themselves, the others as the characters from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


BYTE_TO_CHAR = _byte_to_char()
_CHAR_TO_BYTE = {char: byte for byte, char in BYTE_TO_CHAR.items()}
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def bytes_of_token(tokenizer: tokenizers.Tokenizer) -> Callable[[str], bytes] | None:
    """From a token's spelling to its bytes; None when the decoder is neither byte-level nor SentencePiece-like."""
    if tokenizer.decoder is None:
        return None
    state = json.loads(tokenizer.decoder.__getstate__())
    steps = state["decoders"] if state["type"] == "Sequence" else [state]
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"]:
        return _byte_level
    # A space at the start of a text is stripped by some: an output continues a prompt, so its first space stays.
    replaces = kinds[:1] in (["Replace"], ["Metaspace"])
    if replaces and set(kinds[1:]) <= {"ByteFallback", "Fuse", "Strip"}:
        space = steps[0].get("replacement") or steps[0].get("pattern", {}).get("String")
        if space and steps[0].get("content", " ") == " ":
            return _with_space(space, "ByteFallback" in kinds)
    return None


def _byte_level(token: str) -> bytes:
    try:
        return bytes([_CHAR_TO_BYTE[char] for char in token])
    except KeyError:  # an added token, spelled as it is
        return token.encode()


def _with_space(space: str, fallback: bool) -> Callable[[str], bytes]:
    def to_bytes(token: str) -> bytes:
        if fallback and (match := _BYTE_TOKEN.fullmatch(token)):
            return bytes([int(match[1], 16)])
        return token.replace(space, " ").encode()

    return to_bytes
