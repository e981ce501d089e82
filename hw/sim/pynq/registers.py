"""What answers at the addresses of a simulated board: the core, the interrupt controller, and registers that only hold values."""

from __future__ import annotations

import struct
import threading
from dataclasses import dataclass
from typing import Protocol

from hw.sim.loop import Loop

WORD_BYTES = 4


class Window(Protocol):
    """Registers of 32 bits at byte offsets."""

    def read(self, offset: int) -> int: ...

    def write(self, offset: int, value: int) -> None: ...


class Clocked:
    """The model of the core and its clock, for threads that take turns.

    ``cycles_between`` is how many cycles pass before each access, as a processor that runs Python is slower than a core.
    """

    def __init__(self, loop: Loop, cycles_between: int) -> None:
        self.loop, self.cycles_between, self._turn = loop, cycles_between, threading.RLock()
        self.accesses, self.open = 0, True

    def pass_time(self, cycles: int) -> None:
        """Nothing where the model is closed: a thread that waits for its interrupt may find out late."""
        with self._turn:
            if cycles and self.open:
                self.loop.run(cycles, until_interrupt=False)

    def interrupt(self) -> bool:
        with self._turn:
            return self.open and self.loop.interrupt

    def read(self, offset: int) -> int:
        with self._turn:
            self.accesses += 1
            self.pass_time(self.cycles_between)
            return self.loop.read_register(offset)

    def write(self, offset: int, value: int) -> None:
        with self._turn:
            self.accesses += 1
            self.pass_time(self.cycles_between)
            self.loop.write_register(offset, value)

    def reset(self) -> None:
        with self._turn:
            self.loop.reset()

    def close(self) -> None:
        with self._turn:
            self.open = False
            self.loop.close()


class Held:
    """Registers that read what was written, 0 before; ``values`` to begin with."""

    def __init__(self, values: dict[int, int] | None = None) -> None:
        self.values = dict(values or {})

    def read(self, offset: int) -> int:
        return self.values.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        self.values[offset] = value


class InterruptController:
    """The axi_intc of a block design with one level-sensitive input, at bit ``line``.

    A high input sets its bit in ISR, which stays set until it is acknowledged while the input is low. PYNQ acknowledges before a driver
    can acknowledge the core: each end of a program leaves one more interrupt behind, and a driver must look whether the core is done.
    """

    ISR, IPR, IER, IAR, SIE, CIE, MER = 0x00, 0x04, 0x08, 0x0C, 0x10, 0x14, 0x1C

    def __init__(self, core: Clocked, line: int) -> None:
        self._core, self._bit = core, 1 << line
        self._status = self._enabled = self._master = 0
        self.raised = 0

    def pending(self) -> bool:
        """Whether the output to the processor is high."""
        return self._master == 3 and bool(self._now() & self._enabled)

    def read(self, offset: int) -> int:
        values = {self.ISR: self._now(), self.IPR: self._now() & self._enabled, self.IER: self._enabled, self.MER: self._master}
        return values.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        if offset == self.IER:
            self._enabled = value
        elif offset == self.SIE:
            self._enabled |= value
        elif offset == self.CIE:
            self._enabled &= ~value
        elif offset == self.IAR:
            self.raised += bool(self._status & value)
            self._status &= ~value
            self._now()
        elif offset == self.MER:
            self._master = value & 3

    def _now(self) -> int:
        self._status |= self._bit if self._core.interrupt() else 0
        return self._status


@dataclass(frozen=True, kw_only=True)
class Hook:
    """A window as PYNQ's array of registers reaches it: bytes at offsets from where the array begins."""

    window: Window
    offset: int

    def read(self, offset: int, length: int) -> bytes:
        assert length == WORD_BYTES, "registers are read as words"
        return struct.pack("<I", self.window.read(self.offset + offset))

    def write(self, offset: int, data: bytes) -> None:
        for at in range(0, len(data), WORD_BYTES):
            self.window.write(self.offset + offset + at, struct.unpack_from("<I", data, at)[0])
