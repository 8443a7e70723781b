"""The paper's figures, from the shipped scheduler: ours beside theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...errors import InvalidArgument
from ..conversations import Conversation
from .block_size import figure_18b, figure_19b
from .figure import Axes, Figure, Value
from .measured import measure_figure_18a, measure_figure_19a
from .memory import figure_2, figure_13, figure_15
from .plots import check_plot, draw
from .rates import FIGURE_12, figure_12, figure_14, figure_16, figure_17
from .systems import Inputs, Lengths

__all__ = [
    "FIGURES",
    "MEASURED",
    "OF_SHAREGPT",
    "Axes",
    "Figure",
    "Inputs",
    "Value",
    "check_plot",
    "draw",
    "measure_figure_18a",
    "measure_figure_19a",
    "reproduce",
]

FIGURES: dict[str, Callable[[str, Inputs], Figure]] = {
    "2": figure_2,
    **dict.fromkeys(FIGURE_12, figure_12),
    "13": figure_13,
    "14": figure_14,
    "15": figure_15,
    "16": figure_16,
    "17": figure_17,
    "18a": lambda name, inputs: measure_figure_18a(progress=inputs.progress),
    "18b": figure_18b,
    "19a": lambda name, inputs: measure_figure_19a(progress=inputs.progress),
    "19b": figure_19b,
}
"""By the paper's numbers. 18a and 19a are measured on this machine, with the default model."""

MEASURED = ("18a", "19a")
OF_SHAREGPT = ("2", "12a", "12b", "12c", "13", "15", "17", "18b", "19b")
"""Those that are about ShareGPT's lengths, the real ones where they are given."""


def reproduce(
    name: str,
    lengths: Lengths | None = None,
    *,
    conversations: Sequence[Conversation] | None = None,
    seconds: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Figure:
    """One of FIGURES. `lengths`: real ShareGPT lengths, where the figure is about those; None: the paper's histograms.
    `conversations`: real ones for the chat of figure 17, as read_conversations() gives them; None: made of lengths.
    `seconds`: shorter traces than the paper's. `progress` is called with the number of runs that have ended, and of
    all. Raises InvalidArgument for an unknown figure."""
    if name not in FIGURES:
        raise InvalidArgument(f"figure {name!r} is not simulated; there are: {', '.join(FIGURES)}")
    return FIGURES[name](name, Inputs(lengths, conversations, seconds, progress or (lambda done, total: None)))
