"""The paper's micro-benchmarks, on the device at hand."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any, Literal

from ... import _core
from ...engine_options import open_model
from ...llm import LLM
from ...sampling_params import SamplingParams
from ..lengths import paper_data
from .figure import Axes, Figure, Value

__all__ = ["measure_figure_18a", "measure_figure_19a"]

_ROUNDS = 5
_BLOCK_SIZE = 16
_Progress = Callable[[int, int], None]


def measure_figure_18a(model: Any = None, *, progress: _Progress | None = None, **options: Any) -> Figure:
    """Attention of one layer over blocks of 16 that lie scattered, and over contexts that are one piece each: the same
    kernel, with the same results to the bit. `options`: dtype, threads and isa, as for LLM."""
    opened = open_model(model, options, weights=False)
    with closing(opened):
        description, config = opened.description, opened.config
    paper = paper_data()["fig18a_kernel_us"]
    values = []
    cells = [(batch, at, context) for batch in (8, 32) for at, context in enumerate(paper["context"])]
    for done, (batch, at, context) in enumerate(cells, 1):
        rounds = [
            [_core.attention_seconds(config, description, size, batch, context) for size in (_BLOCK_SIZE, context)]
            for _ in range(_ROUNDS)  # alternating, and the least of each: other work on the machine only adds
        ]
        paged, contiguous = (1e6 * min(column) for column in zip(*rounds, strict=True))
        theirs, dense = paper[f"vLLM_bs{batch}"][at], paper[f"FT_bs{batch}"][at]
        where, panel = f"{context} tokens", f"batch {batch}"
        values += [
            Value("paged", where, paged, theirs, panel=panel),
            Value("contiguous", where, contiguous, dense, panel=panel),
            Value("paged / contiguous", where, paged / contiguous, theirs / dense, panel=panel),
        ]
        if progress is not None:
            progress(done, len(cells))
    notes = [
        f"{description.num_heads} heads, {description.num_kv_heads} of KV, {description.head_dim} wide, in "
        f"{config.dtype} on this CPU; the paper: OPT-13B's on an A100, where contiguous is FasterTransformer's kernel.",
        "Contiguous is the same kernel with one block for a whole context. The least of five rounds of twenty.",
    ]
    axes = Axes("bars", "context", "us; ratio")
    return Figure("18a", "attention of one layer, decoding", axes.y, values, axes, notes=notes)


def measure_figure_19a(model: Any = None, *, progress: _Progress | None = None, **options: Any) -> Figure:
    """A request of 256 tokens makes room, by moving to the swap space and back or by being computed again, by block
    size: the real engine, preempting before every step. `options`: dtype, threads and isa, as for LLM."""
    paper = paper_data()["fig19a_ms"]
    values = []
    for done, block_size in enumerate(paper["block_size"]):
        found = _preempted(model, block_size, "swap", options) | _preempted(model, block_size, "recompute", options)
        found["swap_in_out"] = found["swap_in"] + found["swap_out"]
        for name, series in (
            ("recompute", "recompute"),
            ("swap_in", "swap in"),
            ("swap_out", "swap out"),
            ("swap_in_out", "swap in and out"),
        ):
            at = f"blocks of {block_size}"
            values.append(Value(series, at, 1e3 * found[name], paper[name][done], x=block_size))
        if progress is not None:
            progress(done + 1, len(paper["block_size"]))
    notes = [
        "Here KV and swap space are in the same memory, and the CPU computes; the paper: OPT-13B on an A100,",
        "over PCIe, with a copy for every block, layer, and K or V. Recomputed in one step, with its sampling.",
    ]
    axes = Axes("curves", "tokens in a block", "ms", x_scale="log2", y_scale="log")
    return Figure("19a", "making room and coming back, 256 tokens", axes.y, values, axes, notes=notes)


def _preempted(
    model: Any, block_size: int, how: Literal["swap", "recompute"], options: dict[str, Any], tokens: int = 256
) -> dict[str, float]:
    """Seconds for so many tokens."""
    outputs = 4
    blocks = -(-2 * tokens // block_size) + 1
    with LLM(
        model,
        block_size=block_size,
        num_blocks=blocks,
        max_context=2 * tokens,
        max_batched_tokens=2 * tokens,
        max_sequences=1,
        enable_prefix_caching=False,
        swap_space="128MiB",
        **options,
    ) as llm:
        prompt = [i % llm.description.vocab_size for i in range(tokens - outputs // 2)]
        params = SamplingParams(temperature=0, max_tokens=outputs, ignore_eos=True, detokenize=False)
        llm.engine.force_preemption(1, how)
        llm.generate([prompt], params, progress=False)  # touches the memory
        before = llm.stats()
        llm.generate([prompt], params, progress=False)
        after = llm.stats()
    passed = {name: after[name] - before[name] for name in after}
    if how == "recompute":
        return {how: passed["step_seconds_total"] / passed["tokens_computed"] * tokens}
    return {
        "swap_out": passed["swap_seconds_out"] / passed["blocks_swapped_out"] * tokens / block_size,
        "swap_in": passed["swap_seconds_in"] / passed["blocks_swapped_in"] * tokens / block_size,
    }
