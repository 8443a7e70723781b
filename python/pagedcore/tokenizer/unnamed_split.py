"""GGUF files that do not say how texts are cut before merging: those written before tokenizer.ggml.pre was there.

llama.cpp cuts them by a pattern of its own ("default"), which is that of no model, and warns. Where a token or the
architecture says which vocabulary it is, its own cut is taken.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

__all__ = ["with_split_named"]

_KEY = "tokenizer.ggml.pre"
# A token that only vocabularies of one cut have, and that cut.
_MARKERS = {
    "<|begin_of_text|>": "llama-bpe",
    "<|start_header_id|>": "llama-bpe",
    "<|START_OF_TURN_TOKEN|>": "command-r",
    "<｜fim▁begin｜>": "deepseek-coder",
}
_ARCHITECTURES = {
    "bloom": "bloom",
    "codeshell": "codeshell",
    "command-r": "command-r",
    "falcon": "falcon",
    "gpt2": "gpt-2",
    "jais": "jais",
    "mpt": "mpt",
    "olmo": "olmo",
    "phi2": "phi-2",
    "qwen2": "qwen2",
    "qwen3": "qwen2",
    "refact": "refact",
    "starcoder": "starcoder",
    "starcoder2": "starcoder",
}
_log = logging.getLogger("pagedcore")


def with_split_named(metadata: dict[str, Any], source: str) -> dict[str, Any]:
    """The metadata with a name of the cut, after a warning where the file has none. ``source``: the file."""
    if metadata.get("tokenizer.ggml.model") != "gpt2" or metadata.get(_KEY):
        return metadata
    name, why = _guessed(metadata)
    _log.warning("%s: %s is missing: texts are cut as in %r vocabularies, %s", source, _KEY, name, why)
    return {**metadata, _KEY: name}


def _guessed(metadata: Mapping[str, Any]) -> tuple[str, str]:
    tokens = metadata["tokenizer.ggml.tokens"]
    for marker, name in _MARKERS.items():
        if marker in tokens:
            return name, f"since it has the token {marker}"
    architecture = metadata.get("general.architecture")
    if isinstance(architecture, str) and architecture in _ARCHITECTURES:
        return _ARCHITECTURES[architecture], f"as those of {architecture} models are"
    return "default", "which may be wrong: name a tokenizer.json with tokenizer="
