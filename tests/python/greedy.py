"""Greedy tokens and log-probabilities of a small model against transformers, which computes in float64 here."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from pagedcore import SamplingParams

PROMPTS = [[(7 * i * i + 3 * i + seed) % 320 for i in range(1, length)] for seed, length in enumerate((2, 18, 50, 130))]
GREEDY = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True, logprobs=2, prompt_logprobs=0)
TOLERANCE = 1e-4  # of a log-probability: sums in float32 of some hundred terms, over logits of tens


def log_probs(reference: Any, ids: list[int]) -> torch.Tensor:
    """[tokens, vocab], float64."""
    with torch.inference_mode():
        return torch.log_softmax(copy.deepcopy(reference).double()(torch.tensor([ids])).logits[0], dim=-1)


def check(output: Any, reference: Any, tolerance: float = TOLERANCE) -> None:
    (sample,) = output.outputs
    ids = output.prompt_token_ids + sample.token_ids
    expected = log_probs(reference, ids)
    start = len(output.prompt_token_ids) - 1
    for position, token in zip(expected[start:-1], sample.token_ids, strict=True):
        best = position.topk(2)
        assert token == best.indices[0] or (best.values[0] - best.values[1] < tolerance and token == best.indices[1])
    for position, found in zip(expected, [*output.prompt_logprobs[1:], *sample.logprobs], strict=False):
        for token, entry in found.items():
            assert entry.logprob == pytest.approx(position[token].item(), abs=tolerance)
