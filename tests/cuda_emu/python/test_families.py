"""Families on an emulated GPU: the same bits however their requests are disturbed, and close to the CPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

# Those whose layers use operations that the others do not: everything else behind tests/run.sh long.
SLICE = ("gemma3", "opt", "bloom", "cohere")
WIDE = {"hidden_size": 128, "n_embd": 128, "word_embed_proj_dim": 128, "num_attention_heads": 2, "n_head": 2}
WIDE |= {"num_key_value_heads": 1, "head_dim": 64, "query_pre_attn_scalar": 64}  # heads of a size that kernels have
PROMPTS = [[(7 * i * i + 3 * i) % 320 for i in range(1, length)] for length in (12, 40)]


def families() -> list[str]:
    from pagedcore.families import FAMILIES

    names = [family.name for family in FAMILIES]
    assert set(SLICE) <= set(names)
    return names if os.environ.get("PAGEDCORE_LONG_TESTS") == "1" else list(SLICE)


def checkpoint(name: str, folder: Path) -> Path:
    import torch
    import transformers

    from pagedcore.families import FAMILIES

    (family,) = [family for family in FAMILIES if family.name == name]
    values = family.tiny_config()
    values |= {key: value for key, value in WIDE.items() if values.get(key) is not None}
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(**values)
    transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    return folder


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    metafunc.parametrize("name", families())


def test_same_bits_however_disturbed_and_close_to_the_cpu(name: str, tmp_path: Path) -> None:
    from pagedcore import LLM, SamplingParams

    folder = checkpoint(name, tmp_path)
    params = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True, logprobs=0, prompt_logprobs=0)

    def run(preempt: int, prompts: list[list[int]], **options: Any) -> list[Any]:
        with LLM(folder, dtype="bfloat16", block_size=16, kv_cache_memory="2MiB", **options) as llm:
            llm.engine.force_preemption(preempt, "recompute")
            outputs = llm.generate(prompts, params)
            return [(o.prompt_logprobs, [(s.token_ids, s.logprobs) for s in o.outputs]) for o in outputs]

    alone = [run(0, [prompt], device="cuda")[0] for prompt in PROMPTS]
    assert run(4, PROMPTS, device="cuda", max_batched_tokens=16) == alone
    for found, expected in zip(alone, run(0, PROMPTS, device="cpu"), strict=True):
        for mine, theirs in zip(found[0][1:], expected[0][1:], strict=True):
            for (
                token,
                entry,
            ) in mine.items():  # bf16 keeps 8 bits of every input of a product: a few per cent of a logit
                assert entry.logprob == pytest.approx(theirs[token].logprob, abs=0.3)
