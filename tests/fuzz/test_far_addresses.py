"""Transfers near 2**63 and at the end of the addresses: the simulated core and the machine use all 64 bits of an address."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from hw.sim.bench import ALL_STROBES
from hw.sim.build import SimulationBuild
from hw.sim.core import build_core
from hw.sim.loop import Loop
from hw.spec import regs
from hw.spec.deform.machine import DeformMachine
from hw.spec.machine import Memory, OpenRegion, Outcome, Writes
from hw.spec.program import build_image
from hw.spec.regs import BY_NAME, ErrorCode
from tests.fuzz.core_campaign import halves
from tests.sim.core_bench import ARCH

TOP, BYTES, WORDS = 1 << 64, 0x4000, 40
BASES = {
    "below 2**63": (1 << 63) - BYTES,
    "across 2**63": (1 << 63) - 0x2000,
    "from 2**63 on": 1 << 63,
    "up to 2**64": TOP - BYTES,
}
"""Of a memory of BYTES: the program at its start, data from 0x1000, the results up to its end."""


@pytest.fixture(scope="session")
def core_build() -> SimulationBuild:
    return build_core(ARCH)


class FarBench:
    """A core and a machine with the same memory at any base."""

    def __init__(self, build: SimulationBuild, base: int) -> None:
        self.base, self.machine, self.memory = base, DeformMachine(ARCH, 1), Memory(BYTES, base)
        self.loop = Loop(build, memory_bytes=BYTES, memory_base=base, state_seed=3, trace_writes=True)
        self.loop.reset()

    def run(self, lines: Sequence[bytes], regions: Sequence[OpenRegion]) -> tuple[Outcome, Outcome, int]:
        """How the core and the machine end the program; the words to memory that were equal."""
        image, log = build_image(ARCH, lines), list[Writes]()
        self.memory.bytes[:] = np.random.default_rng(6).integers(0, 256, BYTES)
        self.memory.bytes[: len(image)] = np.frombuffer(image, np.uint8)
        self.loop.memory[:] = self.memory.bytes
        expected = self.machine.run(self.memory, regions, self.base, len(image), log.append)
        self._start(len(image), regions)
        self.loop.run(100_000)
        assert self.loop.interrupt and not self.loop.violations().count
        np.testing.assert_array_equal(self.loop.memory, self.memory.bytes)
        read = {name: self.loop.read_register(BY_NAME[name].offset) for name in ("ERROR_CODE", "ERROR_INDEX", "RETIRED")}
        got = Outcome(error=ErrorCode(read["ERROR_CODE"]), index=read["ERROR_INDEX"], retired=read["RETIRED"])
        return got, expected, self._words(log)

    def _start(self, length: int, regions: Sequence[OpenRegion]) -> None:
        for number, region in enumerate(regions):
            values = (*halves(region.base), *halves(region.size))
            for register, value in zip(regs.region_registers(number), values, strict=True):
                self.loop.write_register(register.offset, value)
        low, high = halves(self.base)
        values = {"PROGRAM_ADDR_LO": low, "PROGRAM_ADDR_HI": high, "PROGRAM_LENGTH": length, "IRQ_ENABLE": 1}
        for name, value in values.items():
            self.loop.write_register(BY_NAME[name].offset, value)
        self.loop.clear_logs()
        self.loop.write_register(BY_NAME["CONTROL"].offset, BY_NAME["CONTROL"].mask("START"))

    def _words(self, log: Sequence[Writes]) -> int:
        beats, compared = self.loop.trace().memory_writes, 0
        for writes in log:
            addresses, data = writes.sorted("memory")
            mine = beats[beats["index"] == writes.index]
            assert mine["address"].tolist() == addresses.tolist() and (mine["strobe"] == ALL_STROBES).all()
            np.testing.assert_array_equal(mine["data"], data)
            compared += len(mine)
        return compared


@pytest.fixture(params=BASES)
def bench(request: pytest.FixtureRequest, core_build: SimulationBuild) -> Iterator[FarBench]:
    made = FarBench(core_build, BASES[request.param])
    yield made
    made.loop.close()


def test_a_copy_uses_all_bits_of_an_address(bench: FarBench) -> None:
    load = ARCH.instructions.encode("LOAD", region=0, n0=WORDS, push=1)
    store = ARCH.instructions.encode("STORE", region=1, n0=WORDS, wait=1)
    regions = (
        OpenRegion(base=bench.base + 0x1FF0, size=16 * WORDS),
        OpenRegion(base=bench.base + BYTES - 16 * WORDS, size=16 * WORDS),
    )
    got, expected, words = bench.run([load, store], regions)
    assert got == expected == Outcome(error=ErrorCode.NONE, index=0, retired=2) and words == WORDS


@pytest.mark.parametrize("name", ["LOAD", "STORE"])
def test_regions_end_where_the_addresses_end(core_build: SimulationBuild, name: str) -> None:
    bench, seen = FarBench(core_build, BASES["up to 2**64"]), list[ErrorCode]()
    fill, known = ARCH.instructions.encode("LOAD", region=1, n0=8), OpenRegion(base=bench.base + 0x1000, size=128)
    for below in (0, 1, 16, 17, 32, 33, 48, 4096, 1 << 62, 1 << 63, (1 << 63) - 16, (1 << 63) + 16):
        for size in (15, 16, 31, 32, 48, 1 << 40, 1 << 63, TOP - 1):
            for words, offset in ((1, 0), (2, 0), (1, 1), (3, 0), (1, (1 << 32) - 1)):
                line = ARCH.instructions.encode(name, region=0, n0=words, offset=offset)
                got, expected, _ = bench.run([fill, line], (OpenRegion(base=(TOP - below) % TOP, size=size), known))
                assert got == expected, (below, size, words, offset)
                seen.append(got.error)
    unmapped = ErrorCode.AXI_READ if name == "LOAD" else ErrorCode.AXI_WRITE
    assert len(seen) == 480 and all(seen.count(code) >= 25 for code in (ErrorCode.NONE, ErrorCode.REGION, unmapped))
    bench.loop.close()
