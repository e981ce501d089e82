"""Runs DW instructions on the engine in Amaranth's simulator, with memories, a requantise unit and tables written in Python.

The stand-ins answer with garbage where nothing was asked, so that data used at the wrong time shows.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from amaranth.hdl import Module, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import Out
from amaranth.sim import Simulator

from hw.rtl.arith.requantise import RequantiseUnit
from hw.rtl.deform.dw import DwEngine
from hw.spec.deform import LANES, DeformArch
from hw.spec.deform.instructions import TABLES_MAX
from hw.spec.deform.latency import MEMORY_READ, result_cycles
from hw.spec.deform.timing.dw import ROW_READ, dw_cycles, pipeline_cycles
from hw.spec.isa import CRC_OFFSET, HEADER, Instruction
from hw.spec.ops import shift_saturating
from tests.rtl.dw_reference import ROUNDINGS, Effects, Memories, reference, through_table

IDLE_CYCLES = 3


@dataclass(kw_only=True)
class Job:
    """An instruction with the memories that it finds."""

    instruction: Instruction
    memories: Memories


@dataclass(kw_only=True)
class Observed(Effects):
    """What the engine did, and in how many cycles."""

    cycles: int = 0
    errors: list[str] = field(default_factory=list)


def instruction_bits(i: Instruction) -> int:
    """The 512 bits that the sequencer hands over; the engine does not look at the CRC."""
    word = 0
    for entry in HEADER + i.operation.fields:
        word |= (i[entry.name] & ((1 << entry.width) - 1)) << i.operation.offsets[entry.name]
    assert word >> CRC_OFFSET * 8 == 0
    return word


def bench_arch(real_unit: bool) -> DeformArch:
    return DeformArch(tables=0 if real_unit else TABLES_MAX)


class RequantiseStandIn:
    """Sets of records and the definition of requantisation."""

    def __init__(self) -> None:
        self.sets = [[bytes(LANES)] * 8 for _ in range(2)]

    def load(self, number: int, index: int, word: int) -> None:
        self.sets[number][index] = word.to_bytes(LANES, "little")

    def convert(self, number: int, acc: int, rounding: int, lo: int, hi: int) -> int:
        records = np.frombuffer(b"".join(self.sets[number]), np.uint8).reshape(LANES, 8)
        values = np.frombuffer(acc.to_bytes(4 * LANES, "little"), "<i4").astype(np.int64)
        bias = np.ascontiguousarray(records[:, :4]).view("<i4")[:, 0].astype(np.int64)
        multiplier = np.ascontiguousarray(records[:, 4:6]).view("<u2")[:, 0].astype(np.int64)
        shift = (records[:, 6].astype(np.int64) + 32 & 63) - 32
        codes = shift_saturating((values + bias) * multiplier, shift, ROUNDINGS[rounding])
        clipped = np.clip(codes, _signed9(lo), _signed9(hi))
        return int.from_bytes((clipped & 0xFF).astype(np.uint8).tobytes(), "little")


def _signed9(value: int) -> int:
    return value - 512 if value & 256 else value


class Bench:
    """One engine that runs one job after the other; ``observed`` has what happened in each.

    ``real_unit``: with the core's requantise unit in place of the stand-in, and without tables.
    """

    def __init__(self, jobs: Sequence[Job], seed: int = 0, real_unit: bool = False) -> None:
        self.arch = bench_arch(real_unit)
        self.dut = DwEngine(self.arch)
        self.real_unit = real_unit
        self.jobs = jobs
        self.observed = [Observed() for _ in jobs]
        self.current = 0
        self._noise = random.Random(seed)
        self._requantise = RequantiseStandIn()

    def run(self) -> list[Observed]:
        m = Module()
        m.submodules.dut = self.dut
        processes = [self._par, self._feature, self._rows]
        if self.real_unit:
            m.submodules.unit = unit = RequantiseUnit(2)
            wiring.connect(m, self.dut.requantise, unit.port)
        else:
            processes.append(self._requantise_unit)
        sim = Simulator(m)
        sim.add_clock(1e-8)
        for process in processes:
            sim.add_process(process)
        sim.add_testbench(self._control)
        sim.run()
        return self.observed

    @property
    def _memories(self) -> Memories:
        return self.jobs[self.current].memories

    def _error(self, text: str) -> None:
        self.observed[self.current].errors.append(text)

    def _garbage(self, bits: int = 128) -> int:
        return self._noise.getrandbits(bits)

    async def _control(self, ctx) -> None:
        command = self.dut.command
        for number, job in enumerate(self.jobs):
            self.current = number
            ctx.set(command.instruction, instruction_bits(job.instruction))
            ctx.set(command.start, 1)
            limit = dw_cycles(job.instruction, self.arch) + 200
            cycles = 0
            while not ctx.get(command.done) and cycles < limit:
                await ctx.tick()
                ctx.set(command.start, 0)
                cycles += 1
            assert cycles < limit, f"job {number} {dict(job.instruction.values)} is not done after {limit} cycles"
            assert ctx.get(command.error) == 0
            self.observed[number].cycles = cycles
            ctx.set(command.instruction, self._garbage(512))
            for _ in range(number % IDLE_CYCLES):  # sometimes the next start follows done at once
                await ctx.tick()
                self._check_idle(ctx)
            if number % IDLE_CYCLES == 0:
                await ctx.tick()
        for _ in range(pipeline_cycles(self.arch)):  # an access that comes after done would show in the last job
            await ctx.tick()
            self._check_idle(ctx)

    def _check_idle(self, ctx) -> None:
        dut, unit = self.dut, self.dut.requantise
        quiet = [(str(port), port.en) for port in (dut.par, dut.fm_read, dut.fm_write, dut.row)]
        quiet += [("table", dut.table)]
        quiet += [(name, getattr(unit, name)) for name, member in unit.signature.members.items() if member.flow == Out]
        for name, value in quiet:
            if ctx.get(Value.cast(value)):
                self._error(f"{name} is not zero while idle")

    async def _par(self, ctx) -> None:
        port = self.dut.par
        answers = deque([0] * (MEMORY_READ - 1))
        async for _, _, en, addr in ctx.tick().sample(port.en, port.addr):
            answers.append(int.from_bytes(self._memories.par[addr], "little") if en else self._garbage())
            ctx.set(port.data, answers.popleft())

    async def _feature(self, ctx) -> None:
        read, write = self.dut.fm_read, self.dut.fm_write
        answers = deque([0] * (MEMORY_READ - 1))
        sampled = ctx.tick().sample(read.en, read.addr, write.en, write.addr, write.data)
        async for _, _, en, addr, w_en, w_addr, w_data in sampled:
            answers.append(int.from_bytes(self._memories.feature[addr], "little") if en else self._garbage())
            ctx.set(read.data, answers.popleft())
            if w_en:
                self.observed[self.current].writes.append((w_addr, w_data.to_bytes(LANES, "little")))

    async def _rows(self, ctx) -> None:
        port = self.dut.row
        answers = deque([0] * (ROW_READ - 1))
        async for _, _, en, bank, addr in ctx.tick().sample(port.en, port.bank.as_value(), port.addr.as_value()):
            taps = [(tap, bank >> 4 * tap & 15, addr >> 20 * tap & 0xFFFFF) for tap in range(3)]
            used = [entry for entry in taps if en >> entry[0] & 1]
            self.observed[self.current].reads.extend(used)
            if len({b for _, b, _ in used}) != len({(b, a) for _, b, a in used}):
                self._error(f"two addresses in one bank: {used}")
            words = [self._memories.rows[b][a] if en >> tap & 1 else self._garbage().to_bytes(16, "little") for tap, b, a in taps]
            answers.append(int.from_bytes(b"".join(words), "little"))
            ctx.set(port.data.as_value(), answers.popleft())

    async def _requantise_unit(self, ctx) -> None:
        port, unit = self.dut.requantise, self._requantise
        answers = deque([0] * (result_cycles(self.arch) - 1))
        controls = (port.set, port.acc.as_value(), port.rounding, port.clip_lo, port.clip_hi, self.dut.table)
        loads = (port.load_en, port.load_set, port.load_index, port.load_data)
        async for _, _, number, acc, rounding, lo, hi, table, *load in ctx.tick().sample(*controls, *loads):
            codes = unit.convert(number, acc, rounding, lo, hi).to_bytes(LANES, "little")
            answers.append(int.from_bytes(through_table(table, self._memories, codes), "little"))
            if load[0]:
                unit.load(*load[1:])
            ctx.set(port.o_data, answers.popleft())


def check(jobs: Sequence[Job], real_unit: bool = False) -> list[Observed]:
    """Runs the jobs and compares every access, every written word and the cycles with the reference."""
    results = Bench(jobs, real_unit=real_unit).run()
    for number, (job, observed) in enumerate(zip(jobs, results, strict=True)):
        name = f"job {number} {dict(job.instruction.values)}"
        expected = reference(job.instruction, job.memories)
        assert not observed.errors, (name, observed.errors[:3])
        assert sorted(observed.reads) == sorted(expected.reads), name
        assert observed.writes == expected.writes, name
        assert observed.cycles == dw_cycles(job.instruction, bench_arch(real_unit)), name
        assert len(observed.writes) > 0
    return results
