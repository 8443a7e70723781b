"""What a user may ask about how tokens are chosen, and the checks that need no model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from .checks import check_int, check_real, token_ids
from .errors import InvalidArgument

__all__ = ["SamplingParams"]


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How the tokens of one request are chosen. Immutable: use :func:`dataclasses.replace` to vary it.

    The order of operations is the field's: penalties, logit bias, banned and allowed tokens, temperature, min-p,
    top-k, top-p, then one draw. All names are those of vLLM where it has one.
    """

    n: int = 1
    """Independent samples of one prompt; its KV blocks are computed once and shared."""
    best_of: int | None = None
    """Generate this many samples and return the ``n`` whose tokens have the highest log-probability in sum, best first.
    None: ``n``."""
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    top_k: int = 0
    """0 or -1: off."""
    min_p: float = 0.0
    seed: int | None = None
    """None: derived from the LLM's seed and the number of the request, so that a program's runs are reproducible."""
    stop: str | Sequence[str] = ()
    """Strings that end a sample; they may lie across token boundaries. The text is cut before them."""
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False
    max_tokens: int | None = 16
    """Per sample. None: as many as the context holds. 0: compute the prompt only (see prompt_logprobs)."""
    min_tokens: int = 0
    """No stop token and no stop string ends a sample before this many tokens."""
    logprobs: int | None = None
    """Report each token's log-probability and those of this many most likely ones; -1: of the whole vocabulary."""
    prompt_logprobs: int | None = None
    """Likewise for every token of the prompt but the first."""
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] | None = None
    banned_tokens: Sequence[int] = ()
    allowed_token_ids: Sequence[int] | None = None
    """None: all."""
    skip_special_tokens: bool = True
    """Leave special tokens out of the text (never out of the token ids)."""
    include_stop_str_in_output: bool = False
    detokenize: bool = True
    """False: token ids only, the text stays empty."""

    def __post_init__(self) -> None:
        # Normalised once, so that equal parameters compare equal and nothing can change behind our back.
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        object.__setattr__(self, "stop", stop)
        for name in ("stop_token_ids", "banned_tokens"):
            object.__setattr__(self, name, token_ids(name, getattr(self, name)))
        if self.allowed_token_ids is not None:
            object.__setattr__(self, "allowed_token_ids", token_ids("allowed_token_ids", self.allowed_token_ids))
        self._check_counts()
        self._check_numbers()
        self._check_stop(stop)
        self._check_bias()

    def _check_counts(self) -> None:
        check_int("n", self.n, 1, 65536)
        if self.best_of is not None:
            check_int("best_of", self.best_of, 1, 65536)
            if self.best_of < self.n:
                raise InvalidArgument(
                    f"best_of={self.best_of} is less than n={self.n}: the n best are chosen from best_of"
                )
        check_int("top_k", self.top_k, -1, 2**31 - 1)
        check_int("min_tokens", self.min_tokens, 0, 2**31 - 1)
        if self.max_tokens is not None:
            check_int("max_tokens", self.max_tokens, 0, 2**31 - 1)
            if self.min_tokens > self.max_tokens:
                raise InvalidArgument(f"min_tokens={self.min_tokens} is more than max_tokens={self.max_tokens}")
        for name in ("logprobs", "prompt_logprobs"):
            value = getattr(self, name)
            if value is not None:
                check_int(name, value, -1, 2**31 - 1)
        if self.seed is not None:
            check_int("seed", self.seed, -(2**63), 2**64 - 1)

    def _check_numbers(self) -> None:
        check_real("temperature", self.temperature, 0.0, math.inf)
        check_real("top_p", self.top_p, 0.0, 1.0, above_low=True)
        check_real("min_p", self.min_p, 0.0, 1.0)
        check_real("presence_penalty", self.presence_penalty, -2.0, 2.0)
        check_real("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        check_real("repetition_penalty", self.repetition_penalty, 0.0, math.inf, above_low=True)

    def _check_stop(self, stop: tuple[str, ...]) -> None:
        for string in stop:
            if not isinstance(string, str) or not string:
                raise InvalidArgument(f"stop={list(stop)!r} must hold non-empty strings only")
        if stop and not self.detokenize:
            raise InvalidArgument("stop strings need text: leave detokenize=True, or use stop_token_ids")

    def _check_bias(self) -> None:
        if self.logit_bias is None:
            return
        if not isinstance(self.logit_bias, Mapping):
            raise InvalidArgument(f"logit_bias={self.logit_bias!r} must be a mapping of token ids to numbers")
        bias: dict[int, float] = {}
        for token, value in self.logit_bias.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
                raise InvalidArgument(f"logit_bias[{token!r}]={value!r} must be a number")
            bias[token_ids("logit_bias", (token,))[0]] = float(value)
        object.__setattr__(self, "logit_bias", bias)

    @property
    def num_samples(self) -> int:
        """Samples that are generated."""
        return self.n if self.best_of is None else self.best_of

    @property
    def ranks(self) -> bool:
        """Whether fewer samples are returned than generated."""
        return self.num_samples > self.n

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SamplingParams:
        """From names and values; an unknown name is an error that lists the known ones."""
        known = {field.name for field in fields(cls)}
        for name in values:
            if name not in known:
                raise InvalidArgument(f"unknown sampling parameter '{name}'; known: {', '.join(sorted(known))}")
        return cls(**values)
