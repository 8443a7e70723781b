"""Writes the numbers and plots of docs/evaluation.md, from the simulator and from this machine.

python bench/evaluation.py [--lengths CSV] [--seconds S] [FIGURE ...]

Without names all figures are made. `--lengths` is a list of real ShareGPT lengths; without one they are drawn from the
paper's histograms, and the page says so. `--seconds` shortens the traces, for a quick look. The page's own text stays:
what is written lies between the marks <!-- figure NAME --> and <!-- end -->.
"""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path

from pagedcore.lab import FIGURES, Figure, draw, read_lengths, reproduce
from pagedcore.lab.figures import Value
from pagedcore.progress import Progress

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "evaluation.md"
PAGED = "vLLM"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", default=list(FIGURES))
    parser.add_argument("--lengths", metavar="CSV")
    parser.add_argument("--seconds", type=float)
    options = parser.parse_args()
    lengths = read_lengths(options.lengths) if options.lengths else None
    plots = DOCS / "evaluation"
    plots.mkdir(exist_ok=True)
    absent = [name for name in options.figures if not block_of(name).search(PAGE.read_text(encoding="utf-8"))]
    if absent:
        raise SystemExit(f"{PAGE} has no <!-- figure {absent[0]} --> ... <!-- end -->: add a section for the figure")
    for name in options.figures:
        start = time.monotonic()
        with Progress(1, "runs", title=f"figure {name}") as bar:
            figure = reproduce(name, lengths, seconds=options.seconds, progress=bar.reach)
        draw(figure, plots / f"figure_{name}.svg")
        text = "\n".join(block(figure))
        PAGE.write_text(
            block_of(name).sub(lambda _, text=text: text, PAGE.read_text(encoding="utf-8")), encoding="utf-8"
        )
        print(f"figure {name}: {time.monotonic() - start:.0f} s")
    print(f"{time.process_time() / 60:.1f} minutes of CPU time")


def block_of(name: str) -> re.Pattern[str]:
    return re.compile(rf"<!-- figure {name} -->\n.*?<!-- end -->", re.DOTALL)


def block(figure: Figure) -> list[str]:
    picture = f"![Figure {figure.name}: {figure.title}](evaluation/figure_{figure.name}.svg)"
    notes = [f"- {note}" for note in figure.notes]
    if figure.constants:
        notes.append(f"- costs in seconds: {', '.join(f'{n} {v:.3g}' for n, v in figure.constants.items() if v)}")
    return [f"<!-- figure {figure.name} -->", picture, "", *tables(figure), "", *notes, "<!-- end -->"]


def tables(figure: Figure) -> list[str]:
    lines: list[str] = []
    for panel in figure.panels:
        values = [value for value in figure.values if value.panel == panel]
        rates = [value for value in values if value.at == "sustained"]
        lines += ["", f"{panel}:", ""] if panel else []
        lines += sustained(rates) if rates else everything(values)
    return lines


def sustained(rates: list[Value]) -> list[str]:
    """Of a figure of latencies: the curves are in the plot."""
    paged = next(value for value in rates if value.series == PAGED)
    lines = row("sustained, requests/s", "ours", "paper", "ours / paper", "vLLM by this: ours", "paper")
    lines += ["|---|---:|---:|---:|---:|---:|"]
    for value in rates:
        by = ("", "") if value is paged else (ratio(paged.ours, value.ours), ratio(paged.paper, value.paper))
        lines += row(value.series, number(value.ours), number(value.paper), ratio(value.ours, value.paper), *by)
    return lines


def everything(values: list[Value]) -> list[str]:
    """A line for each series, ours / the paper's."""
    columns = list(dict.fromkeys(value.at for value in values))
    lines = [*row("ours / paper", *columns), "|---" + "|---:" * len(columns) + "|"]
    for series in dict.fromkeys(value.series for value in values):
        found = {value.at: value for value in values if value.series == series}
        lines += row(series, *(pair(found.get(column)) for column in columns))
    return lines


def pair(value: Value | None) -> str:
    return "" if value is None else f"{number(value.ours)} / {number(value.paper)}"


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def ratio(above: float, below: float | None) -> str:
    return f"{above / below:.2f}" if below else "-"


def row(*cells: str) -> list[str]:
    return [f"| {' | '.join(cell.replace('_', ' ') for cell in cells)} |"]


if __name__ == "__main__":
    main()
