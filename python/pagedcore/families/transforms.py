"""From weights as a format keeps them to weights as pagedcore wants them: rows cut and moved, matrices turned."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from .. import _core
from ..errors import Corrupt, Unsupported
from .family import Parts, Transform
from .tensors import Tensor

__all__ = [
    "after",
    "every",
    "flat",
    "fused_qkv",
    "grouped_qkv",
    "halves",
    "input_norm",
    "rows_of",
    "split_rows",
    "sum_of_rows",
    "turned",
]

_Description = Mapping[str, Any]
QKV = ("attn.q", "attn.k", "attn.v")


def rows_of(tensor: Tensor, first: int, count: int) -> Tensor:
    """Some rows of a matrix, or elements of a vector."""
    if isinstance(tensor.buffer, _core.FileBytes):
        size = tensor.buffer.nbytes // tensor.shape[0]
        return tensor._replace(shape=(count, *tensor.shape[1:]), buffer=tensor.buffer.part(first * size, count * size))
    data = tensor.read()
    size = len(data) // tensor.shape[0]
    return tensor._replace(shape=(count, *tensor.shape[1:]), buffer=data[first * size : (first + count) * size])


def split_rows(sizes: Callable[[_Description], Mapping[str, int]]) -> Transform:
    """A stack of weights, cut into those that ``sizes`` names, with the rows of each."""

    def cut(tensor: Tensor, description: _Description, source: str) -> Parts:
        counts = sizes(description)
        if tensor.shape[0] != sum(counts.values()):
            raise Corrupt(f"{source} has {tensor.shape[0]} rows, not {' + '.join(map(str, counts.values()))}")
        if not isinstance(tensor.buffer, _core.FileBytes):
            tensor = tensor._replace(buffer=tensor.read())  # once
        parts, first = {}, 0
        for module, count in counts.items():
            parts[module] = rows_of(tensor, first, count)
            first += count
        return parts

    return cut


def _qkv_rows(description: _Description) -> dict[str, int]:
    head_dim = description["head_dim"]
    kv = description["num_kv_heads"] * head_dim
    return dict(zip(QKV, (description["num_heads"] * head_dim, kv, kv), strict=True))


fused_qkv = split_rows(_qkv_rows)
"""q, k and v, one after another."""


def grouped_qkv(tensor: Tensor, description: _Description, source: str) -> Parts:
    """For each KV head its query heads, the key head, the value head."""
    import numpy as np

    kv_heads, head_dim = description["num_kv_heads"], description["head_dim"]
    group = description["num_heads"] // kv_heads
    if tensor.shape[0] != kv_heads * (group + 2) * head_dim:
        raise Corrupt(f"{source} has {tensor.shape[0]} rows, not {kv_heads} groups of {group} + 2 heads of {head_dim}")
    rows = np.frombuffer(tensor.read(), dtype=np.uint8).reshape(kv_heads, group + 2, head_dim, -1)
    cut = (rows[:, :group], rows[:, group], rows[:, group + 1])
    return {
        module: Tensor(tensor.dtype, (math.prod(part.shape[:-1]), *tensor.shape[1:]), part.reshape(-1).data)
        for module, part in zip(QKV, cut, strict=True)
    }


def halves(heads: str | None) -> Transform:
    """Where a runtime rotates neighbours, the two halves of a head's rotated part lie interleaved: row 2 i + j is row i
    of half j. Whole rows move, so block formats need no decoding. ``heads``: what the description calls their
    number; None: a norm that all heads share."""

    def move(tensor: Tensor, description: _Description, source: str) -> Tensor:
        import numpy as np

        head_dim = description["head_dim"]
        rotated = 2 * len(description["rope_inv_freq"]) // description.get("rope_tables", 1)
        count = 1 if heads is None else description[heads]
        if tensor.shape[0] != count * head_dim:
            raise Corrupt(f"{source} has {tensor.shape[0]} rows, not {count} heads of {head_dim} dimensions")
        rows = np.frombuffer(tensor.read(), dtype=np.uint8).reshape(count, head_dim, -1)
        pairs = rows[:, :rotated].reshape(count, rotated // 2, 2, rows.shape[2]).swapaxes(1, 2)
        moved = np.concatenate((pairs.reshape(count, rotated, -1), rows[:, rotated:]), axis=1)
        return tensor._replace(buffer=moved.reshape(-1).data)

    return move


def turned(tensor: Tensor, description: _Description, source: str) -> Tensor:
    """A matrix [input features, output features], such as those of Conv1D, as [output, input]. A vector as it is."""
    import numpy as np

    if len(tensor.shape) == 1:
        return tensor
    info = _core.dtype_info(tensor.dtype)
    if len(tensor.shape) != 2 or info.block_elements != 1:
        raise Unsupported(f"{source} is {tensor.dtype} of {len(tensor.shape)} dimensions, which cannot be transposed")
    values = np.frombuffer(tensor.read(), dtype=f"V{info.block_bytes}").reshape(tensor.shape)
    turned_bytes = np.ascontiguousarray(values.T).view(np.uint8).reshape(-1)
    return Tensor(tensor.dtype, tensor.shape[::-1], turned_bytes.data)


def after(first: Transform, second: Transform | Mapping[str, Transform]) -> Transform:
    """The one, then the other, which takes the whole or, by module, the parts that the one made."""

    def run(tensor: Tensor, description: _Description, source: str) -> Tensor | Parts:
        made = first(tensor, description, source)
        if isinstance(made, Tensor):
            assert not isinstance(second, Mapping)
            return second(made, description, source)
        parts: dict[str, Tensor] = {}
        for module, part in made.items():
            then = second.get(module) if isinstance(second, Mapping) else second
            changed = part if then is None else then(part, description, source)
            parts |= {module: changed} if isinstance(changed, Tensor) else changed
        return parts

    return run


def input_norm(tensor: Tensor, description: _Description, source: str) -> Parts:
    """The norm that attention reads through. Side by side with it, the MLP reads through the same one, where it has
    none of its own."""
    places = ("attn_norm", "mlp_norm") if description.get("parallel_block") else ("attn_norm",)
    return dict.fromkeys(places, tensor)


def sum_of_rows(matrix: Tensor, table: Tensor) -> Tensor:
    """A matrix to each row of which the first row of a table is added, in f32. As it is, where the two do not fit: what
    it is the weights are checked for."""
    import numpy as np

    if len(matrix.shape) != 2 or len(table.shape) != 2 or table.shape[0] < 1 or matrix.shape[1] != table.shape[1]:
        return matrix
    rows, first = (_core.to_f32(t.dtype, t.shape, t.read()) for t in (matrix, rows_of(table, 0, 1)))
    total = np.ascontiguousarray(rows.reshape(matrix.shape) + first.reshape(1, -1), dtype=np.float32)
    return Tensor("f32", matrix.shape, total.view(np.uint8).reshape(-1).data)


def with_second_segment(words: Tensor, segments: Tensor) -> Tensor:
    """Words as they are, and behind them again with what the second row of ``segments`` has more than the first, in
    f32. As they are, where the two do not fit."""
    import numpy as np

    if (
        len(words.shape) != 2
        or len(segments.shape) != 2
        or segments.shape[0] < 2
        or words.shape[1] != segments.shape[1]
    ):
        return words
    rows, both = (_core.to_f32(t.dtype, t.shape, t.read()) for t in (words, rows_of(segments, 0, 2)))
    rows, both = rows.reshape(words.shape), both.reshape(2, -1)
    total = np.ascontiguousarray(np.concatenate([rows, rows + (both[1] - both[0])]), dtype=np.float32)
    return Tensor("f32", total.shape, total.view(np.uint8).reshape(-1).data)


def flat(tensor: Tensor, description: _Description, source: str) -> Tensor:
    """Weights of each head as one vector."""
    return tensor._replace(shape=(math.prod(tensor.shape),))


def every(tensor: Tensor, first: int, step: int, *, turned: bool = False) -> Tensor:
    """Each ``step``-th element of a vector, or row of a matrix, from ``first`` on; ``turned``: of its transpose. The
    bytes are made when they are read."""
    unit = _core.dtype_info(tensor.dtype).block_bytes
    shape: tuple[int, ...] = (tensor.shape[0] // step,)
    count, steps = (1, shape[0]), (0, step * unit)
    if len(tensor.shape) == 2 and turned:
        columns, rows = tensor.shape
        count = shape = (rows // step, columns)
        steps = (step * unit, rows * unit)
    elif len(tensor.shape) == 2:
        unit = _core.bytes_of(tensor.dtype, tensor.shape[1])
        count, shape, steps = (shape[0], 1), (shape[0], tensor.shape[1]), (step * unit, 0)
    return Tensor(tensor.dtype, shape, _core.pick(tensor.buffer, count, unit, first * unit, steps))
