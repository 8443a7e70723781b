"""Figures as pictures: ours as lines or filled bars, the paper's points as hollow marks."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InvalidArgument
from ..sustained import LATENCY_GOAL
from .figure import Figure, Value

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Plot

__all__ = ["check_plot", "draw"]

_FORMATS: dict[str, dict[str, None]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}
"""By suffix: what would make two files of the same figure differ."""

# The palette of Okabe and Ito, which people of every colour vision can tell apart; marks differ as well.
_STYLES = {
    "vLLM": ("#0072B2", "o"),
    "Orca (Oracle)": ("#009E73", "D"),
    "Orca (Pow2)": ("#E69F00", "^"),
    "Orca (Max)": ("#D55E00", "s"),
    "FasterTransformer": ("#CC79A7", "v"),
}
_OTHERS = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "D"), ("#E69F00", "^"), ("#CC79A7", "v"), ("#000000", "X"))
_PARTS = ("#0072B2", "#56B4E9", "#F0E442", "#BBBBBB")  # of a stacked bar, from what is of use to what is not
_SUSTAINED = "sustained"  # the value beside a curve that says where it meets the goal
_SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "pagedcore",
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "path.simplify": True,
}


def check_plot(path: str | os.PathLike[str]) -> None:
    """Raises before a long run what :func:`draw` would raise after it: InvalidArgument for a file that is neither .svg,
    .png nor .pdf, ImportError without matplotlib."""
    if Path(path).suffix not in _FORMATS:
        raise InvalidArgument(f"{os.fspath(path)}: a plot is a file that ends in {', '.join(_FORMATS)}")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ImportError("a plot needs matplotlib: pip install 'pagedcore[plot]'") from None


def draw(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a picture, in the format that the path's suffix says; the same figure gives the same bytes.

    Raises what :func:`check_plot` raises, and OSError for a file that cannot be written.
    """
    check_plot(path)
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    panels = figure.panels
    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever the user's own settings are
        matplotlib.rcParams.update(_SETTINGS)
        canvas = Canvas(figsize=(max(4.8, 3.1 * columns), 0.8 + 2.5 * rows), layout="constrained")
        plots = canvas.subplots(rows, columns, squeeze=False)
        for number, plot in enumerate(plots.flat):
            if number >= len(panels):
                plot.remove()
                continue
            values = [value for value in figure.values if value.panel == panels[number]]
            _KINDS[figure.axes.kind](plot, figure, values)
            plot.set_title(panels[number])
            plot.set_ylabel(figure.axes.y if number % columns == 0 else "")
            plot.set_xlabel(figure.axes.x)
        title = textwrap.fill(f"Figure {figure.name}: {figure.title}", int(13 * canvas.get_figwidth()))
        canvas.suptitle(title, fontsize=10)
        legend = dict(zip(*reversed(plots.flat[0].get_legend_handles_labels()), strict=True))
        if "the paper" in legend:
            legend["the paper"] = legend.pop("the paper")  # behind ours
        canvas.legend(legend.values(), legend.keys(), loc="outside lower center", ncols=min(3, len(legend)))
        canvas.savefig(path, dpi=150, metadata=_FORMATS[Path(path).suffix])


def _curves(plot: Plot, figure: Figure, values: list[Value]) -> None:
    axes = figure.axes
    for series, (colour, mark) in _styles(values).items():
        mine = [value for value in values if value.series == series]
        ours = [(value.x, value.ours) for value in mine if value.x is not None]
        ours += [(v.ours, LATENCY_GOAL) for v in mine if v.at == _SUSTAINED and v.ours < math.inf]
        ours.sort()
        plot.plot(*_columns(ours), color=colour, label=series)
        paper = [(v.x, v.paper) for v in mine if v.x is not None and v.paper is not None]
        plot.plot(*_columns(paper), mark, color=colour, markerfacecolor="none")
    if any(value.at == _SUSTAINED for value in values):
        plot.axhline(LATENCY_GOAL, color="black", linewidth=0.8, linestyle=":")
    if any(value.paper is not None for value in values):
        plot.plot([], [], "o", color="black", markerfacecolor="none", label="the paper")
    if axes.x_scale == "log2":
        ticks = sorted({value.x for value in values if value.x is not None})
        plot.set_xscale("log", base=2)
        plot.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    else:
        plot.set_xlim(left=0)
    if axes.y_scale == "log":
        plot.set_yscale("log")
    else:
        plot.set_ylim(0, axes.y_top)
    _grid(plot)


def _bars(plot: Plot, figure: Figure, values: list[Value]) -> None:
    groups = list(dict.fromkeys(value.at for value in values))
    styles = _styles(values)
    width = 0.8 / len(styles)
    for number, (series, (colour, mark)) in enumerate(styles.items()):
        bars = {value.at: value for value in values if value.series == series}
        places = [group - 0.4 + (number + 0.5) * width for group, at in enumerate(groups) if at in bars]
        plot.bar(places, [value.ours for value in bars.values()], 0.9 * width, color=colour, label=series)
        paper = [(x, v.paper) for x, v in zip(places, bars.values(), strict=True) if v.paper is not None]
        plot.plot(*_columns(paper), mark, color="black", markerfacecolor="white", markersize=5)
    if any(value.paper is not None for value in values):
        plot.plot([], [], "o", color="black", markerfacecolor="white", label="the paper")
    plot.set_xticks(range(len(groups)), groups)
    _grid(plot)


def _stacked(plot: Plot, figure: Figure, values: list[Value]) -> None:
    systems = list(dict.fromkeys(value.series for value in values))
    parts = list(dict.fromkeys(value.at for value in values))
    bottoms = {"ours": [0.0] * len(systems), "paper": [0.0] * len(systems)}
    for part, colour in zip(parts, _PARTS, strict=False):
        found = [figure.of(system, part, values[0].panel) for system in systems]
        for who, heights, shift, style in (
            ("ours", [v.ours for v in found], -0.2, {"color": colour, "edgecolor": "black", "linewidth": 0.6}),
            ("paper", [v.paper or 0.0 for v in found], 0.2, {"color": "none", "edgecolor": colour, "hatch": "////"}),
        ):
            label = part.replace("_", " ") if who == "ours" else None
            places = [place + shift for place in range(len(systems))]
            plot.bar(places, heights, 0.36, bottoms[who], label=label, **style)
            bottoms[who] = [bottom + height for bottom, height in zip(bottoms[who], heights, strict=True)]
    plot.bar([0], [0], color="none", edgecolor="black", hatch="////", linewidth=0, label="the paper")
    plot.set_xticks(range(len(systems)), systems)
    _grid(plot)


_KINDS: dict[str, Callable[[Plot, Figure, list[Value]], None]] = {
    "curves": _curves,
    "bars": _bars,
    "stacked": _stacked,
}


def _styles(values: list[Value]) -> dict[str, tuple[str, str]]:
    """Colour and mark of each series: a system's are the same in all figures."""
    series = list(dict.fromkeys(value.series for value in values))
    return {name: _STYLES.get(name, _OTHERS[number % len(_OTHERS)]) for number, name in enumerate(series)}


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _grid(plot: Plot) -> None:
    plot.grid(axis="y", color="#DDDDDD", linewidth=0.6)
    plot.set_axisbelow(True)
