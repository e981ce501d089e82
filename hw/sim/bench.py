"""A simulated core beside the spec's machine: the same programs, compared by outcome and by every written byte.

``bench.compared`` counts what was equal, so that a test can ask that it is not nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from hw.sim.build import SimulationBuild
from hw.sim.coverage import Coverage
from hw.sim.kits import kit_for
from hw.sim.loop import Loop, MemoryTiming, Stalls
from hw.sim.records import NEVER
from hw.spec import regs
from hw.spec.arch import WORD_BYTES, Arch
from hw.spec.cores import machine_for
from hw.spec.machine import Memory, OpenRegion, Outcome, Writes
from hw.spec.program import build_image
from hw.spec.regs import BY_NAME, ErrorCode

BASE = 0x1_0000_4000
"""Of the memory: above 4 GB and not at a round address, so that every address bit that matters is used."""

PROGRAM, PROGRAM_BYTES = BASE, 0x2000
DATA_BYTES = RESULT_BYTES = 0x2000
LEAST_DIRT_BYTES = 0x8000
ALL_STROBES = (1 << WORD_BYTES) - 1
RUNNING_ERRORS = (ErrorCode.REGION, ErrorCode.BUFFER_RANGE, ErrorCode.BLOB_CRC, ErrorCode.AXI_READ, ErrorCode.AXI_WRITE)
"""Errors of an instruction that was issued (as long as the program itself can be read)."""


class CoreMismatch(Exception):
    """Core and machine differ, or the core broke a rule of its buses; the message says where."""


def bench_regions(arch: Arch) -> tuple[OpenRegion, OpenRegion, OpenRegion]:
    """Contents for all on-chip memories, inputs, outputs; further regions stay closed."""
    dirt = max(LEAST_DIRT_BYTES, -(-kit_for(arch).dirt_words(arch) * WORD_BYTES // 4096) * 4096)
    sizes, at, regions = (dirt, DATA_BYTES, RESULT_BYTES), BASE + PROGRAM_BYTES, []
    for size in sizes:
        regions.append(OpenRegion(base=at, size=size))
        at += size
    return (regions[0], regions[1], regions[2])


def dirt_program(arch: Arch) -> list[bytes]:
    """Fills every on-chip memory from region 0, so that core and machine hold the same."""
    return kit_for(arch).dirt(arch)


def bench_memory(arch: Arch, seed: int) -> np.ndarray:
    """Random bytes for the whole memory, with contents in region 0 that exercise the core's units (``Kit.plant``)."""
    rng, regions = np.random.default_rng(seed), bench_regions(arch)
    memory = rng.integers(0, 256, regions[-1].base + regions[-1].size - BASE, np.uint8)
    kit_for(arch).plant(arch, rng, memory[regions[0].base - BASE :])
    return memory


class CoreBench:
    """One core and one machine that see the same programs; CoreMismatch where they differ.

    Parameters
    ----------
    seed : draws memory, the machine's on-chip contents and, unless ``state_seed`` is given, the core's state at power-up
    coverage : is told of every retired instruction and every ending

    ``compared`` counts what was equal: programs, instructions, bytes in memory and in each on-chip memory; and beats on the bus
    that the protocol checker watched.
    """

    def __init__(
        self,
        build: SimulationBuild,
        arch: Arch,
        *,
        seed: int = 1,
        state_seed: int | None = None,
        stalls: Stalls | None = None,
        timing: MemoryTiming | None = None,
        build_id: int = 0,
        coverage: Coverage | None = None,
    ) -> None:
        self.arch, self.compared, self.coverage = arch, Counter[str](), coverage
        self.regions = bench_regions(arch)
        size = self.regions[-1].base + self.regions[-1].size - BASE
        self.loop = Loop(
            build,
            memory_bytes=size,
            memory_base=BASE,
            stalls=stalls,
            timing=timing,
            build_id=build_id,
            state_seed=seed if state_seed is None else state_seed,
            trace_writes=True,
        )
        self.loop.reset()
        self.machine = machine_for(arch, seed)
        self.memory = Memory(size, BASE)
        self.memory.bytes[:] = bench_memory(arch, seed)
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

    def command(self, bit: str) -> None:
        self.write("CONTROL", BY_NAME["CONTROL"].mask(bit))

    def status(self, *bits: str) -> bool:
        """Whether STATUS is exactly these bits."""
        return self.read("STATUS") == sum(BY_NAME["STATUS"].mask(bit) for bit in bits)

    def region_bytes(self, region: int, word: int, count: int) -> bytes:
        """What memory holds at words of a region."""
        start = self.regions[region].base - BASE + WORD_BYTES * word
        return self.memory.bytes[start : start + WORD_BYTES * count].tobytes()

    def start(self, image: bytes, *, watchdog: int = 0, length: int | None = None, address: int = PROGRAM) -> None:
        """Put the image into both memories, open the regions, start the core."""
        data = np.frombuffer(image, np.uint8)
        for memory in (self.loop.memory, self.memory.bytes):
            memory[address - BASE : address - BASE + data.size] = data
        for number, region in enumerate(self.regions):
            for register, value in zip(regs.region_registers(number), _words(region.base) + _words(region.size), strict=True):
                self.loop.write_register(register.offset, value)
        for name, value in zip(("PROGRAM_ADDR_LO", "PROGRAM_ADDR_HI"), _words(address), strict=True):
            self.write(name, value)
        self.write("PROGRAM_LENGTH", len(image) if length is None else length)
        self.write("WATCHDOG", watchdog)
        self.write("IRQ_ENABLE", 1)
        self.loop.clear_logs()
        self.command("START")

    def wait(self, max_cycles: int = 2_000_000) -> Outcome:
        """Run to the interrupt; the outcome that the registers tell."""
        self.loop.run(max_cycles)
        _require(self.loop.interrupt, f"no interrupt within {max_cycles} cycles")
        code, index = self.read("ERROR_CODE"), self.read("ERROR_INDEX")
        _require(code in set(ErrorCode), f"the core reports error {code}, which does not exist")
        error = ErrorCode(code)
        bits = ["DONE", *["ERROR"] * (error != ErrorCode.NONE), *["STUCK"] * (error == ErrorCode.BUS_STUCK)]
        _require(self.status(*bits), f"STATUS must be {bits} after {error.name}, not {self.read('STATUS'):#x}")
        if (violations := self.loop.violations()).count:
            raise CoreMismatch(f"{violations.count} breaches of the bus protocol, first: {violations.first}")
        self.compared["read beats"] += self.read_pair("READ_BEATS")
        self.compared["write beats"] += self.read_pair("WRITE_BEATS")
        if self.coverage:
            self.coverage.ended(error)
        return Outcome(error=error, index=index, retired=self.read("RETIRED"))

    def run(self, instructions: Sequence[bytes], **start: int) -> Outcome:
        """One program on both sides; everything that can be compared is."""
        return self.run_image(build_image(self.arch, instructions), **start)

    def run_image(self, image: bytes, **start: int) -> Outcome:
        self.start(image, **start)
        written: list[Writes] = []
        length, address = start.get("length", len(image)), start.get("address", PROGRAM)
        expected = self.machine.run(self.memory, self.regions, address, length, written.append)
        got = self.wait()
        _require(got == expected, f"the core must end with {expected}, not {got}")
        self._compare_writes(written)
        self._compare_trace(expected)
        if self.coverage:
            self.coverage.retired(image, written)
        if expected.error == ErrorCode.NONE:
            _require(np.array_equal(self.loop.memory, self.memory.bytes), "memory differs after the program")
        else:
            self.resynchronise()
        self.compared["programs"] += 1
        return expected

    def fill(self) -> None:
        """The same contents in all on-chip memories of both sides."""
        outcome = self.run(dirt_program(self.arch))
        _require(outcome.error == ErrorCode.NONE, f"the program that fills the on-chip memories ended with {outcome}")

    def resynchronise(self) -> None:
        """Begin again from the core's memory, because what a program leaves that ended with an error is undefined."""
        self.memory.bytes[:] = self.loop.memory
        self._settle()
        self.fill()

    def _settle(self) -> None:
        """Take what an error leaves undefined outside of the memories: both sides do the same, and what they write may differ."""
        if not (instructions := kit_for(self.arch).settle(self.arch)):
            return
        image = build_image(self.arch, instructions)
        self.start(image)
        expected = self.machine.run(self.memory, self.regions, PROGRAM, len(image))
        got = self.wait()
        _require(got == expected, f"the core must end with {expected}, not {got}")

    def _compare_writes(self, written: Sequence[Writes]) -> None:
        trace = self.loop.trace()
        chip = {space: trace.written(space) for space in trace.spaces}
        for writes in written:
            beats = trace.memory_writes[trace.memory_writes["index"] == writes.index]
            _require(bool((beats["strobe"] == ALL_STROBES).all()), f"instruction {writes.index} writes parts of words")
            self._compare(writes, "memory", beats)
            for space, log in chip.items():
                self._compare(writes, space, log[log["index"] == writes.index])
            self.compared["instructions"] += 1

    def _compare(self, writes: Writes, space: str, log: np.ndarray) -> None:
        addresses, data = writes.sorted(space)
        log = log[np.argsort(log["address"], kind="stable")]
        where = f"instruction {writes.index} writes to {space}"
        _require(np.array_equal(log["address"].astype(np.int64), addresses), f"{where}: other addresses")
        _require(np.array_equal(log["data"], data), f"{where}: other bytes")
        self.compared[space] += data.size

    def _compare_trace(self, expected: Outcome) -> None:
        """Issue and retire strobes: one pair per retired instruction, in order, and one issue of what failed while it ran."""
        instructions = self.loop.trace().instructions
        done = instructions[instructions["retire"] != NEVER]
        _require(done["index"].tolist() == list(range(expected.retired)), "instructions retire out of order")
        failed = len(instructions) - len(done)
        _require(failed == (expected.error in RUNNING_ERRORS), f"{failed} instructions were issued and did not retire")


def _require(ok: bool, words: str) -> None:
    if not ok:
        raise CoreMismatch(words)


def _words(value: int) -> tuple[int, int]:
    return value & 0xFFFF_FFFF, value >> 32
