"""Head sizes that fit no vector: equal to transformers, and the same bits whatever happens to a request's KV."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from greedy import GREEDY, PROMPTS, check
from pagedcore import LLM, BeamSearchParams, SamplingParams

Tiny = Callable[..., tuple[Path, Any]]

SAMPLES = SamplingParams(max_tokens=24, temperature=0.9, seed=5, n=3, logprobs=2, ignore_eos=True)
BEAMS = BeamSearchParams(beam_width=3, max_tokens=16, ignore_eos=True)


@pytest.mark.parametrize(
    ("head_dim", "block_size"), [(2, 16), (4, 16), (6, 8), (12, 16), (20, 16), (26, 8), (50, 16), (100, 16), (250, 16)]
)
def test_equals_transformers(head_dim: int, block_size: int, tiny: Tiny) -> None:
    """Chunks of 48 tokens. Blocks of 8 hold rows, those of 16 the tiles that kernels read."""
    folder, reference = tiny("llama", head_dim=head_dim)
    with LLM(folder, kv_cache_memory="8MiB", max_batched_tokens=48, block_size=block_size, dtype="float32") as llm:
        for output in llm.generate(PROMPTS, GREEDY):
            check(output, reference, tolerance=1e-4)


def test_the_padding_is_counted(tiny: Tiny) -> None:
    """Three layers of two KV heads: 20 dimensions of K in bf16, and 32 of V, in vectors of 16."""
    folder, _ = tiny("llama", head_dim=20)
    with LLM(folder, num_blocks=10, dtype="bfloat16") as llm:
        plan = llm.memory_plan()
        assert (llm.engine.model.num_layers, llm.engine.model.num_kv_heads) == (3, 2)
        assert plan.kv_cache == 10 * 16 * 3 * 2 * (20 + 32) * 2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("head_dim", [2, 12, 100])
def test_same_bits(head_dim: int, dtype: str, tiny: Tiny) -> None:
    """Forks, beams, chunks, prefix hits, swaps and recomputation against every request alone."""
    folder, _ = tiny("llama", head_dim=head_dim)

    def bits(output: Any) -> Any:
        return [(s.token_ids, s.logprobs, s.score, s.finish_reason) for s in output.outputs]

    with LLM(folder, num_blocks=400, enable_prefix_caching=False, threads=1, dtype=dtype) as llm:
        samples = [bits(llm.generate([prompt], SAMPLES)[0]) for prompt in PROMPTS]
        beams = [bits(llm.beam_search([prompt], BEAMS)[0]) for prompt in PROMPTS]
    for options in (
        {"max_batched_tokens": 40, "block_size": 16},
        {"preemption": "swap", "swap_space": "16MiB", "block_size": 5},
        {"preemption": "recompute", "block_size": 32},
    ):
        with LLM(folder, num_blocks=400, threads=2, dtype=dtype, **options) as llm:
            if "preemption" in options:
                llm.engine.force_preemption(5, options["preemption"])
            for _ in range(2):  # the second time, prompts are found in the prefix cache
                assert [bits(output) for output in llm.generate(PROMPTS, SAMPLES)] == samples
                assert [bits(output) for output in llm.beam_search(PROMPTS, BEAMS)] == beams
            stats = llm.stats()
            assert stats["prefix_hit_tokens"] > 0 and stats["forks"] > 0
            if "preemption" in options:
                assert stats[f"preemptions_{options['preemption']}"] > 0
