"""docs/cuda_kernels.md: what the CUDA kernels move and compute, and the least time that this takes by data sheets.

    python bench/cuda_roofline.py               from the formulas here and from bench/cuda_resources.json
    python bench/cuda_roofline.py LIBRARY       reads these resources anew from libpagedcore_cuda.so, for the
                                                architectures that it has code for; needs cuobjdump
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
DEVICES = {"A100": "a100-80gb", "H100": "h100", "L4": "l4"}  # of pagedcore/lab/data/devices
# Bytes/s that a device's L2 gives at most. A100: 5,120 bytes a clock of 1.41 GHz, by NVIDIA's white paper of its
# architecture. H100: what others measured of it. L4: nothing is published; the 64 bytes that each of its 58
# multiprocessors takes in a clock of 2.04 GHz, which no cache gives it more than.
L2_RATE = {"A100": 5120 * 1.41e9, "H100": 5.5e12, "L4": 58 * 64 * 2.04e9}

# LLaMA 3 8B.
HIDDEN, HEADS, KV_HEADS, DIM, FFN, VOCAB = 4096, 32, 8, 128, 14336, 128256
GROUP = HEADS // KV_HEADS
KV_ELEMENT = {"bf16": 2, "fp8": 1}
PIECE, CHUNK = 64, 256  # of a context: cuda/kernels/attention.hpp
TILE_ROWS, GROUP_K = 16, 32  # of a packed weight: cuda/kernels/matmul_layout.hpp
WEIGHT_BITS = {"bf16": 16, "int8_row": 8, "int8_group": 8, "int4_group": 4}
SCALE_BYTES = {"bf16": 0, "int8_row": 0, "int8_group": 2, "int4_group": 4}  # of a row and group of 128 columns
FILLED = 132  # multiprocessors that get a block each: an H100's


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
    outputs = sequences * HEADS * DIM * 2  # as large as q
    memory = sequences * context * token_bytes(kv) + 2 * outputs + states
    rows = 16 * KV_HEADS * sequences  # a tile has 16, of which a group of heads fills some
    operations = rows * ceil(context / PIECE) * PIECE * (4 * DIM + 16)
    return Work("attention, decode", f"{sequences} x {context} tokens, {kv} KV", memory, memory, operations)


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
        sum(ends) * token_bytes(kv) + 2 * outputs,
        64 * KV_HEADS * (scores * 2 * DIM + values * (2 * DIM + 16)),
    )


def block_tiles(rows: int, tiles: int, weight: str) -> int:
    """choose_block_tiles() of cuda/kernels/matmul.hpp."""
    chosen, tile = 1, TILE_ROWS * GROUP_K * WEIGHT_BITS[weight] // 8
    while chosen < 4 and 10 * rows * GROUP_K * 2 > chosen * tile and tiles // (2 * chosen) >= FILLED:
        chosen *= 2
    return chosen


def matmul(rows: int, n: int, k: int, weight: str, gated: bool = False) -> Work:
    """`n` rows of the weight, of which a gated pair makes n / 2 outputs in bf16; else they are f32."""
    tiles, groups = ceil(n / TILE_ROWS), ceil(k / GROUP_K)
    weights = tiles * groups * TILE_ROWS * GROUP_K * WEIGHT_BITS[weight] / 8
    scales = n * 4 if weight == "int8_row" else n * ceil(k / 128) * SCALE_BYTES[weight]
    inputs, outputs = rows * k * 2, rows * (n // 2 * 2 if gated else n * 4)
    asked_outputs = 2 * outputs if gated else outputs  # a tile's 8 of 2 bytes are half a sector
    if rows <= 32:
        kernel, height = "matmul, streaming", 8 * ceil(rows / 8)
        # A row's scale comes with the outputs, a group's with the weights.
        times = sum(min(2, rows - band) for band in range(0, rows, 8)) if weight == "int8_row" else 1
        blocks = ceil(tiles / block_tiles(rows, tiles, weight))
        requests = weights + times * scales + blocks * inputs + asked_outputs
    else:
        kernel, blocks = "matmul, tiled", ceil(rows / 64)
        height = 64 * blocks
        requests = blocks * (weights + 2 * scales) + ceil(tiles / 8) * inputs + asked_outputs
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
        Work("embedding", f"{rows} x {HIDDEN} of bf16", norm * 8, norm * 8),
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
        *(matmul(m, 2 * FFN, HIDDEN, w, gated=True) for w in WEIGHT_BITS for m in (1, 4, 32)),
        *(matmul(m, HIDDEN, FFN, "bf16") for m in (1, 4, 32)),
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
        found += [
            Launch(f"matmul_stream<{t}, WeightFormat{number}, {bands}, {tiles}>", 256)
            for bands in (1, 4)
            for tiles in (1, 2, 4)
        ]
        stage = 8 * TILE_ROWS * GROUP_K * WEIGHT_BITS[weight] // 8 + 64 * GROUP_K * 2
        found.append(Launch(f"matmul_tiled<{t}, WeightFormat{number}>", 128, 4 * stage))
    # Of 16 leaves: a warp has two, and the lowest level waits in registers; one level in shared memory for tiles.
    leaves_stage = 4 * TILE_ROWS * GROUP_K * 2 + 64 * GROUP_K * 2
    return [
        *found,
        *(Launch(f"matmul_leaves_stream<{t}, {bands}>", 256, 16) for bands in (1, 4)),
        Launch(f"matmul_leaves_tiled<{t}>", 128, 4 * leaves_stage + 32 * 128 * 4),
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
    "sm_100": Multiprocessor(64, 32, 228 << 10),
    "sm_120": Multiprocessor(48, 24, 100 << 10),
}

HEAD = """# CUDA kernels by arithmetic

**Derived, never measured: none of these kernels has run on a GPU.** `bench/cuda_roofline.py` makes this page from
formulas, and from the registers that nvcc's code takes. The bytes of attention, matmuls, copies and the embedding are
those that the kernels move where they do run, in an emulator that counts sectors
(`tests/cuda_emu/test_kernel_traffic.cpp`); those of norms, rope, sampling and the epilogue of cuBLASLt's
sums follow from their sources.

## Bytes, operations, and the time that they imply

LLaMA 3 8B: one layer's attention with {heads} query and {kv_heads} KV heads of {dim}; its gate and up projection as one
matmul. *Memory* counts every byte once; *requests* are what multiprocessors ask of L1 and L2, where they ask for some
of it again. *Operations* are those of the tensor cores, padded rows included. The times are a floor: memory over the
data sheet's bandwidth, requests over what the L2 gives, or operations over the dense 16-bit rate, whichever is
longest: M (memory), L (L2) or T (tensor cores). What L1 serves counts as the L2's. Launches, latencies and everything
else that takes time are left out.
{devices}. The L2 of an H100 by the measurements of others, an A100's by its clock, an L4's by what its
multiprocessors take.

| Kernel | Shape | Memory, MB | Requests, MB | GFLOP | {columns} |
|---|---|---:|---:|---:|{rules}
"""

MIDDLE = """
**Once each:** memory moves every byte once. Attention in decode, copies of blocks and swaps ask for every byte once,
too; a swap's bytes cross the bus once, in few pieces (`tests/cuda_emu/backend/test_transfers.cpp`).

**The streaming matmul** (up to 32 rows) asks for weights and scales once, and for its inputs once a block, which has 1,
2 or 4 tiles of 16 weight rows: as few as keep the inputs within a tenth of the weights, and no more than leave each
multiprocessor, here {filled}, a block. So its requests are within 1.1 of the ideal for up to 6 rows over 16-bit
weights, 3 over 8 and 1 over 4 bits, where the weight is large enough for the tiles that this takes. More rows cannot
have that: for 32 over 16-bit weights a block would need {needed} tiles, whose sums are more registers than a
multiprocessor has; and with a single block for each multiprocessor the inputs are still asked for {filled} times.

**Leaves of k** (attention output, down projection): the streaming kernel takes one tile a block, and the tiled one 64
weight rows instead of 128, so that it asks for its inputs twice as often: sums that wait for later leaves take the
registers. Their columns below are for 16 leaves.

**Half sectors:** a gated tile has 8 outputs, 16 bytes of 16-bit ones. A sector of the embedding's packed table holds
two rows, of which one is wanted.

## Registers, shared memory, occupancy

Of a block its threads and shared memory; for each architecture the registers of a thread, and the resident warps of a
multiprocessor in percent of what it can hold. The registers are those of nvcc's own code for the architecture, of
which each test run checks sm_80's; a GPU that translates the PTX itself may take others.

| Kernel | Threads | Shared, bytes | {columns} |
|---|---:|---:|{rules}
"""


def device(name: str) -> tuple[float, float]:
    folder = ROOT / "python" / "pagedcore" / "lab" / "data" / "devices"
    data = json.loads((folder / f"{DEVICES[name]}.json").read_text())
    return data["bandwidth"], data["arithmetic"]


def least_time(work: Work, bandwidth: float, arithmetic: float, l2_rate: float) -> tuple[float, str]:
    """Seconds, and what takes them."""
    return max((work.operations / arithmetic, "T"), (work.requests / l2_rate, "L"), (work.memory / bandwidth, "M"))


def work_row(work: Work) -> str:
    times = (least_time(work, *device(name), L2_RATE[name]) for name in DEVICES)
    cells = [
        work.kernel,
        work.shape,
        f"{work.memory / 1e6:.2f}",
        f"{work.requests / 1e6:.2f}",
        f"{work.operations / 1e9:.2f}" if work.operations else "",
        *(f"{seconds * 1e6:.1f} {bound}" for seconds, bound in times),
    ]
    return f"| {' | '.join(cells)} |\n"


Resources = dict[str, dict[str, list[int]]]
"""Of an architecture and kernel: the registers of a thread and the static shared memory of a block."""


def launch_row(launch: Launch, resources: Resources) -> str:
    # From sm_90 on cuobjdump adds the 1 KiB that the system takes, which occupancy() knows of.
    shared = resources["sm_80"][launch.kernel][1] + launch.shared
    cells = [f"`{launch.kernel}`", str(launch.threads), str(shared)]
    for name, m in MULTIPROCESSORS.items():
        registers = resources[name][launch.kernel][0]
        cells.append(f"{registers}: {m.occupancy(launch.threads, registers, shared) / m.warps:.0%}")
    return f"| {' | '.join(cells)} |\n"


def page(resources: Resources) -> str:
    peaks = ((name, *device(name)) for name in DEVICES)
    head = HEAD.format(
        heads=HEADS,
        kv_heads=KV_HEADS,
        dim=DIM,
        devices="; ".join(
            f"{name}: {b / 1e12:g} TB/s, {L2_RATE[name] / 1e12:.1f} TB/s from its L2 and {a / 1e12:g} TFLOP/s"
            for name, b, a in peaks
        ),
        columns=" | ".join(f"{name}, us" for name in DEVICES),
        rules="---:|" * len(DEVICES),
    )
    middle = MIDDLE.format(
        columns=" | ".join(MULTIPROCESSORS),
        rules="---:|" * len(MULTIPROCESSORS),
        filled=FILLED,
        needed=10 * 32 // TILE_ROWS,
    )
    return "".join([head, *map(work_row, works()), middle, *(launch_row(x, resources) for x in launches())])


def read_resources(library: Path, stored: Resources) -> Resources:
    """Of the architectures that the library has code for; of the others what is stored."""
    sys.path.insert(0, str(ROOT / "tests" / "cuda"))
    import sass

    resources: Resources = {}
    for architecture in MULTIPROCESSORS:
        found = sass.resources(library, architecture)
        if found:
            resources[architecture] = {launch.kernel: list(found[launch.kernel]) for launch in launches()}
        else:
            resources[architecture] = stored[architecture]
    return resources


def as_text(resources: Resources) -> str:
    parts = (
        f' "{name}": {{\n' + ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in kernels.items()) + "\n }"
        for name, kernels in resources.items()
    )
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path, nargs="?")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    resources: Resources = json.loads(RESOURCES.read_text())
    if arguments.library is not None:
        resources = read_resources(arguments.library, resources)
    files = {RESOURCES: as_text(resources), PAGE: page(resources)}
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
