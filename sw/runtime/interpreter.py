"""The interpreter as a device: the definition of what a program computes, anywhere numpy runs."""

from __future__ import annotations

import numpy as np

from hw.spec.arch import Arch
from hw.spec.cores import machine_for
from hw.spec.machine import Memory
from hw.spec.program import Program
from sw.runtime.device import Device, Launch
from sw.runtime.errors import DeviceError
from sw.runtime.placement import MEMORY_BASE, MEMORY_BYTES, Placement
from sw.runtime.records import MachineRecorder

__all__ = ["InterpreterDevice", "machine_for"]


class InterpreterDevice(Device):
    """Runs programs in the numpy interpreter.

    Parameters
    ----------
    arch : the architecture to be; None takes each program's own
    seed : dirt in the on-chip memories at the start, None for zeros
    """

    def __init__(
        self,
        arch: Arch | None = None,
        *,
        seed: int | None = None,
        memory_base: int = MEMORY_BASE,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self.memory_base, self.memory_bytes = memory_base, memory_bytes
        self._arch, self._seed = arch, seed
        self._memory = Memory(memory_bytes, memory_base)
        self._machine = None if arch is None else machine_for(arch, seed)

    @property
    def arch_id(self) -> int | None:
        return None if self._arch is None else self._arch.arch_id

    def write_memory(self, address: int, data: bytes) -> None:
        self._check(address, len(data))
        self._memory.write(address, np.frombuffer(data, np.uint8))

    def read_memory(self, address: int, count: int) -> bytes:
        self._check(address, count)
        return self._memory.read(address, count).tobytes()

    def start(self, program: Program, placement: Placement, *, record: bool = False) -> None:
        self._started = program, placement, record

    def finish(self) -> Launch:
        program, placement, record = self._started
        if self._machine is None or self._machine.arch != (self._arch or program.arch):
            self._machine = machine_for(program.arch, self._seed)
        recorder = MachineRecorder()
        outcome = self._machine.run(
            self._memory,
            placement.regions,
            placement.program_address,
            placement.program_length,
            recorder if record else None,
        )
        return Launch(
            outcome=outcome, counters={"RETIRED": outcome.retired}, record=recorder.record(outcome) if record else None
        )

    def _check(self, address: int, count: int) -> None:
        if address < self.memory_base or address + count > self.memory_base + self.memory_bytes:
            raise DeviceError(
                f"the device's memory is {self.memory_base:#x}..{self.memory_base + self.memory_bytes:#x}; "
                f"{address:#x}..{address + count:#x} lies outside"
            )
