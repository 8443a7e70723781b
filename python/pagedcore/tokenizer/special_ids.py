"""Special token ids of a GGUF file that name no token: published files have them, and mean none."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ..errors import Corrupt

__all__ = ["without_foreign_ids"]

# "seperator" is how the format spells it.
_NAMES = """
bos eos eot eom unknown seperator padding cls mask prefix suffix middle fim_pre fim_suf fim_mid
fim_pad fim_rep fim_sep
"""
_log = logging.getLogger("pagedcore")


def without_foreign_ids(metadata: Mapping[str, Any], num_tokens: int, source: str = "GGUF") -> dict[str, Any]:
    """The metadata without special ids outside [0, num_tokens), which are warned of. Raises Corrupt for one that is no
    integer. ``source``: the file, for messages."""
    kept = dict(metadata)
    for name in _NAMES.split():
        key = f"tokenizer.ggml.{name}_token_id"
        token = metadata.get(key)
        if token is None:
            continue
        if isinstance(token, bool) or not isinstance(token, int):
            raise Corrupt(f"{source}: {key} = {str(token)[:80]!r} is not a token id")
        if not 0 <= token < num_tokens:
            _log.warning("%s: %s = %d is ignored: the vocabulary has %d tokens", source, key, token, num_tokens)
            del kept[key]
    return kept
