"""What a user may ask about how tokens are chosen, and the checks that need no model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from . import _core
from ._options import SamplingFields
from .arguments import shown
from .checks import check_bool, check_int, float_of, native_record, token_list
from .errors import InvalidArgument
from .names import knows_its_fields
from .structured_outputs import StructuredOutputs, structured_outputs

__all__ = ["SamplingParams", "with_changes"]

NO_LIMIT = _core.NO_TOKEN_LIMIT
"""What the native library takes for max_tokens None: as many as the context and the KV cache hold."""


@knows_its_fields
@dataclass(frozen=True, kw_only=True)
class SamplingParams(SamplingFields):
    """How the tokens of one request are chosen. Immutable: use :func:`dataclasses.replace` to vary it.

    The order of operations is the field's: penalties, logit bias, banned and allowed tokens, temperature, min-p,
    top-k, top-p, then one draw. All names are those of vLLM where it has one.
    """

    best_of: int | None = None
    """Generate this many samples and return the ``n`` whose tokens have the highest log-probability in sum, best first.
    None: ``n``."""
    stop: str | Sequence[str] = ()
    """Strings that end a sample; they may lie across token boundaries. The text is cut before them."""
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    """Leave special tokens out of the text (never out of the token ids)."""
    include_stop_str_in_output: bool = False
    detokenize: bool = True
    """False: token ids only, the text stays empty."""
    structured_outputs: StructuredOutputs | Mapping[str, Any] | None = None
    """What the output is held to, such as ``{"json": schema}`` or ``{"regex": "[0-9]+"}``."""

    def __post_init__(self) -> None:
        # Normalised once, so that equal parameters compare equal and nothing can change behind our back.
        self._set("stop", _texts(self.stop))
        for name in ("stop_token_ids", "banned_tokens", "logprob_token_ids"):
            self._set(name, token_list(name, getattr(self, name)))
        if self.allowed_token_ids is not None:
            self._set("allowed_token_ids", token_list("allowed_token_ids", self.allowed_token_ids))
        if self.logit_bias is not None:
            self._set("logit_bias", _bias(self.logit_bias))
        if self.best_of is not None:
            check_int("best_of", self.best_of, 1, _core.MOST_SAMPLES)
            if self.best_of < self.n:
                raise InvalidArgument(
                    f"best_of={self.best_of} is less than n={self.n}: the n best are chosen from best_of"
                )
        if isinstance(self.max_tokens, int) and not 0 <= self.max_tokens <= NO_LIMIT:
            raise InvalidArgument(
                f"max_tokens={shown(self.max_tokens)} must be an integer in [0, {NO_LIMIT}], or None for as many as "
                "the context and the KV cache hold"
            )
        for name in ("logprobs", "prompt_logprobs"):
            count = getattr(self, name)
            if isinstance(count, int) and count < -1:
                raise InvalidArgument(
                    f"{name}={shown(count)} must be a number of tokens, -1 for the whole vocabulary, or None"
                )
        if self.seed is not None:
            check_int("seed", self.seed, -(2**63), 2**64 - 1)
        for name in ("ignore_eos", "skip_special_tokens", "include_stop_str_in_output", "detokenize"):
            check_bool(name, getattr(self, name))
        self._set("structured_outputs", structured_outputs(self.structured_outputs))
        if self.structured_outputs is not None and self.ignore_eos:
            raise InvalidArgument("ignore_eos=True contradicts structured_outputs, which say where the output ends")
        for string in self.stop:
            if not isinstance(string, str) or not string:
                raise InvalidArgument(f"stop={shown(list(self.stop))} must hold non-empty strings only")
        if self.stop and not self.detokenize:
            raise InvalidArgument("stop strings need text: leave detokenize=True, or use stop_token_ids")
        _core.validate(self.native())

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def native(self, **changes: Any) -> _core.SamplingParams:
        """What the native library is told, with changes. Its limits are the native library's to check."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(SamplingFields)}
        if self.max_tokens is None:
            values["max_tokens"] = NO_LIMIT
        values["seed"] = 0 if self.seed is None else self.seed % 2**64 if isinstance(self.seed, int) else self.seed
        values["logit_bias"] = list((self.logit_bias or {}).items())
        return native_record(_core.SamplingParams, values | changes)

    @property
    def num_samples(self) -> int:
        """Samples that are generated."""
        return self.n if self.best_of is None else self.best_of

    @property
    def reports_logprobs(self) -> bool:
        """Whether log-probabilities of output tokens are reported."""
        return self.logprobs is not None or bool(self.logprob_token_ids)

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


def with_changes(values: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """The values, with those that are asked for in their place: of min_tokens and max_tokens the one that nobody asks
    for gives way to the other."""
    made = {**values, **asked}
    least, most = made.get("min_tokens", 0), made.get("max_tokens")
    if isinstance(least, int) and isinstance(most, int) and least > most:
        if "min_tokens" not in asked:
            made["min_tokens"] = most
        elif "max_tokens" not in asked:
            made["max_tokens"] = least
    return made


def _texts(stop: object) -> tuple[Any, ...]:
    if isinstance(stop, str):
        return (stop,)
    if stop is None:
        return ()
    if isinstance(stop, Iterable):
        return tuple(stop)
    raise InvalidArgument(f"stop={shown(stop)} must be a text or a list of texts")


def _bias(bias: object) -> dict[int, float]:
    """Token ids may be texts: the keys of a JSON object are."""
    if not isinstance(bias, Mapping):
        raise InvalidArgument(f"logit_bias={shown(bias)} must be a mapping of token ids to numbers")
    numbers: dict[int, float] = {}
    for token, value in bias.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InvalidArgument(f"logit_bias[{shown(token)}]={shown(value)} must be a number")
        known = int(token) if isinstance(token, str) and token.isdecimal() and len(token) < 20 else token
        if isinstance(known, bool) or not isinstance(known, int) or known < 0:
            raise InvalidArgument(f"logit_bias[{shown(token)}]: {shown(token)} is not a token id (an integer >= 0)")
        numbers[known] = float_of(value)
    return numbers
