"""Simulation speed: the C++ loop beside cocotb driving the very same core, program and data.

    python bench/simulation_speed.py [--images 20] [--repeats 3] [--json FILE]

All simulate one Verilog text with Verilator; all must give the integer graph's output. Three speeds, medians of the same run:

- the C++ loop, which serves the buses and checks their rules in every cycle;
- cocotb doing the same: cocotbext-axi serves the buses, and VALID and payload hold are checked in every cycle;
- cocotb without the checks: Python then sleeps through cycles in which no bus moves.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np

from hw.sim.cocotb_runner import run_bench
from hw.sim.core import build_core, emit_core
from hw.spec.deform import DeformArch
from hw.spec.fixed import FixedFormat, Rounding
from hw.spec.ops import Conv2d, DepthwiseConv2d, Requant
from hw.spec.program import Program
from sw.compiler import compile_graph
from sw.graph import IntegerGraph, Node, TensorSpec
from sw.runtime.placement import contents, place
from sw.runtime.sim import SimDevice

MEMORY_BYTES = 1 << 20
FORMAT = FixedFormat(8, 0)


def network(seed: int = 1) -> IntegerGraph:
    """A standard, a depthwise and a pointwise convolution on 16 x 16 pixels, random weights."""
    rng = np.random.default_rng(seed)

    def requant(channels: int, shift: int) -> Requant:
        ones = np.ones(channels, np.int64)
        return Requant(bias=ones * 0, multiplier=ones, shift=ones * shift, rounding=Rounding.RND, lo=-128, hi=127)

    operations = [
        Conv2d(weight=rng.integers(-7, 8, (32, 16, 3, 3)), requant=requant(32, 6), padding=1),
        DepthwiseConv2d(weight=rng.integers(-7, 8, (32, 3, 3)), requant=requant(32, 4)),
        Conv2d(weight=rng.integers(-7, 8, (64, 32, 1, 1)), requant=requant(64, 5)),
    ]
    names = ["x", "a", "b", "y"]
    nodes = [Node(name=names[i + 1], operation=op, inputs=(names[i],), output=names[i + 1]) for i, op in enumerate(operations)]
    shapes = zip(names, (16, 32, 32, 64), strict=True)
    tensors = {name: TensorSpec(shape=(channels, 16, 16), fmt=FORMAT) for name, channels in shapes}
    return IntegerGraph(tensors=tensors, inputs=("x",), outputs=("y",), nodes=tuple(nodes))


def loop_speed(program: Program, codes: np.ndarray, expected: np.ndarray) -> float:
    """Cycles per second of the C++ loop over all images."""
    with SimDevice(program.arch, build=build_core(program.arch)) as device:
        outputs, _ = device.run(program, {"x": codes})
        assert np.array_equal(outputs["y"], expected)
        return device.simulation.cycles / device.simulation.seconds


def cocotb_speed(program: Program, codes: np.ndarray, expected: np.ndarray, *, checked: bool) -> float:
    """Cycles per second of cocotb with cocotbext-axi for one image (C, H, W)."""
    where, memory = place(program, base=0, size=MEMORY_BYTES), bytearray(MEMORY_BYTES)
    for address, data in (*contents(program, where), (where.tensor_address(program.inputs[0]), program.inputs[0].pack(codes))):
        memory[address : address + len(data)] = data
    output = program.outputs[0]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "memory.bin").write_bytes(memory)
        parameters = {
            "memory": str(Path(folder) / "memory.bin"),
            "memory_bytes": MEMORY_BYTES,
            "checked": checked,
            "program": where.program_address,
            "program_length": where.program_length,
            "regions": [(region.base, region.size) for region in where.regions],
            "output": where.tensor_address(output),
            "output_bytes": output.size,
        }
        report = run_bench(emit_core(program.arch), "bench.cocotb_core", Path(folder), parameters)
    assert report["error"] == 0 and not report["problems"], report["problems"]
    assert np.array_equal(output.unpack(bytes.fromhex(str(report["output"]))), expected)
    return float(report["cycles"]) / float(report["seconds"])


def measure(images: int, repeats: int) -> dict[str, float]:
    """Median speeds in cycles per second and their ratio."""
    graph = network()
    program = compile_graph(graph, DeformArch(rows=8))
    codes = np.random.default_rng(2).integers(-128, 128, (images, 16, 16, 16))
    expected = graph({"x": codes})["y"]
    loop = [loop_speed(program, codes, expected) for _ in range(repeats)]
    checked = [cocotb_speed(program, codes[0], expected[0], checked=True) for _ in range(repeats)]
    unchecked = [cocotb_speed(program, codes[0], expected[0], checked=False) for _ in range(repeats)]
    speeds = {"loop": loop, "cocotb_checked": checked, "cocotb_unchecked": unchecked}
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    ratios = {f"loop_to_{name}": medians["loop"] / medians[name] for name in list(medians)[1:]}
    return {**medians, **ratios, "images": images, "repeats": repeats}


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parents[1]))  # the simulator's Python finds bench.cocotb_core there
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = measure(given.images, given.repeats)
    print(f"C++ loop, serves and checks    {found['loop']:12,.0f} cycles/s")
    for name, words in (("cocotb_checked", "cocotb, serves and checks  "), ("cocotb_unchecked", "cocotb, serves only        ")):
        print(f"{words}    {found[name]:12,.0f} cycles/s    the loop is {found[f'loop_to_{name}']:.1f} times as fast")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
