"""Whether the host's transfers hide behind the computation: images through a simulated core, one at a time and double-buffered.

    python bench/host_throughput.py [--images 8] [--json FILE]

The network is the tiny one of the tests on their core; the host moves few bytes a cycle, so that there is something to hide. Cycles are
of the simulated clock, per image, from the first byte of the first image to the last of the last, register accesses included; "core"
counts those in which a program ran. The host's transfers do not slow the core's own here, as they would on one memory.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from hw.sim.build import SimulationBuild
from hw.sim.core import build_core
from hw.spec.program import Program
from sw.compiler import compile_graph
from sw.flow.files import save_json
from sw.flow.terminal import console
from sw.graph import IntegerGraph
from sw.runtime.pipeline import Pipeline
from sw.runtime.sim import SimDevice

RATES = (0.05, 0.1, 0.25, 1.0, 4.0)


@dataclass(frozen=True, kw_only=True)
class Passage:
    """Some images through a pipeline: cycles in all, cycles in which a program ran, and codes compared with the graph's."""

    cycles: int
    core: int
    compared: int
    mismatches: int


def passage(
    build: SimulationBuild, graph: IntegerGraph, program: Program, codes: dict[str, np.ndarray], depth: int, rate: float
) -> Passage:
    """All images with ``depth`` in flight at ``rate`` bytes a cycle."""
    count = len(next(iter(codes.values())))
    wanted = graph(codes)
    with SimDevice(program.arch, build=build, host_bytes=rate) as device, Pipeline(device, program, depth=depth) as pipeline:
        begin = device.loop.cycle
        runs = list(pipeline.map({name: array[i] for name, array in codes.items()} for i in range(count)))
        cycles = device.loop.cycle - begin
    wrong = sum(int(np.count_nonzero(run.outputs[name] != array[i])) for name, array in wanted.items() for i, run in enumerate(runs))
    return Passage(cycles=cycles, core=sum(run.launch.counters["CYCLES"] for run in runs),
                   compared=sum(array.size for array in wanted.values()), mismatches=wrong)


def row(build: SimulationBuild, graph: IntegerGraph, program: Program, codes: dict[str, np.ndarray], rate: float) -> dict[str, Any]:
    """Both ways at one rate, per image."""
    count = len(next(iter(codes.values())))
    one, two = (passage(build, graph, program, codes, depth, rate) for depth in (1, 2))
    moved = sum(layout.size for layout in (*program.inputs, *program.outputs)) / rate
    return {
        "bytes_per_cycle": rate, "core": one.core / count, "transfers": moved, "one_at_a_time": one.cycles / count,
        "double_buffered": two.cycles / count, "times": one.cycles / two.cycles, "compared": one.compared + two.compared,
        "mismatches": one.mismatches + two.mismatches,
    }  # fmt: skip


def main() -> None:
    from tests.e2e.tiny import make_tiny

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    tiny = make_tiny()
    program, build = compile_graph(tiny.graph, tiny.program.arch), build_core(tiny.program.arch, progress=console.print)
    random = np.random.default_rng(1)
    codes = {
        name: random.integers(spec.fmt.min_code, spec.fmt.max_code + 1, (options.images, *spec.shape))
        for name, spec in ((name, tiny.graph.tensors[name]) for name in tiny.graph.inputs)
    }
    rows = [row(build, tiny.graph, program, codes, rate) for rate in RATES]
    table = Table(*rows[0])
    for found in rows:
        table.add_row(*(f"{value:,.2f}" if name in ("bytes_per_cycle", "times") else f"{value:,.0f}" for name, value in found.items()))
    console.print(table)
    if options.json:
        save_json(options.json, {"rows": rows})


if __name__ == "__main__":
    main()
