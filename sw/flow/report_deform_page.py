"""The rows of `bitloom report deform` on the terminal and as a page with pictures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from hw.spec.program import write_atomically
from sw.flow.report_deform import BOARD, CLOCK_MHZ, MEMORY, VERILOG, Row
from sw.flow.report_figures import BLUE, GRID, ORANGE, as_svg, cycles_figure, figure_of, plain
from sw.flow.report_html import html_table, page
from sw.flow.resources import LEVELS_GUIDE

HEAD = ("config", "side", "cycles", "FPS", "published", "times", "array use", "loads", "array", "depthwise", "stores", "fetches")
SHORT = 7
"""Columns that a terminal shows."""

LAYER_HEAD = ("layer", "unit", "cycles", "waits for loads", "computes", "waits for stores", "multiply-accumulates", "array use")

WORDS = (
    f"The core of boards/{BOARD} at an assumed {CLOCK_MHZ} MHz, on a memory of 12.8 bytes a cycle that answers after "
    f"{MEMORY.read_latency} cycles; networks of random weights, first layer to heads, decoding left to the host. One instruction runs "
    "at a time, so cycles are the sum of loads, array, depthwise unit, stores and fetches of instructions. Published frames are "
    "CoDeNet's on an Ultra96 (FPGA'21), which ran first layer, shuffles and upsampling on the processor."
)  # fmt: skip


def _cells(row: Row) -> tuple[str, ...]:
    parts = (row.load, row.array, row.depthwise, row.store, row.fetch)
    return (
        row.name, f"{row.size}", f"{row.cycles:,}", f"{row.fps:.1f}", f"{row.published_fps:.1f}",
        f"{row.fps / row.published_fps:.2f}", f"{row.utilisation:.0%}", *(f"{part / row.cycles:.0%}" for part in parts),
    )  # fmt: skip


def _source(rows: Sequence[Row]) -> str:
    if all(row.source == VERILOG for row in rows):
        compared, mismatches = sum(row.compared for row in rows), sum(row.mismatches for row in rows)
        return f"Cycles are the Verilog's counters; of {compared:,} written bytes {mismatches:,} differ from the machine's."
    return "Cycles are those of the timing model, which simulation equals instruction by instruction; nothing was simulated here."


def _levels(rows: Sequence[Row]) -> str:
    levels = rows[0].logic_levels
    if levels is None:
        return "How deep the core's logic is, on which its clock depends, tells --levels, or bitloom resources."
    return f"The core's longest path has {levels:.1f} logic levels (modelled from its netlist): {LEVELS_GUIDE}."


def show_rows(console: Console, rows: Sequence[Row]) -> None:
    """A table, and below it what it stands on."""
    table = Table(title=f"CoDeNet, one image, {rows[0].source}", title_justify="left")
    for number, name in enumerate(HEAD[:SHORT]):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row)[:SHORT])
    console.print(table)
    for words in (_source(rows), _levels(rows), WORDS):
        console.print(words, highlight=False, soft_wrap=True)


def write_page(path: Path, rows: Sequence[Row]) -> None:
    """One HTML file: the table, frames as bars, and for each configuration where its layers' cycles go."""
    parts = [
        "<h1>Bitloom: CoDeNet on the inference core</h1>",
        f"<p>{escape(_source(rows))} {escape(_levels(rows))} {escape(WORDS)}</p>",
        frames_figure(rows),
        html_table(HEAD, [tuple(map(escape, _cells(row))) for row in rows], numbers=range(1, len(HEAD))),
    ]
    for row in rows:
        layers = [tuple(map(escape, _layer_cells(layer))) for layer in row.layers]
        parts += [f"<h2>Configuration {escape(row.name)}</h2>", cycles_figure(row.layers), html_table(LAYER_HEAD, layers, range(2, 8))]
    write_atomically(path, page("Bitloom: CoDeNet", parts).encode())


def _layer_cells(layer: Any) -> tuple[str, ...]:
    total = layer.load + layer.compute + layer.store
    use = "" if layer.utilisation is None else f"{layer.utilisation:.0%}"
    numbers = (total, layer.load, layer.compute, layer.store, layer.macs)
    return (layer.layer, layer.unit, *(f"{number:,}" for number in numbers), use)


def frames_figure(rows: Sequence[Row]) -> str:
    """Frames per second beside the published ones; a mark where the array alone, at its peak, would be."""
    figure = figure_of(10.0, 0.9 + 0.5 * len(rows))
    axes = figure.subplots()
    at = np.arange(len(rows))
    axes.barh(at - 0.2, [row.fps for row in rows], height=0.36, color=ORANGE, label="this core")
    axes.barh(at + 0.2, [row.published_fps for row in rows], height=0.36, color=BLUE, label="published")
    limits = [CLOCK_MHZ * 1e6 / row.array_limit for row in rows]
    axes.plot(limits, at - 0.2, "|", color="black", markersize=12, label="array alone, at its peak")
    axes.set_yticks(at, [row.name for row in rows])
    axes.set_xlabel("frames per second")
    axes.grid(axis="x", color=GRID)
    axes.set_axisbelow(True)
    axes.invert_yaxis()
    plain(axes)
    axes.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, 1.2))
    return as_svg(figure, "frames per second of each configuration")
