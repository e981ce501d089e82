"""A simulated inference core beside the spec's machine: the same programs, compared by outcome and by every written byte."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from hw.sim.build import SimulationBuild
from hw.sim.loop import Loop, MemoryTiming, Stalls
from hw.sim.records import NEVER
from hw.spec import regs
from hw.spec.deform import DeformArch
from hw.spec.deform.machine import DeformMachine
from hw.spec.machine import Memory, OpenRegion, Outcome, Writes
from hw.spec.program import build_image
from hw.spec.regs import BY_NAME, ErrorCode

ARCH = DeformArch(rows=2, feature_words=512, row_words=64, weight_words=512, parameter_words=256, burst_beats=16)
"""The architecture of the end-to-end tests too, so that one simulator serves all."""

BASE, SIZE = 0x1_0000_4000, 1 << 16
DIRT, DATA, RESULT = (BASE + 0x2000, 0x8000), (BASE + 0xA000, 0x2000), (BASE + 0xC000, 0x2000)
REGIONS = tuple(OpenRegion(base=base, size=size) for base, size in (DIRT, DATA, RESULT))
"""Contents for all on-chip memories, inputs, outputs; the fourth region stays closed."""

PROGRAM = BASE
ALL_STROBES = 0xFFFF


def dirt_program(arch: DeformArch) -> list[bytes]:
    """Fills every on-chip memory from region 0, so that core and machine hold the same."""
    units, encode = arch.space_units(), arch.instructions.encode
    row = {"n0": arch.row_words, "n2": 9, "stride2": arch.row_words}
    return [
        encode("LOAD", space=0, n0=units["fm"]),
        encode("LOAD", space=1, **row, offset=100),
        encode("LOAD", space=2, n0=units["wgt"], offset=700),
        encode("LOAD", space=3, n0=units["par"], offset=1000),
    ]


class CoreBench:
    """One core and one machine that see the same programs.

    ``compared`` counts what was equal: programs, instructions, bytes in memory and in each on-chip memory.
    """

    def __init__(
        self,
        build: SimulationBuild,
        arch: DeformArch = ARCH,
        *,
        seed: int = 1,
        stalls: Stalls | None = None,
        timing: MemoryTiming | None = None,
    ) -> None:
        self.arch, self.compared = arch, Counter[str]()
        self.loop = Loop(
            build, memory_bytes=SIZE, memory_base=BASE, stalls=stalls, timing=timing, state_seed=seed, trace_writes=True
        )
        self.loop.reset()
        self.machine = DeformMachine(arch, seed)
        self.rng = np.random.default_rng(seed)
        self.memory = Memory(SIZE, BASE)
        self.memory.bytes[:] = self.rng.integers(0, 256, SIZE)
        self.loop.memory[:] = self.memory.bytes

    def __enter__(self) -> CoreBench:
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.close()

    def write(self, name: str, value: int) -> None:
        self.loop.write_register(BY_NAME[name].offset, value)

    def read(self, name: str) -> int:
        return self.loop.read_register(BY_NAME[name].offset)

    def read_pair(self, name: str) -> int:
        low = self.read(f"{name}_LO")
        return low | self.read(f"{name}_HI") << 32

    def status(self, *bits: str) -> bool:
        """Whether STATUS is exactly these bits."""
        return self.read("STATUS") == sum(BY_NAME["STATUS"].mask(bit) for bit in bits)

    def start(self, image: bytes, *, watchdog: int = 0, length: int | None = None, address: int = PROGRAM) -> None:
        """Put the image into both memories, open the regions, start the core."""
        data = np.frombuffer(image, np.uint8)
        for memory in (self.loop.memory, self.memory.bytes):
            memory[address - BASE : address - BASE + data.size] = data
        for number, region in enumerate(REGIONS):
            for register, value in zip(regs.region_registers(number), _words(region.base) + _words(region.size), strict=True):
                self.loop.write_register(register.offset, value)
        for name, value in zip(("PROGRAM_ADDR_LO", "PROGRAM_ADDR_HI"), _words(address), strict=True):
            self.write(name, value)
        self.write("PROGRAM_LENGTH", len(image) if length is None else length)
        self.write("WATCHDOG", watchdog)
        self.write("IRQ_ENABLE", 1)
        self.loop.clear_logs()
        self.write("CONTROL", BY_NAME["CONTROL"].mask("START"))

    def wait(self, max_cycles: int = 200_000) -> Outcome:
        """Run to the interrupt; the outcome that the registers tell."""
        self.loop.run(max_cycles)
        assert self.loop.interrupt, f"no interrupt within {max_cycles} cycles"
        code, index = ErrorCode(self.read("ERROR_CODE")), self.read("ERROR_INDEX")
        assert self.status("DONE", *["ERROR"] * (code != ErrorCode.NONE), *["STUCK"] * (code == ErrorCode.BUS_STUCK))
        assert (violations := self.loop.violations()).count == 0, violations.first
        return Outcome(error=code, index=index, retired=self.read("RETIRED"))

    def run(self, instructions: Sequence[bytes], **start: int) -> Outcome:
        """One program on both sides; everything that can be compared is."""
        image = build_image(self.arch, instructions)
        return self.run_image(image, **start)

    def run_image(self, image: bytes, **start: int) -> Outcome:
        self.start(image, **start)
        written: list[Writes] = []
        length, address = start.get("length", len(image)), start.get("address", PROGRAM)
        expected = self.machine.run(self.memory, REGIONS, address, length, written.append)
        assert self.wait() == expected, f"the core must end with {expected}"
        self._compare_writes(written)
        self._compare_trace(expected)
        if expected.error == ErrorCode.NONE:
            assert np.array_equal(self.loop.memory, self.memory.bytes)
        else:
            self.resynchronise()
        self.compared["programs"] += 1
        return expected

    def fill(self) -> None:
        """The same contents in all on-chip memories of both sides."""
        assert self.run(dirt_program(self.arch)).error == ErrorCode.NONE

    def resynchronise(self) -> None:
        """Begin again from the core's memory, because what a program leaves that ended with an error is undefined."""
        self.memory.bytes[:] = self.loop.memory
        self.fill()

    def _compare_writes(self, written: Sequence[Writes]) -> None:
        trace = self.loop.trace()
        for writes in written:
            beats = trace.memory_writes[trace.memory_writes["index"] == writes.index]
            assert (beats["strobe"] == ALL_STROBES).all()
            self._compare(writes, "memory", beats)
            chip = trace.chip_writes[trace.chip_writes["index"] == writes.index]
            for number, space in enumerate(trace.spaces):
                self._compare(writes, space, chip[chip["space"] == number])
            self.compared["instructions"] += 1

    def _compare(self, writes: Writes, space: str, log: np.ndarray) -> None:
        addresses, data = writes.sorted(space)
        log = log[np.argsort(log["address"], kind="stable")]
        where = f"instruction {writes.index} writes to {space}"
        assert np.array_equal(log["address"].astype(np.int64), addresses), f"{where}: other addresses"
        assert np.array_equal(log["data"], data), f"{where}: other bytes"
        self.compared[space] += data.size

    def _compare_trace(self, expected: Outcome) -> None:
        """Issue and retire strobes: one pair per retired instruction, in order, and one issue of what failed while it ran."""
        instructions = self.loop.trace().instructions
        done = instructions[instructions["retire"] != NEVER]
        assert done["index"].tolist() == list(range(expected.retired))
        assert len(instructions) - len(done) == (expected.error in RUNNING_ERRORS)


RUNNING_ERRORS = (ErrorCode.REGION, ErrorCode.BUFFER_RANGE, ErrorCode.BLOB_CRC, ErrorCode.AXI_READ, ErrorCode.AXI_WRITE)
"""Errors of an instruction that was issued (as long as the program itself can be read)."""


def _words(value: int) -> tuple[int, int]:
    return value & 0xFFFF_FFFF, value >> 32
