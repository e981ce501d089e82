"""The checks of a design: each runs programs on the simulated core and returns what it compared; CoreMismatch where it fails.

    bed = TestBed(build=build_core(arch), arch=arch, seeds=(1, 2))
    for name, check in CHECKS.items():
        counts = check(bed)

A check that cannot fail proves nothing, so each returns counts, of which none may be zero; `bed.coverage` tells which kinds of
instructions and endings the core went through.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hw.sim.bench import PROGRAM, CoreBench, CoreMismatch
from hw.sim.build import SimulationBuild
from hw.sim.coverage import Coverage
from hw.sim.directed import bus_errors, copies, damaged, endless, refused, transfers
from hw.sim.loop import Fault, Response, Stalls
from hw.sim.loop import MemoryTiming as LoopTiming
from hw.sim.random_programs import Generator
from hw.spec import regs
from hw.spec.deform import DeformArch
from hw.spec.deform.timing import MemoryTiming, instruction_cycles
from hw.spec.deform.timing.program import fetch_cycles, program_cycles
from hw.spec.machine import Outcome
from hw.spec.program import build_image
from hw.spec.regs import NO_INSTRUCTION, ErrorCode

Counts = dict[str, int]
FAULTY_SHARE = 0.4
"""Of the random programs: those that hold an instruction that may break a rule."""

STALL_PROBABILITY = 100
"""Of 256 cycles, on every channel."""

DRAWS = 50_000
"""Most instructions that are drawn to hit bins which nothing has hit."""

REFILL = 200
"""Draws after which the on-chip memories are filled again: random loads to the parameter memory leave records that only saturate."""

WATCHDOG_CYCLES, DRAIN_CYCLES, STUCK_CYCLES = 2000, 200, 70_000
"""A watchdog's limit; the end of a program after its last burst; within which a core gives a silent memory up."""

LATENCIES = ((1, 1, 1), (20, 10, 1), (57, 33, 3))
"""Memories (read latency, write latency, beat interval) on which cycles are compared with the timing model."""


@dataclass(kw_only=True)
class TestBed:
    """A simulator, what to run on it, and what has been covered so far.

    ``programs`` is the number of random programs per seed; ``watched`` adds up what the protocol checker saw in all benches.
    """

    __test__ = False

    build: SimulationBuild
    arch: DeformArch
    seeds: tuple[int, ...] = (1, 2, 3)
    programs: int = 60
    told: Callable[[int, int], None] = lambda done, total: None
    watched: Counter[str] = field(default_factory=Counter)
    coverage: Coverage = field(init=False)

    def __post_init__(self) -> None:
        if not self.seeds or min(self.seeds) < 1:
            raise ValueError(f"seeds must be at least one number above 0, not {self.seeds}")
        if self.arch.regions < 3:
            raise ValueError(f"regions must be at least 3 for the test programs, not {self.arch.regions}")
        if self.programs < 10:
            raise ValueError(f"random programs per seed must be at least 10, not {self.programs}")
        self.coverage = Coverage(self.arch)

    @contextmanager
    def bench(self, seed: int, **options: Any) -> Iterator[CoreBench]:
        """A core and a machine with the same contents."""
        with CoreBench(self.build, self.arch, seed=seed, coverage=self.coverage, **options) as bench:
            try:
                bench.fill()
                yield bench
            except CoreMismatch as error:
                raise CoreMismatch(f"seed {seed}, program {bench.compared['programs']}: {error}") from error
            self.coverage.stalled(bench.loop.stall_counts())
            self.watched["programs"] += bench.compared["programs"]
            self.watched.update({kind: bench.compared[kind] for kind in ("read beats", "write beats")})

    def generator(self, bench: CoreBench, seed: int) -> Generator:
        return Generator(self.arch, seed, bench.region_bytes)


Check = Callable[[TestBed], Counts]


def random_programs(bed: TestBed) -> Counts:
    """Random programs, some with a faulty instruction; then instructions drawn until every bin is hit."""
    total = Counter[str]()
    for number, seed in enumerate(bed.seeds):
        with bed.bench(seed) as bench:
            _run_random(bed, bench, seed)
            if number == len(bed.seeds) - 1:
                _close_coverage(bed, bench, seed)
            total += bench.compared
        bed.told(number + 1, len(bed.seeds))
    return _bytes(total)


def _run_random(bed: TestBed, bench: CoreBench, seed: int) -> None:
    generator, rng = bed.generator(bench, seed), np.random.default_rng(seed)
    for _ in range(bed.programs):
        instructions = [generator.instruction() for _ in range(rng.integers(1, 6))]
        if rng.random() < FAULTY_SHARE:
            instructions.insert(int(rng.integers(len(instructions) + 1)), generator.faulty())
        bench.run(instructions)


def _close_coverage(bed: TestBed, bench: CoreBench, seed: int) -> None:
    """Directed transfers, and random instructions that hit a bin which is still empty."""
    bench.run(transfers(bed.arch))
    generator, decode = bed.generator(bench, seed + 1), bed.arch.instructions.decode
    for draw in range(DRAWS):
        if draw % REFILL == 0:
            bench.fill()
        empty = {name for name in bed.coverage.empty if not name.startswith(("ending", "stall"))}
        if not empty:
            return
        raw = generator.instruction()
        if empty & set(bed.coverage.possible(decode(raw))):
            bench.run([raw])


def stalls(bed: TestBed) -> Counts:
    """Random programs under random stalls on every channel of memory and registers; each channel must have stalled."""
    total = Counter[str]()
    for number, seed in enumerate(bed.seeds):
        with bed.bench(seed + 1000, stalls=Stalls.everywhere(STALL_PROBABILITY, seed)) as bench:
            _run_random(bed, bench, seed + 1000)
            counts = bench.loop.stall_counts()
            _require(all(counts.values()), f"every channel must have stalled, and the cycles are {counts}")
            total += bench.compared
            total.update({"stall cycles": sum(counts.values())})
        bed.told(number + 1, len(bed.seeds))
    return _bytes(total) | {"stall cycles": total["stall cycles"]}


def power_up_states(bed: TestBed) -> Counts:
    """The same programs from different random contents of all registers and memories."""
    total, seen = Counter[str](), []
    for number, state in enumerate((1, 77, 4242)):
        with bed.bench(bed.seeds[0], state_seed=state) as bench:
            generator = bed.generator(bench, 5)
            for _ in range(10):
                bench.run([generator.instruction() for _ in range(4)])
            seen.append(bench.compared)
            total += bench.compared
        bed.told(number + 1, 3)
    _require(seen[0] == seen[1] == seen[2], "what a program writes depends on the state at power-up")
    return _bytes(total)


def damaged_programs(bed: TestBed) -> Counts:
    """Damaged images, headers and lengths: the machine's ending; and between them a good program."""
    with bed.bench(bed.seeds[0] + 7, stalls=Stalls.everywhere(60, 8)) as bench:
        for launch in damaged(bed.arch, bed.seeds[0], flips=40):
            bench.run_image(launch.image, **launch.options)
        return _bytes(bench.compared)


def error_programs(bed: TestBed) -> Counts:
    """One broken rule of the instruction table at a time: the machine's ending."""
    refusals = 0
    with bed.bench(bed.seeds[0] + 8) as bench:
        for program in refused(bed.arch, bed.generator(bench, bed.seeds[0])):
            outcome = bench.run(program)
            _require(outcome.error is not ErrorCode.NONE, f"program {refusals} breaks a rule and must be refused")
            refusals += 1
        return _bytes(bench.compared) | {"refusals": refusals}


def bus_error_programs(bed: TestBed) -> Counts:
    """SLVERR and DECERR at every kind of access, under stalls; the next program runs."""
    counts: Counter[str] = Counter()
    with bed.bench(bed.seeds[0] + 9, stalls=Stalls.everywhere(60, 5)) as bench:
        for response in (Response.SLVERR, Response.DECERR):
            for case in bus_errors(bed.arch):
                bench.loop.set_faults([Fault(start=case.address, end=case.address + 16, response=response)])
                bench.start(build_image(bed.arch, case.instructions))
                _same(bench.wait(), case.outcome, f"{response.name} at {case.address:#x}")
                counts["bus errors"] += len(bench.loop.bus_errors())
                bench.loop.set_faults([])
                _recovers(bed, bench, counts)
    return dict(counts)


def abort_and_watchdog(bed: TestBed) -> Counts:
    """Programs ended from outside, in every unit, and a memory that falls silent; the next program runs, then after a reset."""
    counts: Counter[str] = Counter()
    for name, program in endless(bed.arch).items():
        with bed.bench(bed.seeds[0] + 10, stalls=Stalls.everywhere(90, 3)) as bench:
            _abort(bed, bench, name, program, counts)
    with bed.bench(bed.seeds[0] + 11) as bench:
        _watchdog(bed, bench, counts)
        _silence(bed, bench, counts)
    return dict(counts)


def _abort(bed: TestBed, bench: CoreBench, name: str, program: list[bytes], counts: Counter[str]) -> None:
    rng = np.random.default_rng(bed.seeds[0])
    for _ in range(4):
        bench.start(build_image(bed.arch, program))
        bench.loop.run(int(rng.integers(1, 1500)), until_interrupt=False)
        bench.command("ABORT")
        outcome = bench.wait(_drain(bed.arch))
        _require(
            outcome.error is ErrorCode.ABORTED and outcome.index in (NO_INSTRUCTION, outcome.retired),
            f"an abort while {name} runs must end with ABORTED at the next instruction, not {outcome}",
        )
        counts["aborts"] += 1
        _recovers(bed, bench, counts)


def _watchdog(bed: TestBed, bench: CoreBench, counts: Counter[str]) -> None:
    for name, program in endless(bed.arch).items():
        if name == "fetch":
            continue  # its instructions are short
        bench.start(build_image(bed.arch, program), watchdog=WATCHDOG_CYCLES)
        expected = Outcome(error=ErrorCode.WATCHDOG, index=1, retired=1)
        _same(bench.wait(WATCHDOG_CYCLES * 2 + _drain(bed.arch)), expected, f"a watchdog while {name} runs")
        counts["watchdogs"] += 1
        _recovers(bed, bench, counts)


def _silence(bed: TestBed, bench: CoreBench, counts: Counter[str]) -> None:
    bench.start(build_image(bed.arch, endless(bed.arch)["LOAD"]), watchdog=WATCHDOG_CYCLES)
    bench.loop.set_silence(bench.loop.cycle + 300)
    expected = Outcome(error=ErrorCode.BUS_STUCK, index=1, retired=1)
    _same(bench.wait(WATCHDOG_CYCLES + STUCK_CYCLES), expected, "a memory that falls silent")
    bench.loop.set_silence(None)
    bench.command("ACKNOWLEDGE")
    stopped = [bench.read_pair(name) for name in regs.COUNTERS]
    bench.start(build_image(bed.arch, copies(bed.arch)))
    bench.loop.run(2000, until_interrupt=False)
    _same([bench.read_pair(name) for name in regs.COUNTERS], stopped, "counters of a core that is stuck")
    _require(bench.status("ERROR", "STUCK"), "a core whose memory fell silent must refuse to start until it is reset")
    bench.loop.reset()
    counts["silent memories"] += 1
    _recovers(bed, bench, counts)


def _drain(arch: DeformArch) -> int:
    """Most cycles from the end of a program to its interrupt, under stalls."""
    return 20 * (arch.outstanding * arch.burst_beats + DRAIN_CYCLES)


def _recovers(bed: TestBed, bench: CoreBench, counts: Counter[str]) -> None:
    """After a disturbance: the on-chip memories are filled again, and a copy runs as in the machine."""
    before = bench.compared["memory"]
    bench.resynchronise()
    _require(bench.run(copies(bed.arch)).retired == 2, "the program after a disturbed one must run to its end")
    counts["programs that followed"] += 1
    counts["bytes that followed"] += bench.compared["memory"] - before


def timing(bed: TestBed) -> Counts:
    """Cycles of each instruction, of each fetch and of whole programs equal the timing model, on three memories."""
    counts: Counter[str] = Counter()
    for number, (read, write, interval) in enumerate(LATENCIES):
        loop = LoopTiming(read_latency=read, write_latency=write, read_interval=interval, write_interval=interval)
        memory = MemoryTiming(read_latency=read, write_latency=write, beat_interval=interval)
        with bed.bench(bed.seeds[0] + 12, timing=loop) as bench:
            generator = bed.generator(bench, bed.seeds[0] + number)
            for length in (0, 1, 2, 3, 5, 8, 13):
                _time_program(bed, bench, [generator.instruction() for _ in range(length)], memory, counts)
        bed.told(number + 1, len(LATENCIES))
    return dict(counts)


def _time_program(bed: TestBed, bench: CoreBench, encoded: list[bytes], memory: MemoryTiming, counts: Counter[str]) -> None:
    arch, bases = bed.arch, [region.base for region in bench.regions]
    _require(bench.run(encoded).error is ErrorCode.NONE, "a legal program must end well")
    program = [arch.instructions.decode(data) for data in encoded]
    trace = bench.loop.trace().instructions
    for instruction, issue, retire in zip(program, trace["issue"], trace["retire"], strict=True):
        wanted = instruction_cycles(instruction, arch, memory, bases)
        _same(int(retire - issue), wanted, f"cycles of {instruction.name} {dict(instruction.values)}")
        counts["instructions"] += 1
    for gap in trace["issue"][1:] - trace["retire"][:-1]:
        _same(int(gap), fetch_cycles(arch, memory), "cycles of a fetch")
        counts["fetches"] += 1
    _same(bench.read_pair("CYCLES"), program_cycles(program, arch, memory, bases), "the CYCLES counter")
    computing = sum(instruction_cycles(i, arch, memory, bases) for i in program if i.name in ("PW", "DW"))
    _same(bench.read_pair("COMPUTE"), computing, "the COMPUTE counter")
    counts["programs"] += 1


def registers(bed: TestBed) -> Counts:
    """Identity, version, arch_id, a random build_id through its port, and offsets that hold no register."""
    compared = 0
    for build_id in map(int, np.random.default_rng(bed.seeds[0]).integers(0, 2**64, 4, np.uint64)):
        with bed.bench(bed.seeds[0] + 13, build_id=build_id) as bench:
            pairs = {"ARCH_ID": bed.arch.arch_id, "BUILD_ID": build_id}
            singles = {"IDENTITY": regs.IDENTITY, "VERSION": regs.SHELL_VERSION, "PROGRAM_ADDR_HI": PROGRAM >> 32}
            for name, wanted in {**pairs, **singles}.items():
                read = bench.read_pair if name in pairs else bench.read
                _same(read(name), wanted, f"register {name}")
                compared += 1
            compared += _unmapped(bed, bench)
    return {"registers": compared}


def _unmapped(bed: TestBed, bench: CoreBench) -> int:
    used = {register.offset for register in regs.all_registers(bed.arch.regions)}
    free = [offset for offset in range(0, 4096, 4) if offset not in used][::17]
    for offset in free:
        bench.loop.write_register(offset, 0xFFFF_FFFF)
        _same(bench.loop.read_register(offset), 0, f"offset {offset:#05x}, where no register is")
    return len(free)


def bus_protocol(bed: TestBed) -> Counts:
    """What the protocol checker watched in all runs before; it ends a run at the first breach."""
    return dict(bed.watched)


def _bytes(compared: Mapping[str, int]) -> Counts:
    """What a bench compared, in the record's words."""
    spaces = [
        name for name in compared if name not in ("programs", "instructions", "read beats", "write beats", "stall cycles")
    ]
    kinds = {name: compared[name] for name in ("programs", "instructions")}
    return kinds | {f"bytes of {name}": compared[name] for name in sorted(spaces)}


def _same(got: object, wanted: object, what: str) -> None:
    _require(got == wanted, f"{what} must be {wanted}, not {got}")


def _require(ok: bool, words: str) -> None:
    if not ok:
        raise CoreMismatch(words)


CHECKS: dict[str, Check] = {
    "random programs": random_programs,
    "stalls": stalls,
    "power-up states": power_up_states,
    "damaged programs": damaged_programs,
    "error programs": error_programs,
    "bus errors": bus_error_programs,
    "abort and watchdog": abort_and_watchdog,
    "timing": timing,
    "registers": registers,
    "bus protocol": bus_protocol,
}
"""By the names of ``hw.spec.records.DESIGN_CHECKS``, in the order in which they must run."""
