"""tests/check_imports.py finds what it is for."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def checker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_imports", TESTS / "check_imports.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def problems(checker: ModuleType, package: Path) -> list[tuple[str, int, str]]:
    modules = checker.modules_of(package)
    graph = {name: list(checker.imports_of(name, modules)) for name in modules}
    found = [*checker.check_layers(graph, modules), *checker.check_circles(graph, modules)]
    return [(p.file.relative_to(package).as_posix(), p.line, p.why) for p in found]


FILES = {
    "__init__.py": "from pagedcore import _core\nfrom pagedcore.errors import Error",
    "_core.pyi": "",
    "errors.py": "import os",
    "checks.py": "from .errors import Error",
    "llm.py": "from . import _core, checks\nfrom .errors import Error",
    "lab/__init__.py": "from .run import simulate",
    "lab/run.py": "from .. import _core\nfrom ..llm import LLM",
    "lab/text.py": "from .run import simulate",
    "cli/__init__.py": "def main():\n    from .. import __version__\n    from ..lab import simulate",
}
CIRCLE = "a circle: pagedcore.lab.run -> pagedcore.lab.text -> pagedcore.lab.run"


@pytest.mark.parametrize(
    ("file", "line", "why"),
    [
        ("errors.py", "", None),
        ("lab/run.py", "from ..errors import Error", None),
        ("checks.py", "from .llm import LLM", "checks may not import llm, which lies above it"),
        ("checks.py", "import pagedcore.llm", "checks may not import llm, which lies above it"),
        (
            "errors.py",
            "def f():\n    from pagedcore.checks import g",
            "errors may not import checks, which lies above it",
        ),
        ("llm.py", "if TYPE_CHECKING:\n    from .lab import simulate", "llm may not import lab, which lies above it"),
        ("errors.py", "from . import __version__", "errors may not import pagedcore, which lies above it"),
        ("odd.py", "", "unknown part odd: enter it in check_imports.py"),
        ("lab/run.py", "from . import text", CIRCLE),
        ("lab/run.py", "from .text import lines", CIRCLE),
        ("lab/run.py", "if TYPE_CHECKING:\n    from .text import Lines", CIRCLE),
        ("lab/run.py", "def f():\n    from .text import lines", CIRCLE),
        ("lab/run.py", "from . import simulate", "a circle: pagedcore.lab -> pagedcore.lab.run -> pagedcore.lab"),
    ],
)
def test_checker_finds(checker: ModuleType, tmp_path: Path, file: str, line: str, why: str | None) -> None:
    package = tmp_path / "pagedcore"
    for name, text in {**FILES, file: FILES.get(file, "") + "\n" + line}.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text + "\n")
    found = [text for _, _, text in problems(checker, package)]
    if why is None:
        assert found == []
    else:
        assert why in found


def test_import_graph(checker: ModuleType) -> None:
    assert problems(checker, TESTS.parent / "python" / "pagedcore") == []
