"""The examples of every --help and of the documents are commands that there are, and name no file that nobody has.

Expected: the parser takes each line; a file that is read was written by an example before it, or is YOUR_....
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagedcore.cli import _parser

ROOT = Path(__file__).resolve().parents[3]
READ = ("model", "trace", "lengths", "conversations", "tokenizer", "input", "device")
SHIPPED = {"sharegpt", "alpaca", "cpu", "cuda", "here.json", "requests.jsonl"}  # or written by another example


def commands() -> dict[str, argparse.ArgumentParser]:
    (found,) = [action.choices for action in _parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(found)


def lines() -> Iterator[object]:
    for name, parser in [("", _parser()), *commands().items()]:
        for line in re.findall(r"^  (?:.*\| )?(?:source <\()?(pagedcore .*)$", parser.epilog or "", re.MULTILINE):
            yield pytest.param(re.split(r" {3,}", line)[0], id=f"{name}: {line[:60]}")
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for block in re.findall(r"^```\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            for line in re.findall(r"(?:^|bin/|\()(pagedcore [^&|\n]*)", block, re.MULTILINE):
                yield pytest.param(line.strip(), id=f"{page.name}: {line[:60]}")


@pytest.mark.parametrize("line", list(lines()))
def test_the_parser_takes_it(line: str) -> None:
    words = shlex.split(re.sub(r"\s[<>].*|\)$", "", line), comments=True)
    arguments = _parser().parse_args(words[1:])
    for name in READ:
        value = getattr(arguments, name, None)
        if isinstance(value, str) and re.search(r"\.\w+$", value) and value not in SHIPPED:
            assert value.startswith("YOUR_") or value == "smollm2.pagedcore", value


def test_there_are_examples() -> None:
    assert len(list(lines())) > 50
    assert {name for name, parser in commands().items() if "pagedcore" not in (parser.epilog or "")} <= {"replay"}
