"""Sampling parameters of a body, under the names that OpenAI and vLLM give them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from .. import _core
from ..beam_search_params import BeamSearchParams
from ..errors import InvalidArgument
from ..names import OTHERS, our_word
from ..sampling_params import SamplingParams
from ..tokenizer import Tokenizer
from .errors import ApiError, not_supported
from .fields import Fields, wrong
from .structured import structured_of

__all__ = ["ENDPOINTS_OWN", "MOST_CHOICES", "beam_params", "refuse_unsupported", "request_options", "sampling_params"]

MOST_CHOICES = 128  # n and best_of; the width of a beam search

_UNSUPPORTED = {
    "audio": "models here write text only",
    "documents": "put them into a message",
    "kv_transfer_params": "leave it out",
    "logits_processors": "logit_bias changes single tokens",
    "media_io_kwargs": "models here read text only",
    "mm_processor_kwargs": "models here read text only",
    "repetition_detection": "leave it out",
    "thinking_token_budget": "max_tokens bounds the whole answer",
    "truncate_prompt_tokens": "shorten the prompt",
    "vllm_xargs": "leave it out",
}

# Words of other systems for what has a name here too; those that a dialect has are its endpoint's to read.
_THEIRS = {
    name: f"use {our_word(name)}"
    for name in OTHERS["SamplingParams"]
    if name not in ("bad_words", "max_completion_tokens", "stop_sequences") and our_word(name) != name
}
# What an endpoint reads itself, since its answer depends on it.
ENDPOINTS_OWN = ("max_tokens", "logprobs", "prompt_logprobs", "prompt_logprob_start", "logprob_token_ids")


def refuse_unsupported(
    fields: Fields, more: Mapping[str, str] = {}, harmless: Mapping[str, Collection[Any]] = {}
) -> None:
    """Raises for what is known to have an effect elsewhere, and has none here. ``harmless``: values that ask for what
    is done anyway."""
    fields.refuse({**_UNSUPPORTED, **_THEIRS, **more}, harmless)
    tier = fields.raw("service_tier")
    if tier not in (None, "auto", "default", "standard_only"):
        raise not_supported("service_tier", "there is one tier, 'default'")


def sampling_params(
    fields: Fields, defaults: SamplingParams, tokenizer: Tokenizer | None, **ours: Any
) -> SamplingParams:
    """``defaults``: what the model's publishers recommend. ``ours``: what the endpoint says itself. Limits but those of
    what a caller may cost are SamplingParams' to check."""
    values: dict[str, Any] = dict(ours)
    for option in _core.options_of("SamplingParams"):
        if option.name not in ENDPOINTS_OWN and option.name in fields:
            values[option.name] = fields.typed(option.name, option.type)
    for name in ("n", "best_of"):
        values[name] = fields.integer(name, 1, MOST_CHOICES)
    values["stop"] = fields.texts("stop")
    for name in ("ignore_eos", "include_stop_str_in_output"):
        values[name] = fields.flag(name)
    if "skip_special_tokens" in fields:
        values.setdefault("skip_special_tokens", fields.flag("skip_special_tokens"))
    values.setdefault("structured_outputs", structured_of(fields))
    banned = [token for word in fields.texts("bad_words") for token in _tokens_of_word(word, tokenizer)]
    if banned:
        values["banned_tokens"] = values.get("banned_tokens", []) + banned
    return replace(defaults, **{name: value for name, value in values.items() if value is not None})


def beam_params(fields: Fields, max_tokens: int, defaults: SamplingParams) -> BeamSearchParams:
    """vLLM's meaning of ``n`` in a beam search: its width, all of whose hypotheses are returned."""
    for name, harmless in (("logprobs", (None, False)), ("best_of", (None,)), ("stop", (None, [], ""))):
        if fields.raw(name) not in harmless:
            raise not_supported(name, "a beam search has none; leave out use_beam_search, or this")
    if fields.number("temperature", 0.0, 1000.0, 0.0) != 0:
        raise ApiError(400, "a beam search does not sample: temperature must be 0", param="temperature")
    return BeamSearchParams(
        beam_width=fields.integer("n", 1, MOST_CHOICES, 1) or 1,
        max_tokens=max_tokens,
        length_penalty=fields.number("length_penalty", -1000.0, 1000.0, 1.0) or 0.0,
        early_stopping=_early_stopping(fields),
        stop_token_ids=fields.token_ids("stop_token_ids"),
        ignore_eos=fields.flag("ignore_eos"),
        skip_special_tokens=fields.flag("skip_special_tokens", defaults.skip_special_tokens),
        structured_outputs=structured_of(fields),
    )


def _early_stopping(fields: Fields) -> Any:
    value = fields.raw("early_stopping")
    if value not in (None, True, False, "never"):
        raise wrong("early_stopping", value, "true, false or 'never'")
    return False if value is None else value


def request_options(fields: Fields) -> dict[str, Any]:
    """How the request is served, as keywords."""
    options: dict[str, Any] = {}
    priority = fields.integer("priority", -_core.MOST_PRIORITY, _core.MOST_PRIORITY)
    if priority is not None:
        options["priority"] = -priority  # of vLLM: the lower goes first
    salt = fields.text("cache_salt")
    if salt == "":
        raise wrong("cache_salt", salt, "a text of one character or more")
    if salt is not None:
        options["salt"] = int.from_bytes(hashlib.sha256(salt.encode()).digest()[:7], "little") + 1
    prefix = fields.text("prefix")
    if prefix is not None:
        options["prefix"] = prefix
    return options


def _tokens_of_word(word: str, tokenizer: Tokenizer | None) -> list[int]:
    """The word as a token of its own, at the beginning of a text and behind a space."""
    if tokenizer is None or not word:
        raise InvalidArgument("bad_words must be texts that have tokens")
    found = []
    for spelled in (word, " " + word.lstrip(" ")):
        ids = tokenizer.encode(spelled, add_special_tokens=False, continues=True)
        if len(ids) == 1:
            found.append(ids[0])
        elif spelled == word:
            raise not_supported("bad_words", f"{word[:64]!r} is {len(ids)} tokens, and single tokens can be banned")
    return found
