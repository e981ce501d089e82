"""Bench of the GEMM engine: the engine with its memories, compiled, driven by a script, and the machine as judge.

A script has the inputs of every cycle: unit writes as LOAD does them, instructions with random gaps and other instructions on the
wires between them. As an instruction's cycles are known beforehand, the next one comes when it is done, at the earliest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np
from amaranth.hdl import Cat, Module, ResetInserter
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.sat.gemm import GemmEngine
from hw.rtl.sat.memories import AccumulatorMemory, ActivationMemory, IndexMemory, TableMemory, WeightMemory
from hw.sim.stream import Stream
from hw.spec.isa import Instruction
from hw.spec.sat import SatArch
from hw.spec.sat.instructions import DRAIN_FP16, DRAIN_FP32
from hw.spec.sat.machine import SatMachine
from hw.spec.sat.timing.gemm import gemm_cycles

PART = 128
SPACES = ("act", "wgt", "idx", "acc", "tbl")
SIZES = {"act_words": 256, "wgt_words": 512, "acc_words": 1024, "vec_words": 512, "tbl_words": 64}


def bench_arch(rows: int, columns: int, *, latency: int = 4, feed: int = 1) -> SatArch:
    return SatArch(rows=rows, columns=columns, latency=latency, feed=feed, **SIZES)


class EngineAndMemories(wiring.Component):
    """The engine on its memories, with ports of 128 bits at most.

    ``flush`` resets the engine, as the shell does it. ``busy``: an access is enabled; ``missed``: one lay outside a cycle before.
    """

    def __init__(self, arch: SatArch) -> None:
        self.arch = arch
        self.wide = {"out_data": 16 * arch.columns, "acc_data": 32 * arch.columns}
        super().__init__({
            "issue": In(1),
            "flush": In(1),
            **{f"instruction_{n}": In(PART) for n in range(4)},
            "write_en": In(len(SPACES)),
            "write_addr": In(20),
            "write_data": In(PART),
            "read_en": In(1),
            "read_addr": In(20),
            "read_data": Out(PART),
            "ended": Out(1),
            "busy": Out(1),
            "missed": Out(1),
            "acc_en": Out(1),
            "acc_addr": Out(20),
            "out_en": Out(1),
            "out_bank": Out(2),
            "out_addr": Out(20),
            "out_saturated": Out(1),
            **{f"{name}_{n}": Out(min(bits, PART)) for name, bits in self.wide.items() for n in range(-(-bits // PART))},
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        engine = GemmEngine(self.arch)
        m.submodules.engine = ResetInserter(self.flush)(engine)
        m.submodules.act = act = ActivationMemory(self.arch)
        m.submodules.wgt = wgt = WeightMemory(self.arch)
        m.submodules.idx = idx = IndexMemory(self.arch)
        m.submodules.acc = acc = AccumulatorMemory(self.arch)
        m.submodules.tbl = tbl = TableMemory(self.arch)
        for copy in range(self.arch.copies):
            wiring.connect(m, engine.act[copy], act.read[copy])
            wiring.connect(m, engine.tbl[copy], tbl.read[copy])
        wiring.connect(m, engine.wgt, wgt.read)
        wiring.connect(m, engine.idx, idx.read)
        wiring.connect(m, engine.acc_read, acc.read)
        wiring.connect(m, engine.acc_write, acc.write)
        for number, port in enumerate((act.write, wgt.write, idx.write, acc.unit_write, tbl.write)):
            m.d.comb += [port.en.eq(self.write_en[number]), port.addr.eq(self.write_addr), port.data.eq(self.write_data)]
        reads = [port.en for port in (*engine.act, *engine.tbl, engine.wgt, engine.idx, engine.acc_read, engine.acc_write, engine.out)]
        m.d.comb += [
            engine.command.start.eq(self.issue),
            engine.command.instruction.eq(Cat(getattr(self, f"instruction_{n}") for n in range(4))),
            self.ended.eq(engine.command.done & (engine.command.error == 0)),
            self.busy.eq(Cat(reads).any()),
            self.missed.eq(Cat(memory.out_of_range for memory in (act, wgt, idx, acc, tbl)).any()),
            acc.unit_read.en.eq(self.read_en),
            acc.unit_read.addr.eq(self.read_addr),
            self.read_data.eq(acc.unit_read.data),
        ]
        self._show(m, engine)
        return m

    def _show(self, m: Module, engine: GemmEngine) -> None:
        m.d.comb += [
            self.acc_en.eq(engine.acc_write.en),
            self.acc_addr.eq(engine.acc_write.addr),
            *(getattr(self, f"out_{name}").eq(getattr(engine.out, name)) for name in ("en", "bank", "addr", "saturated")),
        ]
        for name, port in (("out_data", engine.out), ("acc_data", engine.acc_write)):
            for n in range(-(-self.wide[name] // PART)):
                m.d.comb += getattr(self, f"{name}_{n}").eq(port.data[PART * n : PART * (n + 1)])


@cache
def compiled(arch: SatArch) -> Stream:
    return Stream(EngineAndMemories(arch))


def encoded(arch: SatArch, instruction: Instruction) -> bytes:
    fields = {entry.name: instruction[entry.name] for entry in instruction.operation.fields}
    return arch.instructions.encode(instruction.name, **fields)


@dataclass(frozen=True, kw_only=True)
class Job:
    """An instruction, and the unit writes before it: (space, address, data (n, 16) bytes); ``gap``: idle cycles before it.

    ``victim``: an instruction that is broken off before it in so many cycles.
    """

    instruction: Instruction
    writes: tuple[tuple[str, int, np.ndarray], ...] = ()
    gap: int = 0
    victim: tuple[Instruction, int] | None = None


@dataclass(kw_only=True)
class Script:
    """Inputs of every cycle, as columns of a table that grows."""

    arch: SatArch
    rng: np.random.Generator
    rows: list[np.ndarray] = field(default_factory=list)
    length: int = 0

    def _grow(self, cycles: int) -> np.ndarray:
        """Cycles with random values everywhere and nothing enabled. Columns: 8 instruction, issue, enables, address, 2 data, read,
        its address, flush."""
        table = self.rng.integers(0, 1 << 64, (cycles, 16), np.uint64)
        table[:, [8, 9, 13, 15]] = 0
        self.rows.append(table)
        self.length += cycles
        return table

    def idle(self, cycles: int) -> None:
        if cycles:
            self._grow(cycles)

    def write(self, space: str, at: int, data: np.ndarray) -> None:
        table = self._grow(len(data))
        table[:, 9] = 1 << SPACES.index(space)
        table[:, 10] = np.arange(at, at + len(data))
        table[:, 11:13] = np.ascontiguousarray(data).view("<u8")

    def read_acc(self, at: int, count: int) -> int:
        """Returns the first cycle in which the data are there."""
        table = self._grow(count + 2)
        table[:count, 13] = 1
        table[:count, 14] = np.arange(at, at + count)
        return self.length - count

    def execute(self, instruction: Instruction, broken_off: int | None = None) -> tuple[int, int]:
        """First cycle of the instruction, and that in which it must be done, or in which it is broken off."""
        start, cycles = self.length, gemm_cycles(instruction, self.arch) if broken_off is None else broken_off
        table = self._grow(cycles + 1)
        table[:, :8] = np.frombuffer(encoded(self.arch, instruction), "<u8")
        table[0, 8] = 1
        table[-1, 15] = broken_off is not None
        return start, start + cycles

    def run(self, unit: Stream, seed: int) -> dict[str, np.ndarray]:
        table = np.concatenate(self.rows)
        inputs = {f"instruction_{n}": table[:, 2 * n : 2 * n + 2] for n in range(4)}
        inputs |= {"issue": table[:, 8], "write_en": table[:, 9], "write_addr": table[:, 10] & 0xFFFFF, "write_data": table[:, 11:13]}
        inputs |= {"read_en": table[:, 13], "read_addr": table[:, 14] & 0xFFFFF, "flush": table[:, 15]}
        return unit.pipelined(inputs, latency=0, seed=seed)


@dataclass(kw_only=True)
class Compared:
    """What was equal: instructions, words of accumulator memory, column words of the vector memory, cycles; saturation events seen."""

    instructions: int = 0
    acc_words: int = 0
    out_words: int = 0
    cycles: int = 0
    saturated: int = 0

    def __iadd__(self, other: Compared) -> Compared:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)
        return self


def execute(arch: SatArch, jobs: list[Job], seed: int) -> Compared:
    """Runs jobs one after the other from random state and compares each with the machine."""
    machine, script = SatMachine(arch, seed), Script(arch=arch, rng=np.random.default_rng(seed))
    script.idle(3)
    marks, broken = [], []
    for job in jobs:
        for space, at, data in job.writes:
            script.write(space, at, data)
        if job.victim:
            broken.append(script.execute(*job.victim))
        script.idle(job.gap)
        marks.append(script.execute(job.instruction))
    units = arch.space_units()["acc"]
    at = script.read_acc(0, units)
    found = script.run(compiled(arch), seed)
    judge = Judge(arch, machine, found)
    for job, (start, end) in zip(jobs, marks, strict=True):
        judge.check(job, start, end)
    np.testing.assert_array_equal(found["read_data"][at : at + units].view(np.uint8).reshape(units, 16)[judge.known_units()],
                                  machine.chip["acc"][judge.known_units()])  # fmt: skip
    judge.check_silence(marks, broken)
    return judge.compared


class Judge:
    """Holds what the engine wrote against the machine, instruction by instruction."""

    def __init__(self, arch: SatArch, machine: SatMachine, found: dict[str, np.ndarray]) -> None:
        self.arch, self.machine, self.found, self.compared = arch, machine, found, Compared()
        self.acc = machine.chip["acc"].reshape(arch.acc_words, -1).copy()
        self.known = np.zeros(arch.acc_words, bool)
        self.vec = machine.chip["vec"].reshape(3, -1, 2 * arch.columns).copy()
        self.acc_data, self.out_data = (self._joined(name) for name in ("acc_data", "out_data"))

    def _joined(self, name: str) -> np.ndarray:
        """A wide port's bytes of every cycle."""
        parts = [self.found[key].reshape(len(self.found["ended"]), -1) for key in sorted(self.found) if key.startswith(name)]
        return np.ascontiguousarray(np.concatenate(parts, axis=1)).view(np.uint8)

    def known_units(self) -> np.ndarray:
        """Units of accumulator memory that were written."""
        return np.repeat(self.known, self.arch.columns // 4)

    def check(self, job: Job, start: int, end: int) -> None:
        for space, at, data in job.writes:
            self.machine._write_chip(space, np.arange(at, at + len(data)), data)
            if space == "acc":
                units = self.arch.columns // 4
                self.acc.reshape(-1, 16)[at : at + len(data)] = data
                self.known[at // units : (at + len(data)) // units] = True
        i, span = job.instruction, slice(start, end + 1)
        ended = np.flatnonzero(self.found["ended"][span])
        assert ended.tolist() == [end - start], f"{i.values}: done in cycles {ended}, not {end - start}"
        # In the cycle of the start it is about what was before.
        assert not self.found["missed"][start + 1 : end + 1].any(), f"{i.values}: outside of a memory"
        self.machine.saturated = False
        self.machine.execute(i)
        acc, out = (np.flatnonzero(self.found[name][span]) + start for name in ("acc_en", "out_en"))
        self._check_acc(i, acc)
        self._check_out(i, out)
        assert bool(self.found["out_saturated"][span].any()) == self.machine.saturated, f"{i.values}: saturation"
        self.compared.saturated += self.machine.saturated
        self.compared.instructions += 1
        self.compared.cycles += end - start

    def _check_acc(self, i: Instruction, cycles: np.ndarray) -> None:
        words = self.found["acc_addr"][cycles].astype(int)
        expected = self.arch.rows << i["a_log2"] + i["b_log2"] if i["drain"] == DRAIN_FP32 else 0
        assert len(words) == len(set(words.tolist())) == expected
        self.acc[words], self.known[words] = self.acc_data[cycles], True
        np.testing.assert_array_equal(self.acc, self.machine.chip["acc"].reshape(self.acc.shape), err_msg=str(i.values))
        self.compared.acc_words += len(words)

    def _check_out(self, i: Instruction, cycles: np.ndarray) -> None:
        words, banks = self.found["out_addr"][cycles].astype(int), self.found["out_bank"][cycles].astype(int)
        expected = min(i["out_rows"], self.arch.rows << i["a_log2"]) * i["out_words"] if i["drain"] == DRAIN_FP16 else 0
        assert len(words) == len(set(words.tolist())) == expected
        self.vec[banks, words] = self.out_data[cycles][:, : self.vec.shape[2]]
        np.testing.assert_array_equal(self.vec.reshape(-1), self.machine.chip["vec"].reshape(-1), err_msg=str(i.values))
        self.compared.out_words += len(words)

    def check_silence(self, marks: list[tuple[int, int]], broken: list[tuple[int, int]]) -> None:
        """Nothing is read, written or done outside of instructions, those that are broken off included."""
        quiet = np.ones(len(self.found["busy"]), bool)
        for start, end in marks:
            quiet[start + 1 : end] = False
        for start, end in broken:
            quiet[start + 1 : end + 1] = False
        assert quiet.any() and not self.found["busy"][quiet].any()
        assert self.found["ended"].sum() == len(marks)
