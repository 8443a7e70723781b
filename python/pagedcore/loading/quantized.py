"""Weights that a checkpoint's ``quantization_config`` says were quantized, read as what they are: under the names that
they had before, in block formats of pagedcore's own that hold their codes and scales, or, where groups fit none of
these, as numbers in f32. Bytes are made when they are read, a matrix at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from .. import _core
from ..errors import Corrupt, Unsupported
from ..families.fields import Fields
from ..families.tensors import Tensor

__all__ = ["METHODS", "method_of", "unquantized"]

_Tensors = Mapping[str, Tensor]
_AWQ_ORDER = [0, 4, 1, 5, 2, 6, 3, 7]  # of eight columns in a word
_SPECIAL = ("input_scale", "output_scale", "input_zero_point", "input_global_scale", "k_scale", "v_scale")


def unquantized(tensors: _Tensors, config: Fields, source: str) -> dict[str, Tensor]:
    """``config``: the quantization_config. Raises Unsupported for methods and variations that are not read, Corrupt for
    what contradicts itself; both name the file and the field or tensor."""
    found = dict(tensors)
    for name, made in METHODS[method_of(config)].read(_Files(tensors, source), config):
        for part in made:
            found.pop(part, None)
        found[name] = made[""]
    return {name: tensor for name, tensor in found.items() if not name.endswith(_SPECIAL)}


def method_of(config: Fields) -> str:
    """Raises Unsupported for one that is not read."""
    method = config.text("quant_method", "unknown")
    if method not in METHODS:
        raise config.unsupported("quant_method", METHODS)
    return method


_Made = Iterator[tuple[str, dict[str, Tensor]]]  # a weight's name, the names that go, and under "" what it is


class _Files:
    """What the files hold, with errors that name them."""

    def __init__(self, tensors: _Tensors, source: str) -> None:
        self.tensors = tensors
        self.source = source

    def __contains__(self, name: str) -> bool:
        return name in self.tensors

    def ending(self, suffix: str) -> Iterator[str]:
        """Names without that ending."""
        return (name[: -len(suffix)] for name in sorted(self.tensors) if name.endswith(suffix))

    def get(self, name: str, *dtypes: str, rank: int | None = None) -> Tensor:
        tensor = self.tensors.get(name)
        if tensor is None:
            raise Corrupt(f"{self.source}: has no tensor '{name}'")
        if tensor.dtype not in dtypes or (rank is not None and len(tensor.shape) != rank):
            wanted = " or ".join(dtypes) + (f" of {rank} dimensions" if rank is not None else "")
            raise Corrupt(f"{self.source}: '{name}' is {tensor.dtype} of shape {tensor.shape}, not {wanted}")
        return tensor

    def scales(self, name: str) -> Tensor:
        return self.get(name, "f16", "bf16", "f32")

    def fits(self, name: str, found: object, wanted: object) -> None:
        if found != wanted:
            raise Corrupt(f"{self.source}: '{name}' is of shape {found}; the tensors beside it ask for {wanted}")

    def made(
        self, matrix: _core.CodedMatrix, name: str, shape: tuple[int, int], dtype: str, parts: Mapping[str, object]
    ) -> tuple[str, dict[str, Tensor]]:
        gone = {part: Tensor("u8", (0,), b"") for part in parts if part in self.tensors}
        return name, {**gone, "": Tensor(dtype, shape, matrix.recoded(dtype))}


def _integers(value: Any) -> Any:
    import numpy as np

    return np.frombuffer(value.read(), dtype={"i32": np.int32, "i64": np.int64}[value.dtype])


def _bits(config: Fields, name: str, served: tuple[int, ...]) -> int:
    bits = config.integer(name)
    if bits not in served:
        raise config.unsupported(name, map(str, served))
    return bits


def _group_size(config: Fields, columns: int, what: str) -> int:
    """-1: all columns."""
    size = config.integer("group_size", 128, minimum=-1)
    return _whole_groups(columns if size == -1 else size, columns, what)


def _whole_groups(size: int, columns: int, what: str) -> int:
    if size < 1 or columns % size:
        raise Corrupt(f"{what} has {columns} columns, which groups of {size} do not divide")
    return size


def _format(bits: int, group: int) -> str:
    """Of integers."""
    if group % 128 == 0:
        return "int8_g128" if bits == 8 else "int4_g128"
    return "int4_g32" if bits <= 4 and group % 32 == 0 else "f32"


def _order(files: _Files, name: str, columns: int, group: int) -> list[int]:
    """For each column the group that it is in, where groups are no ranges of columns; else empty."""
    import numpy as np

    if name not in files:
        return []
    index = _integers(files.get(name, "i32", "i64", rank=1))
    files.fits(name, (len(index),), (columns,))
    if np.array_equal(index, np.arange(columns) // group) or (index == -1).all():
        return []
    groups = columns // group
    if index.min() < 0 or index.max() >= groups or (np.bincount(index, minlength=groups) != group).any():
        raise Corrupt(f"{files.source}: '{name}' is no order of {columns} columns in {groups} groups of {group}")
    found: list[int] = index.tolist()
    return found


def _gptq(files: _Files, config: Fields) -> _Made:
    bits = _bits(config, "bits", (2, 4, 8))
    if config.get("dynamic"):
        raise config.unsupported("dynamic", ("null",))
    form = config.text("checkpoint_format", "gptq")
    if form not in ("gptq", "gptq_v2"):
        raise config.unsupported("checkpoint_format", ("gptq", "gptq_v2"))
    per = 32 // bits
    for stem in files.ending(".qweight"):
        codes, scales = files.get(f"{stem}.qweight", "i32", rank=2), files.scales(f"{stem}.scales")
        rows, columns = codes.shape[1], codes.shape[0] * per
        group = _group_size(config, columns, f"{files.source}: '{stem}.qweight'")
        groups = columns // group
        files.fits(f"{stem}.scales", scales.shape, (groups, rows))
        zeros = files.get(f"{stem}.qzeros", "i32", rank=2)
        files.fits(f"{stem}.qzeros", zeros.shape, (groups, -(-rows // per)))
        places = _core.CodePlaces(codes.buffer, bits, True, False, (1, rows))
        matrix = _core.CodedMatrix(f"{files.source}: '{stem}.qweight'", (rows, columns), "integer", places)
        matrix.set_scales(*scales, (1, rows), (1, group))
        matrix.set_zeros(
            _core.CodePlaces(zeros.buffer, bits, True, True, (1, zeros.shape[1])), 1 if form == "gptq" else 0
        )
        order = _order(files, f"{stem}.g_idx", columns, group)
        matrix.set_groups(order)
        parts = dict.fromkeys(f"{stem}.{part}" for part in ("qweight", "qzeros", "scales", "g_idx"))
        yield files.made(matrix, f"{stem}.weight", (rows, columns), "f32" if order else _format(bits, group), parts)


def _awq(files: _Files, config: Fields) -> _Made:
    bits = _bits(config.renamed(bits="w_bit") if config.get("bits") is None else config, "bits", (4,))
    if config.text("version", "gemm").lower() != "gemm":
        raise config.unsupported("version", ("gemm",))
    config = config.renamed(group_size="q_group_size") if config.get("group_size") is None else config
    for stem in files.ending(".qweight"):
        codes, scales = files.get(f"{stem}.qweight", "i32", rank=2), files.scales(f"{stem}.scales")
        columns, words = codes.shape
        rows = words * 8
        group = _group_size(config, columns, f"{files.source}: '{stem}.qweight'")
        files.fits(f"{stem}.scales", scales.shape, (columns // group, rows))
        places = _core.CodePlaces(codes.buffer, bits, True, True, (1, words), _AWQ_ORDER)
        matrix = _core.CodedMatrix(f"{files.source}: '{stem}.qweight'", (rows, columns), "integer", places)
        matrix.set_scales(*scales, (1, rows), (1, group))
        if config.flag("zero_point", True):
            zeros = files.get(f"{stem}.qzeros", "i32", rank=2)
            files.fits(f"{stem}.qzeros", zeros.shape, (columns // group, words))
            matrix.set_zeros(_core.CodePlaces(zeros.buffer, bits, True, True, (1, words), _AWQ_ORDER))
        else:
            matrix.set_zero(8)
        parts = dict.fromkeys(f"{stem}.{part}" for part in ("qweight", "qzeros", "scales"))
        yield files.made(matrix, f"{stem}.weight", (rows, columns), _format(bits, group), parts)


def _packed(files: _Files) -> _Made:
    """Of compressed-tensors: integers with an offset, in words along the columns."""
    for stem in files.ending(".weight_packed"):
        name = f"{stem}.weight_packed"
        codes, scales = files.get(name, "i32", rank=2), files.scales(f"{stem}.weight_scale")
        shape = _block([int(n) for n in _integers(files.get(f"{stem}.weight_shape", "i32", "i64", rank=1))])
        if shape is None:
            raise Corrupt(f"{files.source}: '{stem}.weight_shape' is not the shape of a matrix")
        rows, columns = shape
        bits = next((b for b in (4, 8) if codes.shape == (rows, -(-columns * b // 32))), 0)
        if bits == 0:
            raise Unsupported(
                f"{files.source}: '{name}' of shape {codes.shape} is no [{rows}, {columns}] of 4 or 8 bits"
            )
        groups = max(scales.shape[1], 1) if len(scales.shape) == 2 else 1
        group = _whole_groups(-(-columns // groups), columns, f"{files.source}: '{stem}.weight_scale'")
        files.fits(f"{stem}.weight_scale", scales.shape, (rows, groups))
        matrix = _core.CodedMatrix(
            f"{files.source}: '{name}'",
            (rows, columns),
            "integer",
            _core.CodePlaces(codes.buffer, bits, True, False, (codes.shape[1], 1)),
        )
        matrix.set_scales(*scales, (groups, 1), (1, group))
        if f"{stem}.weight_zero_point" in files:
            zeros = files.get(f"{stem}.weight_zero_point", "i32", rank=2)
            files.fits(f"{stem}.weight_zero_point", zeros.shape, (-(-rows * bits // 32), groups))
            matrix.set_zeros(_core.CodePlaces(zeros.buffer, bits, True, True, (groups, 1)))
        else:
            matrix.set_zero(1 << (bits - 1))
        order = _order(files, f"{stem}.weight_g_idx", columns, group)
        matrix.set_groups(order)
        ends = ("packed", "scale", "shape", "zero_point", "g_idx")
        parts = dict.fromkeys(f"{stem}.weight_{end}" for end in ends)
        yield files.made(matrix, f"{stem}.weight", (rows, columns), "f32" if order else _format(bits, group), parts)


def _scaled(files: _Files, block: tuple[int, int] | None) -> _Made:
    """Bytes, integers or e4m3, with a scale for the whole, for each row, for groups of a row or for blocks."""
    for stem in files.ending(".weight"):
        name, dtype = f"{stem}.weight", files.tensors[f"{stem}.weight"].dtype
        if dtype not in ("i8", "f8_e4m3"):
            continue
        ends = [end for end in ("weight_scale_inv", "weight_scale") if f"{stem}.{end}" in files]
        if not ends:
            raise Corrupt(f"{files.source}: '{name}' is {dtype}, but there is no '{stem}.weight_scale'")
        codes, scales = files.get(name, dtype, rank=2), files.scales(f"{stem}.{ends[0]}")
        rows, columns = codes.shape
        scale_rows, scale_columns = scales.shape if len(scales.shape) == 2 else (*scales.shape, 1, 1)[:2]
        group = (max(rows, 1) if scale_rows == 1 else 1, columns // max(scale_columns, 1))
        if block is not None and (scale_rows, scale_columns) != (1, 1):
            group = block if scale_columns > 1 or scale_rows not in (1, rows) else group
        wanted = (-(-rows // group[0]), -(-columns // max(group[1], 1)))
        files.fits(f"{stem}.{ends[0]}", (scale_rows, scale_columns), wanted)
        kind = "integer" if dtype == "i8" else "e4m3"
        matrix = _core.CodedMatrix(
            f"{files.source}: '{name}'",
            (rows, columns),
            kind,
            _core.CodePlaces(codes.buffer, 8, False, False, (columns, 1)),
        )
        matrix.is_signed = dtype == "i8"
        matrix.set_scales(*scales, (scale_columns, 1), group)
        if f"{stem}.weight_zero_point" in files:
            raise Unsupported(f"{files.source}: '{stem}.weight_zero_point': integers of 8 bits have no zeros here")
        whole = columns % 128 == 0 and group[1] % 128 == 0
        to = "f32" if not whole else "int8_g128" if dtype == "i8" else "f8_g128"
        yield files.made(matrix, name, (rows, columns), to, dict.fromkeys((name, f"{stem}.{ends[0]}")))


def _compressed(files: _Files, config: Fields) -> _Made:
    served = ("pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "dense")
    if config.text("format", "dense") not in served:
        raise config.unsupported("format", served)
    if config.mapping("sparsity_config").get("format") not in (None, "dense"):
        raise config.mapping("sparsity_config").unsupported("format", ("dense",))
    blocks = None
    for name in config.mapping("config_groups").values:
        structure = config.mapping("config_groups").mapping(name).mapping("weights").get("block_structure")
        blocks = _block(structure) or blocks
    yield from _packed(files)
    yield from _scaled(files, blocks)


def _block(value: Any) -> tuple[int, int] | None:
    if isinstance(value, list) and len(value) == 2 and all(type(n) is int and n > 0 for n in value):
        return value[0], value[1]
    return None


def _fp8(files: _Files, config: Fields) -> _Made:
    if config.get("fmt") not in (None, "e4m3"):
        raise config.unsupported("fmt", ("e4m3",))
    size = config.get("weight_block_size")
    if size is not None and _block(size) is None:
        raise config.refuse("weight_block_size", "is not a list of two numbers above 0")
    yield from _scaled(files, _block(size))


def _mxfp4(files: _Files, config: Fields) -> _Made:
    for stem in files.ending("_blocks"):
        numbers = files.get(f"{stem}_blocks", "u8", rank=4)
        exponents = files.get(f"{stem}_scales", "u8", rank=3)
        files.fits(f"{stem}_scales", (*exponents.shape, 16), numbers.shape)
        count, rows, blocks = exponents.shape
        made = _core.mxfp4_blocks(numbers.buffer, exponents.buffer, f"{files.source}: '{stem}_scales'")
        gone = {f"{stem}_{part}": numbers for part in ("blocks", "scales")}
        yield stem, {**gone, "": Tensor("mxfp4", (count, rows, 32 * blocks), made)}


def _bitsandbytes(files: _Files, config: Fields) -> _Made:
    yield from _bitsandbytes_4(files)
    for stem in files.ending(".SCB"):  # int8: a row's largest magnitude
        codes, largest = files.get(f"{stem}.weight", "i8", rank=2), files.get(f"{stem}.SCB", "f32", rank=1)
        rows, columns = codes.shape
        files.fits(f"{stem}.SCB", largest.shape, (rows,))
        places = _core.CodePlaces(codes.buffer, 8, False, False, (columns, 1))
        matrix = _core.CodedMatrix(f"{files.source}: '{stem}.weight'", (rows, columns), "integer", places)
        matrix.is_signed = True
        matrix.set_scales(*largest, (1, 0), (1, columns), 1 / 127)
        parts = dict.fromkeys((f"{stem}.weight", f"{stem}.SCB", f"{stem}.weight_format"))
        yield files.made(matrix, f"{stem}.weight", (rows, columns), "f32", parts)


def _bitsandbytes_4(files: _Files) -> _Made:
    """Codes into a table of 16 numbers; a scale for so many consecutive ones, which may be a code itself."""
    import numpy as np

    for kind in ("nf4", "fp4"):
        for name in files.ending(f".quant_state.bitsandbytes__{kind}"):
            state_name = f"{name}.quant_state.bitsandbytes__{kind}"
            try:
                state = json.loads(bytes(files.get(state_name, "u8", rank=1).read()))
            except (ValueError, RecursionError):
                state = None
            if not isinstance(state, dict):
                raise Corrupt(f"{files.source}: '{state_name}' is no JSON object")
            fields = Fields(state, f"{files.source}: '{state_name}'")
            size, shape = fields.integer("blocksize"), _block(fields.get("shape"))
            if shape is None:
                raise fields.refuse("shape", "is not that of a matrix")
            rows, columns = shape
            _whole_groups(size, columns, f"{files.source}: '{name}'")
            codes = files.get(name, "u8", rank=2)
            if codes.shape[0] * 2 != rows * columns or columns % 8:
                raise Corrupt(f"{files.source}: '{name}' is of shape {codes.shape}, not {rows} x {columns} of 4 bits")
            is_nested = f"{name}.nested_absmax" in files
            scales = np.frombuffer(files.get(f"{name}.absmax", "u8" if is_nested else "f32", rank=1).read(), np.uint8)
            if is_nested:
                table = np.frombuffer(files.get(f"{name}.nested_quant_map", "f32", rank=1).read(), np.float32)
                outer = np.frombuffer(files.get(f"{name}.nested_absmax", "f32", rank=1).read(), np.float32)
                nested = fields.integer("nested_blocksize", 256)
                if len(table) != 256 or len(outer) * nested < len(scales):
                    raise Corrupt(f"{files.source}: '{name}.nested_absmax' does not fit '{name}.absmax'")
                each = np.repeat(outer, nested)[: len(scales)]
                scales = table[scales] * each + np.float32(fields.number("nested_offset", 0.0))
            scales = np.ascontiguousarray(scales.view(np.float32))
            files.fits(f"{name}.absmax", scales.shape, (rows * columns // size,))
            table = np.frombuffer(files.get(f"{name}.quant_map", "f32", rank=1).read(), np.float32)
            files.fits(f"{name}.quant_map", table.shape, (16,))
            places = _core.CodePlaces(codes.buffer, 4, True, False, (columns // 8, 1), [1, 0, 3, 2, 5, 4, 7, 6])
            matrix = _core.CodedMatrix(f"{files.source}: '{name}'", (rows, columns), "table", places)
            matrix.set_table(table.tolist())
            matrix.set_scales("f32", scales.shape, scales, (columns // size, 1), (1, size))
            ends = ("absmax", "quant_map", "nested_absmax", "nested_quant_map", f"quant_state.bitsandbytes__{kind}")
            yield files.made(matrix, name, (rows, columns), "f32", dict.fromkeys(f"{name}.{end}" for end in ends))


class Method(NamedTuple):
    read: Callable[[_Files, Fields], _Made]
    what: str  # is read, for people


METHODS = {
    "gptq": Method(_gptq, "2, 4 and 8 bits; act-order; `checkpoint_format` gptq and gptq_v2"),
    "awq": Method(_awq, "4 bits, `version` gemm"),
    "compressed-tensors": Method(
        _compressed, "pack-quantized of 4 and 8 bits; int-quantized and float-quantized, naive-quantized: the weights"
    ),
    "fp8": Method(_fp8, "e4m3, in blocks of any size, by rows, or with one scale"),
    "fbgemm_fp8": Method(_fp8, "e4m3, by rows"),
    "mxfp4": Method(_mxfp4, "the experts of gpt-oss"),
    "bitsandbytes": Method(_bitsandbytes, "nf4, fp4, also with scales of scales; int8"),
}
"""By ``quant_method``."""
