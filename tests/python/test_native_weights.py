"""Weights in the block format of their file: the results, to the bit, of widened ones, at the size of the file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from pagedcore import LLM, SamplingParams, _core
from pagedcore.errors import InvalidArgument
from pagedcore.loading import load_checkpoint
from pagedcore.loading.container import save_container

# Where a block's numbers in f16 are, and the largest weight, about, where they are 1.
FORMATS = {
    "Q4_0": ((0,), 8),
    "Q4_1": ((0, 2), 15),
    "Q5_0": ((0,), 16),
    "Q5_1": ((0, 2), 31),
    "Q8_0": ((0,), 127),
    "Q2_K": ((80, 82), 45),
    "Q3_K": ((108,), 128),
    "Q4_K": ((0, 2), 945),
    "Q5_K": ((0, 2), 1953),
    "Q6_K": ((208,), 4064),
}


def random_blocks(name: str, rows: int, columns: int, random: np.random.Generator) -> np.ndarray:
    """Random codes, whose numbers have a size of some hundredths."""
    elements, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    raw = random.integers(0, 256, (rows * columns // elements, size), dtype=np.uint8)
    places, largest = FORMATS[name]
    for at in places:
        scales = random.uniform(0.1, 0.2, len(raw)) * random.choice([-1, 1], len(raw)) / largest
        raw[:, at : at + 2] = scales.astype(np.float16)[:, None].view(np.uint8)
    return raw.reshape(rows, -1)


def write_model(
    path: Path, formats: dict[str, str], *, layers: int = 2, hidden: int = 256, inner: int = 512, vocab: int = 320
) -> Path:
    """A LLaMA of 4 heads and 2 KV heads. ``formats``: by tensor, such as ``attn_q``; "" for all others."""
    random = np.random.default_rng(7)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(layers)
    writer.add_context_length(512)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(vocab)

    def matrix(name: str, rows: int, columns: int) -> None:
        module = name.rpartition(".")[2]
        kind = formats.get(module, formats[""])
        blocks = random_blocks(kind, rows, columns, random)
        writer.add_tensor(f"{name}.weight", blocks, raw_dtype=gguf.GGMLQuantizationType[kind])

    matrix("token_embd", vocab, hidden)
    writer.add_tensor("output_norm.weight", np.ones(hidden, np.float32))
    for i in range(layers):
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{i}.{norm}.weight", np.ones(hidden, np.float32))
        for name, rows, columns in (
            ("attn_q", hidden, hidden),
            ("attn_k", hidden // 2, hidden),
            ("attn_v", hidden // 2, hidden),
            ("attn_output", hidden, hidden),
            ("ffn_gate", inner, hidden),
            ("ffn_up", inner, hidden),
            ("ffn_down", hidden, inner),
        ):
            matrix(f"blk.{i}.{name}", rows, columns)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


PROMPTS = [[5, 6, 7], [300 - i for i in range(40)], [9] * 17]
PARAMS = SamplingParams(max_tokens=12, temperature=0.7, seed=3, logprobs=3, ignore_eos=True)


# rule: cpu.native-bits-are-dense-bits, model.plan-is-exact
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("kind", [*FORMATS, "mixed"])
def test_results_have_the_bits_of_widened_weights(kind: str, dtype: str, tmp_path: Path) -> None:
    mixed = {"": "Q4_K", "attn_v": "Q6_K", "ffn_down": "Q6_K", "token_embd": "Q5_0", "attn_output": "Q8_0"}
    path = write_model(tmp_path / "model.gguf", mixed if kind == "mixed" else {"": kind})
    found = {}
    for weights in ("native", "dense"):
        options: dict[str, Any] = {"dtype": dtype, "weights": weights, "num_blocks": 64, "threads": 2}
        with LLM(path, **options) as llm:
            outputs = llm.generate(PROMPTS, PARAMS, progress=False)
            found[weights] = [(s.token_ids, s.logprobs) for output in outputs for s in output.outputs]
            plan, stats = llm.memory_plan(), llm.stats()
        assert plan == LLM.plan(path, **options)
        assert stats["weight_bytes"] == plan.weights
        assert stats["native_weight_bytes"] == plan.native_weights
        if weights == "native":
            matrices = path.stat().st_size
            assert 0.9 * matrices < plan.native_weights < 1.06 * matrices
        else:
            assert plan.native_weights == 0
    assert found["native"] == found["dense"]


def test_auto_widens_what_then_takes_at_most_a_gibibyte(tmp_path: Path) -> None:
    """A layer is 13.4 M weights, the embedding 16.8 M: 12 layers are 338 MiB in bfloat16 and 676 in float32, 20 are
    1,084 in float32, 40 are 1,052 in bfloat16."""
    path = write_model(tmp_path / "model.gguf", {"": "Q4_0"})
    with load_checkpoint(path) as checkpoint:
        description = checkpoint.description | {"hidden_size": 1024, "intermediate_size": 4096, "vocab_size": 16384}
        types = {
            name.replace("layers.1", f"layers.{i}"): kind
            for name, kind in checkpoint.weight_types.items()
            for i in range(40)
        }
    for layers, dtype, native in (
        (12, "bfloat16", False),
        (40, "bfloat16", True),
        (12, "float32", False),
        (20, "float32", True),
    ):
        model = _core.ModelDescription(**(description | {"num_layers": layers}))
        plan = _core.plan_memory(model, _core.EngineConfig(num_blocks=64, dtype=dtype), 0, types)
        assert (plan.native_weights > 0) == native
        for weights in ("native", "dense"):
            plan = _core.plan_memory(model, _core.EngineConfig(num_blocks=64, dtype=dtype, weights=weights), 0, types)
            assert (plan.native_weights > 0) == (weights == "native")


def test_a_container_keeps_the_blocks(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.gguf", {"": "Q4_K", "attn_v": "Q6_K"})
    with load_checkpoint(path) as checkpoint:
        save_container(tmp_path / "model.safetensors", checkpoint)
    options: dict[str, Any] = {"num_blocks": 64, "weights": "native"}
    with LLM(path, **options) as first, LLM(tmp_path / "model.safetensors", **options) as second:
        assert first.memory_plan() == second.memory_plan() == LLM.plan(tmp_path / "model.safetensors", **options)
        a, b = (llm.generate(PROMPTS, PARAMS, progress=False) for llm in (first, second))
    assert [o.outputs[0].logprobs for o in a] == [o.outputs[0].logprobs for o in b]


def test_other_words_are_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.gguf", {"": "Q8_0"})
    with pytest.raises(InvalidArgument, match="auto, native, dense"):
        LLM(path, weights="int3")


_LOAD = """
import sys
from pagedcore import LLM, SamplingParams

def resident(field):
    for line in open("/proc/self/status"):
        if line.startswith(field):
            return 1024 * int(line.split()[1])

llm = LLM(sys.argv[1], num_blocks=64, threads=2, weights="native")
peak = resident("VmHWM")
llm.generate([[5, 6, 7] * 30], SamplingParams(max_tokens=4), progress=False)
plan = llm.memory_plan()
print(peak, resident("VmRSS"), plan.weights, plan.kv_cache + plan.activations)
"""


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_K"])
def test_memory_is_that_of_the_file(kind: str, tmp_path: Path) -> None:
    """No page of the file and no second copy stay: once loaded, the file, KV, activations and 60 MB; on the way there
    1.2 times the file and 100 MB."""
    path = write_model(tmp_path / "model.gguf", {"": kind}, layers=8, hidden=1024, inner=4096, vocab=16384)
    size = path.stat().st_size
    assert size > 75e6
    run = subprocess.run([sys.executable, "-c", _LOAD, str(path)], capture_output=True, text=True, check=True)
    peak, resident, weights, others = map(int, run.stdout.split())
    assert weights < 1.05 * size
    assert peak < 1.2 * size + 100e6
    assert resident < size + others + 60e6
