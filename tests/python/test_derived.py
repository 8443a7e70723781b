"""The files that tools/derive.py writes are those in the checkout."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

import pagedcore

ROOT = Path(__file__).parents[2]


@pytest.fixture
def derive(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("nanobind.stubgen", reason="nanobind is of the extra dev")
    pytest.importorskip("ruff", reason="ruff is of the extra dev")
    spec = importlib.util.spec_from_file_location("derive", ROOT / "tools" / "derive.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "derive", module)  # dataclasses look for it there
    spec.loader.exec_module(module)
    return module


# rule: bindings.names-agree
def test_derived_files_are_up_to_date(derive: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert derive.main(["--check"]) == 0, capsys.readouterr().out


def test_the_installed_package_has_them() -> None:
    package = Path(pagedcore.__file__).parent
    for name in ("_core.pyi", "_options.py"):
        assert (package / name).read_text() == (ROOT / "python" / "pagedcore" / name).read_text()
