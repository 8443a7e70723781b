"""The Python code of README.md and docs/ runs as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def programs() -> Iterator[object]:
    """Blocks that import pagedcore; the others are lines to be put into a program."""
    for document in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for number, code in enumerate(BLOCK.findall(document.read_text(encoding="utf-8"))):
            if re.search(r"^(?:import|from) pagedcore", code, re.MULTILINE):
                yield pytest.param(code, id=f"{document.name}-{number}")


@pytest.mark.parametrize("code", list(programs()))
def test_code_runs(code: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
