"""docs/evaluation.md: it has every figure, its numbers are what comes out, and its script leaves the text alone."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pagedcore.lab import FIGURES, read_lengths, reproduce
from test_simulation import real_trace

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "evaluation.md"


def test_every_figure_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert sorted(re.findall(r"<!-- figure (\w+) -->", text)) == sorted(FIGURES)
    for name in FIGURES:
        plot = f"evaluation/figure_{name}.svg"
        assert f"]({plot})" in text
        assert 1_000 < (PAGE.parent / plot).stat().st_size < 100_000


def test_figure_2_is_what_comes_out() -> None:
    """The cheapest of them all, for all of them: whoever changes what is simulated runs bench/evaluation.py again."""
    block = PAGE.read_text(encoding="utf-8").split("<!-- figure 2 -->")[1].split("<!-- end -->")[0]
    columns, _, *rows = [line.strip("| ").split(" | ") for line in block.splitlines() if line.startswith("|")]
    figure = reproduce("2", read_lengths(real_trace("sharegpt_lengths.csv")))
    shown = 0
    for series, *cells in rows:
        for at, cell in zip(columns[1:], cells, strict=True):
            value = figure.of(series, at.replace(" ", "_"))
            assert float(cell.split(" / ")[0]) == pytest.approx(value.ours, abs=0.1)
            assert float(cell.split(" / ")[1]) == pytest.approx(value.paper, abs=0.1)
            shown += 1
    assert shown == len(figure.values)


def test_the_script_replaces_numbers_and_keeps_the_text(tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    (tmp_path / "docs").mkdir()
    script = shutil.copy(REPOSITORY / "bench" / "evaluation.py", tmp_path / "bench")
    page = tmp_path / "docs" / "evaluation.md"
    page.write_text("before\n<!-- figure 2 -->\nold\n<!-- end -->\nafter\n<!-- figure 13 -->\nkept\n<!-- end -->\n")
    command = [sys.executable, script, "--seconds", "100"]
    subprocess.run([*command, "2"], check=True, capture_output=True)
    text = page.read_text()
    assert text.startswith("before\n<!-- figure 2 -->\n![Figure 2: ")
    assert text.endswith("<!-- end -->\nafter\n<!-- figure 13 -->\nkept\n<!-- end -->\n")
    assert "old" not in text
    assert "| ours / paper | token states | reservation | internal | external other |" in text
    assert "drawn from the paper's histograms" in text
    assert (tmp_path / "docs" / "evaluation" / "figure_2.svg").exists()
    refused = subprocess.run([*command, "12a"], check=False, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "has no <!-- figure 12a -->" in refused.stderr
