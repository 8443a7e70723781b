"""``pagedcore selftest``: whether a device computes what it should, and how fast it is."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .common import Formatter, add_report_flags, check_options, given, print_json

if TYPE_CHECKING:
    from .. import _core

__all__ = ["add_to"]

_EPILOG = """\
examples:
  pagedcore selftest
  pagedcore selftest --device cuda --quick
  pagedcore selftest --device cpu --isa avx2 --dtype float32
  pagedcore selftest --device cuda:1 --json > card.json

Checks every operation that a model needs against the portable code for CPUs in float32, on the same random numbers, in
each type that the device computes in; tokens that the device chooses, against those that the host would choose. An
error is the largest difference, of numbers above 1 relative to them; "bits" says that all bits have to be the same,
"not offered" that the device leaves it to the host or has no such type. Then it measures copies, products and
attention, beside what the card's clocks allow where they are known. Other work on the machine makes rates worse.
Exit status: 0 all checks passed, 1 one failed or the device is missing, 2 wrong usage."""

_DTYPES = {"cpu": ("float32", "bfloat16"), "cuda": ("bfloat16", "float16")}
# Weight or KV cache in bytes, rows of the large products, seconds of a measurement: larger than caches, not slow.
_SIZES = {"cpu": (128 << 20, 256, 0.3), "cuda": (256 << 20, 4096, 0.3)}
_QUICK_SIZES = {"cpu": (32 << 20, 64, 0.05), "cuda": (64 << 20, 1024, 0.05)}


@dataclass
class _Tested:
    """A device in one compute type."""

    dtype: str
    engine: str
    checks: list[_core.SelftestCheck]
    rates: list[_core.SelftestRate]

    def failed(self) -> list[_core.SelftestCheck]:
        return [check for check in self.checks if check.outcome == "failed"]


def add_to(commands: Any) -> None:
    parser: argparse.ArgumentParser = commands.add_parser(
        "selftest",
        help="check a device, and measure it",
        description="Checks every operation of a device against the CPU, and measures how fast it is.",
        epilog=_EPILOG,
        formatter_class=Formatter,
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:<index>")
    parser.add_argument(
        "--dtype", default="auto", help="float32, bfloat16 or float16 (default: all that it computes in)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="default: the CPUs this process may run on")
    parser.add_argument("--isa", default="auto", help="instruction set (pagedcore doctor lists them)")
    parser.add_argument("--quick", action="store_true", help="smaller shapes, and rates that are less exact")
    parser.add_argument("--no-rates", action="store_true", help="check only")
    parser.add_argument("--json", action="store_true", help="print a JSON object, rates in bytes, FLOP and seconds")
    add_report_flags(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    kind = arguments.device.partition(":")[0]
    dtypes = _DTYPES.get(kind, ()) if arguments.dtype == "auto" else (arguments.dtype,)
    tested = [_test(arguments, kind, *config) for config in _configs(arguments, dtypes)]
    limits = _limits(arguments.device)
    if arguments.json:
        print_json(_as_dict(arguments.device, tested, limits))
    else:
        _print(arguments.device, tested, limits)
    return 1 if any(one.failed() for one in tested) else 0


def _configs(arguments: argparse.Namespace, dtypes: tuple[str, ...]) -> list[tuple[str, _core.EngineConfig]]:
    from ..engine_options import engine_config

    given_options = given(arguments, "EngineConfig") | {"device": arguments.device}
    found = []
    for dtype in dtypes or ("auto",):
        check_options(given_options | {"dtype": dtype})
        found.append((dtype, engine_config(given_options | {"dtype": dtype}, "f32")))
    return found


def _test(arguments: argparse.Namespace, kind: str, dtype: str, config: _core.EngineConfig) -> _Tested:
    from .. import _core
    from ..progress import Progress

    engine = _core.describe_device(config)
    with Progress(None, "checks", title=dtype) as bar:
        checks = _core.selftest_checks(config, arguments.quick, lambda: bar.add(1))
    rates: list[_core.SelftestRate] = []
    if not arguments.no_rates and all(check.outcome != "failed" for check in checks):  # of what is wrong, none counts
        size, rows, seconds = (_QUICK_SIZES if arguments.quick else _SIZES)[kind]
        with Progress(None, "rates", title=dtype) as bar:
            rates = _core.selftest_rates(config, size, rows, seconds, lambda: bar.add(1))
    return _Tested(dtype, engine, checks, rates)


def _limits(device: str) -> tuple[float, float]:
    """Bytes/s of the device's memory and FLOP/s of its products, by its clocks; 0: unknown."""
    from .. import _core

    kind, _, index = device.partition(":")
    if kind != "cuda":
        return 0.0, 0.0
    card = _core.cuda_status().devices[int(index or 0)]
    return card.memory_rate, card.matmul_rate


def _print(device: str, tested: list[_Tested], limits: tuple[float, float]) -> None:
    for one in tested:
        print(one.engine)
    width = max(len(f"{check.operation}: {check.what}") for one in tested for check in one.checks)
    print(f"\n{'largest error, and what is allowed':<{width}}" + "".join(f"{one.dtype:>22}" for one in tested))
    # What only some of the types are checked for stands where it stands among their checks.
    names: dict[str, None] = {}
    for one in sorted(tested, key=lambda one: -len(one.checks)):
        names.update(dict.fromkeys(f"{check.operation}: {check.what}" for check in one.checks))
    for name in names:
        cells = []
        for one in tested:
            check = next((c for c in one.checks if f"{c.operation}: {c.what}" == name), None)
            cells.append("" if check is None else _cell(check))
        print(f"{name:<{width}}" + "".join(f"{cell:>22}" for cell in cells))
    for one in tested:
        if one.rates:
            _print_rates(one, limits)
    failures = [(one.dtype, check) for one in tested for check in one.failed()]
    outcomes = [check.outcome for one in tested for check in one.checks]
    summary = f"{outcomes.count('passed')} of {len(outcomes)} checks passed"
    if missing := outcomes.count("unsupported"):
        summary += f", {missing} not offered"
    print(f"\n{device}: {summary}" + (", no rates" if failures else ""))
    for one in tested:
        for check in one.checks:
            if check.note:
                print(f"note: {check.operation} in {one.dtype}: {check.what}: {check.note}")
    for dtype, check in failures:
        print(f"FAILED {check.operation} in {dtype}: {check.what}" + (f": {check.problem}" if check.problem else ""))


def _cell(check: _core.SelftestCheck) -> str:
    if check.outcome == "unsupported":
        return "not offered"
    if check.problem:
        return "FAILED"
    if check.tolerance == 0:
        return "bits" if check.outcome == "passed" else "FAILED bits"
    text = f"{check.error:.1e} of {check.tolerance:.0e}"
    return text if check.outcome == "passed" else f"FAILED {text}"


def _print_rates(one: _Tested, limits: tuple[float, float]) -> None:
    memory, products = limits
    names = [f"{rate.operation}: {rate.what}" for rate in one.rates]
    width = max(map(len, names))
    print(f"\n{one.dtype:<{width}}{'time':>12}{'GB/s':>10}{'':>7}{'GFLOP/s':>12}")
    for name, rate in zip(names, one.rates, strict=True):
        moved = rate.bytes / rate.seconds
        done = rate.flops / rate.seconds
        line = f"{name:<{width}}{1e6 * rate.seconds:>9.1f} us{moved / 1e9:>10.4g}"
        line += _share(moved, 0.0 if rate.host_link else memory)
        if done:
            line += f"{done / 1e9:>12.5g}" + _share(done, products)
        print(line.rstrip())
    if memory or products:
        print(f"{'the card by its clocks':<{width}}{'':>12}{memory / 1e9:>10.4g}{'':>7}{products / 1e9:>12.5g}")


def _share(rate: float, limit: float) -> str:
    return f"{f'({rate / limit:.0%})':>7}" if limit else f"{'':>7}"


def _as_dict(device: str, tested: list[_Tested], limits: tuple[float, float]) -> dict[str, Any]:
    from .. import __version__

    def plain(record: Any) -> dict[str, Any]:
        values: dict[str, Any] = record.to_dict()
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}

    return {
        "version": __version__,
        "device": device,
        "passed": not any(one.failed() for one in tested),
        "memory_rate_limit": limits[0] or None,
        "matmul_rate_limit": limits[1] or None,
        "tested": [
            {
                "dtype": one.dtype,
                "engine": one.engine,
                "checks": [plain(check) for check in one.checks],
                "rates": [plain(rate) for rate in one.rates],
            }
            for one in tested
        ],
    }
