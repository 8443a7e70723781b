"""`pagedcore selftest` and `pagedcore doctor`, on this machine's CPU, and without a GPU."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from pagedcore import Unsupported, __version__, _core, cpu_isas


def cli(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pagedcore", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("isa", cpu_isas())
def test_every_instruction_set_passes(isa: str) -> None:
    done = cli("selftest", "--isa", isa, "--quick", "--no-rates", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert (report["version"], report["device"], report["passed"]) == (__version__, "cpu", True)
    assert [one["dtype"] for one in report["tested"]] == ["float32", "bfloat16"]
    for one in report["tested"]:
        assert f"cpu, {isa}, " in one["engine"]
        assert len(one["checks"]) > 20
        for check in one["checks"]:
            # Sampling is the host's there, and keys and values are not kept in fp8.
            left = check["operation"] == "sample_tokens" or check["what"].startswith(
                ("keys and values as f8", "whole blocks of f8")
            )
            assert check["outcome"] == ("unsupported" if left else "passed")


def test_the_table_and_the_rates() -> None:
    done = cli("selftest", "--quick", "--dtype", "bfloat16")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert any(line.startswith("matmul: gated, silu") and " of 1e-04" in line for line in lines)
    assert any(line.startswith("attention: same bits") and line.endswith("bits") for line in lines)
    assert any(line.startswith("attention: decode") for line in lines)
    assert "checks passed" in lines[-1]
    assert max(map(len, lines)) <= 120

    report = json.loads(cli("selftest", "--quick", "--dtype", "float32", "--json").stdout)
    (one,) = report["tested"]
    assert report["memory_rate_limit"] is None
    assert {rate["operation"] for rate in one["rates"]} == {"copy_blocks", "swap_out", "swap_in", "matmul", "attention"}
    assert all(rate["seconds"] > 0 for rate in one["rates"])


def test_a_failed_check_is_an_error_status_that_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pagedcore.cli import main

    def one_wrong(*arguments: object) -> list[_core.SelftestCheck]:
        good = _core.SelftestCheck(operation="norm", what="rms", error=1e-6, tolerance=1e-4, outcome="passed")
        wrong = _core.SelftestCheck(operation="matmul", what="store", error=0.5, tolerance=1e-4, outcome="failed")
        thrown = _core.SelftestCheck(
            operation="attention", what="ragged", error=math.inf, tolerance=1e-4, outcome="failed", problem="lost"
        )
        return [good, wrong, thrown]

    monkeypatch.setattr(_core, "selftest_checks", one_wrong)
    assert main(["selftest", "--dtype", "float32"]) == 1
    text = capsys.readouterr().out
    assert "FAILED matmul in float32: store" in text
    assert "FAILED attention in float32: ragged: lost" in text
    assert "1 of 3 checks passed, no rates" in text
    assert main(["selftest", "--dtype", "float32", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert not report["passed"]
    assert report["tested"][0]["checks"][2]["error"] is None


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (["--device", "gpu"], 2, "use cpu, cuda or cuda:<index>"),
        (["--dtype", "float16"], 2, "computes in float32 or bfloat16"),
        (["--isa", "sse9"], 2, "unknown instruction set 'sse9'"),
        (["--threads", "0"], 2, "threads=0"),
    ],
)
def test_bad_flags(flags: list[str], status: int, message: str) -> None:
    done = cli("selftest", *flags)
    assert (done.returncode, done.stdout) == (status, "")
    assert message in done.stderr


def test_without_a_usable_gpu_the_selftest_says_why() -> None:
    if not _core.cuda_status().problem:
        pytest.skip("this machine has a GPU: the self-test runs on it")
    done = cli("selftest", "--device", "cuda")
    assert (done.returncode, done.stdout) == (1, "")
    assert "the CUDA backend is not available" in done.stderr
    with pytest.raises(Unsupported, match="not available"):
        _core.describe_device(_core.EngineConfig(device="cuda"))


def test_doctor() -> None:
    done = cli("doctor")
    assert (done.returncode, done.stderr) == (0, "")
    lines = dict((line[:18].strip(), line[18:]) for line in done.stdout.splitlines())
    assert lines["pagedcore"] == __version__
    assert lines["device cpu"] == f"ready: {_core.describe_device()}"
    assert lines["default model"].endswith(".gguf")
    report = json.loads(cli("doctor", "--json").stdout)
    assert report["cpu"]["instruction_sets"] == cpu_isas()
    assert report["cpu"]["memory"] > 0
    assert Path(report["default_model"]["path"]).exists()
    status = _core.cuda_status()
    assert report["cuda"]["plugin"] == status.plugin
    if status.problem:
        assert any("device cpu" in line for name, line in lines.items() if name.startswith("device cuda"))
        assert report["cuda"]["problem"] == status.problem


def test_doctor_says_what_to_do_about_what_is_missing() -> None:
    from pagedcore.cli import doctor

    card = _core.CudaDevice(name="Card", compute_major=9, memory=80 << 30)
    old = _core.CudaDevice(name="Old", compute_major=7, compute_minor=5, problem="needs 8.0: use device cpu")
    status = _core.CudaStatus(
        plugin="/x/libpagedcore_cuda.so", plugin_version="1.2.3", runtime_version=13000, driver_version=13010,
        devices=[card, old],
    )  # fmt: skip

    def lines(status: _core.CudaStatus, module: str | None) -> list[tuple[str, str]]:
        return doctor._cuda_lines({**doctor._cuda(status.to_dict()), "kernel_module": module})

    assert lines(status, "580.65.06") == [
        ("cuda plugin", "/x/libpagedcore_cuda.so, 1.2.3, built with CUDA 13.0"),
        ("nvidia driver", "580.65.06 is loaded, serves CUDA 13.1"),
        ("device cuda:0", "ready: Card, compute capability 9.0, 80.0 GiB"),
        ("device cuda:1", "no: needs 8.0: use device cpu"),
    ]
    status = _core.CudaStatus(plugin_version="1.2.3", runtime_version=13000, problem="no driver; install it")
    assert lines(status, None)[1:] == [
        ("nvidia driver", "none is loaded"),
        ("device cuda", "no: no driver; install it"),
    ]
    status = _core.CudaStatus(problem="cannot open; use device cpu")
    assert lines(status, None) == [
        ("nvidia driver", "none is loaded"),
        ("device cuda", "no: cannot open; use device cpu"),
    ]


@pytest.mark.parametrize("kind", ["NVIDIA UNIX x86_64 Kernel Module", "NVIDIA UNIX Open Kernel Module for x86_64"])
def test_doctor_reads_the_driver_that_is_loaded(kind: str, tmp_path: Path) -> None:
    from pagedcore.cli.doctor import _kernel_module

    file = tmp_path / "version"
    assert _kernel_module(str(file)) is None
    file.write_text(
        f"NVRM version: {kind}  580.65.06  Sun Jul 27 07:07:00 UTC 2025\nGCC version:  gcc version 12.2.0\n"
    )
    assert _kernel_module(str(file)) == "580.65.06"
