"""Quantized checkpoints as the tools of others write them, and what their numbers are: by dequantizers in float64 from
the packed tensors, which share nothing with the library."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

State = dict[str, torch.Tensor]
Quantized = tuple[State, torch.Tensor]  # tensors by the ends of their names, and the weight in float64


def packed(codes: np.ndarray, bits: int, axis: int, order: tuple[int, ...] | None = None) -> torch.Tensor:
    """Words of 32 bits along an axis; place i of a word holds code order[i]."""
    per = 32 // bits
    codes = np.moveaxis(codes, axis, -1)
    codes = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, -codes.shape[-1] % per)])
    grouped = codes.reshape(*codes.shape[:-1], -1, per).astype(np.uint32)
    words = np.zeros(grouped.shape[:-1], np.uint32)
    for place, code in enumerate(order or range(per)):
        words |= grouped[..., code] << np.uint32(bits * place)
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(words, -1, axis)).view(np.int32))


def unpacked(words: torch.Tensor, bits: int, axis: int) -> torch.Tensor:
    """torch, as AutoGPTQ and compressed-tensors unpack: the lowest bits first."""
    shifts = torch.arange(0, 32, bits, dtype=torch.int64)
    words = words.long().movedim(axis, -1).unsqueeze(-1)
    codes = (words >> shifts) & ((1 << bits) - 1)
    return codes.flatten(-2).movedim(-1, axis)


def gptq(
    rows: int,
    columns: int,
    random: np.random.Generator,
    *,
    bits: int = 4,
    group: int = 128,
    act_order: bool = False,
    v2: bool = False,
    dtype: torch.dtype = torch.float16,
) -> Quantized:
    group = columns if group == -1 else group
    groups, most = columns // group, 1 << bits
    index = np.arange(columns) // group
    if act_order:
        index = random.permutation(index)
    zeros = random.integers(1, most, (groups, rows))
    state = {
        "qweight": packed(random.integers(0, most, (columns, rows)), bits, 0),
        "qzeros": packed(zeros if v2 else zeros - 1, bits, 1),
        "scales": torch.from_numpy(random.uniform(0.5, 1, (groups, rows)) * 0.3 / most).to(dtype),
        "g_idx": torch.from_numpy(index.astype(np.int32)),
    }
    # AutoGPTQ: weight = scales[g_idx] * (codes - (zeros + 1)), of which version 2 has no 1
    codes = unpacked(state["qweight"], bits, 0)
    zero = unpacked(state["qzeros"], bits, 1)[:, :rows] + (0 if v2 else 1)
    groups_of = state["g_idx"].long()
    return state, (state["scales"].double()[groups_of] * (codes - zero[groups_of])).T


AWQ_PLACES = (0, 2, 4, 6, 1, 3, 5, 7)


def awq(rows: int, columns: int, random: np.random.Generator, *, group: int = 128) -> Quantized:
    groups = columns // group
    state = {
        "qweight": packed(random.integers(0, 16, (columns, rows)), 4, 1, AWQ_PLACES),
        "qzeros": packed(random.integers(0, 16, (groups, rows)), 4, 1, AWQ_PLACES),
        "scales": torch.from_numpy(random.uniform(0.5, 1, (groups, rows)) * 0.02).half(),
    }
    # AutoAWQ: unpack, undo the order, (codes - zeros) * scales
    undo = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7])

    def codes(words: torch.Tensor) -> torch.Tensor:
        found = unpacked(words, 4, 1)
        return found.reshape(found.shape[0], -1, 8)[:, :, undo].reshape(found.shape)

    zero, scale = (t.repeat_interleave(group, 0) for t in (codes(state["qzeros"]), state["scales"].double()))
    return state, ((codes(state["qweight"]) - zero) * scale).T


def pack_quantized(
    rows: int,
    columns: int,
    random: np.random.Generator,
    *,
    bits: int = 4,
    group: int = 128,
    zeros: bool = False,
    act_order: bool = False,
) -> Quantized:
    groups, half = columns // group, 1 << (bits - 1)
    state = {
        "weight_packed": packed(random.integers(0, 2 * half, (rows, columns)), bits, 1),
        "weight_scale": torch.from_numpy(random.uniform(0.5, 1, (rows, groups)) * 0.15 / half).bfloat16(),
        "weight_shape": torch.tensor([rows, columns]),
    }
    zero = torch.zeros(rows, groups, dtype=torch.int64)
    if zeros:
        state["weight_zero_point"] = packed(random.integers(0, 2 * half, (rows, groups)), bits, 0)
        zero = unpacked(state["weight_zero_point"], bits, 0)[:rows] - half
    index = np.arange(columns) // group
    if act_order:
        index = random.permutation(index)
        state["weight_g_idx"] = torch.from_numpy(index.astype(np.int32))
    codes = unpacked(state["weight_packed"], bits, 1)[:, :columns] - half
    of = torch.from_numpy(index)
    return state, state["weight_scale"].double()[:, of] * (codes - zero[:, of])


def int8_rows(rows: int, columns: int, random: np.random.Generator) -> Quantized:
    state = {
        "weight": torch.from_numpy(random.integers(-128, 128, (rows, columns), dtype=np.int8)),
        "weight_scale": torch.from_numpy(random.uniform(0.5, 1, (rows, 1)) * 0.001).bfloat16(),
        "input_scale": torch.ones(1),
    }
    return state, state["weight"].double() * state["weight_scale"].double()


def fp8(
    rows: int, columns: int, random: np.random.Generator, *, block: tuple[int, int] | None = None, whole: bool = False
) -> Quantized:
    weight = torch.from_numpy(random.normal(0, 40, (rows, columns)).clip(-448, 448)).to(torch.float8_e4m3fn)
    high, wide = block or ((rows, columns) if whole else (1, columns))
    shape = (-(-rows // high), -(-columns // wide))
    scale = torch.from_numpy(random.uniform(0.5, 1, shape).astype(np.float32)) * 0.002
    each = scale.double().repeat_interleave(high, 0)[:rows].repeat_interleave(wide, 1)[:, :columns]
    name = "weight_scale" if block is None else "weight_scale_inv"
    return {"weight": weight, name: scale.reshape(()) if whole else scale}, weight.double() * each


NF4 = torch.tensor(
    [
        *(-1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.091050036, 0.0),
        *(0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0),
    ]
)


def nf4(rows: int, columns: int, random: np.random.Generator, *, nested: bool = False) -> Quantized:
    codes = random.integers(0, 16, (rows * columns // 2, 2), dtype=np.uint8)  # the first in the upper half of a byte
    blocks = rows * columns // 64
    state: dict[str, Any] = {"blocksize": 64, "quant_type": "nf4", "dtype": "bfloat16", "shape": [rows, columns]}
    tensors = {
        "weight": torch.from_numpy(codes[:, :1] << 4 | codes[:, 1:]),
        "weight.quant_map": NF4.clone(),
        "weight.absmax": torch.from_numpy(random.uniform(0.05, 0.2, blocks).astype(np.float32)),
    }
    scale = tensors["weight.absmax"].double()
    if nested:
        table = torch.linspace(-1, 1, 256)
        inner = random.integers(0, 256, blocks, dtype=np.uint8)
        outer = torch.from_numpy(random.uniform(0.02, 0.04, -(-blocks // 256)).astype(np.float32))
        tensors |= {"weight.absmax": torch.from_numpy(inner), "weight.nested_quant_map": table}
        tensors["weight.nested_absmax"] = outer
        state |= {"nested_blocksize": 256, "nested_offset": 0.11}
        # bitsandbytes computes the scales of scales in f32
        scale = (table[inner.astype(np.int64)] * outer.repeat_interleave(256)[:blocks] + np.float32(0.11)).double()
    text = json.dumps(state).encode()
    tensors["weight.quant_state.bitsandbytes__nf4"] = torch.tensor(list(text), dtype=torch.uint8)
    values = NF4.double()[torch.from_numpy(codes.astype(np.int64)).flatten()].reshape(-1, 64) * scale[:, None]
    return tensors, values.reshape(rows, columns)


def bnb_int8(rows: int, columns: int, random: np.random.Generator) -> Quantized:
    state = {
        "weight": torch.from_numpy(random.integers(-127, 128, (rows, columns), dtype=np.int8)),
        "SCB": torch.from_numpy(random.uniform(0.05, 0.2, rows).astype(np.float32)),
        "weight_format": torch.tensor(0, dtype=torch.uint8),
    }
    return state, state["weight"].double() * (state["SCB"].double()[:, None] * (1 / 127))


LINEAR = r"(q|k|v|o|gate|up|down)_proj\.weight$"


def write(
    folder: Path, source: Path, quantize: Callable[[int, int, np.random.Generator], Quantized], config: dict[str, Any]
) -> dict[str, torch.Tensor]:
    """A copy of a checkpoint whose linear layers are quantized, with random codes. Returns its weights in float64."""
    random, state, expected = np.random.default_rng(5), {}, {}
    for name, weight in safetensors.torch.load_file(source / "model.safetensors").items():
        module, _, last = name.rpartition(".")
        if not module.endswith("_proj") or last != "weight":
            state[name], expected[name] = weight, weight.double()
            continue
        tensors, expected[name] = quantize(*weight.shape, random)
        state |= {f"{module}.{end}": tensor.contiguous() for end, tensor in tensors.items()}
    safetensors.torch.save_file(state, folder / "model.safetensors", {"format": "pt"})
    values = json.loads((source / "config.json").read_text()) | {"quantization_config": config}
    (folder / "config.json").write_text(json.dumps(values))
    return expected
