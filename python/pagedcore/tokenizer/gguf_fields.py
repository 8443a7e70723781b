"""What a GGUF file says of its tokenizer is of the right type, field by field."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..errors import Corrupt

__all__ = ["check_fields"]

_TEXTS = ("model", "pre")
_FLAGS = ("add_bos_token", "add_eos_token", "add_sep_token", "add_space_prefix", "remove_extra_whitespaces")
_LISTS = (("tokens", {str}, "texts"), ("merges", {str}, "texts"), ("token_type", {int}, "integers"))


def check_fields(metadata: Mapping[str, Any], source: str) -> None:
    """Raises Corrupt, with file and field, for the first that is of another type or length than the format says.
    Special ids are checked where they are read."""

    def refuse(name: str, problem: str) -> Corrupt:
        value = repr(metadata[f"tokenizer.ggml.{name}"])[:80]
        return Corrupt(f"{source}: tokenizer.ggml.{name} = {value} {problem}")

    def get(name: str) -> Any:
        return metadata.get(f"tokenizer.ggml.{name}")

    for name in _TEXTS:
        if get(name) is not None and not isinstance(get(name), str):
            raise refuse(name, "is no text")
    for name in _FLAGS:
        if get(name) is not None and not isinstance(get(name), bool):
            raise refuse(name, "is neither true nor false")
    for name, kinds, what in _LISTS:
        value = get(name)
        if value is not None and not (isinstance(value, list) and set(map(type, value)) <= kinds):
            raise refuse(name, f"is no list of {what}")
    scores = get("scores")
    if scores is not None and not (
        isinstance(scores, list) and set(map(type, scores)) <= {float, int} and all(map(math.isfinite, scores))
    ):
        raise refuse("scores", "is no list of finite numbers")
    tokens = get("tokens") or []
    for name in ("scores", "token_type"):
        value = get(name)
        if value and tokens and len(value) != len(tokens):
            raise Corrupt(f"{source}: tokenizer.ggml.{name} has {len(value)} entries for {len(tokens)} tokens")
    if len(set(tokens)) != len(tokens):
        seen: set[str] = set()
        twice = next(token for token in tokens if token in seen or seen.add(token))  # type: ignore[func-returns-value]
        raise Corrupt(f"{source}: tokenizer.ggml.tokens has {twice[:80]!r} twice")
