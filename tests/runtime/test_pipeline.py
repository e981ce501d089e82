"""Images in flight: results in order, transfers beside the computation, faults, and a device that can be used afterwards."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest

from hw.spec.regs import ErrorCode
from sw.runtime.driver import CoreDevice
from sw.runtime.errors import CoreFault, DeviceError
from sw.runtime.interpreter import InterpreterDevice
from sw.runtime.pipeline import Pipeline, fitting_depth
from sw.runtime.placement import place, place_buffers
from tests.runtime.copy_program import ARCH, copy_program, image
from tests.runtime.fake_core import FakeCore


def inputs(count: int) -> list[dict[str, np.ndarray]]:
    return [{"x": image(seed)} for seed in range(count)]


def test_buffers_differ_in_inputs_and_outputs_alone() -> None:
    program = copy_program()
    first, second, third = place_buffers(program, 3)
    assert first == place(program)
    kinds = [region.kind for region in program.regions]
    assert {"input", "output"} <= set(kinds)
    for other in (second, third):
        moved = [kind for kind, a, b in zip(kinds, first.regions, other.regions, strict=True) if a != b]
        assert moved == [kind for kind in kinds if kind in ("input", "output")]
        assert (other.program_address, other.program_length) == (first.program_address, first.program_length)
    taken = sorted({(r.base, r.base + r.size) for p in (first, second, third) for r in p.regions if r.size})
    assert all(end < start for (_, end), (start, _) in pairwise(taken)) and third.end == taken[-1][1]


def test_memory_that_holds_one_buffer_only() -> None:
    program = copy_program()
    size = place(program).end - place(program).program_address
    small = InterpreterDevice(memory_bytes=size)
    assert fitting_depth(small, program) == 1 and fitting_depth(InterpreterDevice(), program) == 2
    with pytest.raises(DeviceError, match=f"2 buffers of the program's inputs and outputs need .* the device offers {size}"):
        Pipeline(small, program)
    outputs, _ = small.run(program, {"x": np.stack([image(1), image(2)])})
    assert np.array_equal(outputs["y"], np.stack([image(1), image(2)]))


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_results_come_in_order(depth: int) -> None:
    with Pipeline(CoreDevice(FakeCore(ARCH)), copy_program(), depth=depth) as pipeline:
        found = [run.outputs["y"] for run in pipeline.map(inputs(5))]
        assert pipeline.in_flight == 0
    assert len(found) == 5 and all(np.array_equal(codes, image(seed)) for seed, codes in enumerate(found))


def test_the_next_image_is_written_and_the_last_is_read_while_one_runs() -> None:
    core = FakeCore(ARCH)
    device, events = CoreDevice(core), []
    for name in ("start", "finish", "write_inputs", "read_outputs"):
        plain = getattr(device, name)

        def noted(*given, name=name, plain=plain, **more):
            events.append(name)
            return plain(*given, **more)

        setattr(device, name, noted)
    device.run(copy_program(), {"x": np.stack([image(seed) for seed in range(4)])})
    running, beside = False, 0
    for event in events:
        running = {"start": True, "finish": False}.get(event, running)
        beside += running and event in ("write_inputs", "read_outputs")
    assert events[:3] == ["write_inputs", "start", "write_inputs"] and events[-2:] == ["finish", "read_outputs"]
    assert beside == 6 and len(events) == 16


def test_too_many_and_none_in_flight_are_refused() -> None:
    with Pipeline(CoreDevice(FakeCore(ARCH)), copy_program()) as pipeline:
        with pytest.raises(DeviceError, match="no image is in flight"):
            pipeline.wait()
        for given in inputs(2):
            pipeline.submit(given)
        with pytest.raises(DeviceError, match="2 images are in flight, which is the pipeline's depth"):
            pipeline.submit({"x": image(1)})
        assert np.array_equal(pipeline.wait().outputs["y"], image(0)) and pipeline.in_flight == 1
    with pytest.raises(ValueError, match="depth must be at least 1, not 0"):
        Pipeline(InterpreterDevice(), copy_program(), depth=0)


def test_an_image_that_does_not_fit_is_refused_and_takes_no_buffer() -> None:
    with Pipeline(CoreDevice(FakeCore(ARCH)), copy_program()) as pipeline:
        pipeline.submit({"x": image(0)})
        with pytest.raises(ValueError, match="must have shape"):
            pipeline.submit({"x": image(1)[:, :-1]})
        pipeline.submit({"x": image(2)})
        found = [pipeline.wait().outputs["y"] for _ in range(2)]
    assert np.array_equal(found[0], image(0)) and np.array_equal(found[1], image(2))


def test_a_fault_ends_the_run_and_the_device_runs_the_next_program() -> None:
    program = copy_program()
    regions = [dataclasses.replace(r, data=b"x" * len(r.data)) if r.data else r for r in program.regions]
    damaged = dataclasses.replace(program, regions=tuple(regions))
    for device in (CoreDevice(FakeCore(ARCH)), InterpreterDevice()):
        with pytest.raises(CoreFault) as fault:
            device.run(damaged, {"x": np.stack([image(seed) for seed in range(3)])})
        assert fault.value.code is ErrorCode.BLOB_CRC
        assert np.array_equal(device.run(program, {"x": image(4)})[0]["y"], image(4))


def test_images_in_flight_are_dropped_at_the_end() -> None:
    device = CoreDevice(FakeCore(ARCH))
    with pytest.raises(KeyError), Pipeline(device, copy_program()) as pipeline:
        for given in inputs(2):
            pipeline.submit(given)
        raise KeyError("something of the caller's")
    assert pipeline.in_flight == 0 and not device.driver.status("BUSY")
    assert np.array_equal(device.run(copy_program(), {"x": image(9)})[0]["y"], image(9))
