"""Drives a core through its register table, over whatever reaches registers and memory.

A transport is the only part that differs between a simulator, a board under PYNQ, PCIe and a serial line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from hw.spec.machine import OpenRegion, Outcome
from hw.spec.program import Program
from hw.spec.regs import BY_NAME, COUNTERS, IDENTITY, SHELL_VERSION, ErrorCode, region_registers
from hw.spec.training_program import TrainingProgram
from sw.runtime.device import Counters, Device, Launch
from sw.runtime.errors import DeviceError
from sw.runtime.placement import Placement
from sw.runtime.proof import Proof

_WORD = 0xFFFF_FFFF


class Transport(Protocol):
    """Access to a core's registers (32 bits, byte offsets) and to the memory that it shares with the host."""

    memory_base: int
    memory_bytes: int

    def read_register(self, offset: int) -> int: ...

    def write_register(self, offset: int, value: int) -> None: ...

    def read_memory(self, address: int, count: int) -> bytes: ...

    def write_memory(self, address: int, data: bytes) -> None: ...

    def wait(self) -> bool:
        """Wait for the interrupt, as long as this transport allows; False where it did not come."""
        ...


@dataclass(frozen=True, kw_only=True)
class CoreIdentity:
    """Who a core says it is."""

    version: int
    arch_id: int
    build_id: int


class CoreDriver:
    """A core behind a transport. ``watchdog`` is the most cycles between two retirements, 0 for no limit."""

    def __init__(self, transport: Transport, *, watchdog: int = 0) -> None:
        self.transport = transport
        self.watchdog = watchdog
        self.late = ""
        self.identity = self._identify()

    def start(self, placement: Placement, regions: int) -> None:
        """Start the program at ``placement``; ``regions`` is how many the core has. DeviceError where the core is busy or stuck."""
        self._make_ready()
        self._open_regions(placement.regions, regions)
        self._write_pair("PROGRAM_ADDR", placement.program_address)
        self._write("PROGRAM_LENGTH", placement.program_length)
        self._write("WATCHDOG", self.watchdog)
        self._write("IRQ_ENABLE", 1)
        self._command("START")

    def finish(self) -> Outcome:
        """Wait for the end of the program that was started.

        One that does not end within what the transport waits is aborted: its outcome is ABORTED, and ``late`` tells in words what the
        core was doing ("" otherwise). DeviceError where it does not obey.
        """
        self.late = ""
        if not self.transport.wait():
            self.late = self.state()
            self._abort()
        return self._finish()

    def state(self) -> str:
        """What the core is doing, in words: status bits, instructions that retired, cycles."""
        bits = [bit.name for bit in BY_NAME["STATUS"].bits if self.status(bit.name)]
        cycles = self._read_pair("CYCLES")
        return f"{' '.join(bits) or 'idle'}, {self._read('RETIRED')} instructions had retired, {cycles:,} cycles"

    def counters(self) -> Counters:
        """All counters of the last program, and RETIRED."""
        return {name: self._read_pair(name) for name in COUNTERS} | {"RETIRED": self._read("RETIRED")}

    def status(self, bit: str) -> bool:
        """A bit of the STATUS register."""
        return bool(self._read("STATUS") & BY_NAME["STATUS"].mask(bit))

    def _identify(self) -> CoreIdentity:
        if (found := self._read("IDENTITY")) != IDENTITY:
            raise DeviceError(
                f"no Bitloom core answers: IDENTITY must read {IDENTITY:#010x}, not {found:#010x}; "
                "is the bitstream loaded and the address right?"
            )
        if (version := self._read("VERSION")) != SHELL_VERSION:
            raise DeviceError(
                f"the core's register table has version {version} and this runtime drives version {SHELL_VERSION}: "
                "use the runtime of the release that built the core"
            )
        return CoreIdentity(version=version, arch_id=self._read_pair("ARCH_ID"), build_id=self._read_pair("BUILD_ID"))

    def _make_ready(self) -> None:
        if self.status("STUCK"):
            raise DeviceError("the core's memory stopped answering (BUS_STUCK): reset the core before the next program")
        if self.status("BUSY"):
            raise DeviceError("the core is busy with another program: wait for its end or abort it")
        if self.status("DONE"):
            self._command("ACKNOWLEDGE")

    def _open_regions(self, opened: tuple[OpenRegion, ...], count: int) -> None:
        if len(opened) > count:
            raise DeviceError(f"the program needs {len(opened)} memory regions and the core has {count}")
        closed = (OpenRegion(base=0, size=0),) * (count - len(opened))
        for number, region in enumerate((*opened, *closed)):
            halves = (region.base & _WORD, region.base >> 32, region.size & _WORD, region.size >> 32)
            for register, value in zip(region_registers(number), halves, strict=True):
                self.transport.write_register(register.offset, value)

    def _abort(self) -> None:
        self._command("ABORT")
        if not self.transport.wait():
            raise DeviceError(f"the core neither ended the program nor obeyed the abort ({self.late}): reset it")

    def _finish(self) -> Outcome:
        if not self.status("DONE"):
            raise DeviceError("the core raised its interrupt without DONE: it is not driven by this driver alone")
        failed = self.status("ERROR")
        code = self._error_code() if failed else ErrorCode.NONE
        index = self._read("ERROR_INDEX") if failed else 0
        outcome = Outcome(error=code, index=index, retired=self._read("RETIRED"))
        if code is not ErrorCode.BUS_STUCK:
            self._command("ACKNOWLEDGE")
        return outcome

    def _error_code(self) -> ErrorCode:
        value = self._read("ERROR_CODE")
        if value not in set(ErrorCode):
            raise DeviceError(f"the core reports error {value}, which this runtime does not know: use the core's release")
        return ErrorCode(value)

    def _command(self, bit: str) -> None:
        self._write("CONTROL", BY_NAME["CONTROL"].mask(bit))

    def _read(self, name: str) -> int:
        return self.transport.read_register(BY_NAME[name].offset)

    def _write(self, name: str, value: int) -> None:
        self.transport.write_register(BY_NAME[name].offset, value)

    def _read_pair(self, name: str) -> int:
        low = self._read(f"{name}_LO")  # reading the lower half latches the upper one
        return low | self._read(f"{name}_HI") << 32

    def _write_pair(self, name: str, value: int) -> None:
        self._write(f"{name}_LO", value & _WORD)
        self._write(f"{name}_HI", value >> 32)


class CoreDevice(Device):
    """A core behind a transport, as a device. ``proof``: what programs must match here; None takes any of the architecture."""

    proof: Proof | None = None

    def __init__(self, transport: Transport, *, watchdog: int = 0) -> None:
        self.transport = transport
        self.memory_base, self.memory_bytes = transport.memory_base, transport.memory_bytes
        self.driver = CoreDriver(transport, watchdog=watchdog)

    @property
    def arch_id(self) -> int:
        return self.driver.identity.arch_id

    def demand(self, proof: Proof) -> None:
        """From now on only the recorded program runs; GateRefusal where the core is not the recorded design."""
        identity = self.driver.identity
        proof.admit_core(identity.arch_id, identity.build_id)
        self.proof = proof

    def check(self, program: Program) -> None:
        super().check(program)
        if self.proof is not None:
            self.proof.admit_program(program)

    def check_training(self, program: TrainingProgram) -> None:
        super().check_training(program)
        if self.proof is not None:
            self.proof.admit_training(program)

    def write_memory(self, address: int, data: bytes) -> None:
        self.transport.write_memory(address, data)

    def read_memory(self, address: int, count: int) -> bytes:
        return self.transport.read_memory(address, count)

    def start(self, program: Program, placement: Placement, *, record: bool = False) -> None:
        if record:
            raise DeviceError("this device cannot record what instructions write: use the interpreter or the simulator")
        self.driver.start(placement, program.arch.regions)

    def finish(self) -> Launch:
        outcome = self.driver.finish()
        return Launch(outcome=outcome, counters=self.driver.counters(), late=self.driver.late)
