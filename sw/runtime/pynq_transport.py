"""The transport of a board under PYNQ: a core's registers through memory-mapped access, and contiguous memory with its cache."""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np

from hw.spec.regs import BY_NAME
from sw.runtime.errors import DeviceError
from sw.runtime.placement import PAGE_BYTES
from sw.runtime.pynq_interrupt import InterruptPin

TIMEOUT = 60.0
LINE_BYTES = 64
"""A cache line of the board's processor: what is flushed and invalidated at once."""

FIRST_PAUSE, LONGEST_PAUSE = 20e-6, 2e-3
"""Seconds between two looks at a running core that is polled."""

LOOK = 0.1
"""Seconds between two looks at a running core whose interrupt is awaited, in case that it gets lost."""

GRACE = 1.0
"""Seconds that an interrupt may come later than the end that it tells of."""

_STATUS, _CONTROL = BY_NAME["STATUS"], BY_NAME["CONTROL"]
_kept: list[Any] = []  # memory that a core did not let go of: never given back


class PynqTransport:
    """Registers and memory of a core in an overlay.

    ``mmio`` reaches the registers, ``buffer`` is contiguous memory, an array of bytes; both are what ``pynq`` makes. A program may take
    ``timeout`` seconds. Its end is told by ``interrupt``, or found by polling where that is None or does not come.
    Every write is flushed at once: at any time a flush or an invalidation of any part, or of the whole buffer, loses nothing.
    """

    def __init__(self, mmio: Any, buffer: Any, *, interrupt: InterruptPin | None = None, timeout: float = TIMEOUT) -> None:
        self.memory_base, self.memory_bytes = int(buffer.physical_address), int(buffer.nbytes)
        if self.memory_base % PAGE_BYTES or self.memory_bytes % PAGE_BYTES:
            raise DeviceError(
                f"the device's memory must be whole pages of {PAGE_BYTES} bytes, not {self.memory_bytes} bytes at "
                f"{self.memory_base:#x}: give memory_bytes as a multiple of {PAGE_BYTES}"
            )
        self._mmio, self._buffer, self.interrupt, self.timeout = mmio, buffer, interrupt, timeout

    def read_register(self, offset: int) -> int:
        return int(self._mmio.read(offset))

    def write_register(self, offset: int, value: int) -> None:
        self._mmio.write(offset, int(value))

    def read_memory(self, address: int, count: int) -> bytes:
        at = self._inside(address, count)
        self._invalidate(at, at + count)
        data: bytes = self._buffer[at : at + count].tobytes()
        return data

    def write_memory(self, address: int, data: bytes) -> None:
        """The lines at both ends may hold bytes that the core wrote: they are made fresh first, as flushing writes whole lines."""
        at = self._inside(address, len(data))
        end = at + len(data)
        for edge in {edge - edge % LINE_BYTES for edge in (at, end) if edge % LINE_BYTES}:
            self._invalidate(edge, edge + 1)
        self._buffer[at:end] = np.frombuffer(data, np.uint8)
        self._flush(at, end)

    def wait(self) -> bool:
        """Wait for DONE; what wakes this thread is only a hint, as interrupts can be late, lost, or left over from a program before."""
        end, pause = time.monotonic() + self.timeout, FIRST_PAUSE
        while not self.status("DONE"):
            left = end - time.monotonic()
            if left <= 0:
                return False
            if self.interrupt is None:
                time.sleep(min(pause, left))
                pause = min(2 * pause, LONGEST_PAUSE)
            elif not self.interrupt.wait(min(left, LOOK)):
                self._doubt(self.interrupt)
        return True

    def status(self, bit: str) -> bool:
        """A bit of the STATUS register."""
        return bool(self.read_register(_STATUS.offset) & _STATUS.mask(bit))

    def close(self, *, core_answers: bool = True) -> None:
        """Give the memory back. Where the core answers and still runs it is made to let go of the memory first."""
        buffer, self._buffer = self._buffer, None
        if buffer is None:
            return
        if core_answers and self.status("BUSY"):
            self.write_register(_CONTROL.offset, _CONTROL.mask("ABORT"))
            if not self.wait():
                _kept.append(buffer)
                words = f"the core does not obey the abort: its {self.memory_bytes} bytes of memory stay allocated; restart the board"
                warnings.warn(words, RuntimeWarning, 2)
                return
        buffer.freebuffer()

    def _doubt(self, interrupt: InterruptPin) -> None:
        """After some time without an interrupt: poll from now on where the program has ended long since."""
        if self.status("DONE") and not interrupt.wait(GRACE):
            self.interrupt = None
            words = f"the program ended and its interrupt {interrupt.name} did not come: polling from now on; poll=True does so at once"
            warnings.warn(words, RuntimeWarning, 2)

    def _inside(self, address: int, count: int) -> int:
        if self._buffer is None:
            raise DeviceError("the device is closed and its memory is given back: open it again")
        at = address - self.memory_base
        if at < 0 or at + count > self.memory_bytes:
            end = self.memory_base + self.memory_bytes
            raise DeviceError(
                f"{count} bytes at {address:#x} must lie in the device's memory at {self.memory_base:#x}..{end:#x}"
            )
        return at

    def _lines(self, start: int, end: int) -> Any:
        """The lines that hold the bytes from ``start`` to ``end``."""
        return self._buffer[start // LINE_BYTES * LINE_BYTES : -(-end // LINE_BYTES) * LINE_BYTES]

    def _flush(self, start: int, end: int) -> None:
        if end > start:
            self._lines(start, end).flush()

    def _invalidate(self, start: int, end: int) -> None:
        if end > start:
            self._lines(start, end).invalidate()
