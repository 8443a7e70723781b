"""Ranks that share a model: the bits of one, for the default model and for families with other parts, and refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pagedcore import LLM, InvalidArgument, SamplingParams, Unsupported
from texts import PROMPTS

SAMPLED = SamplingParams(temperature=0.8, top_p=0.95, seed=11, max_tokens=12, logprobs=2, ignore_eos=True)
GREEDY = SamplingParams(temperature=0, max_tokens=10, logprobs=1, ignore_eos=True)
FAMILIES = ("llama", "gpt2", "gemma2", "olmo2", "falcon")


def bits(outputs: list[Any]) -> list[Any]:
    return [[(s.token_ids, s.logprobs, s.finish_reason) for s in output.outputs] for output in outputs]


def answers(model: Path, prompts: list[Any], ranks: int, **options: Any) -> list[Any]:
    params = [SAMPLED if i % 2 else GREEDY for i in range(len(prompts))]
    with LLM(model, tensor_parallel=ranks, threads=ranks, kv_cache_memory="48MiB", **options) as llm:
        whole = bits(llm.generate(prompts, params, progress=False))
        assert bits(llm.generate(prompts, params, progress=False)) == whole  # prefixes are cached
        llm.engine.force_preemption(3)
        assert bits(llm.generate(prompts[:3], params[:3], progress=False)) == whole[:3]
        assert llm.stats()["ranks"] == ranks
    return whole


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_default_model(dtype: str, gguf: Path) -> None:
    """9 query heads over 3 KV heads: 2 and 4 ranks share some KV heads."""
    prompts = ["".join(PROMPTS[:6]), *PROMPTS[6:10]]
    one = answers(gguf, prompts, 1, dtype=dtype)
    for ranks in (2, 3, 4) if dtype == "bfloat16" else (2, 4):
        assert answers(gguf, prompts, ranks, dtype=dtype, max_batched_tokens=64) == one


@pytest.mark.parametrize("family", FAMILIES)
def test_families(family: str, tiny: Callable[..., tuple[Path, Any]]) -> None:
    folder, _ = tiny(family)
    prompts = [[(7 * i * i + p) % 300 for i in range(5 + 17 * p)] for p in range(4)]
    one = answers(folder, prompts, 1)
    for ranks in (2, 3, 4):
        assert answers(folder, prompts, ranks) == one


def test_plan_and_report(gguf: Path) -> None:
    with LLM(gguf, tensor_parallel=2, threads=2, kv_cache_memory="48MiB") as two, LLM(gguf, threads=2) as one:
        plan, whole = two.memory_plan(), one.memory_plan()
        assert sum(plan.rank_weights) == plan.weights
        assert plan.weights < 1.02 * whole.weights
        assert max(plan.rank_weights) < 0.53 * whole.weights
        assert "rank 0" in str(plan) and "rank 1" in str(plan)
        assert "rank 0" not in str(whole)
        assert two.stats()["rank_weight_bytes_most"] == max(plan.rank_weights)
        assert "2 ranks" in two.engine.describe()


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"tensor_parallel": 0}, InvalidArgument, "tensor_parallel"),
        ({"tensor_parallel": -2}, InvalidArgument, "tensor_parallel"),
        ({"tensor_parallel": 3, "threads": 2}, InvalidArgument, "tensor_parallel = 3 exceeds threads = 2"),
        ({"tensor_parallel": 10, "threads": 10}, InvalidArgument, "exceeds the 9 query heads"),
        ({"tensor_parallel": 2, "device": "cuda"}, Unsupported, "tensor_parallel = 2 on device = 'cuda'"),
    ],
    ids=str,
)
def test_refusals(options: dict[str, Any], error: type[Exception], says: str, gguf: Path) -> None:
    with pytest.raises(error, match=says):
        LLM(gguf, **options)


def test_name_of_vllm(gguf: Path) -> None:
    with LLM(gguf, tensor_parallel_size=2, threads=2, kv_cache_memory="48MiB") as llm:  # type: ignore[call-arg]
        assert llm.stats()["ranks"] == 2
