"""The rows of `bitloom report sat` on the terminal and as a page with pictures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from hw.spec.program import write_atomically
from sw.flow.report_figures import BLUE, GREEN, GRID, ORANGE, as_svg, figure_of, plain
from sw.flow.report_html import html_table, page
from sw.flow.report_sat import ARCH, CLOCK_MHZ, MEMORY, RATIOS, Row

HEAD = (
    "network", "batch", "ratio", "cycles", "speedup", "MAC limit", "dense use", "ms", "array", "transfers", "vector", "element-wise MB"
)  # fmt: skip
SHORT = 7
"""Columns that a terminal shows."""

WORDS = (
    f"{ARCH.rows} x {ARCH.columns} processing elements at an assumed {CLOCK_MHZ} MHz, one memory port of 16 bytes a cycle that answers "
    f"after {MEMORY.read_latency} cycles. Cycles are those of the compiled programs by the timing model, which simulation equals "
    "instruction by instruction; nothing was measured on hardware. The host's loss gradient is not counted."
)  # fmt: skip


def _cells(row: Row) -> tuple[str, ...]:
    shares = (f"{part / row.cycles:.0%}" for part in (row.array_cycles, row.transfer_cycles, row.vector_cycles))
    return (
        row.network, f"{row.batch}", row.ratio, f"{row.cycles:,}", f"{row.speedup:.2f}", f"{row.mac_limit:.2f}",
        f"{row.dense_utilisation:.0%}", f"{row.milliseconds:,.0f}", *shares, f"{row.element_bytes / 1e6:,.0f}",
    )  # fmt: skip


def show_rows(console: Console, rows: Sequence[Row]) -> None:
    """A table; notes below."""
    table = Table(title="training steps, timing model", title_justify="left")
    for number, name in enumerate(HEAD[:SHORT]):
        table.add_column(name, justify="left" if number in (0, 2) else "right", overflow="fold", no_wrap=number > 0)
    for row in rows:
        table.add_row(*_cells(row)[:SHORT])
    console.print(table)
    for note in dict.fromkeys(f"{row.network}: {row.note}" for row in rows if row.note):
        console.print(note, highlight=False, soft_wrap=True)
    console.print(WORDS, highlight=False, soft_wrap=True)


def write_page(path: Path, rows: Sequence[Row]) -> None:
    """One HTML file with the table and the speedups as bars."""
    notes = dict.fromkeys(f"{row.network}: {row.note}" for row in rows if row.note)
    parts = [
        "<h1>Bitloom: training steps on the large training core</h1>",
        f"<p>{escape(WORDS)}</p>",
        speedup_figure(rows),
        cycles_figure(rows),
        html_table(HEAD, [tuple(map(escape, _cells(row))) for row in rows], numbers=(1, *range(3, len(HEAD)))),
        "".join(f"<p>{escape(note)}</p>" for note in notes),
    ]
    write_atomically(path, page("Bitloom: training steps", parts).encode())


def speedup_figure(rows: Sequence[Row]) -> str:
    """Speedup against dense per network and ratio; a mark where multiply-accumulates alone would be."""
    names = list(dict.fromkeys(row.network for row in rows))
    ratios = [ratio for ratio in RATIOS if ratio != "dense"]
    figure = figure_of(10.0, 0.8 + 0.55 * len(names))
    axes = figure.subplots()
    for place, (ratio, colour) in enumerate(zip(ratios, (BLUE, ORANGE, GREEN), strict=True)):
        at = np.arange(len(names)) + 0.27 * (place - 1)
        chosen = {row.network: row for row in rows if row.ratio == ratio}
        axes.barh(at, [chosen[name].speedup if name in chosen else 0 for name in names], height=0.24, color=colour, label=ratio)
        limits = [chosen[name].mac_limit if name in chosen else 0 for name in names]
        axes.plot(limits, at, "|", color="black", markersize=9, label="MAC limit" if place == 0 else None)
    axes.set_yticks(np.arange(len(names)), names, fontsize=8)
    axes.axvline(1, color=GRID)
    axes.set_xlabel("times faster than the same core, dense")
    axes.invert_yaxis()
    plain(axes)
    axes.legend(frameon=False, ncols=4, loc="upper center", bbox_to_anchor=(0.5, 1.14))
    return as_svg(figure, "speedup per network and ratio, and its limit")


def cycles_figure(rows: Sequence[Row]) -> str:
    """What a step's cycles are spent on."""
    figure = figure_of(10.0, 0.8 + 0.22 * len(rows))
    axes = figure.subplots()
    left = np.zeros(len(rows))
    parts = (("array_cycles", "array", ORANGE), ("transfer_cycles", "transfers", BLUE), ("vector_cycles", "vector", GREEN),
             ("other_cycles", "other", GRID))
    for name, label, colour in parts:
        values = np.array([getattr(row, name) / row.batch for row in rows])
        axes.barh(np.arange(len(rows)), values, left=left, color=colour, label=label, height=0.7)
        left += values
    axes.set_yticks(np.arange(len(rows)), [f"{row.network}, {row.ratio}" for row in rows], fontsize=7)
    axes.set_xlabel("cycles per image")
    axes.set_xscale("log") if max(left) > 100 * min(left) else None
    axes.invert_yaxis()
    plain(axes)
    axes.legend(frameon=False, loc="lower right")
    return as_svg(figure, "cycles per image by kind of work")
