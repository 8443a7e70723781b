"""Figures 18a and 19a, on a small model: how long things take is a matter of the machine, and asserted nowhere."""

from __future__ import annotations

from typing import Any

import pytest

from pagedcore.lab import FIGURES
from pagedcore.lab.figures import measure_figure_18a, measure_figure_19a


def test_figures_18a_and_19a_are_measured(tiny: Any) -> None:
    model = tiny("llama")[0]
    figure = measure_figure_18a(model)
    assert len(figure.values) == 2 * 3 * 3
    for value in figure.values:
        assert value.ours > 0
        assert value.paper is not None
    ratio = figure.of("paged / contiguous", "256 tokens", "batch 32")
    assert ratio.paper == pytest.approx(1.21, abs=0.01)
    figure = measure_figure_19a(model)
    assert len(figure.values) == 9 * 4
    both = figure.of("swap in and out", "blocks of 16")
    parts = [figure.of(series, "blocks of 16").ours for series in ("swap in", "swap out")]
    assert both.ours == pytest.approx(sum(parts))
    assert both.paper == 40.15
    assert min(value.ours for value in figure.values) > 0
    assert {"18a", "19a"} < set(FIGURES)
