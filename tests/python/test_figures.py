"""The paper's figures from the shipped scheduler, within the tolerances that are promised."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterable
from itertools import combinations

import numpy as np
import pytest

from pagedcore import InvalidArgument
from pagedcore.lab import FIGURES, Figure, paper_lengths, read_lengths, reproduce, sustained_rate
from pagedcore.lab.figures import Value
from test_simulation import real_trace

ORCA = ("Orca (Max)", "Orca (Pow2)", "Orca (Oracle)")


@pytest.fixture(scope="module")
def sharegpt() -> list[tuple[int, int]]:
    return read_lengths(real_trace("sharegpt_lengths.csv"))


def misordered(values: Iterable[Value]) -> set[tuple[str, str]]:
    """Pairs that the paper separates by more than 10 % and that are the other way round here."""
    return {
        (first.series + " " + first.at, second.series + " " + second.at)
        for first, second in combinations(values, 2)
        if first.paper is not None and second.paper is not None
        if max(first.paper, second.paper) > 1.1 * min(first.paper, second.paper)
        if (first.paper < second.paper) != (first.ours < second.ours)
    }


def assert_order_of_systems(figure: Figure) -> None:
    """In the sustained rate, and in the latency at every rate at which the paper has more than one of them."""
    for panel in figure.panels:
        values = [value for value in figure.values if value.panel == panel]
        for at in {value.at for value in values}:
            assert misordered(value for value in values if value.at == at) == set(), (panel, at)


# FasterTransformer's ShareGPT traces have few requests, so they have to be the paper's; Alpaca's are cut.
@pytest.mark.parametrize(
    ("panel", "seconds"), [("a", None), ("b", None), ("c", None), ("d", 1200), ("e", 1200), ("f", None)]
)
def test_figure_12_ratios(panel: str, seconds: float | None) -> None:
    """Sustained rates at 0.2 s per token, paged against every baseline: within 20 % of the paper's ratios."""
    lengths = read_lengths(real_trace("sharegpt_lengths.csv")) if panel in "abc" else None
    figure = reproduce(f"12{panel}", lengths, seconds=seconds)
    paged = figure.of("vLLM", "sustained")
    assert paged.paper is not None
    for system in (*ORCA, "FasterTransformer"):
        other = figure.of(system, "sustained")
        assert other.paper is not None
        assert (paged.ours / other.ours) / (paged.paper / other.paper) == pytest.approx(1, abs=0.2), system


def test_figure_12_batches_point_by_point(sharegpt: list[tuple[int, int]]) -> None:
    """Request-level batching by the published rules: one constant, fitted to the first point, gives the others."""
    figure = reproduce("12c", sharegpt)
    points = [value for value in figure.values if value.series == "FasterTransformer" and value.x is not None]
    assert len(points) == 5
    for value in points:
        assert value.ours == pytest.approx(value.paper, rel=0.1)


def test_figure_13a_within_5_percent_but_for_paged(sharegpt: list[tuple[int, int]]) -> None:
    figure = reproduce("13", sharegpt)
    for system in ORCA:
        value = figure.of(system, "sharegpt 2/s")
        assert value.ours == pytest.approx(value.paper, rel=0.05)
    # 33.9 against 30.4: outside the 5 %. The figure's notes say what is known of it.
    paged = figure.of("vLLM", "sharegpt 2/s")
    assert paged.ours == pytest.approx(paged.paper, rel=0.15)


def test_figure_14_order() -> None:
    figure = reproduce("14", seconds=200)
    assert figure.panels == ["parallel 2", "parallel 4", "parallel 6", "beam 2", "beam 4", "beam 6"]
    assert_order_of_systems(figure)


def test_figure_15_savings() -> None:
    """Parallel sampling is predicted. Beams have one fitted parameter for three widths."""
    figure = reproduce("15", seconds=300)
    for value in figure.values:
        assert value.paper is not None
        assert abs(value.ours - value.paper) < 3, value
    assert any("FITTED" in note for note in figure.notes)


def test_figure_16_order() -> None:
    figure = reproduce("16", seconds=120)
    assert_order_of_systems(figure)
    # What sharing a longer prefix is worth, beyond the memory that paging saves.
    gains = [
        figure.of("vLLM", "sustained", panel).ours / figure.of("Orca (Oracle)", "sustained", panel).ours
        for panel in ("1-shot", "5-shot")
    ]
    assert 1.4 < gains[0] < gains[1] - 0.5


def test_figure_17_order(sharegpt: list[tuple[int, int]]) -> None:
    figure = reproduce("17", sharegpt, seconds=1800)
    assert_order_of_systems(figure)
    for system in (*ORCA, "vLLM"):
        value = figure.of(system, "sustained")
        assert value.ours == pytest.approx(value.paper, rel=0.2)


def test_figure_18b_order(sharegpt: list[tuple[int, int]]) -> None:
    figure = reproduce("18b", sharegpt)
    assert misordered(value for value in figure.values if value.series == "ShareGPT") == set()
    # At 30.1 requests/s Alpaca is far into overload: what blocks below 16 cost weighs more here than in the paper,
    # whose own 2 and 4 are out of order.
    known = {("1", "128"), ("2", "4"), ("2", "128"), ("8", "64")}
    assert misordered(value for value in figure.values if value.series == "Alpaca") <= {
        (f"Alpaca {first}", f"Alpaca {second}") for first, second in known
    }


def test_figure_19b_order(sharegpt: list[tuple[int, int]]) -> None:
    figure = reproduce("19b", sharegpt)
    for series in ("recompute", "swap"):
        assert misordered(value for value in figure.values if value.series == series) == set()
    for value in figure.values:
        # Recomputation wins at the large sizes too, other than in the paper; the figure's notes say why.
        if value.series == "recompute" and value.at not in ("128", "256"):
            assert misordered([value, figure.of("swap", value.at)]) == set()


def test_lengths_have_the_published_moments() -> None:
    alpaca = np.array(paper_lengths("alpaca"))
    assert alpaca.mean(axis=0) == pytest.approx((19.3, 58.45), rel=0.03)
    assert np.percentile(alpaca[:, 1], [50, 90, 99]) == pytest.approx((41, 121, 271), rel=0.06)
    sharegpt = np.array(paper_lengths("sharegpt"))
    assert sharegpt.mean(axis=0) == pytest.approx((161.3, 338.0), rel=0.1)  # long pairs are drawn again
    assert np.percentile(sharegpt[:, 0], [5, 25, 50, 75]) == pytest.approx((7, 15, 35, 133), rel=0.1)
    assert (sharegpt.sum(axis=1) < 2048).all()
    assert paper_lengths("alpaca", 5) == paper_lengths("alpaca", 5)
    with pytest.raises(InvalidArgument, match="'c4' is none of the paper's datasets: sharegpt, alpaca"):
        paper_lengths("c4")


def test_sustained_rate_finds_the_crossing() -> None:
    for guess in (0.1, 3.0, 40.0):
        assert sustained_rate(lambda rate: 0.05 * math.exp(rate - 2), guess) == pytest.approx(2 + math.log(4), rel=1e-3)
    assert sustained_rate(lambda rate: 1.0, 5.0) == 0.0
    assert sustained_rate(lambda rate: 0.01, 5.0) == math.inf


def test_command_line() -> None:
    command = [sys.executable, "-m", "pagedcore", "simulate", "--figure"]
    shown = subprocess.run([*command, "2", "--seconds", "200"], capture_output=True, text=True, check=True).stdout
    assert "Figure 2" in shown
    assert "costs in s: step 0.0085" in shown
    out = subprocess.run(
        [*command, "2", "--seconds", "200", "--json"], capture_output=True, text=True, check=True
    ).stdout
    assert {value["series"] for value in json.loads(out)["values"]} == {*ORCA, "vLLM"}
    refused = subprocess.run([*command, "21"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "figure '21' is not simulated; there are: 2, 12a" in refused.stderr
    with pytest.raises(InvalidArgument, match="'21' is not simulated"):
        reproduce("21")
    assert "2" in FIGURES
