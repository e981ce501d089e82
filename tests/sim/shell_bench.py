"""cocotb bench of the shell's buses: cocotbext-axi plays host and memory, with random pauses on every channel."""

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge, with_timeout
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiRam

from hw.sim.bus_checks import PortChecker
from hw.spec import regs
from hw.spec.deform.machine import DeformMachine
from hw.spec.machine import Memory, OpenRegion
from hw.spec.program import build_image
from hw.spec.regs import BY_NAME, ErrorCode
from tests.sim.copy_core import ARCH

SIZE = 1 << 16
PROGRAM = 0x40
REGIONS = (OpenRegion(base=0x3F0, size=0x3C00), OpenRegion(base=0x4010, size=0x3FE0),
           OpenRegion(base=0x8000, size=0x4000), OpenRegion(base=0xC000, size=0x3FF0))  # fmt: skip
PORTS = ("s_axi", "m_axi_0", "m_axi_1")
PROGRAMS = 12


def random_pauses(seed: int, probability: float) -> Iterator[bool]:
    rng = random.Random(seed)
    while True:
        yield rng.random() < probability


class Bench:
    """Host, two views of one memory, and the checkers."""

    def __init__(self, dut, seed: int, probability: float) -> None:
        self.dut, self.rng = dut, np.random.default_rng(seed)
        self.checkers = [PortChecker(dut, port) for port in PORTS]
        cocotb.start_soon(Clock(dut.clk, 10, unit="ns").start())
        self.host = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi", bus_separator="__"), dut.clk, dut.rst)
        self.rams = [AxiRam(AxiBus.from_prefix(dut, port, bus_separator="__"), dut.clk, dut.rst, size=SIZE) for port in PORTS[1:]]
        for ram in self.rams:
            ram.write_if.mem = ram.read_if.mem = self.rams[0].mem
        self.memory = Memory(SIZE)
        self.memory.bytes[:] = self.rng.integers(0, 256, SIZE)
        self.rams[0].write(0, self.memory.bytes.tobytes())
        self._pause(seed, probability)

    def _pause(self, seed: int, probability: float) -> None:
        for number, model in enumerate((self.host, *self.rams)):
            channels = [getattr(model.write_if, f"{name}_channel") for name in ("aw", "w", "b")]
            channels += [getattr(model.read_if, f"{name}_channel") for name in ("ar", "r")]
            for index, channel in enumerate(channels):
                channel.set_pause_generator(random_pauses(1000 * seed + 10 * number + index, probability))

    async def reset(self) -> None:
        self.dut.build_id.value = 0x0123_4567_89AB_CDEF
        self.dut.rst.value = 1
        for _ in range(4):
            await RisingEdge(self.dut.clk)
        self.dut.rst.value = 0
        cocotb.start_soon(self._watch())

    async def _watch(self) -> None:
        while True:
            # Everything has settled here, and is what both sides see at the next rising edge.
            await FallingEdge(self.dut.clk)
            for checker in self.checkers:
                checker.step()

    async def write(self, offset: int, value: int) -> None:
        await self.host.write_dword(offset, value)

    async def read(self, name: str) -> int:
        return await self.host.read_dword(BY_NAME[name].offset)

    async def open_regions(self) -> None:
        for number, region in enumerate(REGIONS):
            for register, value in zip(regs.region_registers(number), (region.base, 0, region.size, 0), strict=True):
                await self.write(register.offset, value)

    def program(self) -> list[bytes]:
        """Loads and stores of all regions; some runs cross 4 KB boundaries, some are longer than a burst."""
        instructions = []
        for _ in range(int(self.rng.integers(1, 5))):
            n0, n1 = int(self.rng.integers(1, 60)), int(self.rng.integers(1, 4))
            name = str(self.rng.choice(["LOAD", "STORE"]))
            fields = {
                "region": int(self.rng.integers(4)), "offset": int(self.rng.integers(700)), "n0": n0, "n1": n1,
                "stride1": n0 + int(self.rng.integers(40)), "chip_stride1": n0, "chip_addr": int(self.rng.integers(300)),
            }  # fmt: skip
            instructions.append(ARCH.instructions.encode(name, **fields))
        return instructions

    async def run(self, machine: DeformMachine, instructions: list[bytes]) -> int:
        """The program on both sides; the number of bytes of memory that were compared."""
        image = build_image(ARCH, instructions)
        self.memory.bytes[PROGRAM : PROGRAM + len(image)] = list(image)
        self.rams[0].write(PROGRAM, image)
        expected = machine.run(self.memory, REGIONS, PROGRAM, len(image))
        for name, value in (("PROGRAM_ADDR_LO", PROGRAM), ("PROGRAM_LENGTH", len(image)), ("IRQ_ENABLE", 1), ("CONTROL", 1)):
            await self.write(BY_NAME[name].offset, value)
        if not self.dut.irq.value:
            await with_timeout(RisingEdge(self.dut.irq), 1, "ms")
        told = [await self.read(name) for name in ("ERROR_CODE", "ERROR_INDEX", "RETIRED")]
        assert told == [expected.error, expected.index, expected.retired]
        assert expected.error == ErrorCode.NONE
        await self.write(BY_NAME["CONTROL"].offset, BY_NAME["CONTROL"].mask("ACKNOWLEDGE"))
        assert self.rams[0].read(0, SIZE) == self.memory.bytes.tobytes()
        return SIZE


@cocotb.test()
async def random_programs(dut) -> None:
    parameters = json.loads(os.environ["BENCH_PARAMETERS"])
    bench = Bench(dut, parameters["seed"], parameters["probability"])
    machine, compared = DeformMachine(ARCH), 0
    await bench.reset()
    await bench.open_regions()
    assert await bench.read("BUILD_ID_LO") == 0x89AB_CDEF
    # The core's memory holds anything at first: fill it before anything is stored.
    compared += await bench.run(machine, [ARCH.instructions.encode("LOAD", region=3, n0=ARCH.feature_words)])
    for _ in range(PROGRAMS):
        compared += await bench.run(machine, bench.program())
    counts = {checker.name: dict(checker.counts) for port in bench.checkers for checker in port.checkers.values()}
    problems = [problem for port in bench.checkers for checker in port.checkers.values() for problem in checker.problems]
    Path(os.environ["BENCH_REPORT"]).write_text(json.dumps({"compared": compared, "counts": counts, "problems": problems}))
