"""Foreign, truncated and damaged programs end in the same error and index in interpreter and Verilog; the next program runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from hw.sim.build import SimulationBuild
from hw.sim.loop import Stalls
from hw.spec.regs import BY_NAME, ErrorCode
from sw.flow.prove_design import ProofFailure, prove_design
from sw.runtime.device import Device
from sw.runtime.errors import CoreFault, DeviceError
from sw.runtime.interpreter import InterpreterDevice
from sw.runtime.placement import place
from sw.runtime.sim import SimDevice
from tests.e2e.broken import Breaker, Broken, broken_programs
from tests.e2e.tiny import ARCH, Tiny

MEMORY_BYTES = 1 << 17


@pytest.fixture(scope="module")
def core(core_build: SimulationBuild) -> Iterator[SimDevice]:
    stalls = Stalls.everywhere(40, seed=3)
    with SimDevice(ARCH, build=core_build, stalls=stalls, state_seed=9, memory_bytes=MEMORY_BYTES) as device:
        yield device


def run_good(device: Device, tiny: Tiny, image: int = 0) -> None:
    """The good program on the device, whatever went before."""
    outputs, _ = device.run(tiny.program, {"image": tiny.inputs["image"][image]})
    wanted = tiny.graph({"image": tiny.inputs["image"][image : image + 1]})["head"][0]
    assert np.array_equal(outputs["head"], wanted) and wanted.size == 10


def ending(device: Device, tiny: Tiny, case: Broken) -> tuple[ErrorCode, int, int]:
    """Error, index and number of retired instructions of a broken program."""
    placement = device.load(tiny.program)
    device.write_memory(case.placement.program_address, case.program.image)
    layout = tiny.program.inputs[0]
    device.write_memory(placement.tensor_address(layout), layout.pack(tiny.inputs["image"][0]))
    if case.damage:
        device.write_memory(case.damage[0], bytes([case.damage[1]]))
    outcome = device.launch(case.program, case.placement).outcome
    return outcome.error, outcome.index, outcome.retired


def test_every_broken_program_ends_alike_and_the_next_runs(tiny: Tiny, core: SimDevice):
    machine = InterpreterDevice(ARCH, memory_bytes=MEMORY_BYTES)
    breaker = Breaker(tiny.program, place(tiny.program, size=MEMORY_BYTES), machine.memory_base + machine.memory_bytes)
    seen: dict[ErrorCode, int] = {}
    for number, case in enumerate(broken_programs(breaker)):
        expected = ending(machine, tiny, case)
        assert expected[:2] == (case.code, case.index), case.name
        assert ending(core, tiny, case) == expected, case.name
        run_good(core, tiny, number % 4)
        seen[case.code] = seen.get(case.code, 0) + 1
    in_programs = {code for code in ErrorCode if ErrorCode.NONE < code <= ErrorCode.AXI_WRITE}
    assert set(seen) == in_programs and sum(seen.values()) >= 45, seen


def test_a_foreign_program_is_refused_before_it_is_loaded(tiny: Tiny, core: SimDevice):
    foreign = dataclasses.replace(tiny.program, arch=dataclasses.replace(ARCH, rows=3))
    with pytest.raises(DeviceError, match="compile it for this device's architecture"):
        core.run(foreign, tiny.inputs)


def test_the_watchdog_ends_a_long_instruction(tiny: Tiny, core: SimDevice):
    core.driver.watchdog = 150
    with pytest.raises(CoreFault, match="WATCHDOG at instruction"):
        core.run(tiny.program, {"image": tiny.inputs["image"][0]})
    core.driver.watchdog = 0
    run_good(core, tiny)


@pytest.mark.parametrize("cycles", [1, 40, 777, 5000])
def test_an_abort_ends_the_program_and_the_next_runs(tiny: Tiny, core: SimDevice, cycles: int):
    limit, core.simulation.max_cycles = core.simulation.max_cycles, cycles
    core.simulation.wait = _then_forever(core, limit)  # type: ignore[method-assign]
    try:
        with pytest.raises(CoreFault, match="ABORTED"):
            core.run(tiny.program, {"image": tiny.inputs["image"][0]})
    finally:
        del core.simulation.wait
        core.simulation.max_cycles = limit
    run_good(core, tiny)


def _then_forever(core: SimDevice, limit: int):
    """A wait that runs a few cycles the first time, so that the driver aborts, and long enough the second time."""

    def wait() -> bool:
        ended = type(core.simulation).wait(core.simulation)
        core.simulation.max_cycles = limit
        return ended

    return wait


@pytest.mark.parametrize("cycles", [30, 900, 3000])
def test_a_memory_that_falls_silent_leaves_the_core_stuck_until_reset(tiny: Tiny, core_build: SimulationBuild, cycles: int):
    with SimDevice(ARCH, build=core_build, memory_bytes=MEMORY_BYTES, watchdog=20_000) as core:
        core.loop.set_silence(core.loop.cycle + 700 + cycles)
        with pytest.raises(CoreFault, match="BUS_STUCK"):
            core.run(tiny.program, {"image": tiny.inputs["image"][0]})
        core.loop.set_silence(None)
        with pytest.raises(DeviceError, match="reset the core before the next program"):
            core.run(tiny.program, {"image": tiny.inputs["image"][0]})
        core.simulation.write_register(BY_NAME["CONTROL"].offset, BY_NAME["CONTROL"].mask("START"))
        assert not core.driver.status("BUSY") and core.driver.status("STUCK")
        core.reset()
        run_good(core, tiny)


def test_a_design_of_another_architecture_is_told_at_once(core_build: SimulationBuild):
    other = dataclasses.replace(ARCH, row_words=ARCH.row_words + 1)
    with pytest.raises(ProofFailure) as error:
        prove_design(other, build=core_build)
    assert len(error.value.failures) == 1
    assert f"is a core of arch_id {ARCH.arch_id:016x}, and the architecture is {other.arch_id:016x}" in str(error.value)
