"""Damaged programs in the simulated core, each beside the machine, and the good program after each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from hw.sim.bench import CoreMismatch
from hw.sim.build import SimulationBuild
from hw.sim.loop import Fault, Response, Stalls
from hw.spec import regs
from hw.spec.machine import Memory, OpenRegion, Outcome, Writes
from hw.spec.regs import BY_NAME, ErrorCode
from tests.fuzz.bounded import LONG_WATCHDOG, BoundedMachine, Run
from tests.fuzz.damage import DAMAGES, Damager
from tests.fuzz.machine_campaign import OWN_OUTCOMES, Progress, consistent, empty, problems_of
from tests.fuzz.programs import (
    BASE,
    END,
    SIZE,
    Case,
    closed_bytes,
    good_image,
    good_result,
    inside,
    pristine,
    result_of,
    windows,
    write_image,
)
from tests.sim.core_bench import ARCH, PROGRAM, CoreBench

STALL_LEVELS = (0, 30, 128, 200)
"""Of 256 cycles: what the levels of a core's channels are drawn from."""

MEMORY_CHANNELS = ("aw", "w", "b", "ar", "r")
CONTROL_STALLS = 40

MOST_CYCLES = 3_000_000
"""A core that has not ended by then hangs."""

CASES_PER_CORE = 25
"""Cases, one after the other without a reset, before the next core is switched on with another random state."""


@dataclass(kw_only=True)
class CoreReport:
    """What a campaign counted. ``failures`` name the case by (seed, number); it must be empty."""

    programs: int = 0
    long: int = 0
    undefined: int = 0
    compared_bytes: int = 0
    """Bytes written by instructions of damaged programs, in memory and on chip, each equal to the machine's."""
    good_runs: int = 0
    good_bytes: int = 0
    beats: int = 0
    """Beats on the bus, each of an address that the host gave."""
    outside: int = 0
    between_clips: int = 0
    """Bytes among the compared ones that are results of PW and DW between their clips, where a wrong sum or rounding shows."""
    states: int = 0
    """Cores that were switched on, each with its own random contents of all registers and memories."""
    cycles: int = 0
    stalls: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def unexercised(self) -> list[str]:
        """What the campaign is for and did not come to; empty after a campaign that is large enough."""
        names = ("long", "compared_bytes", "between_clips", "good_bytes", "beats", "states")
        numbers = {name: getattr(self, name) for name in names}
        return [
            *empty("kind", self.kinds, DAMAGES),
            *empty("outcome", self.outcomes, OWN_OUTCOMES),
            *empty("number of", numbers, numbers),
        ]


class FuzzBench(CoreBench):
    """A core and a machine that both get cases. Everything that a case was not given answers DECERR and is counted."""

    def __init__(self, build: SimulationBuild, *, seed: int, stalls: Stalls | None = None) -> None:
        super().__init__(build, seed=seed, stalls=stalls)
        self.machine: BoundedMachine = BoundedMachine(ARCH, seed)
        worst = max(getattr(stalls, channel) for channel in MEMORY_CHANNELS) if stalls else 0
        self.machine.slow_cycles = LONG_WATCHDOG * (256 - worst) // 256 // 2

    def give(self, case: Case, *, dirty: bool = False) -> None:
        """Pristine contents, the case's program and pokes, in both memories; faults around what it was given.

        ``dirty`` leaves what programs before have written.
        """
        if not dirty:
            self.memory.bytes[:] = pristine()
        write_image(self.memory.bytes, case.image, PROGRAM)
        for address, value in case.pokes:
            self.memory.bytes[address - BASE] = value
        self.loop.memory[:] = self.memory.bytes
        self.loop.set_faults(list(gaps(case)))

    def launch(self, case: Case, watchdog: int) -> Outcome | None:
        """Start the core and wait for its end; None where it hangs."""
        self.begin(case, watchdog)
        self.loop.run(MOST_CYCLES)
        return self.ending() if self.loop.interrupt else None

    def begin(self, case: Case, watchdog: int) -> None:
        """Write all registers and start."""
        for number, region in enumerate([*case.regions, *[OpenRegion(base=0, size=0)] * (ARCH.regions - len(case.regions))]):
            values = (*halves(region.base), *halves(region.size))
            for register, value in zip(regs.region_registers(number), values, strict=True):
                self.loop.write_register(register.offset, value)
        for name, value in zip(("PROGRAM_ADDR_LO", "PROGRAM_ADDR_HI"), halves(case.address), strict=True):
            self.write(name, value)
        for name, value in (("PROGRAM_LENGTH", case.length), ("WATCHDOG", watchdog), ("IRQ_ENABLE", 1)):
            self.write(name, value)
        self.loop.clear_logs()
        self.write("CONTROL", BY_NAME["CONTROL"].mask("START"))

    def ending(self) -> Outcome:
        """What the registers tell."""
        return Outcome(error=ErrorCode(self.read("ERROR_CODE")), index=self.read("ERROR_INDEX"), retired=self.read("RETIRED"))

    def outside(self, case: Case) -> int:
        """Bursts with an address that the case was not given, reads and writes."""
        given = windows(case)
        bursts = sum(not inside(int(error["address"]), 16, given) for error in self.loop.bus_errors())
        return bursts + sum(not inside(int(a), 16, given[1:]) for a in np.unique(self.loop.trace().memory_writes["address"]))


def state_seed(seed: int, core: int) -> int:
    """Of the random state of a campaign's core: another one for each core and for each small campaign seed."""
    return 1 + (seed * 7919 + core) % (2**31 - 2)


def halves(value: int) -> tuple[int, int]:
    """Lower and upper register of a 64-bit value."""
    return value & 0xFFFF_FFFF, value >> 32


def gaps(case: Case) -> list[Fault]:
    """Everything in memory that lies in no window, as faults."""
    at, found = BASE, []
    for start, end in sorted(windows(case)):
        if at < min(start, END):
            found.append(Fault(start=at, end=min(start, END), response=Response.DECERR))
        at = max(at, end)
    return [*found, Fault(start=at, end=END, response=Response.DECERR)] if at < END else found


class CoreCampaign:
    """Runs damaged programs, and the good program after each, on cores with other random states and stalls every few cases.

    ``stalls``: of 256 cycles, on every channel of the memory; None draws a level per core and channel.
    """

    def __init__(self, build: SimulationBuild, seed: int, stalls: int | None = None) -> None:
        self.build, self.seed, self.stalls, self.report = build, seed, stalls, CoreReport()
        self._open: tuple[int, FuzzBench] | None = None

    @property
    def bench(self) -> FuzzBench:
        assert self._open is not None, "a core is switched on with the first case"
        return self._open[1]

    def run(self, count: int, progress: Progress | None = None) -> CoreReport:
        for number in range(count):
            self.one(number)
            if progress:
                progress(number + 1, count)
        self.close()
        return self.report

    def close(self) -> None:
        if self._open is not None:
            self.report.cycles += self.bench.loop.cycle
            self.report.stalls.update(self.bench.loop.stall_counts())
            self.bench.loop.close()
            self._open = None

    def _switch_on(self, core: int) -> None:
        """The core of this number, where it is not the one that runs."""
        if self._open is not None and self._open[0] == core:
            return
        self.close()
        rng = np.random.default_rng([self.seed, core])
        levels = {c: int(rng.choice(STALL_LEVELS)) if self.stalls is None else self.stalls for c in MEMORY_CHANNELS}
        stalls = Stalls(**levels, control=CONTROL_STALLS, seed=core)
        self._open = core, FuzzBench(self.build, seed=state_seed(self.seed, core), stalls=stalls)
        self.report.states += 1
        self.report.failures += [f"seed {self.seed}, core {core}, before its first case: {problem}" for problem in self._good()]

    def one(self, number: int) -> None:
        """The case with this number, compared, and the good program."""
        self._switch_on(number // CASES_PER_CORE)
        case = Damager(self.seed, number).draw()
        problems = [*self.compare(case), *self._good()]
        self.report.kinds[case.kind] += 1
        self.report.failures += [f"seed {self.seed}, number {number}, {case.kind}: {problem}" for problem in problems]

    def compare(self, case: Case) -> list[str]:
        """Run a case on both sides; what differs."""
        bench = self.bench
        bench.give(case)
        before = bench.memory.bytes.copy()
        run = bench.machine.start(bench.memory, case)
        outcome = bench.launch(case, LONG_WATCHDOG if run.long else 0)
        self._count(run)
        if outcome is None:
            bench.loop.reset()
            return [f"it hangs: no end after {MOST_CYCLES} cycles, the machine ends with {run.outcome}"]
        self.report.outcomes[outcome.error.name] += 1
        return [
            *problems_of(case, run),
            *self._outcome(case, run, outcome),
            *self._bus(case, before),
            *self._writes(run, outcome),
        ]

    def _count(self, run: Run) -> None:
        self.report.programs += 1
        self.report.long += run.long
        self.report.undefined += run.undefined_from is not None
        self.report.between_clips += run.between_clips
        self.report.beats += self.bench.read_pair("READ_BEATS") + self.bench.read_pair("WRITE_BEATS")

    def _outcome(self, case: Case, run: Run, outcome: Outcome) -> list[str]:
        same = outcome.error in run.possible and (outcome.index, outcome.retired) == (run.outcome.index, run.outcome.retired)
        if run.long and run.slow_from is not None and outcome.error == ErrorCode.WATCHDOG:
            same |= run.slow_from <= outcome.index < run.outcome.index and outcome.index == outcome.retired
        if run.loose and run.undefined_from is not None and outcome.retired >= run.undefined_from:
            same = consistent(outcome, case.length)
        return [] if same else [f"the core ends with {outcome}, the machine with {run.outcome} (or {sorted(run.possible)})"]

    def _bus(self, case: Case, before: np.ndarray) -> list[str]:
        bench, problems = self.bench, []
        if outside := bench.outside(case):
            self.report.outside += outside
            problems.append(f"{outside} accesses outside of what it was given")
        if (bench.loop.memory != before)[closed_bytes(case)].any():
            problems.append("memory outside of its regions changed")
        if (violations := bench.loop.violations()).count:
            problems.append(f"{violations.count} protocol violations: {violations.first}")
        return problems

    def _writes(self, run: Run, outcome: Outcome) -> list[str]:
        """Every write of instructions that retired, by address and, where it is defined, by content."""
        trace, problems = self.bench.loop.trace(), []
        for writes in run.writes[: outcome.retired]:
            defined = run.undefined_from is None or writes.index < run.undefined_from
            if not defined and run.loose:
                break
            logs = {"memory": trace.memory_writes, **{s: trace.chip_writes for s in trace.spaces}}
            for space, log in logs.items():
                chosen = log[log["index"] == writes.index]
                if space != "memory":
                    chosen = chosen[chosen["space"] == trace.spaces.index(space)]
                problems += self._same(writes, space, chosen, defined)
        return problems

    def _same(self, writes: Writes, space: str, log: np.ndarray, defined: bool) -> list[str]:
        addresses, data = writes.sorted(space)
        log = log[np.argsort(log["address"], kind="stable")]
        if not np.array_equal(log["address"], addresses):
            return [f"instruction {writes.index} writes other addresses of {space}"]
        if defined and not np.array_equal(log["data"], data):
            return [f"instruction {writes.index} writes other bytes to {space}"]
        self.report.compared_bytes += data.size
        return []

    def _good(self) -> list[str]:
        """The good program on both sides: well ended, with the known result, all writes equal. Leaves both in one state."""
        image = good_image()
        case = Case(kind="good", image=image, length=len(image))
        bench, report = self.bench, self.report
        bench.give(case)
        run = bench.machine.start(bench.memory, case)
        outcome = bench.launch(case, 0)
        report.good_runs += 1
        if outcome != run.outcome or run.outcome.error != ErrorCode.NONE:
            return [f"the good program after it ended with {outcome}"]
        try:
            bench._compare_writes(run.writes)
        except CoreMismatch as error:
            return [f"the good program after it: {error}"]
        report.good_bytes += len(good_result())
        return [] if result_of(bench.loop.memory) == good_result() else ["the good program after it computed something else"]


__all__ = ["MOST_CYCLES", "SIZE", "CoreCampaign", "CoreReport", "FuzzBench", "Memory"]
