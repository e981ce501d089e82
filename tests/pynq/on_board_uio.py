"""Scenarios with PYNQ's own UIO class on a terminal in the place of /dev/uio: it belongs to the event loop on which it was made."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from hw.sim.loop import Loop
from hw.sim.pynq.device import SimulatedBoard
from hw.sim.pynq.registers import Clocked
from sw.runtime.pynq import open_pynq
from tests.pynq.case import Case
from tests.pynq.on_board import MEMORY, Result, bitstream, board, run, scenario


@contextmanager
def uio_device(simulated: SimulatedBoard) -> Iterator[str]:
    """Path of a device that answers as /dev/uio does: 4 bytes enable the interrupt, and 4 bytes come when it is there."""
    kernel, device = os.openpty()
    tty.setraw(device)
    done = threading.Event()

    def serve() -> None:
        while os.read(kernel, 4) and not done.is_set():
            while not simulated.raised() and not done.is_set():
                simulated.clocked.pass_time(1000)
            if not done.is_set():
                os.write(kernel, (1).to_bytes(4, "little"))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield os.ttyname(device)
    done.set()
    os.write(device, b"stop")
    thread.join(timeout=10)
    assert not thread.is_alive()


@scenario
def uio_class(case: Case) -> Result:
    """Inside a running loop, as in a notebook, and outside of one."""

    async def cell() -> Result:
        with open_pynq(bitstream(case), memory_bytes=MEMORY) as device:
            return run(case, device) | {"interrupt_kept": device.board.interrupt is not None}

    with (
        board(case, line=False) as simulated,
        uio_device(simulated) as path,
        mock.patch("pynq.interrupt.get_uio_irq", lambda irq: path),
    ):
        found = asyncio.run(cell())
        with open_pynq(bitstream(case), memory_bytes=MEMORY) as device:
            found |= {"after": run(case, device)}
        return found | {"raised": simulated.controller.raised}


@scenario
def uio_of_another_loop(case: Case) -> Result:
    """The user's code made PYNQ's UIO object first, on a loop that stands still: the interrupt is lost, and the results are right."""

    async def touch() -> object:
        from pynq import Overlay

        return Overlay(str(bitstream(case))).core_0

    loop = asyncio.new_event_loop()
    with (
        board(case, line=False) as simulated,
        uio_device(simulated) as path,
        mock.patch("pynq.interrupt.get_uio_irq", lambda irq: path),
    ):
        ip = loop.run_until_complete(touch())
        with open_pynq(bitstream(case), memory_bytes=MEMORY) as device:
            return run(case, device) | {"interrupt_kept": device.board.interrupt is not None, "ip": ip is not None}


class Watched:
    """A loop that counts what one thread did to it while another was at work in it: the model is not made for two."""

    def __init__(self, loop: Loop) -> None:
        self._loop, self._busy, self.clashes = loop, threading.Lock(), 0

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._loop, name)
        return self._alone(value) if callable(value) else value

    def _alone(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            free = self._busy.acquire(blocking=False)
            self.clashes += not free
            try:
                return method(*arguments, **options) if free else None
            finally:
                if free:
                    self._busy.release()

        return call


@scenario
def closed_while_time_passes(case: Case) -> Result:
    """Boards that are loaded and closed while another thread waits for an interrupt that does not come, until it finds out."""
    boards, clashes, failures = 0, 0, list[str]()
    for _ in range(5):
        with board(case) as simulated:
            watched = simulated.loop = simulated.clocked.loop = Watched(simulated.loop)
            done = threading.Event()

            def wait(clocked: Clocked = simulated.clocked, done: threading.Event = done) -> None:
                while not done.is_set():
                    try:
                        clocked.pass_time(5000)
                    except Exception as error:
                        failures.append(str(error))
                    time.sleep(0.0002)  # the other thread's turn

            thread = threading.Thread(target=wait, daemon=True)
            thread.start()
            with open_pynq(bitstream(case), memory_bytes=MEMORY):
                boards += 1
            time.sleep(0.01)  # so that it is at work when the model is closed
        time.sleep(0.01)
        done.set()
        thread.join(timeout=10)
        clashes += watched.clashes
    return {"boards": boards, "clashes": clashes, "failures": failures[:3]}
