"""bench/cuda_roofline.py: its page is what it would write, and its formulas against numbers worked out by hand."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def roofline():
    spec = importlib.util.spec_from_file_location("cuda_roofline", ROOT / "bench" / "cuda_roofline.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_formulas_give(roofline):
    assert roofline.PAGE.read_text() == roofline.page(json.loads(roofline.RESOURCES.read_text()))


def test_the_page_says_that_nothing_was_measured(roofline):
    assert "Derived, never measured" in roofline.PAGE.read_text().splitlines()[2]


def test_decode(roofline):
    # A token: K and V of 8 heads of 128 in 2 bytes. Tiles of 16 rows, 4 of them in use, 4 operations for each of 128.
    work = roofline.decode(1, 64, "bf16", split=False)
    assert work.memory == 64 * 4096 + 2 * 32 * 128 * 2
    assert work.requests == work.memory
    assert work.operations == 16 * 8 * 64 * (512 + 16)
    split = roofline.decode(1, 8192, "bf16", split=True).memory - roofline.decode(1, 8192, "bf16", split=False).memory
    assert split == 2 * 32 * 32 * 136 * 4


def test_matmul(roofline):
    work = roofline.matmul(1, 4096, 4096, "bf16")
    assert work.memory == 4096 * 4096 * 2 + 4096 * 2 + 4096 * 4
    assert work.requests / work.memory == pytest.approx(17 / 16, rel=0.01)
    assert work.operations == 2 * 8 * 4096 * 4096
    tiled = roofline.matmul(128, 4096, 4096, "bf16")
    assert tiled.requests == 2 * 4096 * 4096 * 2 + 32 * 128 * 4096 * 2 + 128 * 4096 * 4
    int4 = roofline.matmul(1, 4096, 4096, "int4_group")
    assert int4.memory == 4096 * 2048 + 4096 * 32 * 4 + 4096 * 2 + 4096 * 4
    assert int4.requests == int4.memory + 255 * 4096 * 2  # 256 tiles: two in a block would leave multiprocessors idle
    gated = roofline.matmul(32, 28672, 4096, "bf16", gated=True)  # 1792 tiles, four in a block
    assert gated.requests == 28672 * 4096 * 2 + 448 * 32 * 4096 * 2 + 2 * 32 * 14336 * 2
    for rows, near in ((1, True), (6, True), (8, False)):
        work = roofline.matmul(rows, 28672, 4096, "bf16", gated=True)
        assert (work.requests <= 1.1 * work.memory) == near


def test_times(roofline):
    work = roofline.Work("", "", memory=2e9, requests=9e9, operations=3e12)
    assert roofline.least_time(work, bandwidth=1e12, arithmetic=1e15, l2_rate=9e12) == (0.003, "T")
    assert roofline.least_time(work, bandwidth=1e12, arithmetic=3e15, l2_rate=9e12) == (0.002, "M")
    assert roofline.least_time(work, bandwidth=1e12, arithmetic=3e15, l2_rate=2e12) == (0.0045, "L")


def test_a_large_product_is_bound_by_the_l2_of_an_h100(roofline):
    """2,048 rows are 32 blocks of 64, each of which asks for all 28,672 x 4,096 weights, and 224 blocks of 128 rows of
    the weight ask for all inputs: 11.4 GB at 5.5 TB/s, over four times what the tensor cores take."""
    work = roofline.matmul(2048, 28672, 4096, "bf16", gated=True)
    asked = 32 * 28672 * 4096 * 2 + 224 * 2048 * 4096 * 2 + 2 * 2048 * 14336 * 2
    assert work.requests == asked
    seconds, bound = roofline.least_time(work, *roofline.device("H100"), roofline.L2_RATE["H100"])
    assert (bound, seconds) == ("L", pytest.approx(asked / 5.5e12))
    assert seconds == pytest.approx(2.07e-3, rel=0.01)
    assert work.operations / roofline.device("H100")[1] == pytest.approx(0.486e-3, rel=0.01)


@pytest.mark.parametrize(
    ("architecture", "threads", "registers", "shared", "warps"),
    [
        ("sm_80", 256, 32, 0, 64),
        ("sm_86", 256, 32, 0, 48),
        ("sm_80", 128, 255, 0, 8),  # 65536 / (255 rounded to 256, times 32)
        ("sm_80", 256, 114, 8192, 16),
        ("sm_80", 128, 32, 48 << 10, 12),  # three blocks of 49 KiB in 164
        ("sm_90", 128, 32, 48 << 10, 16),
        ("sm_89", 32, 16, 0, 24),  # by the number of blocks
    ],
)
def test_occupancy(roofline, architecture, threads, registers, shared, warps):
    assert roofline.MULTIPROCESSORS[architecture].occupancy(threads, registers, shared) == warps
