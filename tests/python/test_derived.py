"""The files that tools/derive.py writes are those in the checkout."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

import pagedcore

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def derive() -> ModuleType:
    pytest.importorskip("nanobind.stubgen", reason="nanobind is of the extra dev")
    pytest.importorskip("ruff", reason="ruff is of the extra dev")
    spec = importlib.util.spec_from_file_location("derive", ROOT / "tools" / "derive.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_derived_files_are_up_to_date(derive: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert derive.main(["--check"]) == 0, capsys.readouterr().out


def test_the_installed_package_has_them() -> None:
    package = Path(pagedcore.__file__).parent
    for name in ("_core.pyi", "_options.py"):
        assert (package / name).read_text() == (ROOT / "python" / "pagedcore" / name).read_text()
