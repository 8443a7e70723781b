"""Lengths of prompts and outputs by the paper's own histograms, for those who have no list of real ones."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from math import log, sqrt
from typing import Any

import numpy as np

from ..errors import InvalidArgument

__all__ = ["paper_data", "paper_lengths", "translation_lengths"]

_CORRELATION = {"sharegpt": 0.2, "alpaca": 0.0}
# The lengths count the token with which OPT's tokenizer begins: an output of one is an empty answer, which is rare (7
# of 79,725 in ShareGPT).
_SHORTEST_OUTPUT = 1.5
# ShareGPT's prompts are mostly shorter than one bin: its percentiles say how they lie within the first ones.
_SHAREGPT_PROMPTS = ((0.0, 1), (0.01, 2), (0.05, 7), (0.10, 9), (0.25, 15), (0.50, 35))


@cache
def paper_data() -> dict[str, Any]:
    """The figures of the PagedAttention paper: what `data/figures.json` says about itself under "about"."""
    text = resources.files(__package__).joinpath("data/figures.json").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    return data


def paper_lengths(dataset: str, count: int = 50_000, *, max_tokens: int = 2048, seed: int = 0) -> list[tuple[int, int]]:
    """(prompt, output) lengths of "sharegpt" or "alpaca", drawn from figure 11 of the PagedAttention paper.

    A bin by its count, then evenly within it. Prompt and output of ShareGPT with a rank correlation of 0.2 (a Gaussian
    copula), those of Alpaca independently: only the marginals are published. Pairs of
    max_tokens or more are drawn again, which makes ShareGPT's prompts a little shorter than the paper's (148 tokens on
    average, 161 there). The same arguments give the same lengths.
    """
    if dataset not in _CORRELATION:
        raise InvalidArgument(f"{dataset!r} is none of the paper's datasets: {', '.join(_CORRELATION)}")
    random = np.random.RandomState(seed)
    rho = _CORRELATION[dataset]
    pairs: list[tuple[int, int]] = []
    while len(pairs) < count:
        first = random.standard_normal(count)
        second = rho * first + sqrt(1 - rho * rho) * random.standard_normal(count)
        prompts = _quantile(dataset, "input", _uniform(first))
        outputs = _quantile(dataset, "output", _uniform(second))
        pairs += [pair for pair in zip(prompts.tolist(), outputs.tolist(), strict=True) if sum(pair) < max_tokens]
    return pairs[:count]


def translation_lengths(count: int = 3000, *, seed: int = 0) -> list[tuple[int, int]]:
    """(prompt, output) lengths of sentences to be translated from English to German, without examples: an estimate.

    News sentences have some 22 words. LLaMA's tokenizer is taken to make 30 tokens of the English ones, with the mark
    behind them, and 42 of the German ones; both are lognormal with a relative deviation of 0.55, and a pair has one
    length in words. What WMT16 has under that tokenizer is not published. The same arguments give the same lengths.
    """
    deviation = sqrt(log(1 + 0.55**2))
    random = np.random.RandomState(seed)
    words = np.exp(deviation * random.standard_normal(count) - deviation**2 / 2)
    prompts = np.maximum(3, np.rint(30 * words)).astype(int)
    outputs = np.maximum(2, np.rint(42 * words * np.exp(0.1 * random.standard_normal(count)))).astype(int)
    return list(zip(prompts.tolist(), outputs.tolist(), strict=True))


def _uniform(normal: Any) -> Any:
    """Ranks instead of the normal distribution's function: of as many values they are even as can be."""
    return (np.argsort(np.argsort(normal)) + 0.5) / len(normal)


def _quantile(dataset: str, kind: str, shares: Any) -> Any:
    histogram = paper_data()["fig11_hist"][f"{dataset}_{kind}"]
    edges = np.linspace(histogram["lo"], histogram["hi"], histogram["bins"] + 1)
    if kind == "output":
        edges[0] = _SHORTEST_OUTPUT
    cumulative = np.concatenate([[0.0], np.cumsum(histogram["counts"])]) / sum(histogram["counts"])
    if (dataset, kind) == ("sharegpt", "input"):
        known, values = zip(*_SHAREGPT_PROMPTS, strict=True)
        behind = cumulative > known[-1]
        cumulative = np.concatenate([known, cumulative[behind]])
        edges = np.concatenate([values, edges[behind]])
    return np.maximum(1, np.rint(np.interp(shares, cumulative, edges))).astype(int)
