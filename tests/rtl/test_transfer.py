"""LOAD and STORE with their masters: what they write, how they end and how long they take, against machine and timing model."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Module, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.common import load as common
from hw.rtl.common.axi import axi4_read_manager, axi4_write_manager
from hw.rtl.common.bursts import window_members
from hw.rtl.common.interfaces import EngineCommand
from hw.rtl.common.load import LoadSpace
from hw.rtl.common.read import ReadMaster
from hw.rtl.common.runs import RunLoopParameters
from hw.rtl.common.write import WriteMaster
from hw.rtl.deform.load import LoadEngine
from hw.rtl.deform.memories import RowWritePort
from hw.rtl.deform.ports import ReadPort, TableWritePort, WritePort
from hw.rtl.deform.store import StoreEngine
from hw.spec.deform import LANES, DeformArch
from hw.spec.deform.instructions import INSTRUCTIONS, SPACES
from hw.spec.deform.latency import MEMORY_READ, TABLE_PARTS
from hw.spec.deform.machine import DeformMachine
from hw.spec.deform.timing.transfer import MemoryTiming, load_cycles, store_cycles
from hw.spec.isa import Instruction
from hw.spec.machine import CoreError, Memory, OpenRegion
from hw.spec.regs import ErrorCode
from tests.rtl.axi_model import Agent, Bus, ReadMemory, WriteMemory, simulate

SMALL = {"feature_words": 64, "row_words": 20, "weight_words": 32, "parameter_words": 48, "tables": 2}
ARCH = DeformArch(regions=3, region_manager=(0, 0, 0), burst_beats=8, outstanding=2, **SMALL)
WIDE = DeformArch(regions=3, managers=2, region_manager=(0, 1, 0), burst_beats=4, outstanding=4, columns=64, **SMALL)
MEMORY_BASE, MEMORY_WORDS = 0x4_0000, 1024
REGIONS = (
    OpenRegion(base=MEMORY_BASE + 0x0F80, size=0x2000),
    OpenRegion(base=MEMORY_BASE, size=0x1000),
    OpenRegion(base=MEMORY_BASE, size=0),
)
LOAD_PORTS = {"fm": "feature", "row": "row", "wgt": "weight", "par": "parameter", "tbl": "table"}
SIGNATURES = {"row": RowWritePort, "table": TableWritePort}
PORT_SIGNALS = (0, 3, 7, 10, 13)
"""First of each load port's signals among those that the chip observes."""


class Core(wiring.Component):
    """A transfer engine with its master, as in the core."""

    def __init__(self, arch: DeformArch, name: str) -> None:
        self._arch, self.name = arch, name
        axi = axi4_read_manager() if name == "LOAD" else axi4_write_manager()
        ports = {port: Out(SIGNATURES.get(port, WritePort)) for port in LOAD_PORTS.values()}
        super().__init__({
            "command": In(EngineCommand),
            **window_members(arch),
            "axi": Out(axi).array(arch.managers),
            **(ports if name == "LOAD" else {"feature": Out(ReadPort)}),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        load = self.name == "LOAD"
        m.submodules.engine = engine = (LoadEngine if load else StoreEngine)(self._arch)
        m.submodules.master = master = (ReadMaster if load else WriteMaster)(self._arch)
        wiring.connect(m, engine.runs, master.runs)
        wiring.connect(m, wiring.flipped(self.command), engine.command)
        for inner, outer in zip(master.axi, self.axi, strict=True):
            wiring.connect(m, inner, wiring.flipped(outer))
        for name in LOAD_PORTS.values() if load else ["feature"]:
            wiring.connect(m, getattr(engine, name), wiring.flipped(getattr(self, name)))
        m.d.comb += [*(master.regions[i].eq(window) for i, window in enumerate(self.regions)), master.program.eq(self.program)]
        return m


FAST = MemoryTiming(read_latency=1, write_latency=1)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One instruction, and the memory that it meets: its timing, and the word addresses that answer an error."""

    fields: dict[str, int]
    timing: MemoryTiming = FAST
    faults: frozenset[int] = frozenset()


class Sequencer(Agent):
    """Opens the regions and runs instructions one after the other; their errors and cycles."""

    def __init__(self, dut: Core, steps: Sequence[Step], bus: Bus) -> None:
        self._dut, self._steps, self._bus = dut, list(steps), bus
        self._started: int | None = None
        self._next = 2
        self.errors: list[ErrorCode] = []
        self.cycles: list[int] = []
        self.inputs = [dut.command.done, dut.command.error]

    def drive(self, ctx: Any, cycle: int) -> None:
        if cycle == 0:
            for port, region in zip(self._dut.regions, REGIONS, strict=True):
                ctx.set(port.base, region.base)
                ctx.set(port.size, region.size)
        start = self._started is None and cycle == self._next
        ctx.set(self._dut.command.start, start)
        if start:
            step = self._steps[len(self.errors)]
            ctx.set(self._dut.command.instruction, int.from_bytes(encode(self._dut.name, step), "little"))
            self._bus.faults = set(step.faults)
            self._bus.read_latency, self._bus.write_latency = step.timing.read_latency, step.timing.write_latency
            self._bus.beat_interval = step.timing.beat_interval
            self._started = cycle

    def observe(self, values: Sequence[int], cycle: int) -> None:
        done, error = values
        assert not (done and self._started is None), "done without start"
        if done:
            self.errors.append(ErrorCode(error))
            self.cycles.append(cycle - self._started)
            self._started, self._next = None, cycle + 1

    def finished(self) -> bool:
        return len(self.errors) == len(self._steps)


def encode(name: str, step: Step) -> bytes:
    return INSTRUCTIONS.encode(name, **step.fields)


class Chip(Agent):
    """The on-chip memories: takes LOAD's writes, answers STORE's reads."""

    def __init__(self, dut: Core, arch: DeformArch, content: dict[str, np.ndarray], load: bool) -> None:
        self._dut, self._arch, self._load, self.content = dut, arch, load, content
        self._coming = [0] * MEMORY_READ
        self.writes = 0
        ports = [getattr(dut, name) for name in LOAD_PORTS.values()] if load else [dut.feature]
        self.inputs = [signal for port in ports for signal in self._signals(port)]

    def _signals(self, port: Any) -> list[Value]:
        return [port.en, port.addr, *([port.data] if self._load else []), *([port.bank] if hasattr(port, "bank") else [])]

    def drive(self, ctx: Any, cycle: int) -> None:
        if not self._load:
            ctx.set(self._dut.feature.data, self._coming.pop(0))

    def observe(self, values: Sequence[int], cycle: int) -> None:
        if not self._load:
            en, addr = values
            self._coming.append(int.from_bytes(self.content["fm"][addr].tobytes(), "little") if en else 0xDEAD)
            return
        assert sum(values[i] for i in PORT_SIGNALS) <= 1
        for space, at in zip(SPACES, PORT_SIGNALS, strict=True):
            en, addr, data = values[at : at + 3]
            if not en:
                continue
            if space == "tbl":
                self._write_part(addr, data)
                continue
            bank = values[at + 3] if space == "row" else 0
            word = np.frombuffer(data.to_bytes(16, "little"), np.uint8)
            assert addr < (self._arch.row_words if space == "row" else self._arch.space_units()[space])
            self.content[space][bank * self._arch.row_words + addr] = word
            self.writes += 1


    def _write_part(self, addr: int, data: int) -> None:
        """A quarter of a word of the tables; the last completes it."""
        parts = self.content["tbl"].reshape(-1, LANES // TABLE_PARTS)
        parts[addr] = np.frombuffer(data.to_bytes(LANES // TABLE_PARTS, "little"), np.uint8)
        self.writes += addr % TABLE_PARTS == TABLE_PARTS - 1


class FaultyMemory(Memory):
    """A memory some of whose words answer with an error."""

    def __init__(self, rng: np.random.Generator) -> None:
        super().__init__(MEMORY_WORDS * 16, MEMORY_BASE)
        self.bytes[:] = rng.integers(0, 256, self.bytes.size, np.uint8)
        self.faults: frozenset[int] = frozenset()

    def _check(self, address: int, count: int, code: ErrorCode) -> None:
        if self.faults & set(range(address // 16, (address + count) // 16)):
            raise CoreError(code)

    def read(self, address: int, count: int) -> np.ndarray:
        self._check(address, count, ErrorCode.AXI_READ)
        return super().read(address, count)

    def write(self, address: int, data: np.ndarray) -> None:
        self._check(address, data.size, ErrorCode.AXI_WRITE)
        super().write(address, data)

    def words(self) -> dict[int, int]:
        rows = self.bytes.reshape(-1, 16)
        return {self.base // 16 + i: int.from_bytes(row.tobytes(), "little") for i, row in enumerate(rows)}


class Outcome:
    """What machine and RTL made of the same instructions."""

    def __init__(self, name: str, steps: Sequence[Step], *, arch: DeformArch = ARCH, seed: int = 0, stall: float = 0.0) -> None:
        self.name, self.arch, self.steps = name, arch, steps
        self.decoded = [INSTRUCTIONS.decode(encode(name, step)) for step in steps]
        self.machine = DeformMachine(arch, seed=seed)
        self._memory = FaultyMemory(np.random.default_rng(seed))
        self.machine.memory, self.machine.regions = self._memory, REGIONS
        self.bus = Bus(words=self._memory.words(), burst_beats=arch.burst_beats, outstanding=arch.outstanding, seed=seed,
                       stall=stall)  # fmt: skip
        dut = Core(arch, name)
        chip = {space: content.copy() for space, content in self.machine.chip.items()}
        self.chip = Chip(dut, arch, chip, name == "LOAD")
        self._sequencer = Sequencer(dut, steps, self.bus)
        self.model = [self._execute(*pair) for pair in zip(self.decoded, steps, strict=True)]
        model = ReadMemory if name == "LOAD" else WriteMemory
        ports = [model(port, self.bus, number) for number, port in enumerate(dut.axi)]
        simulate(dut, [self._sequencer, self.chip, *ports], self._sequencer.finished)

    def _execute(self, instruction: Instruction, step: Step) -> ErrorCode:
        self._memory.faults = step.faults
        try:
            self.machine.execute(instruction)
        except CoreError as error:
            return error.code
        return ErrorCode.NONE

    @property
    def errors(self) -> list[ErrorCode]:
        return self._sequencer.errors

    @property
    def cycles(self) -> list[int]:
        return self._sequencer.cycles

    def check(self) -> None:
        """All instructions ended well and all memories are equal, word for word."""
        assert self.errors == self.model == [ErrorCode.NONE] * len(self.steps)
        compared = 0
        for space, content in self.machine.chip.items():
            assert np.array_equal(content, self.chip.content[space]), space
            compared += len(content)
        words = self._memory.words()
        assert self.bus.words == words
        assert compared + len(words) > 1000

    def check_cycles(self) -> None:
        """The instructions that ended well took as long as the timing model says."""
        model = load_cycles if self.name == "LOAD" else store_cycles
        bases = [region.base for region in REGIONS]
        compared = 0
        for instruction, step, error, cycles in zip(self.decoded, self.steps, self.errors, self.cycles, strict=True):
            if not error:
                assert cycles == model(instruction, self.arch, step.timing, bases), step
                compared += 1
        assert compared > 0


def fields(**changes: int) -> dict[str, int]:
    return {"n0": 1, "n1": 1, "n2": 1, **changes}


LEGAL = [
    fields(),
    fields(n0=64),
    fields(n0=5, n1=3, n2=2, stride1=7, stride2=40, chip_stride1=6, chip_stride2=19),
    fields(n0=1, n1=4, n2=5, stride1=3, stride2=0, chip_addr=2, chip_stride1=9, chip_stride2=1),
    fields(n0=17, n1=2, offset=0x1FF - 40, stride1=23, chip_stride1=20),
    fields(region=1, n0=9, n1=4, offset=250 - 33, stride1=8, chip_addr=37, chip_stride1=(1 << 20) - 9),
]


@pytest.mark.parametrize("arch", [ARCH, WIDE], ids=["one", "wide"])
def test_store(arch: DeformArch) -> None:
    outcome = Outcome("STORE", [Step(fields=case) for case in LEGAL], arch=arch)
    outcome.check()
    outcome.check_cycles()


def test_load_to_every_memory() -> None:
    cases = [
        *LEGAL,
        fields(space=1, n0=3, n1=2, n2=23, offset=9, stride1=3, stride2=5, chip_addr=1, chip_stride1=3, chip_stride2=6),
        fields(space=1, n0=20, n2=9, offset=9, stride2=20, chip_stride2=77),
        fields(space=2, n0=32, n1=2, offset=2, stride1=32, chip_stride1=32),
        fields(space=3, n0=48, offset=30),
        fields(space=4, n0=5, n1=3, n2=2, offset=7, stride1=6, stride2=19, chip_addr=1, chip_stride1=5, chip_stride2=15),
        fields(space=4, n0=1, n1=4, offset=90, stride1=1, chip_addr=31, chip_stride1=(1 << 20) - 2),
    ]
    outcome = Outcome("LOAD", [Step(fields=case) for case in cases], arch=WIDE)
    outcome.check()
    outcome.check_cycles()
    assert outcome.chip.writes == sum(case["n0"] * case["n1"] * case["n2"] for case in cases)


RANGES = [
    ({"n0": 65}, ErrorCode.BUFFER_RANGE),
    ({"n0": 64}, ErrorCode.NONE),
    ({"n0": 2, "chip_addr": 63}, ErrorCode.BUFFER_RANGE),
    ({"n0": 1, "chip_addr": 64}, ErrorCode.BUFFER_RANGE),
    ({"n0": 0xFFFF, "chip_addr": 0xFFFFF}, ErrorCode.BUFFER_RANGE),
    ({"n0": 2, "n1": 3, "chip_addr": 56, "chip_stride1": 3}, ErrorCode.NONE),
    ({"n0": 2, "n1": 3, "chip_addr": 57, "chip_stride1": 3}, ErrorCode.BUFFER_RANGE),
    ({"offset": 511}, ErrorCode.NONE),
    ({"offset": 512}, ErrorCode.REGION),
    ({"offset": 500, "n0": 13}, ErrorCode.REGION),
    ({"offset": 500, "n0": 3, "n1": 4, "stride1": 3, "chip_stride1": 3}, ErrorCode.NONE),
    ({"offset": 501, "n0": 3, "n1": 4, "stride1": 3, "chip_stride1": 3}, ErrorCode.REGION),
    ({"region": 2}, ErrorCode.REGION),
    ({"region": 3}, ErrorCode.REGION),
    ({"region": 15, "n0": 65}, ErrorCode.BUFFER_RANGE),
    ({"offset": 1, "n1": 2, "stride1": 0xFFFF_FFFF}, ErrorCode.REGION),
    ({"offset": 1, "n2": 2, "stride2": 0xFFFF_FFFF}, ErrorCode.REGION),
    ({"offset": 0, "n2": 3, "stride2": 0x8000_0000}, ErrorCode.REGION),
    ({"offset": 511, "n1": 2, "stride1": 1, "chip_addr": 63, "chip_stride1": 1}, ErrorCode.BUFFER_RANGE),
    ({"offset": 511, "n1": 3, "stride1": 1, "chip_addr": 62, "chip_stride1": 1}, ErrorCode.REGION),
]
LOAD_RANGES = [
    ({"space": 1, "n0": 21}, ErrorCode.BUFFER_RANGE),
    ({"space": 1, "n0": 2, "n2": 10, "chip_addr": 10, "chip_stride2": 8}, ErrorCode.NONE),
    ({"space": 1, "n0": 2, "n2": 10, "chip_addr": 10, "chip_stride2": 9}, ErrorCode.BUFFER_RANGE),
    ({"space": 2, "n0": 32}, ErrorCode.NONE),
    ({"space": 2, "n0": 33}, ErrorCode.BUFFER_RANGE),
    ({"space": 3, "n0": 48}, ErrorCode.NONE),
    ({"space": 3, "n0": 49}, ErrorCode.BUFFER_RANGE),
    ({"space": 4, "n0": 32}, ErrorCode.NONE),
    ({"space": 4, "n0": 33}, ErrorCode.BUFFER_RANGE),
    ({"space": 4, "n0": 3, "n1": 2, "chip_addr": 20, "chip_stride1": 9}, ErrorCode.NONE),
    ({"space": 4, "n0": 3, "n1": 2, "chip_addr": 20, "chip_stride1": 10}, ErrorCode.BUFFER_RANGE),
]


@pytest.mark.parametrize("name", ["LOAD", "STORE"])
def test_ranges_and_that_the_next_instruction_runs(name: str) -> None:
    good = Step(fields=fields(n0=6, n1=2, offset=3, stride1=9, chip_addr=5, chip_stride1=7))
    ranges = RANGES + LOAD_RANGES * (name == "LOAD")
    steps = [step for changes, _ in ranges for step in (Step(fields=fields(**changes)), good)]
    outcome = Outcome(name, steps)
    expected = [error for _, code in ranges for error in (code, ErrorCode.NONE)]
    assert outcome.errors == outcome.model == expected
    outcome.check_cycles()
    assert len(set(outcome.cycles[1::2])) == 1


def run_word(run: int, word: int) -> int:
    """Word address in memory of a word of the runs below."""
    return REGIONS[0].base // 16 + 4 + 20 * run + word


FAULTS = [
    (run_word(0, 0), {}, "AXI"),
    (run_word(3, 9), {}, "AXI"),
    (run_word(1, 5), {"chip_stride1": 19}, "AXI"),
    (run_word(2, 9), {"chip_stride1": 19}, "AXI"),
    (run_word(3, 0), {"chip_stride1": 19}, "BUFFER_RANGE"),
    (run_word(3, 0), {"offset": 512 - 69}, "REGION"),
    (run_word(1, 19), {}, "NONE"),
    # Runs of one word: the error is still on its way when the next run is refused.
    (REGIONS[0].base // 16 + 511, {"offset": 510, "n0": 1, "stride1": 1, "chip_stride1": 1}, "AXI"),
]


@pytest.mark.parametrize("name", ["LOAD", "STORE"])
def test_bus_errors_win_over_what_later_runs_get_wrong(name: str) -> None:
    base = fields(offset=4, n0=10, n1=4, stride1=20, chip_stride1=11)
    good, steps, expected = Step(fields=fields(offset=200)), [], []
    for latency in (1, 30):
        timing = MemoryTiming(read_latency=latency, write_latency=latency)
        for word, changes, error in FAULTS:
            steps += [Step(fields={**base, **changes}, timing=timing, faults=frozenset({word})), good]
            code = f"AXI_{'READ' if name == 'LOAD' else 'WRITE'}" if error == "AXI" else error
            expected += [ErrorCode[code], ErrorCode.NONE]
    outcome = Outcome(name, steps)
    assert outcome.errors == outcome.model == expected
    outcome.check_cycles()


def test_crc() -> None:
    memory = FaultyMemory(np.random.default_rng(0))
    start = REGIONS[0].base - MEMORY_BASE
    loaded = b"".join(memory.bytes[start + 16 * at : start + 16 * (at + 7)].tobytes() for at in (3, 14))
    crc, steps = zlib.crc32(loaded), []
    wrong = [crc ^ 1, crc ^ 1 << 31, zlib.crc32(loaded[:-16]), 0]
    for space in range(len(SPACES)):
        case = fields(space=space, n0=7, n1=2, offset=3, stride1=11, chip_stride1=8)
        steps += [Step(fields={**case, "check_crc": 1, "crc": value}) for value in (crc, *wrong, crc)]
        steps.append(Step(fields={**case, "crc": 5}))
    outcome = Outcome("LOAD", steps)
    once = [ErrorCode.NONE, *[ErrorCode.BLOB_CRC] * 4, ErrorCode.NONE, ErrorCode.NONE]
    assert outcome.errors == outcome.model == once * len(SPACES)


def random_case(rng: random.Random, name: str, arch: DeformArch) -> dict[str, int]:
    """A legal instruction."""
    n0, n1, n2 = rng.choice([1, 2, 3, 5, 8, 13]), rng.randrange(1, 4), rng.randrange(1, 12)
    space = rng.randrange(len(SPACES)) if name == "LOAD" else 0
    size = arch.row_words if space == 1 else arch.space_units()[SPACES[space]]
    region = rng.randrange(2)
    turns = (n2 - 1) // 9 if space == 1 else n2 - 1
    room, chip_room = REGIONS[region].size // 16 - n0, size - n0
    case = fields(n0=n0, n1=n1, n2=n2, region=region)
    case["stride2"] = rng.randrange(room // (2 * n2) + 1)
    case["stride1"] = rng.randrange(room // (2 * n1) + 1)
    case["offset"] = rng.randrange(room - (n2 - 1) * case["stride2"] - (n1 - 1) * case["stride1"] + 1)
    case["chip_stride2"] = rng.randrange(chip_room // (2 * turns + 1) + 1)
    case["chip_stride1"] = rng.randrange(chip_room // (2 * n1) + 1)
    used = turns * case["chip_stride2"] + (n1 - 1) * case["chip_stride1"]
    case["chip_addr"] = rng.randrange(max(chip_room - used, 0) + 1)
    return {**case, "space": space} if name == "LOAD" else case


@pytest.mark.parametrize("name", ["LOAD", "STORE"])
@pytest.mark.parametrize("arch", [ARCH, WIDE], ids=["one", "wide"])
def test_random_transfers_under_random_stalls(name: str, arch: DeformArch) -> None:
    rng, steps = random.Random(repr((name, arch))), []
    for _ in range(16):
        read, write, interval = rng.randrange(1, 12), rng.randrange(1, 12), rng.randrange(1, 3)
        timing = MemoryTiming(read_latency=read, write_latency=write, beat_interval=interval)
        steps.append(Step(fields=random_case(rng, name, arch), timing=timing))
    outcome = Outcome(name, steps, arch=arch, seed=7, stall=0.3)
    outcome.check()
    assert all(outcome.bus.stalls[channel] > 10 for channel in (("ar", "r") if name == "LOAD" else ("aw", "w", "b")))
    assert len({burst[1] for burst in outcome.bus.bursts}) == arch.managers


TIMINGS = [
    FAST,
    MemoryTiming(read_latency=11, write_latency=17),
    MemoryTiming(read_latency=6, write_latency=5, beat_interval=2),
]
SLOW = MemoryTiming(read_latency=3, write_latency=5, beat_interval=6)
"""Slower than the table memories take words."""


PACED = [
    fields(space=4),
    fields(space=4, n0=32),
    fields(space=4, n0=1, n1=9, stride1=1, chip_stride1=3),
    fields(space=4, n0=3, n1=3, n2=2, offset=250, stride1=4, stride2=30, chip_stride1=3, chip_stride2=14),
]
"""Loads of the table memories, which take a word every TABLE_PARTS cycles."""


@pytest.mark.parametrize("name", ["LOAD", "STORE"])
@pytest.mark.parametrize(("burst_beats", "outstanding"), [(1, 2), (2, 16), (8, 1), (64, 4)])
def test_cycles_equal_the_timing_model(name: str, burst_beats: int, outstanding: int) -> None:
    arch = DeformArch(regions=3, region_manager=(0, 0, 0), burst_beats=burst_beats, outstanding=outstanding, **SMALL)
    rng, steps = random.Random(burst_beats), []
    for timing in TIMINGS:
        cases = [*LEGAL, fields(n0=1, n1=12, chip_stride1=1, stride1=1), fields(n0=2, n2=7, chip_stride2=2, stride2=3)]
        cases += [random_case(rng, name, arch) for _ in range(4)] + PACED * (name == "LOAD")
        steps += [Step(fields=case, timing=timing) for case in cases]
    steps += [Step(fields=case, timing=SLOW) for case in PACED] * (name == "LOAD")
    outcome = Outcome(name, steps, arch=arch)
    outcome.check()
    outcome.check_cycles()
    assert len(outcome.cycles) == 36 + 4 * len(PACED) * (name == "LOAD") and len(set(outcome.cycles)) > 12


def test_a_core_without_tables_refuses_to_load_one() -> None:
    arch = DeformArch(regions=3, region_manager=(0, 0, 0), **SMALL | {"tables": 0})
    assert not hasattr(LoadEngine(arch), "table")
    with pytest.raises(CoreError, match="BUFFER_RANGE"):
        DeformMachine(arch).execute(INSTRUCTIONS.decode(INSTRUCTIONS.encode("LOAD", space=SPACES.index("tbl"))))


def test_bad_parameters_raise() -> None:
    with pytest.raises(ValueError, match="read_latency must be at least 1, not 0"):
        MemoryTiming(read_latency=0, write_latency=1)
    with pytest.raises(ValueError, match=r"banks must be in 1\.\.16, not 0"):
        RunLoopParameters(banks=0, queue=1)
    with pytest.raises(ValueError, match="queue must be at least 1, not 0"):
        RunLoopParameters(banks=1, queue=0)
    spaces = [LoadSpace(port=port, words=9, banks=2, signature=RowWritePort) for port in ("one", "other")]
    with pytest.raises(ValueError, match=r"at most one space of LOAD may have several banks, not \['one', 'other'\]"):
        common.LoadEngine(ARCH, spaces)
    store = INSTRUCTIONS.decode(INSTRUCTIONS.encode("STORE"))
    with pytest.raises(ValueError, match="the instruction must be a LOAD, not a STORE"):
        load_cycles(store, ARCH, MemoryTiming(read_latency=1, write_latency=1), [0])
