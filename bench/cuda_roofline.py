"""docs/cuda_kernels.md: what the CUDA kernels move and compute, and the least time that this takes by data sheets.

    python bench/cuda_roofline.py               from the formulas here and from bench/cuda_resources.json
    python bench/cuda_roofline.py LIBRARY       reads these resources anew from libpagedcore_cuda.so; needs cuobjdump
    python bench/cuda_roofline.py --check ...   writes nothing; fails if there were anything to write

Nothing here is measured. tests/cuda_emu/test_kernel_traffic.cpp holds kernels to the formulas of their bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from math import ceil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "cuda_kernels.md"
RESOURCES = ROOT / "bench" / "cuda_resources.json"
DEVICES = {"A100": "a100-80gb", "H100": "h100", "L4": "l4"}  # of pagedcore/simulation/data/devices

# LLaMA 3 8B.
HIDDEN, HEADS, KV_HEADS, DIM, FFN, VOCAB = 4096, 32, 8, 128, 14336, 128256
GROUP = HEADS // KV_HEADS
KV_ELEMENT = {"bf16": 2, "fp8": 1}
PIECE, CHUNK = 64, 256  # of a context: cuda/kernels/attention.hpp
TILE_ROWS, GROUP_K = 16, 32  # of a packed weight: cuda/kernels/matmul_layout.hpp
WEIGHT_BITS = {"bf16": 16, "int8_row": 8, "int8_group": 8, "int4_group": 4}
SCALE_BYTES = {"bf16": 0, "int8_row": 0, "int8_group": 2, "int4_group": 4}  # of a row and group of 128 columns


@dataclass(frozen=True)
class Work:
    """What one launch does. Operations are those of the tensor cores, padding included; the others have none."""

    kernel: str
    shape: str
    memory: float
    """Bytes, each counted once."""
    requests: float
    """Bytes that multiprocessors ask for: L1 and L2 serve what is asked for again."""
    operations: float = 0.0


def token_bytes(kv: str) -> int:
    return 2 * KV_HEADS * (DIM * KV_ELEMENT[kv] + (4 if kv == "fp8" else 0))


def decode(sequences: int, context: int, kv: str, split: bool) -> Work:
    """Of one layer. A split context leaves a state for each chunk and head, which is written and read once."""
    states = 2 * sequences * ceil(context / CHUNK) * HEADS * (DIM + 8) * 4 if split else 0
    outputs = sequences * HEADS * DIM * 2  # as large as q; stored by half sectors
    memory = sequences * context * token_bytes(kv) + 2 * outputs + states
    rows = 16 * KV_HEADS * sequences  # a tile has 16, of which a group of heads fills some
    operations = rows * ceil(context / PIECE) * PIECE * (4 * DIM + 16)
    return Work("attention, decode", f"{sequences} x {context} tokens, {kv} KV", memory, memory + outputs, operations)


def prefill(tokens: int, kv: str) -> Work:
    """Tiles of 64 (token, head) rows; each reads the context up to its last token."""
    per_tile = 64 // GROUP
    ends = [min(tokens, first + per_tile) for first in range(0, tokens, per_tile)]
    outputs = tokens * HEADS * DIM * 2
    scores = sum(ceil(end / PIECE) * PIECE for end in ends)
    values = sum(ceil(end / 16) * 16 for end in ends)
    return Work(
        "attention, prefill",
        f"{tokens} tokens, {kv} KV",
        tokens * token_bytes(kv) + 2 * outputs,
        sum(ends) * token_bytes(kv) + 3 * outputs,
        64 * KV_HEADS * (scores * 2 * DIM + values * (2 * DIM + 16)),
    )


def matmul(rows: int, n: int, k: int, weight: str, gated: bool = False) -> Work:
    """`n` rows of the weight, of which a gated pair makes n / 2 outputs in bf16; else they are f32."""
    tiles, groups = ceil(n / TILE_ROWS), ceil(k / GROUP_K)
    weights = tiles * groups * TILE_ROWS * GROUP_K * WEIGHT_BITS[weight] / 8
    scales = n * 4 if weight == "int8_row" else n * ceil(k / 128) * SCALE_BYTES[weight]
    inputs, outputs = rows * k * 2, rows * (n // 2 * 2 if gated else n * 4)
    if rows <= 32:
        kernel, height = "matmul, streaming", next(h for h in (8, 16, 32) if rows <= h)
        # Scales are asked for with every group of 32 columns, inputs by every tile of 16 weight rows.
        asked_scales = scales if weight == "int8_row" else tiles * groups * TILE_ROWS * SCALE_BYTES[weight]
        requests = weights + asked_scales + tiles * inputs + outputs
    else:
        kernel, blocks = "matmul, tiled", ceil(rows / 64)
        height = 64 * blocks
        requests = blocks * (weights + scales) + ceil(tiles / 8) * inputs + outputs
    shape = f"{rows} x {k} by {n} x {k}, {weight}" + (", gated" if gated else "")
    return Work(kernel, shape, weights + scales + inputs + outputs, requests, 2.0 * height * n * k)


def others(rows: int) -> list[Work]:
    qkv = rows * (HEADS + 2 * KV_HEADS) * DIM * 4
    angles = rows * DIM * 4
    rope = qkv + rows * HEADS * DIM * 2 + rows * token_bytes("bf16")
    norm = rows * HIDDEN
    block = 16 * 32 * token_bytes("bf16")  # 16 tokens, 32 layers
    logits = rows * VOCAB * 4
    sums = 256 * FFN * (2 * 4 + 2)  # a gate and an up each, in f32; outputs in bf16
    return [
        Work("epilogue of cuBLASLt's sums", f"256 x {2 * FFN}, gated", sums, sums),
        Work("norm", f"{rows} x {HIDDEN} to bf16", norm * 6 + HIDDEN * 4, norm * 14),
        Work("rope and cache", f"{rows} rows, bf16 KV", rope + angles, rope + angles * (HEADS + KV_HEADS)),
        # The weights of two rows lie in one sector.
        Work("embedding", f"{rows} x {HIDDEN} of bf16", norm * 8, norm * 12),
        Work("block copy, gather, scatter", f"16 blocks of {block >> 20} MiB", 32 * block, 32 * block),
        Work("sampling, no truncation", f"{rows} x {VOCAB}", logits, 2 * logits + rows * 1024 * 4),
    ]


def works() -> list[Work]:
    return [
        decode(64, 2048, "bf16", split=False),
        decode(64, 2048, "fp8", split=False),
        decode(1, 8192, "bf16", split=True),
        prefill(2048, "bf16"),
        prefill(2048, "fp8"),
        *(matmul(m, 2 * FFN, HIDDEN, w, gated=True) for w in WEIGHT_BITS for m in (1, 32)),
        *(matmul(m, 2 * FFN, HIDDEN, w, gated=True) for w in ("bf16", "int4_group") for m in (256, 2048)),
        *others(64),
    ]


@dataclass(frozen=True)
class Launch:
    """A kernel as sass.py names it; threads of a block, and its dynamic shared memory."""

    kernel: str
    threads: int
    shared: int = 0


def odd_stride(size: int) -> int:
    return (size // 16 | 1) * 16


def attention_shared(kv: str, rows: int, columns: int) -> int:
    """AttentionShape::kSharedBytes of cuda/kernels/attention_tile.cuh."""
    copies = 2 * PIECE * odd_stride(DIM * KV_ELEMENT[kv]) + rows * odd_stride(DIM * 2)
    scales = 2 * PIECE * 4 if kv == "fp8" else 0
    return copies + 2 * PIECE * 8 + scales + rows * odd_stride(PIECE * 2) + rows * columns * 4


def launches() -> list[Launch]:
    t = "__nv_bfloat16"
    found = [
        Launch(
            f"attention_kernel<AttentionShape<{t}, KvType{kv}, {DIM}, {rows}, {columns}>>", 32 * rows * columns, shared
        )
        for kv, name in ((1, "bf16"), (2, "fp8"))
        for rows, columns in ((1, 4), (4, 2))
        for shared in [attention_shared(name, 16 * rows, columns)]
    ]
    found.append(Launch(f"merge_states_kernel<{t}, {DIM}>", 128))
    for number, weight in enumerate(WEIGHT_BITS):
        found += [Launch(f"matmul_stream<{t}, WeightFormat{number}, {bands}>", 256) for bands in (1, 2, 4)]
        stage = 8 * TILE_ROWS * GROUP_K * WEIGHT_BITS[weight] // 8 + 64 * GROUP_K * 2
        found.append(Launch(f"matmul_tiled<{t}, WeightFormat{number}>", 128, 4 * stage))
    return [
        *found,
        Launch(f"matmul_finish<{t}>", 256),
        Launch(f"norm_rows<{t}>", 256),
        Launch(f"rope_and_cache_kernel<{t}, KvType1>", 128),
        Launch(f"embed_rows<{t}, WeightFormat0>", 128),
        Launch(f"embed_plain_rows<{t}>", 128),
        Launch("copy_pieces<uint4>", 256),
        Launch("process_logits", 256),
        Launch("sample_rows", 256),
        Launch("row_logprobs", 256),
    ]


@dataclass(frozen=True)
class Multiprocessor:
    """Limits by compute capability: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability"."""

    warps: int
    blocks: int
    shared: int
    registers: int = 65536

    def occupancy(self, threads: int, registers: int, shared: int) -> int:
        """Resident warps. Registers are given to a warp by 256, shared memory by 128 bytes and 1 KiB for the system."""
        warps = ceil(threads / 32)
        by_registers = self.registers // (ceil(registers * 32 / 256) * 256) // 4 * 4 // warps
        by_shared = self.shared // (ceil((shared + 1024) / 128) * 128)
        return warps * min(self.warps // warps, self.blocks, by_registers, by_shared)


MULTIPROCESSORS = {
    "sm_80": Multiprocessor(64, 32, 164 << 10),
    "sm_86": Multiprocessor(48, 16, 100 << 10),
    "sm_89": Multiprocessor(48, 24, 100 << 10),
    "sm_90": Multiprocessor(64, 32, 228 << 10),
}

HEAD = """# CUDA kernels by arithmetic

**Derived, never measured: none of these kernels has run on a GPU.** `bench/cuda_roofline.py` makes this page from
formulas, and from the registers that nvcc's code for sm_80 takes. The bytes of attention, matmuls, copies and the
embedding are those that the kernels move where they do run, in an emulator that counts sectors
(`tests/cuda_emu/test_kernel_traffic.cpp`); those of norms, rope, sampling and the epilogue of cuBLASLt's sums follow
from their sources.

## Bytes, operations, and the time that they imply

LLaMA 3 8B: one layer's attention with {heads} query and {kv_heads} KV heads of {dim}; its gate and up projection as one
matmul. *Memory* counts every byte once; *requests* are what multiprocessors ask of L1 and L2, where they ask for some
of it again. *Operations* are those of the tensor cores, padded rows included. The times are a floor: memory over the
data sheet's bandwidth or operations over its dense 16-bit rate, whichever is longer, M (memory) or T (tensor cores).
Launches, latencies, the caches and everything else that takes time are left out.
{devices}.

| Kernel | Shape | Memory, MB | Requests, MB | GFLOP | {columns} |
|---|---|---:|---:|---:|{rules}
"""

MIDDLE = """
The streaming matmul asks for its inputs once for every 16 weight rows: (16 + m) / 16 of the bytes of 16-bit weights for
m rows, so within 1.1 of the ideal for m = 1 only, and at 32 rows three times the weights. Of memory it asks the weights
once, for every m.

## Registers, shared memory, occupancy

Of a thread and of a block, and the resident warps of a multiprocessor in percent of what it can hold. An H100
translates the PTX itself (or runs code compiled for it), and may take other registers.

| Kernel | Threads | Registers | Shared, bytes | {columns} |
|---|---:|---:|---:|{rules}
"""


def device(name: str) -> tuple[float, float]:
    folder = ROOT / "python" / "pagedcore" / "simulation" / "data" / "devices"
    data = json.loads((folder / f"{DEVICES[name]}.json").read_text())
    return data["bandwidth"], data["arithmetic"]


def least_time(work: Work, bandwidth: float, arithmetic: float) -> tuple[float, str]:
    return max((work.memory / bandwidth, "M"), (work.operations / arithmetic, "T"))


def work_row(work: Work) -> str:
    times = (least_time(work, *device(name)) for name in DEVICES)
    cells = [
        work.kernel,
        work.shape,
        f"{work.memory / 1e6:.2f}",
        f"{work.requests / 1e6:.2f}",
        f"{work.operations / 1e9:.2f}" if work.operations else "",
        *(f"{seconds * 1e6:.1f} {bound}" for seconds, bound in times),
    ]
    return f"| {' | '.join(cells)} |\n"


def launch_row(launch: Launch, resources: dict[str, list[int]]) -> str:
    registers, static = resources[launch.kernel]
    shared = static + launch.shared
    shares = (m.occupancy(launch.threads, registers, shared) / m.warps for m in MULTIPROCESSORS.values())
    cells = [f"`{launch.kernel}`", str(launch.threads), str(registers), str(shared), *(f"{s:.0%}" for s in shares)]
    return f"| {' | '.join(cells)} |\n"


def page(resources: dict[str, list[int]]) -> str:
    peaks = ((name, *device(name)) for name in DEVICES)
    head = HEAD.format(
        heads=HEADS,
        kv_heads=KV_HEADS,
        dim=DIM,
        devices="; ".join(f"{name}: {b / 1e12:g} TB/s and {a / 1e12:g} TFLOP/s" for name, b, a in peaks),
        columns=" | ".join(f"{name}, us" for name in DEVICES),
        rules="---:|" * len(DEVICES),
    )
    middle = MIDDLE.format(columns=" | ".join(MULTIPROCESSORS), rules="---:|" * len(MULTIPROCESSORS))
    return "".join([head, *map(work_row, works()), middle, *(launch_row(x, resources) for x in launches())])


def read_resources(library: Path) -> dict[str, list[int]]:
    sys.path.insert(0, str(ROOT / "tests" / "cuda"))
    import sass

    found = sass.resources(library, "sm_80")
    return {launch.kernel: list(found[launch.kernel]) for launch in launches()}


def as_text(resources: dict[str, list[int]]) -> str:
    return "{\n" + ",\n".join(f" {json.dumps(k)}: {json.dumps(v)}" for k, v in resources.items()) + "\n}\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path, nargs="?")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    stored = json.loads(RESOURCES.read_text()) if arguments.library is None else read_resources(arguments.library)
    files = {RESOURCES: as_text(stored), PAGE: page(stored)}
    stale = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    if not arguments.check:
        for path in stale:
            path.write_text(files[path])
    elif stale:
        print(*(f"{path.relative_to(ROOT)} is out of date: run bench/cuda_roofline.py" for path in stale), sep="\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
