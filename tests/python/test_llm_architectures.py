"""Variations of the families' small random checkpoints against transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from greedy import GREEDY, PROMPTS, check
from pagedcore import LLM, SamplingParams

Tiny = Callable[..., tuple[Path, Any]]


def rope(kind: str, **values: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **values}}


CASES = {
    "llama": ("llama", {}),
    "llama-tied": ("llama", {"tie_word_embeddings": True}),
    "llama-attention-bias": ("llama", {"attention_bias": True}),
    "llama-mha": ("llama", {"num_key_value_heads": 4}),
    "llama-head-dim": ("llama", {"head_dim": 32}),
    "llama-linear": ("llama", rope("linear", factor=4.0)),
    "llama-llama3": (
        "llama",
        rope(
            "llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=64,
        ),
    ),
    "llama-yarn": ("llama", rope("yarn", factor=4.0, original_max_position_embeddings=128)),
    "mistral": ("mistral", {"sliding_window": None, "head_dim": 16}),
    "mistral-window": ("mistral", {"sliding_window": 24, "head_dim": 16}),
    "qwen2-alternating": (
        "qwen2",
        {
            "use_sliding_window": True,
            "sliding_window": 24,
            "num_hidden_layers": 4,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
        },
    ),
    "qwen3-mostly-windows": (
        "qwen3",
        {
            "head_dim": 32,
            "use_sliding_window": True,
            "sliding_window": 20,
            "num_hidden_layers": 6,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2,
        },
    ),
    "gemma3-a-place-unused": ("gemma3", {"num_hidden_layers": 17, "sliding_window": 20}),  # 15 and 2 layers
    "llama-biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 32}),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_transformers(case: str, tiny: Tiny) -> None:
    kind, settings = CASES[case]
    folder, reference = tiny(kind, **settings)
    # Chunks of 48 tokens and blocks of 8: prompts cross both.
    with LLM(folder, kv_cache_memory="4MiB", max_batched_tokens=48, block_size=8, threads=2) as llm:
        assert llm.engine.describe()
        for output in llm.generate(PROMPTS, GREEDY):
            check(output, reference)


GROUPS = {"mistral-window": [24], "qwen2-alternating": [0, 24], "qwen3-mostly-windows": [0, 20, 20]}
GROUPS["gemma3-a-place-unused"] = [0] + [20] * 8


@pytest.mark.parametrize("case", GROUPS)
@pytest.mark.parametrize("preemption", ["none", "recompute", "swap"])
def test_blocks_behind_windows_are_freed(case: str, preemption: str, tiny: Tiny) -> None:
    """The same outputs as with room for everything, in a cache that holds what the windows reach and little more."""
    kind, settings = CASES[case]
    folder, reference = tiny(kind, **settings)
    params = SamplingParams(temperature=0, max_tokens=60, ignore_eos=True, logprobs=2, prompt_logprobs=0)
    windows = GROUPS[case]
    prompts = [PROMPTS[3], PROMPTS[2]]
    # Blocks of 8 tokens, chunks of 16: a window takes its tokens and three blocks, a full context 190 tokens.
    num_blocks = sum(24 if window == 0 else window // 8 + 5 for window in windows)
    options: dict[str, Any] = {} if preemption != "swap" else {"preemption": "swap", "swap_space": "4MiB"}
    with LLM(folder, num_blocks=num_blocks, max_batched_tokens=16, block_size=8, threads=2, **options) as llm:
        plan = llm.memory_plan()
        assert plan.windows == windows
        assert plan.kv_tokens < len(prompts[0]) + 60  # without windows it would not fit
        if preemption != "none":
            llm.engine.force_preemption(7, preemption)
        for output in llm.generate(prompts, params):
            check(output, reference)
        stats = llm.stats()
        assert stats["blocks_used"] == 0
        if preemption == "swap":
            assert stats["preemptions_swap"] > 0 and stats["blocks_swapped_in"] > 0
        if preemption == "recompute":
            assert stats["preemptions_recompute"] > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_checkpoints_compute_in_bfloat16(dtype: torch.dtype, tiny: Tiny) -> None:
    folder, _ = tiny("llama", dtype)
    with LLM(folder, kv_cache_memory="1MiB") as llm, LLM(folder, kv_cache_memory="1MiB", dtype="bfloat16") as other:
        params = SamplingParams(temperature=0, max_tokens=8, logprobs=0, ignore_eos=True)
        mine, same = (engine.generate([PROMPTS[1]], params)[0].outputs for engine in (llm, other))
        assert mine == same
    with LLM(folder, kv_cache_memory="1MiB", dtype="float32") as exact:
        assert exact.generate([PROMPTS[1]], params)[0].outputs[0].logprobs != mine[0].logprobs


def test_a_reloaded_checkpoint_gives_the_same_bits(tiny: Tiny) -> None:
    folder, _ = tiny("llama")
    params = SamplingParams(max_tokens=16, seed=3, logprobs=0, ignore_eos=True)
    found = []
    for _ in range(2):
        with LLM(folder, kv_cache_memory="1MiB") as llm:
            found.append(llm.generate([PROMPTS[2]], params)[0].outputs)
    assert found[0] == found[1]
