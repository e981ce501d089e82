"""The driver over a software core: what it writes, what it reads, what it refuses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hw.spec.deform import DeformArch
from hw.spec.regs import BY_NAME, COUNTERS, ErrorCode
from sw.runtime.driver import CoreDevice, CoreDriver
from sw.runtime.errors import CoreFault, DeviceError
from sw.runtime.placement import place
from tests.runtime.copy_program import ARCH, LAYERS, copy_program, image
from tests.runtime.fake_core import BUILD_ID, CYCLES, FakeCore


def test_a_program_runs_through_registers_alone():
    core = FakeCore(ARCH)
    codes = image(1, 3)
    outputs, counters = CoreDevice(core, watchdog=1234).run(copy_program(), {"x": codes})
    assert np.array_equal(outputs["y"], codes) and codes.size == 3 * 20 * 6
    assert set(counters) == {*COUNTERS, "RETIRED"}
    assert counters["RETIRED"] == 3 * 3 and counters["CYCLES"] == 3 * CYCLES
    assert core.get("WATCHDOG") == 1234


def test_registers_are_written_before_start_and_all_regions_are_set():
    core = FakeCore(ARCH)
    program = copy_program()
    CoreDevice(core).run(program, {"x": image(2)})
    names = [name for name, _ in core.log]
    start = names.index("CONTROL")
    regions = {f"REGION{n}_{field}_{half}" for n in range(4) for field in ("BASE", "SIZE") for half in ("LO", "HI")}
    assert regions | {"PROGRAM_ADDR_LO", "PROGRAM_ADDR_HI", "PROGRAM_LENGTH", "IRQ_ENABLE"} <= set(names[:start])
    assert dict(core.log)["REGION3_SIZE_LO"] == 0
    assert dict(core.log)["REGION0_BASE_HI"] == 9 == dict(core.log)["PROGRAM_ADDR_HI"]


def test_identity_is_read():
    identity = CoreDriver(FakeCore(ARCH)).identity
    assert (identity.arch_id, identity.build_id) == (ARCH.arch_id, BUILD_ID)


@pytest.mark.parametrize(("register", "words"), [("IDENTITY", "no Bitloom core answers"), ("VERSION", "has version 77")])
def test_a_foreign_core_is_refused(register, words):
    core = FakeCore(ARCH)
    core.set(register, 77)
    with pytest.raises(DeviceError, match=words):
        CoreDriver(core)


def test_a_program_for_another_architecture_is_refused_before_anything_is_written():
    core = FakeCore(ARCH)
    device = CoreDevice(core)
    with pytest.raises(DeviceError, match=f"compiled for arch_id .* and the device is {ARCH.arch_id:016x}: compile it"):
        device.run(copy_program(DeformArch(rows=3)), {"x": image(1)})
    assert core.log == [] and not core.memory.bytes.any()


def test_a_fault_names_code_instruction_layer_and_way_out_and_the_next_program_runs():
    core = FakeCore(ARCH)
    device = CoreDevice(core)
    program = copy_program()
    damaged = dataclasses.replace(program, regions=(dataclasses.replace(program.regions[0], data=b"x"), *program.regions[1:]))
    with pytest.raises(CoreFault, match=r"BLOB_CRC at instruction 0 \(layer parameters\): weights or") as fault:
        device.run(damaged, {"x": image(1)})
    assert (fault.value.code, fault.value.index, fault.value.layer) == (ErrorCode.BLOB_CRC, 0, LAYERS[0])
    outputs, _ = device.run(program, {"x": image(2)})
    assert np.array_equal(outputs["y"], image(2))


def test_a_fault_before_the_first_instruction_has_no_index():
    program = copy_program()
    with pytest.raises(CoreFault, match="BAD_LENGTH before the first instruction") as fault:
        CoreDevice(FakeCore(ARCH)).run(dataclasses.replace(program, image=program.image[:-64]), {"x": image(1)})
    assert fault.value.index is None and fault.value.layer == ""


@pytest.mark.parametrize(("bit", "words"), [("BUSY", "is busy"), ("STUCK", "reset the core")])
def test_a_core_that_cannot_start_is_not_started(bit, words):
    core = FakeCore(ARCH)
    driver = CoreDriver(core)
    core.set("STATUS", BY_NAME["STATUS"].mask(bit))
    with pytest.raises(DeviceError, match=words):
        driver.start(place(copy_program()), 4)
    assert core.log == []


def test_an_end_that_nobody_acknowledged_is_acknowledged_first():
    core = FakeCore(ARCH)
    device = CoreDevice(core)
    core.set("STATUS", BY_NAME["STATUS"].mask("DONE"))
    outputs, _ = device.run(copy_program(), {"x": image(3)})
    assert np.array_equal(outputs["y"], image(3))


def test_a_program_that_does_not_end_is_aborted():
    core = FakeCore(ARCH)
    core.waits = [False, True]
    with pytest.raises(CoreFault, match="ABORTED at instruction 1"):
        CoreDevice(core).run(copy_program(), {"x": image(1)})


def test_a_core_that_does_not_obey_the_abort_is_reported():
    core = FakeCore(ARCH)
    core.waits = [False, False]
    with pytest.raises(DeviceError, match="nor obeyed the abort"):
        CoreDevice(core).run(copy_program(), {"x": image(1)})


def test_more_regions_than_the_core_has_are_refused():
    core = FakeCore(ARCH)
    with pytest.raises(DeviceError, match="needs 3 memory regions and the core has 2"):
        CoreDriver(core).start(place(copy_program()), 2)


def test_a_board_cannot_record():
    core = FakeCore(ARCH)
    device = CoreDevice(core)
    program = copy_program()
    with pytest.raises(DeviceError, match="cannot record"):
        device.launch(program, place(program), record=True)
