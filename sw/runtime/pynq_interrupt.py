"""An interrupt of a PYNQ overlay, for code that blocks.

PYNQ's interrupts are awaited, and each belongs to the event loop on which it was made. All of ours live on one loop in a thread of its
own, so that it does not matter whether the caller has a loop that runs, as in a notebook, or none.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Coroutine
from typing import Any

from sw.runtime.errors import DeviceError


class InterruptPin:
    """The interrupt pin ``name``, such as "core_0/irq", of the overlay that is loaded; DeviceError where it cannot be had."""

    def __init__(self, name: str) -> None:
        self.name = name
        try:
            self._pin = _on_loop(_made(name))
        except Exception as error:  # PYNQ has no error of its own
            raise DeviceError(f"the interrupt {name} cannot be used ({error}): open the device with poll=True") from error

    def wait(self, seconds: float) -> bool:
        """Wait until it comes, or came since the last wait; False where it does not within some seconds."""
        try:
            return bool(_on_loop(_arrives(self._pin, seconds)))
        except RuntimeError as error:
            raise DeviceError(f"the interrupt {self.name} is lost ({error}): open the device again") from error


async def _made(name: str) -> Any:
    from pynq import Interrupt

    return Interrupt(name)


async def _arrives(pin: Any, seconds: float) -> bool:
    try:
        await asyncio.wait_for(pin.wait(), seconds)
    except asyncio.TimeoutError:  # in Python 3.10 it is not the built-in one
        return False
    return True


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    """One for the process: PYNQ keeps what it made on it from one overlay to the next."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="bitloom-interrupts", daemon=True).start()
    return loop


def _on_loop(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run_coroutine_threadsafe(work, _loop()).result()
