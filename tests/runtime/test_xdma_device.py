"""A program on the core in Verilog behind XDMA nodes: equal to the simulated device; lost in the middle, and run again."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from hw.sim.build import SimulationBuild
from hw.sim.core import build_core
from hw.spec.regs import COUNTERS
from sw.runtime.placement import MEMORY_BASE
from sw.runtime.sim import SimDevice
from sw.runtime.xdma import DeviceLost, XdmaDevice, open_xdma
from tests.e2e.tiny import ARCH, Tiny, make_tiny
from tests.runtime.tiny_runs import run_and_compare
from tests.runtime.xdma_cores import VerilatedCore
from tests.runtime.xdma_nodes import Call, SimulatedNodes

SIZE, CHUNK = 1 << 20, 4096


@pytest.fixture(scope="module")
def build() -> SimulationBuild:
    return build_core(ARCH)


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    return make_tiny(2)


@pytest.fixture
def nodes(build: SimulationBuild) -> Iterator[SimulatedNodes]:
    with SimDevice(ARCH, build=build, memory_bytes=SIZE, state_seed=3) as device:
        yield SimulatedNodes(VerilatedCore(device))


def opened(nodes: SimulatedNodes) -> XdmaDevice:
    return open_xdma(calls=nodes, memory_base=MEMORY_BASE, memory_bytes=SIZE, chunk=CHUNK, timeout=2.0)


def test_outputs_and_counters_are_those_of_the_simulated_device(
    nodes: SimulatedNodes, build: SimulationBuild, tiny: Tiny
) -> None:
    with SimDevice(ARCH, build=build, memory_bytes=SIZE, state_seed=4) as plain:
        wanted, wanted_counters = plain.run(tiny.program, tiny.inputs)
    with opened(nodes) as device:
        assert device.arch_id == ARCH.arch_id
        outputs, counters = device.run(tiny.program, tiny.inputs)
        assert run_and_compare(device, tiny) == 20
        assert device.link.missed == 0 and device.link.nodes.short_counts == 0
    assert outputs.keys() == wanted.keys() and all(np.array_equal(outputs[name], wanted[name]) for name in wanted)
    assert set(counters) == {*COUNTERS, "RETIRED"} and counters == wanted_counters
    assert all(counters[name] > 0 for name in ("CYCLES", "READ_BEATS", "WRITE_BEATS", "COMPUTE", "RETIRED"))
    moved = [call.count for call in nodes.calls if call.kind == "pwrite" and "h2c" in call.node]
    assert max(moved) == CHUNK and moved.count(CHUNK) > 3


def die_in_a_transfer(nodes: SimulatedNodes, node: str, number: int) -> None:
    """The link dies while that transfer of the node runs, half of which arrives."""

    def meddle(call: Call) -> int | None:
        if (call.node, call.number) == (f"xdma0_{node}", number) and call.kind != "open":
            nodes.die()
            return call.count // 2
        return None

    nodes.meddle = meddle


def die_while_it_runs(nodes: SimulatedNodes) -> None:
    def meddle(call: Call) -> None:
        if call.kind == "poll":
            nodes.run(500)
            nodes.die()

    nodes.meddle = meddle


@pytest.mark.parametrize("when", ["program", "inputs", "running", "outputs"])
def test_the_next_device_runs_the_next_program(nodes: SimulatedNodes, tiny: Tiny, when: str) -> None:
    """Lost while the program is loaded, while the last image is written, while the core runs, while outputs are read."""
    with opened(nodes) as device:
        loads = sum(-(-len(data) // CHUNK) for data in (tiny.program.image, *(r.data for r in tiny.program.regions)))
        if when == "running":
            die_while_it_runs(nodes)
        else:
            die_in_a_transfer(nodes, *{"program": ("h2c_0", 0), "inputs": ("h2c_0", loads), "outputs": ("c2h_0", 0)}[when])
        with pytest.raises(DeviceLost, match="then open the device anew"):
            device.run(tiny.program, tiny.inputs)
    nodes.meddle = lambda call: None
    nodes.replace()
    with opened(nodes) as device:
        assert run_and_compare(device, tiny) == 20


def test_a_link_that_comes_back_while_the_core_still_runs(nodes: SimulatedNodes, tiny: Tiny) -> None:
    with opened(nodes) as device:
        die_while_it_runs(nodes)
        with pytest.raises(DeviceLost):
            device.run(tiny.program, tiny.inputs)
    nodes.meddle = lambda call: None
    nodes.revive()
    with opened(nodes) as device:
        assert device.driver.status("BUSY")
        device.abort()
        assert not device.driver.status("BUSY") and run_and_compare(device, tiny) == 20
