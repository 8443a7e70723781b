"""Plots of figures: what is drawn, in which colours, and that the same figure gives the same file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from pagedcore import InvalidArgument
from pagedcore.cli import main
from pagedcore.lab import Figure, draw
from pagedcore.lab.figures import Axes, Value

BLUE, GREEN = "#0072b2", "#009e73"  # of vLLM and of Orca (Oracle), in every figure
CURVES = Figure(
    "12z",
    "a model",
    "s/token",
    [
        *(
            Value("vLLM", f"{x:g}/s", ours, paper, x)
            for x, ours, paper in ((1, 0.03, 0.04), (2, 0.1, 0.2), (3, 9, None))
        ),
        Value("vLLM", "sustained", 2.2, 2.0),
        *(Value("Orca (Oracle)", f"{x:g}/s", 0.05 * x, 0.04 * x, x) for x in (0.5, 1.0)),
        Value("Orca (Oracle)", "sustained", 1.5, 1.4),
    ],
    Axes("curves", "request rate (req/s)", "normalized latency (s/token)", y_top=1.0),
)


def shapes(path: Path, colour: str) -> dict[str, list[Any]]:
    """Lines, bars and hollow marks of this colour in an SVG file, less those of the legend."""
    found: dict[str, list[Any]] = {"lines": [], "bars": [], "marks": []}
    tree = ElementTree.parse(path)
    for axes in tree.iter("{http://www.w3.org/2000/svg}g"):
        if not axes.get("id", "").startswith("axes_"):
            continue
        for element in axes.iter():
            style = element.get("style", "").replace(" ", "")
            if element.tag.endswith("path") and f"fill:none;stroke:{colour}" in style and element.get("clip-path"):
                found["lines"].append(element.get("d", "").split())
            elif element.tag.endswith("path") and f"fill:{colour}" in style and element.get("clip-path"):
                found["bars"].append(element)
            elif element.tag.endswith("use") and f"stroke:{colour}" in style and "fill-opacity:0" in style:
                found["marks"].append((float(element.get("x", "nan")), float(element.get("y", "nan"))))
    return found


def texts(path: Path) -> list[str]:
    return ["".join(element.itertext()) for element in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]


def test_curves_are_ours_and_hollow_marks_the_papers(tmp_path: Path) -> None:
    draw(CURVES, path := tmp_path / "figure.svg")
    paged = shapes(path, BLUE)
    assert len(paged["lines"]) == 1
    assert len(paged["marks"]) == 2  # the third point is not in the paper
    assert paged["marks"][0][0] < paged["marks"][1][0]
    assert paged["marks"][0][1] > paged["marks"][1][1]  # in SVG, y grows downwards
    oracle = shapes(path, GREEN)
    assert len(oracle["marks"]) == 2
    # Two points, and the one where ours meets the goal, as the paper's rates end below it.
    assert [word for line in oracle["lines"] for word in line if word in "ML"] == ["M", "L", "L"]
    words = texts(path)
    for text in ("vLLM", "Orca (Oracle)", "the paper", "request rate (req/s)", "Figure 12z: a model"):
        assert text in words


def test_bars_and_stacks(tmp_path: Path) -> None:
    bars = Figure(
        "13",
        "batches",
        "requests",
        [Value(system, at, 7.0, 6.0) for system in ("Orca (Oracle)", "vLLM") for at in ("sharegpt", "alpaca")],
        Axes("bars", "workload", "batched requests"),
    )
    draw(bars, path := tmp_path / "bars.svg")
    assert len(shapes(path, BLUE)["bars"]) == len(shapes(path, GREEN)["bars"]) == 2
    assert {"sharegpt", "alpaca", "vLLM"} <= set(texts(path))
    stacked = Figure(
        "2",
        "memory",
        "%",
        [Value(system, part, 50.0, 50.0) for system in ("vLLM", "Orca (Max)") for part in ("token_states", "other")],
        Axes("stacked", "system", "%"),
    )
    draw(stacked, path := tmp_path / "stacked.svg")
    assert len(shapes(path, BLUE)["bars"]) == 2  # ours, of both systems; the paper's are hatched
    assert {"token states", "other", "the paper", "Orca (Max)"} <= set(texts(path))


def test_panels_and_scales(tmp_path: Path) -> None:
    figure = Figure(
        "18b",
        "block sizes",
        "s/token",
        [
            Value(series, f"{size}", 0.1 * size, 0.2 * size, float(size), panel)
            for panel in ("ShareGPT", "Alpaca")
            for series in ("recompute", "swap")
            for size in (1, 2, 4, 8)
        ],
        Axes("curves", "block size", "s/token", x_scale="log2", y_scale="log"),
    )
    draw(figure, path := tmp_path / "figure.svg")
    words = texts(path)
    assert {"ShareGPT", "Alpaca", "recompute", "swap"} <= set(words)
    assert words.count("8") == 2  # a tick for each size, in both panels
    assert len(shapes(path, BLUE)["marks"]) == 8


def test_files(tmp_path: Path) -> None:
    for suffix, start in ((".svg", b"<?xml"), (".png", b"\x89PNG"), (".pdf", b"%PDF")):
        one, two = tmp_path / f"one{suffix}", tmp_path / f"two{suffix}"
        draw(CURVES, one)
        draw(CURVES, two)
        assert one.read_bytes().startswith(start)
        assert one.read_bytes() == two.read_bytes()
    assert (tmp_path / "one.svg").stat().st_size < 100_000


def test_what_cannot_be_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InvalidArgument, match=r"plot\.bmp: a plot is a file that ends in \.svg, \.pdf, \.png"):
        draw(CURVES, tmp_path / "plot.bmp")
    with pytest.raises(OSError, match="No such file"):
        draw(CURVES, tmp_path / "nowhere" / "plot.svg")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'pagedcore\[plot\]'"):
        draw(CURVES, tmp_path / "plot.svg")
    # The command line says so before it simulates.
    assert main(["simulate", "--figure", "12a", "--plot", str(tmp_path / "plot.svg")]) == 1
    assert "pagedcore: a plot needs matplotlib" in capsys.readouterr().err


def test_the_command_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "figure2.svg"
    assert main(["simulate", "--figure", "2", "--seconds", "100", "--plot", str(path)]) == 0
    assert "Figure 2" in capsys.readouterr().out
    assert {"Orca (Pow2)", "token states"} <= set(texts(path))
