"""Greedy tokens and log-probabilities of a small model against transformers in float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pagedcore import SamplingParams

PROMPTS = [[(7 * i * i + 3 * i + seed) % 320 for i in range(1, length)] for seed, length in enumerate((2, 18, 50, 130))]
GREEDY = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True, logprobs=2, prompt_logprobs=0)


def check(output: Any, reference: Any, tolerance: float = 1e-3) -> None:
    (sample,) = output.outputs
    ids = output.prompt_token_ids + sample.token_ids
    with torch.inference_mode():
        expected = torch.log_softmax(reference(torch.tensor([ids])).logits[0].double(), dim=-1)
    start = len(output.prompt_token_ids) - 1
    assert expected[start:-1].argmax(-1).tolist() == sample.token_ids
    for position, found in zip(expected, [*output.prompt_logprobs[1:], *sample.logprobs], strict=False):
        for token, entry in found.items():
            assert entry.logprob == pytest.approx(position[token].item(), abs=tolerance)
