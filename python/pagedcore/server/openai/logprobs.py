"""Log-probabilities in the forms of /v1/completions, /v1/chat/completions and vLLM's ``prompt_logprobs``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...detokenizer import Detokenizer
from ...logprobs import Logprob
from ...tokenizer import Tokenizer

__all__ = ["MOST_LOGPROBS", "ChatLogprobs", "TextLogprobs", "prompt_logprobs"]

MOST_LOGPROBS = 20
_LEAST = -9999.0  # JSON has no infinity; what OpenAI's servers say of a token that cannot come

_Position = Mapping[int, Logprob] | None


def _finite(logprob: float) -> float:
    return max(logprob, _LEAST)


def _most_likely(position: Mapping[int, Logprob], count: int) -> list[tuple[int, Logprob]]:
    return sorted(((t, entry) for t, entry in position.items() if entry.rank <= count), key=lambda pair: pair[1].rank)


class TextLogprobs:
    """Of one choice of /v1/completions, in pieces: four lists of one entry a token."""

    def __init__(self, tokenizer: Tokenizer, count: int, *, skip_special_tokens: bool, as_ids: bool) -> None:
        """``as_ids``: tokens are spelled ``token_id:7``, which no two share."""
        self._tokenizer = tokenizer
        self._count = count
        self._as_ids = as_ids
        self._text = Detokenizer(tokenizer, skip_special_tokens=skip_special_tokens)
        self._offset = 0

    def add(self, token_ids: Sequence[int], positions: Iterable[_Position]) -> dict[str, Any]:
        tokens, logprobs, top, offsets = [], [], [], []
        for token, position in zip(token_ids, positions, strict=True):
            offsets.append(self._offset)
            self._offset += len(self._text.push(token))
            tokens.append(self._name(token))
            logprobs.append(None if position is None else _finite(position[token].logprob))
            top.append(None if position is None else self._top(token, position))
        return {"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": top, "text_offset": offsets}

    def _name(self, token: int) -> str:
        return f"token_id:{token}" if self._as_ids else self._tokenizer.token_text(token)

    def _top(self, token: int, position: Mapping[int, Logprob]) -> dict[str, float] | None:
        """The most likely ones, and the token itself. Of two that are spelled alike the more likely one counts."""
        if self._count == 0:
            return {self._name(token): _finite(position[token].logprob)}
        found: dict[str, float] = {}
        for other, entry in [*_most_likely(position, self._count), (token, position[token])]:
            found.setdefault(self._name(other), _finite(entry.logprob))
        return found


class ChatLogprobs:
    """Of a choice of /v1/chat/completions: an entry for each token, with the bytes that it adds."""

    def __init__(self, tokenizer: Tokenizer, count: int, *, as_ids: bool) -> None:
        self._tokenizer = tokenizer
        self._count = count
        self._as_ids = as_ids

    def entries(self, token_ids: Sequence[int], positions: Iterable[Mapping[int, Logprob]]) -> list[dict[str, Any]]:
        return [
            self._entry(token, position[token])
            | {"top_logprobs": [self._entry(other, entry) for other, entry in _most_likely(position, self._count)]}
            for token, position in zip(token_ids, positions, strict=True)
        ]

    def _entry(self, token: int, entry: Logprob) -> dict[str, Any]:
        name = f"token_id:{token}" if self._as_ids else self._tokenizer.token_text(token)
        return {"token": name, "logprob": _finite(entry.logprob), "bytes": list(self._tokenizer.token_bytes(token))}


def prompt_logprobs(positions: Iterable[_Position]) -> list[dict[str, Any] | None]:
    return [
        None
        if position is None
        else {
            str(token): {"logprob": _finite(e.logprob), "rank": e.rank, "decoded_token": e.decoded_token}
            for token, e in position.items()
        }
        for position in positions
    ]
