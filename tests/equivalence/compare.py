"""Holds two versions of pagedcore against each other: python tests/equivalence/compare.py OLD_PYTHON NEW_PYTHON
[NUMBER...]. Each is an interpreter that imports its own pagedcore. Prints the first difference of every configuration
and exits with 1 if there was one. A file that run.py wrote can stand for an interpreter."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from itertools import zip_longest
from pathlib import Path

Found = dict[str, dict[str, list[str]]]


def found_by(interpreter: str, numbers: list[str]) -> Found:
    if interpreter.endswith(".json"):
        kept: Found = json.loads(Path(interpreter).read_text())
        return kept
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        driver = Path(__file__).parent.resolve() / "run.py"
        subprocess.run([interpreter, driver, out, *numbers], check=True)
        ran: Found = json.loads(out.read_text())
        return ran


def around(old: str, new: str) -> tuple[str, str]:
    """The two from a little before they part."""
    at = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    begin = max(0, at - 120)
    return old[begin : at + 120], new[begin : at + 120]


def first_difference(old: dict[str, list[str]], new: dict[str, list[str]]) -> str:
    """Empty: none."""
    for part in sorted({*old, *new}):
        lines = zip_longest(old.get(part, []), new.get(part, []), fillvalue="(no such line)")
        for number, (a, b) in enumerate(lines, 1):
            if a != b:
                was, comes = around(a, b)
                return f"{part}, line {number}\n  old: ...{was}\n  new: ...{comes}"
    return ""


def main(old_python: str, new_python: str, *numbers: str) -> int:
    old, new = (found_by(python, list(numbers)) for python in (old_python, new_python))
    different = lines = 0
    for name in sorted({*old, *new}):
        difference = first_difference(old.get(name, {}), new.get(name, {}))
        lines += sum(map(len, old.get(name, {}).values()))
        different += bool(difference)
        print(f"{name}: {'DIFFERENT, ' + difference if difference else 'equal'}")
    print(f"{len({*old, *new})} configurations, {lines} lines, {different} different")
    return 1 if different or lines == 0 else 0


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
