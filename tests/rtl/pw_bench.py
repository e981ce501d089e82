"""Bench of the PW engine: the engine with its requantise unit and tables, memories of the bench's own, and the machine as judge."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from amaranth.hdl import Module, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from hw.rtl.arith.requantise import RequantiseUnit
from hw.rtl.common.interfaces import EngineCommand
from hw.rtl.deform.ports import ReadPort, RequantisePort, TableWritePort, WritePort, weight_read_port
from hw.rtl.deform.pw import PwEngine
from hw.rtl.deform.tables import PART_BYTES, TableLookup
from hw.spec.deform import LANES, DeformArch
from hw.spec.deform.instructions import TABLE_BYTES, TABLES_MAX
from hw.spec.deform.latency import MEMORY_READ
from hw.spec.deform.machine import DeformMachine
from hw.spec.deform.timing.pw import pw_cycles, words_per_tile
from hw.spec.isa import Instruction

SPACES = ("fm", "wgt", "par")
ENTRIES = np.random.default_rng(99).integers(0, 256, (TABLES_MAX * TABLE_BYTES // LANES, LANES), np.uint8)
"""What the table memories hold in every bench."""


def small_arch(rows: int, columns: int = 32, field_bits: int = 23, tables: int = 2) -> DeformArch:
    memories = {"feature_words": 512, "weight_words": 2048, "parameter_words": 256}
    return DeformArch(rows=rows, columns=columns, field_bits=field_bits, tables=tables, **memories)


def joined(m: Module, outer: wiring.PureInterface, inner: wiring.PureInterface, tables: TableLookup) -> None:
    """An engine's requantise port with a unit whose bytes come through tables."""
    for name, member in RequantisePort.members.items():
        if member.flow is Out:
            m.d.comb += Value.cast(getattr(inner, name)).eq(Value.cast(getattr(outer, name)))
    m.d.comb += [tables.i.eq(inner.o_data), outer.o_data.eq(tables.o)]


class Recorder(DeformMachine):
    """The machine, noting which words it reads and writes."""

    def __init__(self, arch: DeformArch, chip: dict[str, np.ndarray]) -> None:
        super().__init__(arch)
        self.chip.update({space: chip[space].copy() for space in SPACES})
        self.chip["tbl"][:] = ENTRIES[: len(self.chip["tbl"])]
        self.read: dict[str, set[int]] = {space: set() for space in SPACES}

    def _read_chip(self, space: str, addresses: np.ndarray) -> np.ndarray:
        data = super()._read_chip(space, addresses)
        self.read[space] |= set((np.asarray(addresses) & 0xFFFFF).reshape(-1).tolist())
        return data

    def written(self) -> list[int]:
        return self.writes.sorted("fm")[0].tolist()


@dataclass(kw_only=True)
class Job:
    """An instruction and the memories it starts from, each (units, 16) bytes; ``legal``: no access leaves a memory."""

    instruction: Instruction
    chip: dict[str, np.ndarray]
    legal: bool = True


@dataclass(kw_only=True)
class Trace:
    """What an instruction did."""

    cycles: int = 0
    reads: dict[str, set[int]] = field(default_factory=lambda: {space: set() for space in SPACES})
    writes: dict[int, bytes] = field(default_factory=dict)
    out_of_range: int = 0


class EngineAndUnit(wiring.Component):
    """The engine's ports but for those of the requantise unit and the tables, which are there."""

    def __init__(self, arch: DeformArch) -> None:
        self.arch = arch
        self.engine = PwEngine(arch)
        super().__init__({
            "command": In(EngineCommand),
            "fm_read": Out(ReadPort),
            "fm_write": Out(WritePort),
            "wgt": Out(weight_read_port(arch.weight_word_units)),
            "par": Out(ReadPort),
            "table_write": In(TableWritePort),
            "no_table": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.engine = self.engine
        m.submodules.unit = unit = RequantiseUnit(self.arch.columns // LANES)
        m.submodules.tables = tables = TableLookup(self.arch)
        joined(m, self.engine.requantise, unit.port, tables)
        wiring.connect(m, wiring.flipped(self.table_write), tables.write)
        m.d.comb += [tables.table.eq(self.engine.table), self.no_table.eq(tables.out_of_range)]
        for name in ("command", "fm_read", "fm_write", "wgt", "par"):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(self.engine, name))
        return m


class PwBench:
    """Runs jobs one after the other on one engine, from a dirty state, and compares each with the machine."""

    def __init__(self, arch: DeformArch, seed: int = 0) -> None:
        self.arch = arch
        self.dut = EngineAndUnit(arch)
        self.rng = np.random.default_rng(seed)
        self.compared = 0
        self.cycles = 0
        self.traces: list[Trace] = []
        requantise = self.dut.engine.requantise
        self.quiet = [port.en for port in (self.dut.fm_read, self.dut.fm_write, self.dut.wgt, self.dut.par)]
        self.quiet += [self.dut.command.done, self.dut.command.error, self.dut.engine.table]
        self.quiet += [Value.cast(getattr(requantise, n)) for n in
                       ("load_en", "load_set", "load_index", "load_data", "set", "acc", "rounding", "clip_lo", "clip_hi")]

    def run(self, jobs: list[Job]) -> int:
        """Words compared."""
        async def testbench(ctx) -> None:
            await self._fill_tables(ctx)
            for job in jobs:
                trace = await self._execute(ctx, job)
                self._judge(job, trace)
                await self._idle(ctx)

        sim = Simulator(self.dut)
        sim.add_clock(1e-8)
        sim.add_testbench(testbench)
        sim.run()
        return self.compared

    async def _fill_tables(self, ctx) -> None:
        parts, port = ENTRIES.reshape(-1, PART_BYTES), self.dut.table_write
        for addr in range(self.arch.tables * TABLE_BYTES // PART_BYTES):
            ctx.set(port.en, 1)
            ctx.set(port.addr, addr)
            ctx.set(port.data, int.from_bytes(parts[addr].tobytes(), "little"))
            await ctx.tick()
        ctx.set(port.en, 0)

    async def _idle(self, ctx) -> None:
        """Silence, for a random while, with another instruction on the wires."""
        ctx.set(self.dut.command.instruction, int.from_bytes(self.rng.bytes(64), "little"))
        for port in (self.dut.fm_read, self.dut.wgt, self.dut.par):
            ctx.set(port.data, int.from_bytes(self.rng.bytes(len(port.data) // 8), "little"))
        for _ in range(int(self.rng.integers(1, 4))):
            assert not any(ctx.get(value) for value in self.quiet)
            await ctx.tick()

    async def _execute(self, ctx, job: Job) -> Trace:
        expected = pw_cycles(job.instruction, self.arch)
        trace, memory = Trace(), {space: job.chip[space].copy() for space in SPACES}
        ports = {"fm": self.dut.fm_read, "wgt": self.dut.wgt, "par": self.dut.par}
        units = {"fm": 1, "wgt": self.arch.weight_word_units, "par": 1}
        pipes: dict[str, list[bytes | None]] = {space: [None] * MEMORY_READ for space in SPACES}
        ctx.set(self.dut.command.instruction, encoded(self.arch, job.instruction))
        ctx.set(self.dut.command.start, 1)
        while not ctx.get(self.dut.command.done):
            for space, port in ports.items():
                pipes[space].append(self._read(ctx, port, memory[space], units[space], trace, space))
                data = pipes[space].pop(0) or self.rng.bytes(LANES * units[space])
                ctx.set(port.data, int.from_bytes(data, "little"))
            self._write(ctx, memory["fm"], trace)
            trace.out_of_range += ctx.get(self.dut.no_table)
            await ctx.tick()
            ctx.set(self.dut.command.start, 0)
            trace.cycles += 1
            assert trace.cycles <= expected, "the engine takes longer than the timing model says"
        assert not ctx.get(self.dut.fm_write.en)
        await ctx.tick()
        self.traces.append(trace)
        self.cycles += trace.cycles
        return trace

    @staticmethod
    def _read(ctx, port, words: np.ndarray, units: int, trace: Trace, space: str) -> bytes | None:
        if not ctx.get(port.en):
            return None
        addr = ctx.get(port.addr)
        trace.reads[space] |= set(range(addr * units, addr * units + units))
        if (addr + 1) * units > len(words):
            trace.out_of_range += 1
            return None
        return words[addr * units : (addr + 1) * units].tobytes()

    def _write(self, ctx, words: np.ndarray, trace: Trace) -> None:
        port = self.dut.fm_write
        if not ctx.get(port.en):
            return
        addr, data = ctx.get(port.addr), ctx.get(port.data).to_bytes(LANES, "little")
        if addr >= len(words):
            trace.out_of_range += 1
            return
        assert addr not in trace.writes, f"word {addr} is written twice"
        trace.writes[addr] = data
        words[addr] = np.frombuffer(data, np.uint8)

    def _judge(self, job: Job, trace: Trace) -> None:
        assert trace.cycles == pw_cycles(job.instruction, self.arch)
        if not job.legal:
            assert trace.out_of_range > 0
            self.compared += 1
            return
        machine = Recorder(self.arch, job.chip)
        machine.execute(job.instruction)
        addresses, data = machine.writes.sorted("fm")
        assert trace.out_of_range == 0
        assert sorted(trace.writes) == addresses.tolist()
        for addr, word in zip(addresses.tolist(), data, strict=True):
            assert trace.writes[addr] == word.tobytes(), f"word {addr}"
        assert trace.reads["fm"] == machine.read["fm"]
        assert trace.reads["par"] == machine.read["par"]
        assert trace.reads["wgt"] == self._weight_units(job.instruction)
        self.compared += len(addresses)

    def _weight_units(self, i: Instruction) -> set[int]:
        """Units of the weight words that the instruction uses: one per K-step and tile of output words."""
        units, per_tile = self.arch.weight_word_units, words_per_tile(self.arch, bool(i["wide_weights"]))
        steps = LANES * i["kernel_h"] * i["kernel_w"] * i["in_words"]
        first, count = i["weight_addr"], steps * -(-i["out_words"] // per_tile)
        return set(range(first * units, (first + count) * units))


def encoded(arch: DeformArch, instruction: Instruction) -> int:
    fields = {entry.name: instruction[entry.name] for entry in instruction.operation.fields}
    return int.from_bytes(arch.instructions.encode(instruction.name, **fields), "little")


def pw(arch: DeformArch, **fields: int) -> Instruction:
    """A PW instruction; output range s8 unless given."""
    return arch.instructions.decode(arch.instructions.encode("PW", **{"clip_lo": -128, "clip_hi": 127, **fields}))


def dirt(arch: DeformArch, rng: np.random.Generator, bias: int = 4000) -> dict[str, np.ndarray]:
    """Random memories. Records have biases below ``bias``, any multiplier below 64 and any shift, so that few outputs saturate."""
    sizes = arch.space_units()
    chip = {space: rng.integers(0, 256, (sizes[space], LANES), np.uint8) for space in SPACES}
    records = chip["par"].reshape(-1, 8)
    records[:, :4] = rng.integers(-bias, bias, len(records)).astype("<i4")[:, None].view(np.uint8)
    records[:, 4:6] = rng.integers(1, 64, len(records)).astype("<u2")[:, None].view(np.uint8)
    records[:, 6] = rng.integers(4, 16, len(records))
    return chip
