"""A small network through graph, program, interpreter and Verilog: zero differences, all of them counted."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from hw.sim.build import SimulationBuild
from hw.sim.loop import MemoryTiming, Stalls
from sw.flow.verify import Simulation, Variant, verify
from sw.runtime import open_device
from sw.runtime.interpreter import InterpreterDevice
from sw.runtime.records import MEMORY
from sw.runtime.sim import SimDevice
from tests.e2e.tiny import ARCH, Tiny

STALLED = Variant(name="stalls", images=2, state_seed=5, stalls=Stalls.everywhere(100, seed=6))


def test_every_link_is_equal(tiny: Tiny, core_build: SimulationBuild):
    other = Variant(name="other state", images=2, state_seed=77)
    trace = tiny.graph.trace(tiny.inputs)
    simulation = Simulation(build=core_build, variants=(other, STALLED))
    report = verify(tiny.graph, tiny.program, tiny.inputs, torch_trace=trace, simulation=simulation)
    assert report.first == [] and report.ok
    assert set(report.links) == {"torch_graph", "graph_ops", "ops_machine", "machine_rtl"}
    assert report.links["ops_machine"].compared == 4 * _stored_codes(tiny) > 4 * 10
    assert report.timing is not None and report.timing.compared == 4 * tiny.program.instruction_count
    assert report.links["machine_rtl"].compared == _expected_bytes(tiny, images=4 + 2 + 2)
    assert report.variants["stalls"]["stall_cycles"] > 100 and report.variants["other state"]["stall_cycles"] == 0
    assert max(life.zero for life in report.alive) < 0.9 and max(life.saturated for life in report.alive) < 0.9
    assert np.array_equal(report.rtl_outputs["head"], trace["head"])


def _stored_codes(tiny: Tiny) -> int:
    """Codes of every tensor that the program stores."""
    layouts = [*tiny.program.outputs, *(entry.layout for entry in tiny.program.intermediates)]
    return sum(math.prod(layout.shape) for layout in layouts)


def _expected_bytes(tiny: Tiny, images: int) -> int:
    """Bytes that the interpreter writes, and output codes."""
    device = InterpreterDevice()
    placement = device.load(tiny.program)
    run = device.run_image(tiny.program, placement, {"image": tiny.inputs["image"][0]}, record=True)
    assert run.launch.record is not None and {"fm", "row", "wgt", "par", MEMORY} == set(run.launch.record.writes)
    return images * (16 * sum(len(log.index) for log in run.launch.record.writes.values()) + 10)


@pytest.mark.parametrize("timing", [(1, 1, 1), (7, 90, 1), (61, 3, 2)])
def test_the_timing_model_is_exact_for_other_memories(tiny: Tiny, core_build: SimulationBuild, timing):
    read, write, interval = timing
    memory = MemoryTiming(read_latency=read, write_latency=write, read_interval=interval, write_interval=interval)
    report = verify(tiny.graph, tiny.program, tiny.inputs, images=1, simulation=Simulation(build=core_build, timing=memory))
    assert report.first == [] and report.timing is not None
    assert report.timing.compared == tiny.program.instruction_count


def test_devices_agree_through_the_common_interface(tiny: Tiny, core_build: SimulationBuild):
    wanted = tiny.graph(tiny.inputs)["head"]
    with open_device("sim", arch=ARCH, build=core_build) as core:
        outputs, counters = core.run(tiny.program, tiny.inputs)
    assert np.array_equal(outputs["head"], wanted) and wanted.size == 40
    assert counters["RETIRED"] == 4 * tiny.program.instruction_count
    assert 0 < counters["COMPUTE"] < counters["CYCLES"]
    beats = sum(len(i) for i in _bus_words(tiny))
    assert counters["WRITE_BEATS"] == 4 * beats


def _bus_words(tiny: Tiny) -> list[np.ndarray]:
    device = InterpreterDevice()
    run = device.run_image(tiny.program, device.load(tiny.program), {"image": tiny.inputs["image"][0]}, record=True)
    assert run.launch.record is not None
    return [run.launch.record.writes[MEMORY].index]


def test_two_simulators_can_be_open_at_once(tiny: Tiny, core_build: SimulationBuild):
    image, wanted = {"image": tiny.inputs["image"][:1]}, tiny.graph(tiny.inputs)["head"][:1]
    with SimDevice(ARCH, build=core_build) as outer:
        with SimDevice(ARCH, build=core_build, state_seed=8) as inner:
            assert np.array_equal(inner.run(tiny.program, image)[0]["head"], wanted)
        assert np.array_equal(outer.run(tiny.program, image)[0]["head"], wanted)


def test_memory_above_and_below_4_gb(tiny: Tiny, core_build: SimulationBuild):
    wanted = tiny.graph(tiny.inputs)["head"]
    for base in (0, 0xFFFF_F000, 0x12_3456_7000):
        with SimDevice(ARCH, build=core_build, memory_base=base, memory_bytes=1 << 17) as core:
            outputs, _ = core.run(tiny.program, {"image": tiny.inputs["image"][:1]})
        assert np.array_equal(outputs["head"], wanted[:1])


def test_a_graph_that_is_not_the_programs_is_found(tiny: Tiny, core_build: SimulationBuild):
    node = tiny.graph.nodes[-1]
    requant = dataclasses.replace(node.operation.requant, bias=node.operation.requant.bias + 4000)
    changed = dataclasses.replace(node, operation=dataclasses.replace(node.operation, requant=requant))
    graph = dataclasses.replace(tiny.graph, nodes=(*tiny.graph.nodes[:-1], changed))
    report = verify(graph, tiny.program, tiny.inputs, images=1, simulation=Simulation(build=core_build))
    assert not report.ok and report.links["ops_machine"].mismatches > 0
    assert report.links["machine_rtl"].ok and report.first[0].startswith("ops_machine: image 0: tensor head at (")


def test_a_model_that_is_not_the_graphs_is_found(tiny: Tiny, core_build: SimulationBuild):
    trace = tiny.graph.trace(tiny.inputs)
    trace["middle"] = trace["middle"] + (np.arange(trace["middle"].size).reshape(trace["middle"].shape) == 17)
    report = verify(tiny.graph, tiny.program, tiny.inputs, images=2, torch_trace=trace, simulation=Simulation(build=core_build))
    assert report.links["torch_graph"].mismatches == 1 and not report.ok
    assert report.first[0].startswith("torch_graph: tensor middle at (0, 1, ")
