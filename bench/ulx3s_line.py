"""Runs a network on the ULX3S's whole top in simulation, over its serial line, and compares every output code with the graph.

    bitloom demo digits --out build/digits
    python bench/ulx3s_line.py build/digits/digits.graph build/digits/inputs.npy --images 4
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from boards.board import load_board, load_board_arch
from boards.build import plan
from boards.simulation import SimulatedLine, build_line
from sw.compiler import compile_graph
from sw.flow.files import load_inputs, save_json
from sw.graph import IntegerGraph
from sw.runtime.driver import CoreDevice
from sw.runtime.uart import UartTransport

ROOT = Path(__file__).resolve().parents[1]


def run(graph_path: Path, inputs_path: Path, images: int, baud_error: float) -> dict[str, Any]:
    """Compile for the board's architecture, load over the line, run the images; counts, mismatches and times."""
    board, arch = load_board("ulx3s"), load_board_arch("ulx3s")
    graph = IntegerGraph.load(graph_path)
    codes = {name: array[:images] for name, array in load_inputs(inputs_path, graph.inputs).items()}
    planned = plan(board, arch, say=print)
    model = ROOT / "boards" / "ulx3s" / "pll_model.v"
    library = build_line(planned.sources | {model.name: model.read_text()}, board.top, progress=print)
    line, start = SimulatedLine(library, board, baud_error=baud_error), time.perf_counter()
    device = CoreDevice(UartTransport(line, timeout=0.1))
    outputs, counters = device.run(compile_graph(graph, arch), codes)
    seconds, wanted = time.perf_counter() - start, graph(codes)
    line_cycles, broken = line.cycle, line.broken
    line.close()
    return {
        "images": images,
        "compared": sum(array.size for array in wanted.values()),
        "mismatches": sum(int(np.count_nonzero(outputs[name] != array)) for name, array in wanted.items()),
        "core_cycles_per_image": counters["CYCLES"] / images,
        "board_seconds": line_cycles / board.clock_hz,
        "simulated_cycles": line_cycles,
        "wall_seconds": seconds,
        "broken_bytes": broken,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("graph", type=Path)
    parser.add_argument("inputs", type=Path)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--baud-error", type=float, default=0.01, help="how far the host's clock is off, as a fraction")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    result = run(arguments.graph, arguments.inputs, arguments.images, arguments.baud_error)
    for name, value in result.items():
        print(f"{name}: {value:,}" if isinstance(value, int) else f"{name}: {value:,.3f}")
    if arguments.json:
        save_json(arguments.json, result)


if __name__ == "__main__":
    main()
