"""A core in software behind a transport: the register table in front of the interpreter, as a board would show it."""

from __future__ import annotations

import numpy as np

from hw.spec.deform import DeformArch
from hw.spec.deform.machine import DeformMachine
from hw.spec.machine import Memory, OpenRegion, Outcome
from hw.spec.regs import BY_NAME, COUNTERS, IDENTITY, SHELL_VERSION, Access, ErrorCode, all_registers, region_registers

BUILD_ID = 0x0123_4567_89AB_CDEF
CYCLES = 0x5_0000_0007


class FakeCore:
    """Answers register accesses; ``waits`` says for each coming wait whether the program has ended by then."""

    def __init__(self, arch: DeformArch, *, memory_base: int = 0x9_0000_0000, memory_bytes: int = 1 << 16) -> None:
        self.memory_base, self.memory_bytes = memory_base, memory_bytes
        self.arch, self.machine, self.memory = arch, DeformMachine(arch, seed=1), Memory(memory_bytes, memory_base)
        self.registers = {register.offset: 0 for register in all_registers(arch.regions)}
        self.names = {register.offset: register for register in all_registers(arch.regions)}
        self.waits: list[bool] = []
        self.log: list[tuple[str, int]] = []
        self.latched: dict[int, int] = {}
        self.set("IDENTITY", IDENTITY)
        self.set("VERSION", SHELL_VERSION)
        self.set_pair("ARCH_ID", arch.arch_id)
        self.set_pair("BUILD_ID", BUILD_ID)

    def set(self, name: str, value: int) -> None:
        self.registers[BY_NAME[name].offset] = value

    def set_pair(self, name: str, value: int) -> None:
        self.set(f"{name}_LO", value & 0xFFFF_FFFF)
        self.set(f"{name}_HI", value >> 32)

    def get(self, name: str) -> int:
        return self.registers[BY_NAME[name].offset]

    def get_pair(self, name: str) -> int:
        return self.get(f"{name}_LO") | self.get(f"{name}_HI") << 32

    # transport ----------------------------------------------------------------------------------------------------------

    def read_register(self, offset: int) -> int:
        if offset in self.latched:
            return self.latched.pop(offset)
        name = self.names[offset].name
        if name.removesuffix("_LO") in COUNTERS:
            self.latched[offset + 4] = self.registers[offset + 4]
            self.registers[offset + 4] += 1  # goes on counting: only the latch keeps the two halves of one value
        return self.registers[offset]

    def write_register(self, offset: int, value: int) -> None:
        register = self.names[offset]
        assert register.access is not Access.RO, register.name
        assert 0 <= value < 1 << 32
        self.log.append((register.name, value))
        if register.name == "CONTROL":
            self._command(value)
        else:
            self.registers[offset] = value

    def read_memory(self, address: int, count: int) -> bytes:
        return self.memory.read(address, count).tobytes()

    def write_memory(self, address: int, data: bytes) -> None:
        self.memory.write(address, np.frombuffer(data, np.uint8))

    def wait(self) -> bool:
        return self.waits.pop(0) if self.waits else True

    # the core -----------------------------------------------------------------------------------------------------------

    def _command(self, value: int) -> None:
        control, status = BY_NAME["CONTROL"], BY_NAME["STATUS"]
        if value & control.mask("ACKNOWLEDGE"):
            self.set("STATUS", self.get("STATUS") & ~(status.mask("DONE") | status.mask("ERROR")))
        if value & control.mask("START"):
            assert not self.get("STATUS") & status.mask("DONE"), "start needs an acknowledge first"
            self._end(self._run())
        if value & control.mask("ABORT"):
            self._end(Outcome(error=ErrorCode.ABORTED, index=1, retired=1))

    def _run(self) -> Outcome:
        regions = []
        for number in range(self.arch.regions):
            base_lo, base_hi, size_lo, size_hi = (self.registers[r.offset] for r in region_registers(number))
            regions.append(OpenRegion(base=base_lo | base_hi << 32, size=size_lo | size_hi << 32))
        return self.machine.run(self.memory, regions, self.get_pair("PROGRAM_ADDR"), self.get("PROGRAM_LENGTH"))

    def _end(self, outcome: Outcome) -> None:
        status = BY_NAME["STATUS"]
        failed = outcome.error is not ErrorCode.NONE
        self.set("STATUS", status.mask("DONE") | (status.mask("ERROR") if failed else 0))
        self.set("ERROR_CODE", outcome.error)
        self.set("ERROR_INDEX", outcome.index)
        self.set("RETIRED", outcome.retired)
        self.set_pair("CYCLES", CYCLES)
