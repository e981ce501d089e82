"""Scenarios of what goes wrong: caches that nobody flushed, lost interrupts, programs that are damaged or take too long."""

from __future__ import annotations

import dataclasses
from typing import Any
from unittest import mock

import numpy as np

from hw.spec.regs import BY_NAME, ErrorCode
from sw.runtime.errors import CoreFault, DeviceError
from sw.runtime.pynq import PynqDevice, open_pynq
from sw.runtime.pynq_interrupt import InterruptPin
from sw.runtime.pynq_transport import PynqTransport
from tests.pynq.case import Case
from tests.pynq.on_board import MEMORY, Result, bitstream, board, run, scenario, words


def nothing(*arguments: Any) -> None:
    """In the place of what is left out."""


def without(case: Case, name: str) -> Result:
    """A run without a method of the transport, and how it ends; then, beside it, one as it should be."""
    with board(case), open_pynq(bitstream(case), memory_bytes=MEMORY, timeout=5, watchdog=100_000) as device:
        try:
            with mock.patch.object(PynqTransport, name, nothing):
                broken = run(case, device) | {"fault": ""}
        except CoreFault as fault:
            broken = {"mismatches": 0, "fault": fault.code.name}
        return {"broken": broken, "good": run(case, device)}


@scenario
def missing_flush(case: Case) -> Result:
    return without(case, "_flush")


@scenario
def missing_invalidate(case: Case) -> Result:
    return without(case, "_invalidate")


@scenario
def neighbours_in_a_line(case: Case) -> Result:
    """The host writes a few bytes of a line of which the core wrote others meanwhile, and which the host had read before."""
    lost = 0
    for whole in (False, True):
        with board(case, whole=whole) as simulated, open_pynq(bitstream(case), memory_bytes=MEMORY) as device:
            base, rng = device.memory_base, np.random.default_rng(3)
            for _ in range(50):
                at, count = int(rng.integers(1, 2000)), int(rng.integers(1, 200))
                device.read_memory(base, 4096)
                simulated.copies.board[:4096] = rng.integers(0, 256, 4096, np.uint8)
                wanted = simulated.copies.board[:4096].copy()
                wanted[at : at + count] = data = rng.integers(0, 256, count, np.uint8)
                device.write_memory(base + at, data.tobytes())
                lost += int((simulated.copies.board[:4096] != wanted).sum())
                lost += device.read_memory(base, 4096) != wanted.tobytes()
    return {"compared": 2 * 50 * 4096, "mismatches": lost}


@scenario
def lost_interrupts(case: Case) -> Result:
    """The line never goes high: the end is found by looking, and the user is told."""
    with board(case, deaf=True), open_pynq(bitstream(case), memory_bytes=MEMORY) as device:
        found = run(case, device)
        return found | {"interrupt_kept": device.board.interrupt is not None}


@scenario
def damaged_program(case: Case) -> Result:
    image = bytearray(case.program.image)
    image[64 * 5 + 20] ^= 1
    damaged = dataclasses.replace(case.program, image=bytes(image))
    region = dataclasses.replace(case.program.regions[0], data=b"\0" * len(case.program.regions[0].data))
    blob = dataclasses.replace(case.program, regions=(region, *case.program.regions[1:]))
    with board(case), open_pynq(bitstream(case), memory_bytes=MEMORY) as device:
        said = [words(case, lambda program=program: device.run(program, case.inputs)) for program in (damaged, blob)]
        return {"said": said} | run(case, device)


@scenario
def too_late(case: Case) -> Result:
    """No time at all: the program is aborted, the message says where it was, and the next one runs."""
    found: Result = {}
    for poll in (False, True):
        with (
            board(case, cycles_between=30) as simulated,
            open_pynq(bitstream(case), memory_bytes=MEMORY, poll=poll, timeout=0) as device,
        ):
            with mock.patch.object(device.driver, "_abort", _patiently(device)):
                found[f"poll={poll}"] = words(case, lambda device=device: device.run(case.program, case.inputs))
            device.board.timeout, simulated.clocked.cycles_between = 60.0, 1000
            found[f"after, poll={poll}"] = run(case, device)
    return found


def _patiently(device: PynqDevice) -> Any:
    """The driver's abort, for which there is time."""
    real = device.driver._abort

    def abort() -> None:
        device.board.timeout = 5.0
        real()

    return abort


@scenario
def silent_memory(case: Case) -> Result:
    """The board's memory stops answering. With a watchdog the core says BUS_STUCK; without, it does not even obey an abort, and what it
    may still write is not given back. Loading the overlay anew helps."""
    with board(case) as simulated:
        with open_pynq(bitstream(case), memory_bytes=MEMORY, watchdog=5000) as device:
            simulated.loop.set_silence(simulated.loop.cycle + 2500)
            said = [words(case, lambda: device.run(case.program, case.inputs)) for _ in range(2)]
        spans = [len(simulated.copies.spans)]
        with open_pynq(bitstream(case), memory_bytes=MEMORY, timeout=0) as device:
            said.append(words(case, lambda: device.run(case.program, case.inputs)))
        spans.append(len(simulated.copies.spans))
        simulated.loop.set_silence(None)
        with open_pynq(bitstream(case), memory_bytes=MEMORY) as device:
            return {"said": said, "held": spans} | run(case, device)


@scenario
def memory_is_given_back(case: Case) -> Result:
    """Closed twice, after an error, and while the core still runs: then it is made to stop before its memory goes."""
    with board(case, cycles_between=0) as simulated:
        device = open_pynq(bitstream(case), memory_bytes=MEMORY, poll=True)
        placement = device.load(case.program)
        device.start(case.program, placement)
        busy = device.driver.status("BUSY")
        real, order = simulated.copies.free, []

        def free(bo: int) -> None:
            order.append("BUSY" if simulated.loop.read_register(BY_NAME["STATUS"].offset) & 1 else "idle")
            real(bo)

        with mock.patch.object(simulated.copies, "free", free):
            device.close()
            device.close()
        code = simulated.loop.read_register(BY_NAME["ERROR_CODE"].offset)
        spans, closed = len(simulated.copies.spans), words(case, lambda: device.read_memory(device.memory_base, 4))
        try:
            with open_pynq(bitstream(case), memory_bytes=MEMORY, poll=True) as device:
                held = len(simulated.copies.spans)
                raise DeviceError("from the user's code")
        except DeviceError:
            pass
        return {
            "busy": busy, "when_freed": order, "code": ErrorCode(code).name, "spans": spans, "closed": closed, "held": held,
            "spans_after_error": len(simulated.copies.spans),
        }  # fmt: skip


@scenario
def overlay_replaced(case: Case) -> Result:
    """Another overlay is loaded under an open device: it says so, gives its memory back, and touches no register."""
    from pynq import Interrupt, Overlay

    with board(case) as simulated, open_pynq(bitstream(case), memory_bytes=MEMORY) as device:
        Overlay(str(bitstream(case, "other")))
        before = simulated.clocked.accesses
        said = words(case, lambda: device.run(case.program, case.inputs))
        other = Interrupt("core_0/irq")
        waited = words(case, lambda: device.board.interrupt.wait(0.01)) if other else ""
        device.close()
        return {
            "said": said,
            "waited": waited,
            "spans": len(simulated.copies.spans),
            "touched": simulated.clocked.accesses - before,
        }


@scenario
def interrupt_left_over(case: Case) -> Result:
    """One that came before the core's next end, as the controller keeps it: the driver looks and waits on."""
    waits: list[bool] = []
    real = InterruptPin.wait

    def wait(self: InterruptPin, seconds: float) -> bool:
        came = real(self, seconds)
        waits.append(came)
        return came

    with board(case), open_pynq(bitstream(case), memory_bytes=MEMORY) as device, mock.patch.object(InterruptPin, "wait", wait):
        return run(case, device) | {"waits": len(waits), "images": len(case.inputs["image"])}
