"""Mixtures of experts: variations against transformers, block formats, and what files may not say of experts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import safetensors.torch
import torch

from gguf_writer import write_gguf
from greedy import GREEDY, PROMPTS, check
from pagedcore import LLM
from pagedcore.cli import main
from pagedcore.errors import Corrupt, Error, Unsupported

Tiny = Callable[..., tuple[Path, Any]]

CASES = {
    "renormalised": ("olmoe", {"norm_topk_prob": True}),
    "not-renormalised": ("qwen3_moe", {"norm_topk_prob": False}),
    "one-of-many": ("mixtral", {"num_experts_per_tok": 1, "num_local_experts": 12}),
    "all": ("mixtral", {"num_experts_per_tok": 4, "num_local_experts": 4}),
    "one": ("granite_moe", {"num_experts_per_tok": 1, "num_local_experts": 1}),
    "gelu": ("qwen2_moe", {"hidden_act": "gelu_pytorch_tanh", "qkv_bias": False}),
    "every-other-layer": ("qwen3_moe", {"decoder_sparse_step": 2}),
    "window": ("mixtral", {"sliding_window": 24}),
    "biases": ("olmoe", {"attention_bias": True}),
    "clamped": ("gpt_oss", {"swiglu_limit": 0.5, "swiglu_alpha": 1.3, "attention_bias": False, "sliding_window": 5}),
}


@pytest.mark.parametrize("case", CASES)
def test_variations_equal_transformers(case: str, tiny: Tiny) -> None:
    kind, settings = CASES[case]
    folder, model = tiny(kind, sharp=True, **settings)
    with LLM(folder, kv_cache_memory="4MiB", max_batched_tokens=48, block_size=8, threads=2) as llm:
        outputs = llm.generate(PROMPTS[:3], GREEDY)
    for output in outputs:
        check(output, model)


def test_stacks_of_experts_in_a_directory_are_the_same(tiny: Tiny, tmp_path: Path) -> None:
    """As transformers 5 holds them: one tensor for all experts, without ".weight"."""
    folder, model = tiny("qwen2_moe", sharp=True)
    state = {name: weight.contiguous() for name, weight in model.state_dict().items()}
    assert "model.layers.0.mlp.experts.gate_up_proj" in state
    safetensors.torch.save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())

    def tokens(path: Path) -> list[Any]:
        with LLM(path, kv_cache_memory="2MiB", threads=1) as llm:
            (output,) = llm.generate([PROMPTS[1]], GREEDY)
        return [output.outputs[0].token_ids, output.outputs[0].logprobs]

    assert tokens(tmp_path) == tokens(folder)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0"])
def test_experts_in_a_block_format_have_the_bits_of_widened_ones(
    kind: str, dtype: str, tiny: Tiny, tmp_path: Path
) -> None:
    _, model = tiny("mixtral", sharp=True)
    path = write_gguf(tmp_path / "m.gguf", model, "llama", matrix=gguf.GGMLQuantizationType[kind])

    def run(weights: str) -> tuple[Any, dict[str, Any]]:
        with LLM(path, dtype=dtype, weights=weights, kv_cache_memory="4MiB", max_batched_tokens=48) as llm:
            outputs = llm.generate(PROMPTS[:3], GREEDY)
            plan = llm.engine.memory_plan.to_dict()
        return [(o.prompt_logprobs, o.outputs) for o in outputs], plan

    (native, kept), (dense, widened) = run("native"), run("dense")
    assert native == dense
    assert kept["weights"] < widened["weights"] / 1.6 and kept["native_weights"] > kept["weights"] / 2


def altered(folder: Path, tmp_path: Path, edit: Callable[[dict[str, torch.Tensor]], None], **config: Any) -> Path:
    state = safetensors.torch.load_file(folder / "model.safetensors")
    edit(state)
    safetensors.torch.save_file(state, tmp_path / "model.safetensors", {"format": "pt"})
    values = json.loads((folder / "config.json").read_text()) | config
    (tmp_path / "config.json").write_text(json.dumps(values))
    return tmp_path


def test_missing_and_extra_experts_are_one_error_each(tiny: Tiny, tmp_path: Path) -> None:
    folder, _ = tiny("qwen3_moe", sharp=True)
    lost = altered(folder, tmp_path, lambda state: state.pop("model.layers.1.mlp.experts.5.up_proj.weight"))
    with pytest.raises(Corrupt, match=r"1 weights are missing, the first is 'layers.1.mlp.experts.5.up.weight'"):
        LLM(lost)
    fewer = altered(folder, tmp_path, lambda state: None, num_experts=15, num_local_experts=15)
    with pytest.raises(Corrupt, match=r"layers.0.mlp.experts.15.down.weight', but the configuration says 15 experts"):
        LLM(fewer)
    more = altered(folder, tmp_path, lambda state: None, num_experts=17, num_local_experts=17)
    with pytest.raises(Corrupt, match=r"9 weights are missing, the first is .layers\.0\.mlp\.experts\.16\.down"):
        LLM(more)


@pytest.mark.parametrize(
    ("edit", "error", "message"),
    [
        (lambda w: w.add_expert_count(7), Corrupt, r"'blk.0.ffn_.*_exps.weight' is of shape \(6, .* of 7 experts"),
        (lambda w: w.add_expert_used_count(9), Corrupt, r"llama.expert_used_count = 9 is outside \[1, 6\]"),
        (lambda w: w.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID), Unsupported, "expert_gating_func '2'"),
    ],
)
def test_what_a_gguf_file_says_of_experts_is_checked(
    edit: Callable[[Any], None], error: type[Error], message: str, tiny: Tiny, tmp_path: Path
) -> None:
    _, model = tiny("mixtral", sharp=True)

    def edited(writer: Any) -> None:
        before = dict(writer.kv_data[0])
        writer.kv_data[0].clear()
        edit(writer)
        writer.kv_data[0] = before | writer.kv_data[0]

    path = write_gguf(tmp_path / "m.gguf", model, "llama", edited, matrix=np.float32)
    with pytest.raises(error, match=message):
        LLM(path)


def test_doctor_says_how_many_weights_a_token_goes_through(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _ = tiny("qwen2_moe", sharp=True)
    assert main(["doctor", "--json", "-m", str(folder)]) == 0
    found = json.loads(capsys.readouterr().out)["model"]["mixture"]
    one = 3 * 64 * 64 * 2  # gate, up and down of 64 x 64, in 2 of 3 layers
    assert found == {"experts": 8, "experts_per_token": 3, "layers": 2, "weights": 8 * one, "active": 3 * one}
    assert main(["doctor", "-m", str(folder)]) == 0
    assert "8 experts in 2 layers, 3 for a token: 73,728 of 196,608 weights" in capsys.readouterr().out
