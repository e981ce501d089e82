"""The sequencer ends every program as the spec's machine does; watchdog, abort and a memory that never answers end it too."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from amaranth.sim import Simulator

from hw.rtl.common.sequencer import DRAIN_LIMIT, ISSUE_LATENCY, Sequencer
from hw.spec.deform import INSTRUCTIONS, DeformArch
from hw.spec.isa import CRC_OFFSET, Instruction, seal
from hw.spec.machine import CoreError, Machine, Memory
from hw.spec.program import build_header, build_image
from hw.spec.regs import NO_INSTRUCTION, ErrorCode

ARCH = DeformArch()
BASE = 0x1_0000
RUNNING = 1 << 30
"""Engine time of an instruction that never ends."""


@dataclass(kw_only=True)
class Case:
    """A program, and what its instructions do: cycles and error by index."""

    image: bytes
    length: int | None = None
    address: int = BASE
    mapped: int | None = None
    cycles: dict[int, int] = field(default_factory=dict)
    errors: dict[int, ErrorCode] = field(default_factory=dict)

    @property
    def program_length(self) -> int:
        return len(self.image) if self.length is None else self.length

    def memory(self) -> Memory:
        size = len(self.image) if self.mapped is None else self.mapped
        memory = Memory(size, BASE)
        memory.bytes[:] = np.frombuffer(self.image[:size], np.uint8)
        return memory


class _Machine(Machine):
    """The spec's machine with instructions that only end, as the case says."""

    def __init__(self, case: Case) -> None:
        super().__init__(ARCH)
        self.case, self.executed = case, list[tuple[int, str]]()

    def execute(self, instruction: Instruction) -> None:
        index = self.writes.index
        self.executed.append((index, instruction.name))
        if index in self.case.errors:
            raise CoreError(self.case.errors[index])


class Bench:
    """A sequencer with a memory and engines in Python. ``silent``: the memory accepts requests and never answers."""

    def __init__(self, seed: int = 0) -> None:
        self.dut, self.rng = Sequencer(arch=ARCH), random.Random(seed)
        self.case = Case(image=b"")
        self.issued: list[tuple[int, str]] = []
        self.retired: list[int] = []
        self.gaps: list[int] = []
        self.latency, self.silent, self.drain_cycles, self.busy_masters = (0, 3), False, 0, False

    def run(self, bench: Callable) -> None:
        async def testbench(ctx) -> None:
            await bench(ctx)

        sim = Simulator(self.dut)
        sim.add_clock(1e-8)
        sim.add_testbench(testbench)
        sim.add_testbench(self._memory, background=True)
        sim.add_testbench(self._engines, background=True)
        sim.add_testbench(self._masters, background=True)
        sim.run()

    async def _memory(self, ctx) -> None:
        runs = self.dut.runs
        ctx.set(runs.idle, 1)
        while True:
            _, _, requested, run, halt, clear = await ctx.tick().sample(
                runs.request.valid, runs.request.payload, self.dut.halt, runs.clear)  # fmt: skip
            if clear:
                ctx.set(runs.failed, 0)
            ctx.set(runs.request.ready, 0)
            if requested and not halt and ctx.get(runs.request.valid):
                await self._serve(ctx, run)

    async def _serve(self, ctx, run) -> None:
        runs = self.dut.runs
        assert (run.region, run.words) == (16, 4)
        ctx.set(runs.request.ready, 1)
        await ctx.tick()
        ctx.set(runs.request.ready, 0)
        ctx.set(runs.idle, 0)
        memory = self.case.memory()
        for word in range(run.words):
            if not await self._wait(ctx):
                break
            try:
                data = memory.read(self.case.address + 16 * (run.offset + word), 16).tobytes()
            except CoreError:
                data = self.rng.randbytes(16)
                ctx.set(runs.failed, 1)
            ctx.set(runs.data.payload, int.from_bytes(data, "little"))
            ctx.set(runs.data.valid, 1)
            await ctx.tick().until(runs.data.ready | self.dut.halt)
            ctx.set(runs.data.valid, 0)
        ctx.set(runs.idle, 1)

    async def _wait(self, ctx) -> bool:
        """A random time; False if the program was halted meanwhile."""
        waited, cycles = 0, self.rng.randint(*self.latency)
        while waited < cycles or self.silent:
            if ctx.get(self.dut.halt):
                return False
            await ctx.tick()
            waited += 1
        return True

    async def _engines(self, ctx) -> None:
        cycle, left, retired_at, dut = 0, 0, 0, self.dut
        while True:
            _, _, issue, retire, index, instruction, halt = await ctx.tick().sample(
                dut.issue, dut.trace.retire, dut.trace.index, dut.instruction, dut.halt)  # fmt: skip
            cycle += 1
            if issue:
                assert bin(issue).count("1") == 1 and not left
                operation = INSTRUCTIONS.operations[issue.bit_length() - 1]
                assert instruction & 0xFF == operation.opcode
                self.issued.append((index, operation.name))
                self.gaps.append(cycle - retired_at)
                left = self.case.cycles.get(index, self.rng.randint(1, 5))
            if retire:
                self.retired.append(index)
                retired_at = cycle
            left = 0 if halt else left
            ctx.set(dut.ended, left == 1)
            ctx.set(dut.error, self.case.errors.get(index, 0) if left == 1 else 0)
            left = max(left - 1, 0)

    async def _masters(self, ctx) -> None:
        """Masters that become idle ``drain_cycles`` after halt, unless they are stuck."""
        drained = 0
        while True:
            drained = drained + 1 if ctx.get(self.dut.halt) else 0
            ctx.set(self.dut.masters_idle, not self.busy_masters and drained >= self.drain_cycles)
            await ctx.tick()

    async def begin(self, ctx, case: Case, *, watchdog: int = 0) -> None:
        dut = self.dut
        self.case, self.issued, self.retired, self.gaps = case, [], [], []
        for port, value in ((dut.program_addr, case.address), (dut.program_length, case.program_length), (dut.watchdog, watchdog)):
            ctx.set(port, value)
        await self.pulse(ctx, dut.start)

    async def pulse(self, ctx, port) -> None:
        ctx.set(port, 1)
        await ctx.tick()
        ctx.set(port, 0)

    async def finish(self, ctx, limit: int = 5000) -> int:
        """Cycles until the program ended."""
        for cycle in range(limit):
            if not ctx.get(self.dut.busy):
                await ctx.tick()  # the engines' process has seen the last cycle
                return cycle
            await ctx.tick()
        raise AssertionError(f"the program did not end within {limit} cycles")

    def outcome(self, ctx) -> tuple[ErrorCode, int, int]:
        dut = self.dut
        assert ctx.get(dut.done)
        return ErrorCode(ctx.get(dut.error_code)), ctx.get(dut.error_index), ctx.get(dut.retired)

    async def compare(self, ctx, case: Case) -> ErrorCode:
        """Run the case on both sides; returns the error that both report."""
        machine, retired = _Machine(case), []
        expected = machine.run(case.memory(), (), case.address, case.program_length, lambda writes: retired.append(writes.index))
        await self.begin(ctx, case)
        await self.finish(ctx)
        assert self.outcome(ctx) == (expected.error, expected.index, expected.retired)
        assert (self.issued, self.retired) == (machine.executed, retired)
        return expected.error


def _program(rng: random.Random, count: int, tokens: int = 0) -> list[bytes]:
    """Instructions with random wait and push masks of the given token bits."""
    masks = [(rng.getrandbits(16) & rng.getrandbits(16) & tokens, rng.getrandbits(16) & tokens) for _ in range(count)]
    return [INSTRUCTIONS.encode(rng.choice(["LOAD", "STORE", "PW"]), wait=wait, push=push) for wait, push in masks]


def _image(instructions: Sequence[bytes]) -> bytes:
    return build_image(ARCH, instructions)


def _damage(rng: random.Random, case: Case, index: int) -> None:
    """Plant one fault of a random kind at an instruction."""
    start = 64 * (index + 1)
    body = bytearray(case.image[start : start + 64])
    kind = rng.choice(["crc", "version", "opcode", "reserved", "range", "token", "read", "engine"])
    if kind == "engine":
        case.errors[index] = rng.choice([ErrorCode.REGION, ErrorCode.BUFFER_RANGE, ErrorCode.AXI_WRITE])
        return
    if kind == "read":
        case.mapped = start + 16 * rng.randrange(4)
        return
    if kind == "crc":
        body[rng.randrange(64)] ^= 1 << rng.randrange(8)
    else:
        byte = {"version": 1, "opcode": 0, "reserved": 59, "range": 2, "token": 5}[kind]
        body[byte] |= 0x80
    sealed = bytes(body) if kind == "crc" else seal(bytes(body[:CRC_OFFSET]))
    case.image = case.image[:start] + sealed + case.image[start + 64 :]


def test_good_programs_run_in_order_and_the_gap_is_constant():
    bench, rng, counts = Bench(), random.Random(3), (0, 1, 2, 7)
    bench.latency = (0, 0)
    gaps: list[int] = []

    async def run(ctx) -> None:
        for count in counts:
            assert await bench.compare(ctx, Case(image=_image(_program(rng, count)))) == ErrorCode.NONE
            assert len(bench.retired) == count
            gaps.extend(bench.gaps[1:])

    bench.run(run)
    assert len(gaps) == sum(max(c - 1, 0) for c in counts) and set(gaps) == {gaps[0]}
    assert gaps[0] > ISSUE_LATENCY


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_programs_end_as_in_the_machine(seed: int):
    bench, rng, seen = Bench(seed), random.Random(seed), Counter[ErrorCode]()

    async def run(ctx) -> None:
        for _ in range(40):
            count = rng.randint(1, 6)
            case = Case(image=_image(_program(rng, count, tokens=rng.choice([0, 0, 0x8001, 0xFFFF]))))
            for index in rng.sample(range(count), rng.choice([0, 1, 1, min(2, count)])):
                _damage(rng, case, index)
            seen[await bench.compare(ctx, case)] += 1

    bench.run(run)
    assert sum(seen.values()) == 40 and len(seen) >= 6, seen


def test_token_limit_is_reached_and_checked():
    push = [INSTRUCTIONS.encode("STORE", push=0x8000)]
    both = [INSTRUCTIONS.encode("STORE", wait=0x8000, push=0x8000)]
    bench, outcomes = Bench(), []

    async def run(ctx) -> None:
        for instructions in (push * 15 + both, push * 15 + both + push, push * 2 + both[:1] * 3, both):
            outcomes.append(await bench.compare(ctx, Case(image=_image(instructions))))

    bench.run(run)
    assert outcomes == [ErrorCode.NONE, ErrorCode.TOKEN, ErrorCode.NONE, ErrorCode.TOKEN]


def test_header_errors_come_before_anything_runs_and_in_order():
    good = _image(_program(random.Random(4), 2))
    other = build_header(ARCH.arch_id ^ 1, 2) + good[64:]
    bad_magic = seal(b"X" + good[1:CRC_OFFSET]) + good[64:]
    cases = [
        (Case(image=good, length=0), ErrorCode.BAD_LENGTH),
        (Case(image=good, length=32), ErrorCode.BAD_LENGTH),
        (Case(image=good, length=len(good) + 16), ErrorCode.BAD_LENGTH),
        (Case(image=good, length=len(good) + 64), ErrorCode.BAD_LENGTH),
        (Case(image=good, address=BASE + 16), ErrorCode.BAD_LENGTH),
        (Case(image=good, mapped=0), ErrorCode.AXI_READ),
        (Case(image=good, mapped=48), ErrorCode.AXI_READ),
        (Case(image=good[:20] + b"?" + good[21:]), ErrorCode.HEADER_CRC),
        (Case(image=bad_magic), ErrorCode.BAD_MAGIC),
        (Case(image=seal(good[:8] + b"\x02" + good[9:CRC_OFFSET]) + good[64:]), ErrorCode.CONTAINER_VERSION),
        (Case(image=other), ErrorCode.WRONG_ARCH),
        (Case(image=good), ErrorCode.NONE),
    ]
    bench, compared = Bench(), []

    async def run(ctx) -> None:
        for case, error in cases:
            assert await bench.compare(ctx, case) == error
            index = ctx.get(bench.dut.error_index)
            assert index == (0 if error == ErrorCode.NONE else NO_INSTRUCTION)
            compared.append(error)

    bench.run(run)
    assert len(compared) == len(cases)


@pytest.mark.parametrize("where", ["engine", "fetch", "header"])
@pytest.mark.parametrize("how", [ErrorCode.WATCHDOG, ErrorCode.ABORTED])
def test_watchdog_and_abort_end_the_program_and_the_next_one_runs(where: str, how: ErrorCode):
    bench = Bench(5)
    image = _image(_program(random.Random(5), 3))

    async def run(ctx) -> None:
        dut = bench.dut
        bench.drain_cycles = 9
        bench.silent = where == "header"
        case = Case(image=image, cycles={1: RUNNING} if where == "engine" else {0: 30})
        await bench.begin(ctx, case, watchdog=200 if how == ErrorCode.WATCHDOG else 0)
        for _ in range(60):
            bench.silent |= where == "fetch" and bool(bench.issued)
            await ctx.tick()
        if how == ErrorCode.ABORTED:
            await bench.pulse(ctx, dut.abort)
            assert 9 <= await bench.finish(ctx) <= 14
        else:
            await bench.finish(ctx, limit=300)
        index = NO_INSTRUCTION if where == "header" else 1
        assert bench.outcome(ctx) == (how, index, 0 if where == "header" else 1)
        bench.silent = False
        assert await bench.compare(ctx, Case(image=image)) == ErrorCode.NONE
        assert not ctx.get(dut.halt)

    bench.run(run)


def test_the_watchdog_counts_between_retirements():
    """Six instructions of 40 cycles each pass a watchdog of 100; one of 120 does not, and ends after 100 cycles."""
    bench, image, compared = Bench(6), _image(_program(random.Random(6), 6)), []
    bench.latency = (0, 0)

    async def run(ctx) -> None:
        await bench.begin(ctx, Case(image=image, cycles={i: 40 for i in range(6)}), watchdog=100)
        assert await bench.finish(ctx) > 240
        compared.append(bench.outcome(ctx))
        await bench.begin(ctx, Case(image=image, cycles={0: 120}), watchdog=100)
        cycles = await bench.finish(ctx)
        assert 100 <= cycles <= 104
        compared.append(bench.outcome(ctx))

    bench.run(run)
    assert compared == [(ErrorCode.NONE, 0, 6), (ErrorCode.WATCHDOG, 0, 0)]


def test_a_memory_that_never_answers_is_stuck_until_reset():
    bench, image = Bench(7), _image(_program(random.Random(7), 2))

    async def run(ctx) -> None:
        dut = bench.dut
        bench.silent = bench.busy_masters = True
        await bench.begin(ctx, Case(image=image), watchdog=50)
        assert 100 <= await bench.finish(ctx) <= 106
        assert bench.outcome(ctx) == (ErrorCode.BUS_STUCK, NO_INSTRUCTION, 0) and ctx.get(dut.stuck) and ctx.get(dut.halt)
        bench.silent = bench.busy_masters = False
        await bench.pulse(ctx, dut.acknowledge)
        assert not ctx.get(dut.done)
        await bench.begin(ctx, Case(image=image))
        for _ in range(50):
            assert not ctx.get(dut.busy) and ctx.get(dut.stuck)
            await ctx.tick()
        assert not bench.issued

    bench.run(run)
    assert DRAIN_LIMIT == 65536


def test_commands_at_the_wrong_time_do_nothing():
    bench, image = Bench(8), _image(_program(random.Random(8), 2))

    async def run(ctx) -> None:
        dut = bench.dut
        await bench.pulse(ctx, dut.abort)
        await bench.pulse(ctx, dut.acknowledge)
        assert not ctx.get(dut.busy) and not ctx.get(dut.done)
        await bench.begin(ctx, Case(image=image, cycles={0: 30, 1: 30}))
        for _ in range(20):
            await bench.pulse(ctx, dut.start)
            await bench.pulse(ctx, dut.acknowledge)
        await bench.finish(ctx)
        assert bench.outcome(ctx) == (ErrorCode.NONE, 0, 2)
        await bench.pulse(ctx, dut.abort)
        assert ctx.get(dut.done)
        await bench.pulse(ctx, dut.acknowledge)
        assert not ctx.get(dut.done)
        assert await bench.compare(ctx, Case(image=image)) == ErrorCode.NONE

    bench.run(run)
    assert len(bench.retired) == 2
