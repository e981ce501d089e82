"""What can be behind simulated XDMA nodes: a core in Verilator, one in software, another design."""

from __future__ import annotations

from typing import Protocol

from hw.spec.regs import BY_NAME, IDENTITY, Access
from sw.runtime.placement import MEMORY_BASE
from sw.runtime.sim import SimDevice
from tests.runtime.fake_core import FakeCore


class Core(Protocol):
    """What the nodes need of a core."""

    memory_base: int
    memory_bytes: int

    @property
    def interrupt(self) -> bool: ...

    def read_register(self, offset: int) -> int: ...

    def write_register(self, offset: int, value: int) -> None: ...

    def read_memory(self, address: int, count: int) -> bytes: ...

    def write_memory(self, address: int, data: bytes) -> None: ...

    def advance(self, cycles: int) -> int:
        """Run the clock, until the interrupt at most; the cycles run."""
        ...

    def reset(self) -> None: ...


class VerilatedCore:
    """The core of a simulated device, which nothing else must use."""

    def __init__(self, device: SimDevice) -> None:
        self.loop, self.memory_base, self.memory_bytes = device.loop, device.memory_base, device.memory_bytes
        self.read_register, self.write_register, self.reset = (
            device.loop.read_register,
            device.loop.write_register,
            device.reset,
        )
        self.read_memory, self.write_memory = device.read_memory, device.write_memory

    @property
    def interrupt(self) -> bool:
        return self.loop.interrupt

    def advance(self, cycles: int) -> int:
        return self.loop.run(cycles) if cycles else 0


class SlowCore(FakeCore):
    """The software core, whose programs take ``delay`` cycles; None never ends."""

    delay: int | None = 1000
    _left: int | None = None

    @property
    def interrupt(self) -> bool:
        return bool(self.get("IRQ_ENABLE") and self.get("STATUS") & BY_NAME["STATUS"].mask("DONE"))

    def advance(self, cycles: int) -> int:
        if self.interrupt or self._left is None or cycles < self._left:
            self._left = None if self._left is None else self._left - cycles
            return cycles
        ran, self._left = self._left, None
        super()._command(BY_NAME["CONTROL"].mask("START"))
        return ran

    def reset(self) -> None:
        """All that programs set is gone; memory too."""
        self._left = None
        self.registers |= {offset: 0 for offset, register in self.names.items() if register.access is not Access.RO}
        self.set("STATUS", 0)
        self.memory.bytes[:] = 0xA5

    def _command(self, value: int) -> None:
        if value & BY_NAME["CONTROL"].mask("START"):
            self._left = self.delay
            self.set("STATUS", BY_NAME["STATUS"].mask("BUSY"))
        else:
            super()._command(value)


class ForeignCard:
    """Another design on a card with the same driver: it has memory, and registers that read one value."""

    memory_base, memory_bytes, interrupt = MEMORY_BASE, 1 << 20, False

    def __init__(self, value: int = 0xDEAD_BEEF) -> None:
        assert value != IDENTITY
        self.value = value

    def read_register(self, offset: int) -> int:
        return self.value

    def write_register(self, offset: int, value: int) -> None:
        raise AssertionError("a foreign card was written to")

    def read_memory(self, address: int, count: int) -> bytes:
        return bytes(count)

    def write_memory(self, address: int, data: bytes) -> None:
        raise AssertionError("a foreign card was written to")

    def advance(self, cycles: int) -> int:
        return cycles

    def reset(self) -> None:
        return
