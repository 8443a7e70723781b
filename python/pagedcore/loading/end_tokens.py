"""Which tokens end a turn or a text, and who says so."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from ..families.fields import Fields
from ..tokenizer.control_tokens import ends_among

if TYPE_CHECKING:
    from ..tokenizer import Tokenizer

__all__ = ["EndToken", "all_ends", "known_ids"]

_log = logging.getLogger("pagedcore")


class EndToken(NamedTuple):
    id: int
    token: str | None
    """As the vocabulary spells it; None without a tokenizer."""
    why: str


def known_ids(fields: Fields, name: str, vocab_size: int) -> list[int]:
    """The token ids of a field: one, a list, or none. Those that the model has no row for are left out with a warning:
    published files name some (-1, or the first id behind the vocabulary, for "none"). Raises Corrupt for what is no
    integer."""
    value = fields.get(name)
    ids = [] if value is None else value if isinstance(value, list) else [value]
    if not all(isinstance(token, int) and not isinstance(token, bool) for token in ids):
        raise fields.refuse(name, "is neither a token id nor a list of them")
    for token in ids:
        if not 0 <= token < vocab_size:
            _log.warning(
                "%s: %s%s = %s is ignored: the model's token ids are in [0, %d)",
                fields.source,
                fields.prefix,
                name,
                token if abs(token) < 10**20 else "a huge number",
                vocab_size,
            )
    return list(dict.fromkeys(token for token in ids if 0 <= token < vocab_size))


def all_ends(declared: Mapping[int, str], tokenizer: Tokenizer | None, vocab_size: int) -> tuple[EndToken, ...]:
    """Those that configurations declare (ids, and where), then the tokenizer's, then those with a known spelling."""
    why = dict(declared)
    if tokenizer is not None:
        for name in ("eos_token", "eot_token", "eom_token"):
            spelling = tokenizer.special_tokens.get(name)
            if isinstance(spelling, str):
                _add(why, [tokenizer.token_to_id(spelling)], f"the tokenizer's {name}", vocab_size)
        added = tokenizer.added_tokens()
        ends = ends_among(added.values())
        _add(why, sorted(id_ for id_, token in added.items() if token in ends), "its spelling", vocab_size)
    return tuple(EndToken(i, None if tokenizer is None else tokenizer.id_to_token(i), by) for i, by in why.items())


def _add(why: dict[int, str], ids: Iterable[int | None], reason: str, vocab_size: int) -> None:
    for token in ids:
        if token is not None and token >= vocab_size:
            _log.warning(
                "token %d, which ends a text (%s), is ignored: the model's token ids are in [0, %d)",
                token,
                reason,
                vocab_size,
            )
        elif token is not None:
            why.setdefault(token, reason)
