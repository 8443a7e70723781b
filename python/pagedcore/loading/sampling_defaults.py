"""How a model's publishers sample from it: ``generation_config.json``, ``general.sampling.*`` of GGUF files.

A value that nobody can sample with is left out, with a warning: it is a recommendation. Raises Corrupt for what is no
number where one belongs.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from ..arguments import shown
from ..errors import InvalidArgument
from ..families.fields import Fields
from ..sampling_params import SamplingParams

__all__ = ["sampling_of_container", "sampling_of_generation_config", "sampling_of_gguf"]

# Their names, and ours.
_GENERATION = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "repetition_penalty",
    "max_new_tokens": "max_tokens",
    "min_new_tokens": "min_tokens",
}
_GGUF = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repetition_penalty",
}
_log = logging.getLogger("pagedcore")
_WHOLE = {"top_k", "max_tokens", "min_tokens"}


def sampling_of_generation_config(fields: Fields) -> dict[str, Any]:
    """Fields of SamplingParams by name, as far as the file says. Its ``do_sample`` false is our temperature 0; true
    without a temperature is transformers' 1."""
    given = _read(fields, _GENERATION)
    sample = fields.get("do_sample")
    if sample is not None:
        given["temperature"] = given.get("temperature", 1.0) if fields.flag("do_sample", False) else 0.0
    return _checked(given, fields, {ours: theirs for theirs, ours in _GENERATION.items()})


def sampling_of_gguf(metadata: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Values beyond a limit mean what llama.cpp takes them for: a temperature below 0 is 0, a top_p above 1 is 1."""
    fields = Fields(metadata, source, "general.sampling.")
    given = _read(fields, _GGUF)
    for name, low, high in (("temperature", 0.0, math.inf), ("top_p", -math.inf, 1.0), ("min_p", 0.0, math.inf)):
        if name in given:
            given[name] = min(max(given[name], low), high)
    return _checked(given, fields, {ours: theirs for theirs, ours in _GGUF.items()})


def sampling_of_container(fields: Fields) -> dict[str, Any]:
    """Under our own names."""
    names = {name: name for name in _GENERATION.values()}
    return _checked(_read(fields, names), fields, names)


def _read(fields: Fields, names: Mapping[str, str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for theirs, ours in names.items():
        if fields.get(theirs) is not None:
            given[ours] = fields.number(theirs)
            if ours in _WHOLE:
                if not given[ours].is_integer():
                    raise fields.refuse(theirs, "is not an integer")
                given[ours] = int(fields.get(theirs))
    return given


def _checked(given: dict[str, Any], fields: Fields, names: Mapping[str, str]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in given.items():  # max_tokens comes before min_tokens
        try:
            SamplingParams(**{"max_tokens": kept.get("max_tokens"), name: value})
            kept[name] = value
        except InvalidArgument as error:
            _log.warning("%s: %s%s = %s is ignored: %s", fields.source, fields.prefix, names[name], shown(value), error)
    return kept
