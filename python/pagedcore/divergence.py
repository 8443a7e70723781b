"""How far one model's distributions are from another's: the same weights in other types, say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import Aborted
from .sampling_params import SamplingParams

if TYPE_CHECKING:
    from .llm import LLM

__all__ = ["TOP", "Distributions", "Divergence", "distributions", "divergence"]

TOP = 100  # likeliest tokens of each distribution that are compared; all others are compared as one token
_AT_ONCE = 8  # texts whose distributions the engine holds at a time
_LEAST = 1e-9  # what is left for the other tokens at least: probabilities come in float32

Row = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


@dataclass
class Distributions:
    """Of the tokens of texts, all but the first of each."""

    rows: list[Row] = field(default_factory=list)
    """The likeliest tokens in ascending order, and their log-probabilities."""
    chosen: list[float] = field(default_factory=list)
    """Log-probability of the token that follows."""


@dataclass(frozen=True)
class Divergence:
    """Of a model from a reference."""

    tokens: int
    mean: float
    """Kullback-Leibler divergence of a token in nats: sum of p log(p / q), p being the reference's. Tokens that are
    not among the likeliest of both count as one, so that it is at most the divergence of the whole distributions."""
    largest: float
    same_first: float
    """Share of tokens for which both find the same one likeliest."""
    perplexity: float
    reference_perplexity: float


def distributions(llm: LLM, texts: Sequence[list[int]]) -> Distributions:
    """``texts``: token ids, two at least of each. Raises Aborted where a request fails."""
    found = Distributions()
    params = SamplingParams(max_tokens=0, prompt_logprobs=min(TOP, llm.description.vocab_size))
    for first in range(0, len(texts), _AT_ONCE):
        for output in llm.generate(list(texts[first : first + _AT_ONCE]), params, progress=False):
            if output.error is not None or output.prompt_logprobs is None:
                raise Aborted(f"request {output.request_id} failed: {output.error}")
            found.chosen += output.prompt_logprobs.chosen()["logprob"].tolist()
            for row in output.prompt_logprobs.others():
                row = np.sort(row[row["token"] >= 0], order="token")
                found.rows.append((row["token"].copy(), row["logprob"].astype(np.float64)))
    return found


def divergence(reference: Distributions, other: Distributions) -> Divergence:
    """``other`` is of the same texts."""
    found, same = [], 0
    for (tokens, exact), (other_tokens, near) in zip(reference.rows, other.rows, strict=True):
        _, at, other_at = np.intersect1d(tokens, other_tokens, assume_unique=True, return_indices=True)
        p, q = exact[at], near[other_at]
        rest, other_rest = (max(_LEAST, 1 - math.fsum(np.exp(x))) for x in (p, q))
        found.append(float(np.sum(np.exp(p) * (p - q))) + rest * math.log(rest / other_rest))
        same += int(tokens[exact.argmax()] == other_tokens[near.argmax()])
    count = len(found)
    perplexity, expected = (math.exp(-math.fsum(x.chosen) / count) for x in (other, reference))
    return Divergence(count, math.fsum(found) / count, max(found), same / count, perplexity, expected)
