"""Drawing a server's snapshot with characters, and a terminal to draw it on."""

from __future__ import annotations

import base64
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

__all__ = ["Picture", "Terminal"]

_CELLS = "·c~"  # free, cached, in flight; then how many share a block
_BARS = "▁▂▃▄▅▆▇█"
_MAP_ROWS = 12
_NO_BLOCK = 0xFFFFFFFF
_COLOURS = {"·": "2", "c": "33", "~": "2"}  # dim, yellow; used blocks are blue, shared ones magenta


class Picture:
    """A snapshot as lines of text."""

    def __init__(self, now: dict[str, Any], before: dict[str, Any] | None, name: str, trouble: str = "") -> None:
        """``before``: an earlier one, for rates; None: there are none. ``trouble``: why this is not the latest."""
        self._now, self._before, self._name, self._trouble = now, before, name, trouble

    def lines(self, columns: int, rows: int | None, *, colours: bool = False) -> list[str]:
        """At most so many; None: all. No line is wider than ``columns``, colours not counted."""
        lines = [*self._head(), "", *self._memory(columns, colours), "", *self._steps(columns), ""]
        lines += self._requests(None if rows is None else rows - len(lines))
        return [line if "\x1b" in line else line[:columns] for line in lines][:rows]

    def _rate(self, name: str) -> float:
        before = self._before
        if before is None or before["time"] >= self._now["time"]:
            return 0.0
        return float(max(self._now["stats"][name] - before["stats"][name], 0) / (self._now["time"] - before["time"]))

    def _head(self) -> Iterator[str]:
        now, stats = self._now, self._now["stats"]
        state = self._trouble or ("ready" if now["ready"] else "ends")
        yield f"pagedcore {now['version']}  {now['model']}  {self._name}  up {_seconds(now['uptime'])}  {state}"
        yield (
            f"output {self._rate('tokens_sampled'):.1f} tokens/s   "
            f"computed {self._rate('tokens_computed'):.1f} tokens/s   "
            f"running {stats['requests_running']:.0f}   waiting {stats['requests_waiting']:.0f}   "
            f"swapped {stats['requests_swapped']:.0f}   calls {now['calls']}"
        )
        kinds = (
            ("first token", "time_to_first_token"),
            ("between tokens", "inter_token_latency"),
            ("in the queue", "request_queue_time"),
        )
        parts = []
        for title, name in kinds:
            found = now["latency"][f"{name}_seconds"]
            low, high = _percentile(found, 0.5), _percentile(found, 0.95)
            parts.append(f"{title} {low} / {high}")
        yield "p50 / p95 at most: " + "   ".join(parts)

    def _memory(self, columns: int, colours: bool) -> Iterator[str]:
        stats, kv = self._now["stats"], self._now["kv"]
        used = 100 * stats["blocks_used"] / max(kv["blocks"], 1)
        swap = f", {stats['blocks_swapped']:.0f} of {kv['swap_slots']} swapped" if kv["swap_slots"] else ""
        yield (
            f"KV memory: {kv['blocks']} blocks of {kv['block_size']} tokens: "
            f"{stats['blocks_used']:.0f} used ({used:.0f} %), {stats['blocks_shared']:.0f} shared, "
            f"{stats['blocks_cached']:.0f} cached, {stats['blocks_free']:.0f} free{swap}"
        )
        cells = base64.b64decode(kv["cells"])
        per = -(-len(cells) // (columns * _MAP_ROWS)) if cells else 1
        marks = "".join(_mark(max(cells[at : at + per])) for at in range(0, len(cells), per))
        for at in range(0, len(marks), columns):
            row = marks[at : at + columns]
            yield _coloured(row) if colours else row
        blocks = per * kv["blocks_per_cell"]
        each = "a block" if blocks == 1 else f"the fullest of {blocks} blocks"
        yield f"a mark is {each}: · free, c cached, ~ in flight, 1 used, 2 to 9 and + shared by so many"

    def _steps(self, columns: int) -> Iterator[str]:
        steps = self._now["steps"][-columns:]
        if not steps:
            yield "Steps: none has run"
            return
        longest = max(step["seconds"] for step in steps)
        last = steps[-1]
        tokens = last["prefill_tokens"] + last["decode_tokens"]
        yield (
            f"Steps: the longest of {len(steps)} took {_seconds(longest)}; the last one {_seconds(last['seconds'])} "
            f"for {tokens} tokens of {last['sequences']} sequences"
        )
        heights = (step["seconds"] / (longest or 1.0) for step in steps)
        yield "".join(_BARS[min(int(height * len(_BARS)), len(_BARS) - 1)] for height in heights)

    def _requests(self, rows: int | None) -> Iterator[str]:
        now = self._now
        held: dict[int, set[int]] = {}
        entries = memoryview(base64.b64decode(now["entries"])).cast("I")
        for table in now["tables"]:
            first = table["first_entry"]
            blocks = set(entries[first : first + table["num_entries"]]) - {_NO_BLOCK}
            held.setdefault(table["request"], set()).update(blocks)
        heads = " ".join(f"{name:>8}" for name in ("PROMPT", "CACHED", "OUTPUT", "OF", "SAMPLES", "BLOCKS", "AGE"))
        yield f"{'REQUEST':>10} {'STATE':8} {heads}"
        found = now["requests"]
        shown = found if rows is None else found[: max(rows - 2, 0)]
        for each in shown:
            numbers = (each[name] for name in ("prompt_tokens", "cached_tokens", "output_tokens", "max_tokens"))
            row = " ".join(f"{number:>8}" for number in (*numbers, each["num_samples"], len(held.get(each["id"], ()))))
            yield f"{each['id']:>10} {each['place']:8} {row} {_seconds(now['time'] - each['arrival']):>8}"
        left = len(found) - len(shown) + now["requests_left_out"]
        if left:
            yield f"{'':10} and {left} more"
        elif not found:
            yield f"{'':10} no requests"


def _mark(cell: int) -> str:
    if cell < len(_CELLS):
        return _CELLS[cell]
    tables = cell - len(_CELLS) + 1
    return str(tables) if tables < 10 else "+"


def _coloured(row: str) -> str:
    parts, last = [], ""
    for mark in row:
        colour = _COLOURS.get(mark, "34" if mark == "1" else "35;1")
        parts.append((f"\x1b[0;{colour}m" if colour != last else "") + mark)
        last = colour
    return "".join(parts) + "\x1b[0m"


def _seconds(value: float) -> str:
    if value < 1:
        return f"{value * 1000:.1f}ms"
    if value < 120:
        return f"{value:.1f}s"
    return f"{value / 60:.0f}m" if value < 7200 else f"{value / 3600:.0f}h"


def _percentile(histogram: dict[str, Any], share: float) -> str:
    """The bound below which so many values lie, of all that came."""
    counts, below = histogram["counts"], 0
    for bound, count in zip(histogram["bounds"], counts, strict=False):
        below += count
        if below >= share * sum(counts) > 0:
            return _seconds(bound)
    return f"> {histogram['bounds'][-1]}s" if sum(counts) else "-"


class Terminal:
    """The whole screen, until the ``with`` block ends, whatever ends it."""

    def __enter__(self) -> Terminal:
        self._resized = False
        self._keys = sys.stdin.isatty()
        if self._keys:
            import termios
            import tty

            self._before = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)
        self._handler = signal.signal(signal.SIGWINCH, self._resize)
        self._write("\x1b[?1049h\x1b[?25l")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGWINCH, self._handler)
        if self._keys:
            import termios

            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)
        self._write("\x1b[?25h\x1b[?1049l")

    def _resize(self, number: int, frame: FrameType | None) -> None:
        self._resized = True

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    def show(self, picture: Picture) -> None:
        columns, rows = shutil.get_terminal_size()
        plain = "NO_COLOR" in os.environ
        lines = picture.lines(columns, rows, colours=not plain)
        self._write("\x1b[H" + "\x1b[K\n".join(lines) + "\x1b[K\x1b[J")

    def ended_within(self, seconds: float, picture: Picture) -> bool:
        """Whether q was pressed before so many have passed. Draws again where the terminal has got another size."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._resized:
                self._resized = False
                self.show(picture)
            ready = select.select([sys.stdin] if self._keys else [], [], [], min(left, 0.1))[0]
            if ready and os.read(sys.stdin.fileno(), 1) in (b"q", b"Q", b""):
                return True
        return False
