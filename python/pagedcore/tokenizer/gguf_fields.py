"""What a GGUF file says of its tokenizer is of the right type, field by field."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import Corrupt

__all__ = ["checked_fields"]

_MOST_TOKENS = 1 << 19
"""The largest published vocabularies have half as many."""

_TEXTS = ("model", "pre")
_FLAGS = ("add_bos_token", "add_eos_token", "add_sep_token", "add_space_prefix", "remove_extra_whitespaces")
_LISTS: tuple[tuple[str, set[type], str], ...] = (
    ("tokens", {str}, "texts"),
    ("merges", {str}, "texts"),
    ("token_type", {int}, "integers"),
    ("scores", {int, float}, "finite numbers"),
)


def checked_fields(metadata: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The metadata with lists in place of the arrays of its tokenizer. Raises Corrupt, with file and field, for the
    first that is of another type or length than the format says. Special ids are checked where they are read."""

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
    tokens = get("tokens")
    if hasattr(tokens, "__len__") and len(tokens) > _MOST_TOKENS:
        raise Corrupt(f"{source}: tokenizer.ggml.tokens has {len(tokens)} entries; at most {_MOST_TOKENS} are served")
    lists: dict[str, Any] = {}
    for name, kinds, what in _LISTS:
        value = get(name)
        if value is None:
            continue
        of_each = name in ("scores", "token_type") and hasattr(value, "__len__")
        if of_each and tokens and len(value) not in (0, len(tokens)):
            raise Corrupt(f"{source}: tokenizer.ggml.{name} has {len(value)} entries for {len(tokens)} tokens")
        listed = value.tolist() if isinstance(value, memoryview) else value
        if not _are(listed, kinds) or (name == "scores" and not all(map(math.isfinite, listed))):
            raise refuse(name, f"is no list of {what}")
        lists[f"tokenizer.ggml.{name}"] = listed if name == "merges" else list(listed)
    spelled = lists.get("tokenizer.ggml.tokens", [])
    if len(set(spelled)) != len(spelled):
        seen: set[str] = set()
        twice = next(token for token in spelled if token in seen or seen.add(token))  # type: ignore[func-returns-value]
        raise Corrupt(f"{source}: tokenizer.ggml.tokens has {twice[:80]!r} twice")
    return {**metadata, **lists}


def _are(values: Any, kinds: set[type]) -> bool:
    if isinstance(values, str) or not isinstance(values, Sequence):
        return False
    if hasattr(values, "element"):  # as a file has them: of one type
        return values.element in kinds
    return set(map(type, values)) <= kinds
