"""Double buffering on the simulated core: the same results, and the host's transfers beside the computation, by the clock."""

from __future__ import annotations

import numpy as np

from hw.sim.build import SimulationBuild
from sw.runtime.pipeline import Pipeline
from sw.runtime.sim import SimDevice
from tests.e2e.tiny import Tiny

COUNT, RATE = 5, 0.125
"""Images, and bytes that the host moves in a cycle: transfers take a third of the computation."""


def passage(tiny: Tiny, build: SimulationBuild, depth: int) -> tuple[int, int, dict[str, np.ndarray]]:
    """Cycles in all, cycles in which a program ran, and the outputs."""
    images = [{"image": tiny.inputs["image"][i % 4]} for i in range(COUNT)]
    with SimDevice(tiny.program.arch, build=build, host_bytes=RATE) as device:
        with Pipeline(device, tiny.program, depth=depth) as pipeline:
            begin = device.loop.cycle
            runs = list(pipeline.map(images))
            cycles = device.loop.cycle - begin
    outputs = {name: np.stack([run.outputs[name] for run in runs]) for name in runs[0].outputs}
    return cycles, sum(run.launch.counters["CYCLES"] for run in runs), outputs


def test_transfers_hide_behind_the_computation(tiny: Tiny, core_build: SimulationBuild) -> None:
    one, core, serial = passage(tiny, core_build, 1)
    two, core_too, double = passage(tiny, core_build, 2)
    transfers = round(sum(layout.size for layout in (*tiny.program.inputs, *tiny.program.outputs)) / RATE)
    registers = one - core - COUNT * transfers
    assert core == core_too and transfers > core / COUNT / 4 and 0 < registers < 200 * COUNT
    assert two <= core + registers + transfers + 16 * COUNT, "only the first inputs and the last outputs may stand alone"
    assert two >= core and one - two > 0.75 * (COUNT - 1) * transfers
    wanted = tiny.graph({"image": tiny.inputs["image"][[i % 4 for i in range(COUNT)]]})
    for name, codes in wanted.items():
        assert codes.size == 10 * COUNT
        np.testing.assert_array_equal(serial[name], codes)
        np.testing.assert_array_equal(double[name], codes)
