"""The default model against transformers: tokens, log-probabilities, and how far bfloat16 is from float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pagedcore import LLM, SamplingParams, _core
from texts import PROMPTS

GREEDY = SamplingParams(temperature=0, max_tokens=64, ignore_eos=True, logprobs=5)


def log_probs(reference: Any, ids: list[int]) -> torch.Tensor:
    """[tokens, vocab], float64."""
    with torch.inference_mode():
        return torch.log_softmax(reference(torch.tensor([ids])).logits[0].double(), dim=-1)


def test_greedy_tokens_and_log_probabilities(llm: LLM, reference: Any) -> None:
    """Each token is the reference's most likely one given those before: by induction the reference's own output."""
    for output in llm.generate(PROMPTS, GREEDY):
        (sample,) = output.outputs
        assert len(sample.token_ids) == 64
        assert sample.finish_reason == "length"
        start = len(output.prompt_token_ids) - 1
        expected = log_probs(reference, output.prompt_token_ids + sample.token_ids)[start:-1]
        assert expected.argmax(-1).tolist() == sample.token_ids
        assert sample.logprobs is not None
        for position, found in zip(expected, sample.logprobs, strict=True):
            assert set(found) == set(position.topk(5).indices.tolist())
            for token, entry in found.items():
                assert entry.logprob == pytest.approx(position[token].item(), abs=1e-3)
        total = expected.gather(1, torch.tensor(sample.token_ids)[:, None]).sum().item()
        assert sample.cumulative_logprob == pytest.approx(total, abs=1e-2)


def test_greedy_equals_generate_of_transformers(llm: LLM, reference: Any) -> None:
    """Once with its own loop and cache."""
    (output,) = llm.generate(PROMPTS[0], GREEDY)
    ids = torch.tensor([output.prompt_token_ids])
    mask = torch.ones_like(ids)
    found = reference.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=32, eos_token_id=None)
    assert found[0, ids.shape[1] :].tolist() == output.outputs[0].token_ids[:32]


def test_prompt_log_probabilities(llm: LLM, reference: Any) -> None:
    params = SamplingParams(max_tokens=0, prompt_logprobs=3)
    for output in llm.generate(PROMPTS, params):
        ids = output.prompt_token_ids
        assert output.prompt_logprobs is not None and output.prompt_logprobs[0] is None
        expected = log_probs(reference, ids)[:-1]
        for position, token, found in zip(expected, ids[1:], output.prompt_logprobs[1:], strict=True):
            assert found is not None
            assert next(iter(found)) == token  # the prompt's own token comes first
            assert found[token].logprob == pytest.approx(position[token].item(), abs=1e-3)
            least, most = (int((position > position[token] + slack).sum()) for slack in (1e-3, -1e-3))
            assert least < found[token].rank <= most  # tokens as likely, but for rounding, are in any order
            assert set(position.topk(3).indices.tolist()) <= set(found)


def test_score(llm: LLM, reference: Any) -> None:
    score = llm.score("The capital of France is Paris.")
    expected = log_probs(reference, score.token_ids)[:-1].gather(1, torch.tensor(score.token_ids[1:])[:, None])
    assert score.logprobs == pytest.approx(expected[:, 0].tolist(), abs=1e-3)
    assert score.logprob == pytest.approx(expected.sum().item(), abs=1e-2)
    assert score.logprob > llm.score("The capital of France is Berlin.").logprob
    several = llm.score(["The capital of France is Paris.", "x y"])
    assert several[0] == score
    assert len(several) == 2


def full_log_probs(llm: LLM, ids: list[int]) -> torch.Tensor:
    """[tokens - 1, vocab]: of every token of the vocabulary, straight from the engine (millions of entries)."""
    size = llm.description.vocab_size
    llm.engine.submit(ids, _core.SamplingParams(max_tokens=0, prompt_logprobs=size))
    rows = []
    while llm.engine.busy:
        for output in llm.engine.wait(1.0):
            for position in output.prompt_logprobs:
                top = position.top
                row = torch.full((size,), -torch.inf, dtype=torch.float64)
                row[[entry.token for entry in top]] = torch.tensor([entry.logprob for entry in top]).double()
                rows.append(row)
    return torch.stack(rows)


def mean_divergence(llm: LLM, reference: Any) -> float:
    """Mean KL divergence per token over 20 texts, over the whole vocabulary."""
    assert llm.tokenizer is not None
    divergences = []
    for prompt in PROMPTS:
        ids = llm.tokenizer.encode(prompt)[:16]
        mine, exact = full_log_probs(llm, ids), log_probs(reference, ids)[:-1]
        assert mine.exp().sum(-1).allclose(torch.ones(len(mine), dtype=torch.float64), atol=1e-4)
        divergences.append((exact.exp() * (exact - mine)).sum(-1))
    return torch.cat(divergences).mean().item()


def test_bfloat16_stays_close_to_float32(llm_bf16: LLM, reference: Any) -> None:
    assert mean_divergence(llm_bf16, reference) < 1e-3


def test_kv_in_int8_stays_close_to_float32(gguf: Path, reference: Any) -> None:
    with LLM(gguf, dtype="float32", kv_cache_dtype="int8", kv_cache_memory="32MiB") as llm:
        assert 0.0 < mean_divergence(llm, reference) < 1e-3
