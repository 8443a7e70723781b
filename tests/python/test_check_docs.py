"""What tests/check_docs.py finds in a tree that contradicts its documents."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

CHECKER = Path(__file__).resolve().parent.parent / "check_docs.py"

SOUND = {
    "README.md": "See [the tour](docs/tour.md#the-way-in) of `cpp/kv/pool.cpp`, `PoolKeeper` and `take_block()`.\n",
    "docs/tour.md": "# Tour\n\n## The way in\n\n| 4.2 | `cpp/kv/pool.cpp` | `take_block` |\n",
    "cpp/kv/README.md": "# kv\n\n- `kv.block-is-taken-once`: a block has one owner. `pool.cpp` says how.\n",
    "cpp/kv/pool.cpp": "class PoolKeeper { int take_block(); };\n",
    "docs/troubleshooting.md": "### `too small for a block`\n",
    "cpp/kv/limits.cpp": 'throw Error("the pool is too small "\n  "for a block");\n',
    "tests/test_pool.cpp": "// rule: kv.block-is-taken-once\n",
}


@pytest.fixture
def checker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_docs", CHECKER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def faults(checker: ModuleType, root: Path, changes: dict[str, str]) -> list[str]:
    for name, text in (SOUND | changes).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    checker.ROOT = root
    tree = checker.Tree()
    return [fault for check in checker.CHECKS for fault in check(tree)]


def test_a_sound_tree_has_no_fault(checker: ModuleType, tmp_path: Path) -> None:
    assert faults(checker, tmp_path, {}) == []


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        ("README.md", "[gone](docs/gone.md)\n", "README.md:1: the link to docs/gone.md leads nowhere"),
        ("README.md", "[tour](docs/tour.md#no-way)\n", "README.md:1: docs/tour.md has no heading #no-way"),
        ("README.md", "It is in `cpp/kv/gone.cpp`.\n", "README.md:1: there is no cpp/kv/gone.cpp"),
        ("README.md", "It lies in `cpp/gone/`.\n", "README.md:1: there is no cpp/gone/"),
        ("README.md", "Call `give_block()`.\n", "README.md:1: nothing is called give_block"),
        (
            "docs/tour.md",
            "## The way in\n`cpp/kv/pool.cpp` has `rule`.\n",
            "docs/tour.md:2: `rule` is not in cpp/kv/pool.cpp",
        ),
        (
            "docs/troubleshooting.md",
            "### `too large`\n",
            "docs/troubleshooting.md:1: no source has the message `too large`",
        ),
        (
            "cpp/kv/README.md",
            "- `kv.block-is-taken-once`: one\n- `kv.block-is-taken-once`: two\n",
            "cpp/kv/README.md:2: the rule kv.block-is-taken-once is defined in cpp/kv/README.md:1 too",
        ),
        (
            "tests/test_pool.cpp",
            "// rule: kv.block-is-lost\n",
            "tests/test_pool.cpp:1: no README has a rule kv.block-is-lost",
        ),
        (
            "tests/test_pool.cpp",
            "// no rule\n",
            "cpp/kv/README.md:3: no test cites the rule kv.block-is-taken-once",
        ),
    ],
)
def test_a_fault_is_found(checker: ModuleType, tmp_path: Path, file: str, text: str, fault: str) -> None:
    assert fault in faults(checker, tmp_path, {file: text})


def test_this_tree_is_sound(checker: ModuleType) -> None:
    assert checker.main() == 0
