"""The interpreter as a device: batches, refusals, records, independence of dirt."""

from __future__ import annotations

import numpy as np
import pytest

from hw.spec.deform import DeformArch
from sw.runtime import DeviceError, open_device
from sw.runtime.interpreter import InterpreterDevice
from sw.runtime.records import MEMORY
from tests.runtime.copy_program import ARCH, WORDS, copy_program, image


def test_a_batch_and_a_single_image():
    codes = image(1, 4)
    with open_device("interpreter") as device:
        outputs, counters = device.run(copy_program(), {"x": codes})
        single, _ = device.run(copy_program(), {"x": codes[2]})
    assert np.array_equal(outputs["y"], codes) and codes.size == 4 * 120
    assert np.array_equal(single["y"], codes[2]) and single["y"].shape == (20, 3, 2)
    assert counters == {"RETIRED": 12}


def test_dirt_does_not_show():
    device = InterpreterDevice(seed=5)
    program = copy_program()
    device.dirty(program, 7)
    outputs, _ = device.run(program, {"x": image(3)})
    assert np.array_equal(outputs["y"], image(3))


def test_the_record_holds_every_word_by_instruction_and_address():
    device = InterpreterDevice()
    program = copy_program()
    placement = device.load(program)
    codes = image(4)
    record = device.run_image(program, placement, {"x": codes}, record=True).launch.record
    assert record is not None and sorted(record.writes) == ["fm", MEMORY, "par"]
    bus, words = record.writes[MEMORY].ordered(), program.inputs[0].pack(codes)
    assert bus.address.tolist() == [placement.regions[2].base + 32 + 16 * i for i in range(WORDS)]
    assert set(bus.index) == {2} and bus.data.tobytes() == words
    assert set(record.writes["fm"].index) == {1} and record.writes["fm"].address.tolist() == [*range(5, 5 + WORDS)]
    assert len(record.writes["par"].index) == 4 and (record.writes["par"].strobe == 0xFFFF).all()


def test_an_architecture_can_be_fixed():
    with pytest.raises(DeviceError, match="compile it for this device's architecture"):
        open_device("interpreter", arch=DeformArch(rows=3)).run(copy_program(), {"x": image(1)})


def test_programs_of_different_architectures_take_turns():
    device = open_device("interpreter")
    for arch in (ARCH, DeformArch(rows=3), ARCH):
        outputs, _ = device.run(copy_program(arch), {"x": image(6)})
        assert np.array_equal(outputs["y"], image(6))


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"z": image(1)}, r"inputs are \['x'\], not \['z'\]"),
        ({}, r"not \[\]"),
        ({"x": image(1)[0]}, r"\(N, C, H, W\)"),
        ({"x": image(1, 0)}, "at least 1"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(inputs, words):
    with pytest.raises(DeviceError, match=words):
        open_device("interpreter").run(copy_program(), inputs)


@pytest.mark.parametrize(
    ("codes", "words"),
    [
        (image(1)[:, :2], "must have shape"),
        (image(1) * 2.0, "must be integer codes"),
        (image(1) + 200, r"must have codes in -128\.\.127"),
    ],
)
def test_codes_that_do_not_fit_are_refused(codes, words):
    with pytest.raises(ValueError, match=words):
        open_device("interpreter").run(copy_program(), {"x": codes})


def test_an_unknown_kind_is_refused_in_words():
    with pytest.raises(DeviceError, match="must be one of interpreter, sim, uart, pynq, xdma, not 'abacus'"):
        open_device("abacus")


def test_a_simulator_needs_an_architecture():
    with pytest.raises(DeviceError, match="needs the architecture"):
        open_device("sim")


def test_memory_outside_the_device_is_refused():
    device = InterpreterDevice(memory_base=0, memory_bytes=4096)
    with pytest.raises(DeviceError, match="lies outside"):
        device.write_memory(4090, b"1234567")
