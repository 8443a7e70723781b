"""A figure as plain data: what a table, a plot or a JSON object is made from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

__all__ = ["Axes", "Figure", "Value"]


@dataclass(frozen=True)
class Value:
    """One number of a figure."""

    series: str
    at: str
    ours: float
    paper: float | None
    x: float | None = None
    """Where it lies on the x axis. None: a bar (of group `at`), or a number beside the curves, such as "sustained"."""
    panel: str = ""
    """Which of several plots beside each other; empty where there is one."""


@dataclass(frozen=True)
class Axes:
    """How the values are drawn, in every panel alike."""

    kind: Literal["curves", "bars", "stacked"]
    """curves: a line for each series. bars: a group for each `at`, in it a bar for each series. stacked: a bar for each
    series, made of its `at`."""
    x: str
    y: str
    x_scale: Literal["linear", "log2"] = "linear"
    y_scale: Literal["linear", "log"] = "linear"
    y_top: float | None = None
    """Where the paper's plot ends."""


@dataclass(frozen=True)
class Figure:
    """What came out, and what the paper has."""

    name: str
    title: str
    unit: str
    values: list[Value]
    axes: Axes
    constants: dict[str, Any] = field(default_factory=dict)
    """Constants of the cost model, in seconds."""
    notes: list[str] = field(default_factory=list)

    def of(self, series: str, at: str, panel: str = "") -> Value:
        """Raises KeyError for a value that it does not have."""
        for value in self.values:
            if (value.series, value.at, value.panel) == (series, at, panel):
                return value
        raise KeyError((series, at, panel))

    @property
    def panels(self) -> list[str]:
        """In order; [""] when there is one."""
        return list(dict.fromkeys(value.panel for value in self.values))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"Figure {self.name}: {self.title} ({self.unit})"]
        rows = [(v.series, v.at, _number(v.ours), _number(v.paper)) for v in self.values]
        head = ("", "at", "ours", "paper")
        widths = [max(len(row[column]) for row in (head, *rows)) for column in range(4)]
        for panel in self.panels:
            of_panel = [row for row, value in zip(rows, self.values, strict=True) if value.panel == panel]
            lines += [panel] if panel else []
            lines += [
                f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}  {d:>{widths[3]}}".rstrip()
                for a, b, c, d in (head, *of_panel)
            ]
        constants = ", ".join(f"{name} {value:.3g}" for name, value in self.constants.items() if value)
        lines += [f"costs in s: {constants}"] if constants else []
        return "\n".join([*lines, *self.notes])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
