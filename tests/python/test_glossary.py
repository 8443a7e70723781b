"""docs/glossary.md: what it names is in the sources, and what it replaced is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SUFFIXES = {".cpp", ".hpp", ".h", ".inl", ".cuh", ".cu", ".py"}


def rows() -> list[list[str]]:
    lines = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [row for row in cells if len(row) == 3 and row[0] != "term" and set(row[0]) != {"-"}]


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    folders = (ROOT / "cpp", ROOT / "cuda", ROOT / "python" / "pagedcore")
    files = (file for folder in folders for file in folder.rglob("*") if file.suffix in SUFFIXES)
    return {str(file.relative_to(ROOT)): file.read_text(encoding="utf-8") for file in files}


def test_names_are_in_the_sources(sources: dict[str, str]) -> None:
    words = set(re.findall(r"\w+", "\n".join(sources.values())))
    named = [name for _, _, where in rows() for name in re.findall(r"`(\w+)`", where)]
    assert len(named) > 60
    assert [name for name in named if name not in words] == []


def test_every_term_has_one_row() -> None:
    terms = [term for term, _, _ in rows()]
    assert sorted(set(terms)) == sorted(terms)


@pytest.mark.parametrize(
    ("word", "within", "instead"),
    [
        (r"kSegment|kAttentionChunk", "", "kContextSegment"),
        (r"groups? of layers|num_groups", "c(pp/(backend|cpu|model|engine)|uda)/", "layer group, num_layer_groups"),
        (r"head of the group|group of query heads|\bgroup_\b", "c(pp/cpu|uda)/", "query heads per KV head"),
        (r"(?:cannot|could not) be had", "", "cannot allocate N bytes"),
    ],
)
def test_words_that_are_not_used(sources: dict[str, str], word: str, within: str, instead: str) -> None:
    assert [file for file, text in sources.items() if re.match(within, file) and re.search(word, text)] == [], instead
