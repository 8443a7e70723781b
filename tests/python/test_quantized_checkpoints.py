"""Quantized Hugging Face directories: their numbers, to the last bit, against dequantizers in float64."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

import quantizers as q
from greedy import GREEDY, PROMPTS, check
from pagedcore import LLM, _core
from pagedcore.cli import main
from pagedcore.errors import Corrupt, Error, Unsupported
from pagedcore.loading import load_checkpoint, load_description

Tiny = Callable[..., tuple[Path, Any]]
SIZES: dict[str, Any] = {"hidden_size": 256, "intermediate_size": 384, "num_hidden_layers": 2, "head_dim": 64}

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True}
PACKED = {"quant_method": "compressed-tensors", "format": "pack-quantized"}
BLOCKS = {"quant_method": "fp8", "weight_block_size": [128, 128]}
BNB = {"quant_method": "bitsandbytes", "load_in_4bit": True}
CASES: dict[str, tuple[Callable[..., q.Quantized], dict[str, Any], str]] = {
    "gptq": (q.gptq, GPTQ, "int4_g128"),
    "gptq-32": (partial(q.gptq, group=32), GPTQ | {"group_size": 32}, "int4_g32"),
    "gptq-rows": (partial(q.gptq, group=-1), GPTQ | {"group_size": -1}, "int4_g128"),
    "gptq-16": (partial(q.gptq, group=16), GPTQ | {"group_size": 16}, "f32"),
    "gptq-act-order": (partial(q.gptq, act_order=True), GPTQ | {"desc_act": True}, "f32"),
    "gptq-v2": (partial(q.gptq, v2=True), GPTQ | {"checkpoint_format": "gptq_v2"}, "int4_g128"),
    "gptq-8": (partial(q.gptq, bits=8), GPTQ | {"bits": 8}, "int8_g128"),
    "gptq-2": (partial(q.gptq, bits=2, group=64), GPTQ | {"bits": 2, "group_size": 64}, "int4_g32"),
    "gptq-f32-scales": (partial(q.gptq, dtype=torch.float32), GPTQ, "int4_g128"),
    "awq": (q.awq, AWQ, "int4_g128"),
    "awq-64": (partial(q.awq, group=64), AWQ | {"group_size": 64}, "int4_g32"),
    "packed": (q.pack_quantized, PACKED, "int4_g128"),
    "packed-zeros": (partial(q.pack_quantized, zeros=True, group=32), PACKED, "int4_g32"),
    "packed-8": (partial(q.pack_quantized, bits=8), PACKED, "int8_g128"),
    "packed-act-order": (partial(q.pack_quantized, act_order=True), PACKED, "f32"),
    "int8": (q.int8_rows, PACKED | {"format": "int-quantized"}, "int8_g128"),
    "fp8-blocks": (partial(q.fp8, block=(128, 128)), BLOCKS, "f8_g128"),
    "fp8-rows": (q.fp8, PACKED | {"format": "float-quantized"}, "f8_g128"),
    "fp8-whole": (partial(q.fp8, whole=True), {"quant_method": "fp8"}, "f8_g128"),
    "nf4": (q.nf4, BNB, "f32"),
    "nf4-nested": (partial(q.nf4, nested=True), BNB, "f32"),
    "bnb-int8": (q.bnb_int8, {"quant_method": "bitsandbytes", "load_in_8bit": True}, "f32"),
}


def written(tiny: Tiny, folder: Path, case: str) -> tuple[dict[str, torch.Tensor], Any]:
    quantize, config, _ = CASES[case]
    source, model = tiny("llama", **SIZES)
    return q.write(folder, source, quantize, config), model


def canonical(name: str) -> str:
    for theirs, ours in (("model.", ""), ("self_attn.", "attn."), ("_proj.", "."), ("embed_tokens", "embed")):
        name = name.replace(theirs, ours)
    return name.replace("post_attention_layernorm", "mlp_norm").replace("input_layernorm", "attn_norm")


def generate(model: Path, **options: Any) -> list[Any]:
    with LLM(model, kv_cache_memory="4MiB", max_batched_tokens=48, block_size=8, **options) as llm:
        return llm.generate(PROMPTS[1:3], GREEDY)


def samples(outputs: list[Any]) -> list[Any]:
    return [(output.prompt_logprobs, output.outputs) for output in outputs]


@pytest.mark.parametrize("case", CASES)
def test_numbers_are_those_of_the_dequantizer(case: str, tiny: Tiny, tmp_path: Path) -> None:
    expected, _ = written(tiny, tmp_path, case)
    with load_checkpoint(tmp_path) as checkpoint:
        kinds = set()
        for name, weight in expected.items():
            tensor = checkpoint.tensors[
                canonical(name) if canonical(name) in checkpoint.tensors else "final_norm.weight"
            ]
            found = _core.to_f32(*tensor)
            assert np.array_equal(found, weight.float().numpy()), name
            if "_proj" in name:
                kinds.add(tensor.dtype)
        assert kinds == {CASES[case][2]}
        assert checkpoint.quantization == CASES[case][1]["quant_method"]
        assert load_description(tmp_path).weight_types == {n: t.dtype for n, t in checkpoint.tensors.items()}


# rule: cpu.native-bits-are-dense-bits, model.plan-is-exact
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", ["gptq", "gptq-32", "awq", "packed-8", "gptq-f32-scales", "fp8-blocks"])
def test_codes_that_are_kept_have_the_bits_of_numbers(case: str, dtype: str, tiny: Tiny, tmp_path: Path) -> None:
    written(tiny, tmp_path, case)
    native, dense = (generate(tmp_path, dtype=dtype, weights=weights) for weights in ("native", "dense"))
    assert samples(native) == samples(dense)
    kept = LLM.plan(tmp_path, dtype=dtype, weights="native", num_blocks=8)
    assert (
        kept.native_weights > 0
        and kept.weights < LLM.plan(tmp_path, dtype=dtype, weights="dense", num_blocks=8).weights
    )


@pytest.mark.parametrize("case", ["gptq-act-order", "awq", "fp8-blocks", "nf4"])
def test_tokens_are_those_of_transformers_with_the_same_numbers(case: str, tiny: Tiny, tmp_path: Path) -> None:
    import copy

    expected, model = written(tiny, tmp_path, case)
    model = copy.deepcopy(model)
    model.load_state_dict({name: weight.float() for name, weight in expected.items()})
    for output in generate(tmp_path, dtype="float32", threads=2):
        check(output, model)


def test_integers_multiply_codes(tiny: Tiny, tmp_path: Path) -> None:
    written(tiny, tmp_path, "awq")
    plan = LLM.plan(tmp_path, dtype="int8", num_blocks=8)
    assert plan.integer_weights > 0
    assert samples(generate(tmp_path, dtype="int8", threads=1)) == samples(generate(tmp_path, dtype="int8", threads=2))


def changed(folder: Path, edit: Callable[[dict[str, torch.Tensor]], None], **config: Any) -> None:
    state = safetensors.torch.load_file(folder / "model.safetensors")
    edit(state)
    safetensors.torch.save_file(state, folder / "model.safetensors", {"format": "pt"})
    values = json.loads((folder / "config.json").read_text())
    values["quantization_config"] |= config
    (folder / "config.json").write_text(json.dumps(values))


MODULE = "model.layers.1.mlp.up_proj"


def put(name: str, at: Any, value: float) -> Callable[[dict[str, torch.Tensor]], None]:
    def edit(state: dict[str, torch.Tensor]) -> None:
        tensor = state[f"{MODULE}.{name}"]
        if tensor.dtype == torch.float8_e4m3fn:
            tensor = tensor.view(torch.uint8)
        tensor[at] = value

    return edit


def lose(name: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def edit(state: dict[str, torch.Tensor]) -> None:
        del state[f"{MODULE}.{name}"]

    return edit


def nothing(state: dict[str, torch.Tensor]) -> None:
    pass


@pytest.mark.parametrize(
    ("case", "edit", "config", "error", "message"),
    [
        ("awq", nothing, {"quant_method": "hqq"}, Unsupported, "config.json: quantization_config: quant_method 'hqq'"),
        ("gptq", nothing, {"bits": 3}, Unsupported, "config.json: quantization_config: bits '3' is not supported"),
        ("gptq", nothing, {"checkpoint_format": "marlin"}, Unsupported, "checkpoint_format 'marlin'"),
        ("gptq", nothing, {"dynamic": {"+:x": {}}}, Unsupported, "dynamic .* is not supported"),
        ("awq", nothing, {"version": "gemv"}, Unsupported, "version 'gemv' is not supported; supported are gemm"),
        ("packed", nothing, {"format": "marlin-24"}, Unsupported, "format 'marlin-24'"),
        ("gptq", nothing, {"group_size": 100}, Corrupt, "384 columns, which groups of 100 do not"),
        ("gptq", lose("qzeros"), {}, Corrupt, f"has no tensor '{MODULE}.qzeros'"),
        ("gptq", lose("scales"), {}, Corrupt, f"has no tensor '{MODULE}.scales'"),
        ("awq", put("scales", (1, 3), float("inf")), {}, Corrupt, f"'{MODULE}.qweight': the scale of row 3, group 1"),
        ("gptq-act-order", put("g_idx", 7, 2), {}, Corrupt, f"'{MODULE}.g_idx' is no order of 256 columns in 2 groups"),
        ("gptq-act-order", put("g_idx", 7, -1), {}, Corrupt, f"'{MODULE}.g_idx' is no order"),
        (
            "fp8-blocks",
            put("weight", (5, 9), 0x7F),
            {},
            Corrupt,
            f"'{MODULE}.weight': the number at row 5, column 9 is",
        ),
        ("fp8-blocks", lose("weight_scale_inv"), {}, Corrupt, f"there is no '{MODULE}.weight_scale'"),
        (
            "fp8-blocks",
            nothing,
            {"weight_block_size": [64]},
            Corrupt,
            r"weight_block_size = \[64\] is not a list of two",
        ),
        ("fp8-blocks", nothing, {"weight_block_size": [64, 64]}, Corrupt, r"is of shape \(2, 3\); .* ask for \(4, 6\)"),
    ],
)
def test_what_does_not_fit_is_one_error_that_names_file_and_field(
    case: str, edit: Any, config: dict[str, Any], error: type[Error], message: str, tiny: Tiny, tmp_path: Path
) -> None:
    written(tiny, tmp_path, case)
    changed(tmp_path, edit, **config)
    with pytest.raises(error, match=message) as caught:
        LLM(tmp_path, num_blocks=8)
    assert str(caught.value).startswith(str(tmp_path))


def test_doctor_names_the_format(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tiny, tmp_path, "awq")
    assert main(["doctor", "--json", "-m", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)["model"]
    assert found["quantization"] == "awq" and found["weight_types"]["int4_g128"] == 14
    assert main(["doctor", "-m", str(tmp_path)]) == 0
    assert "awq: 14 in int4_g128, " in capsys.readouterr().out
