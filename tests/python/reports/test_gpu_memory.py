"""The memory of a GPU that is not there: a plan by arithmetic, with the defaults of a GPU.

Expected: weights as the packed layout has them (tiles of 16 rows by 32 columns of 16 bits,
cuda/kernels/matmul_layout.hpp), KV blocks of K and V in 16 bits, and a cache of what gpu_memory_utilization of the free
memory leaves beside weights, activations and the workspace of 64 MiB, in whole blocks.
"""

from __future__ import annotations

from typing import Any

import pytest

from pagedcore import LLM, Error, _core

_MIB = 1 << 20
_LAYERS, _HIDDEN, _FFN, _VOCAB, _HEADS, _KV_HEADS, _DIM = 4, 256, 704, 1000, 4, 2, 64


def _model(context: int = 1 << 20) -> _core.ModelDescription:
    return _core.ModelDescription(
        architecture="llama",
        vocab_size=_VOCAB,
        hidden_size=_HIDDEN,
        num_layers=_LAYERS,
        max_context=context,
        num_heads=_HEADS,
        num_kv_heads=_KV_HEADS,
        head_dim=_DIM,
        intermediate_size=_FFN,
    )


def _plan(free: int, **options: Any) -> _core.MemoryPlan:
    return _core.plan_memory(_model(), _core.EngineConfig(device="cuda", **options), free)


def _matrices() -> int:
    """Of the matrices alone, in whole tiles: every size is a multiple of 32, but the 1,000 rows of the vocabulary."""
    layer = (_HEADS + 2 * _KV_HEADS) * _DIM * _HIDDEN + _HEADS * _DIM * _HIDDEN + 3 * _FFN * _HIDDEN
    return 2 * (_LAYERS * layer + 2 * 1008 * _HIDDEN)


@pytest.mark.parametrize(("free", "share"), [(1 << 30, 0.9), (80 << 30, 0.9), (24 << 30, 0.5)])
def test_the_cache_takes_its_share_of_the_free_memory(free: int, share: float) -> None:
    plan = _plan(free, gpu_memory_utilization=share)
    assert plan.kv_block == 2 * _LAYERS * _KV_HEADS * 16 * _DIM * 2
    assert _matrices() <= plan.weights <= _matrices() + _MIB // 4  # norms and optional biases are a few KiB
    left = int(share * free) - 64 * _MIB - plan.weights - plan.activations
    assert plan.num_blocks == left // plan.kv_block


def test_all_but_what_the_driver_takes() -> None:
    """With a share of 1, 32 MiB are left to the driver for graphs."""
    free = 8 << 30
    plan = _plan(free, gpu_memory_utilization=1.0)
    assert plan.num_blocks == (free - 96 * _MIB - plan.weights - plan.activations) // plan.kv_block


def test_a_cache_holds_no_more_than_its_requests_can_use() -> None:
    """256 sequences of 512 tokens are 8,192 blocks, however much is free."""
    config = _core.EngineConfig(device="cuda", max_context=512)
    assert _core.plan_memory(_model(), config, 80 << 30).num_blocks == 256 * 32


def test_defaults_by_device() -> None:
    """512 batched tokens and logits of 64 rows on the CPU, 2,048 and 256 on a GPU: activations grow with both."""
    free = 8 << 30
    assert _plan(free).activations == _plan(free, max_batched_tokens=2048).activations
    fewer = _plan(free, max_batched_tokens=512).activations
    assert _plan(free).activations > 2 * fewer
    cpu = _core.plan_memory(_model(), _core.EngineConfig(kv_cache_memory="1MiB"))
    given = _core.plan_memory(_model(), _core.EngineConfig(kv_cache_memory="1MiB", max_batched_tokens=512))
    assert cpu == given
    # A vocabulary of 1,000 in f32: 64 rows of logits on the CPU, 256 on a GPU, where all else is alike or narrower.
    assert fewer - given.activations > (256 - 64) * _VOCAB * 4 - 512 * (_HIDDEN + _FFN) * 4


def test_a_card_that_is_too_small_says_the_arithmetic() -> None:
    with pytest.raises(
        Error, match=r"weights of \d+ bytes, activations of \d+ .* more than the \d+ bytes .* 'cuda' has"
    ):
        _plan(64 * _MIB)
    with pytest.raises(Error, match=r"gpu_memory_utilization = 1.5 is out of range|gpu_memory_utilization.*\(0, 1\]"):
        _plan(1 << 30, gpu_memory_utilization=1.5)


def test_llm_plan_takes_sizes_as_text(gguf: Any) -> None:
    plan = LLM.plan(gguf, device="cuda", device_memory="24GiB")
    assert plan == LLM.plan(gguf, device="cuda", device_memory=24 << 30)
    total = plan.weights + plan.activations + plan.kv_cache
    assert total <= 0.9 * (24 << 30) - 64 * _MIB
    wide = LLM.plan(gguf, device="cuda", device_memory="24GiB", kv_cache_dtype="fp8").kv_block
    assert wide < 0.6 * plan.kv_block
    assert LLM.plan(gguf, device="cuda", device_memory="24GiB", kv_cache_memory="1GiB").kv_cache <= 1 << 30


def test_on_the_cpu_it_is_the_memory_that_is_free(gguf: Any) -> None:
    plan = LLM.plan(gguf, device_memory="64MiB")
    assert plan.kv_cache == (32 << 20) // plan.kv_block * plan.kv_block  # half of it
