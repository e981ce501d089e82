"""Torture of the bus and of the core's control: errors at any beat, silences, aborts and watchdogs at any time, silent memories."""

from __future__ import annotations

import numpy as np

from hw.sim.bench import ALL_STROBES, CoreMismatch
from hw.sim.build import SimulationBuild
from hw.sim.loop import Fault, Response, Stalls
from hw.sim.records import NEVER
from hw.spec.deform.timing import MemoryTiming
from hw.spec.deform.timing.program import program_cycles
from hw.spec.isa import INSTRUCTION_BYTES
from hw.spec.machine import CoreError, Memory, Outcome, Writes
from hw.spec.program import build_image
from hw.spec.regs import BY_NAME, NO_INSTRUCTION, ErrorCode
from tests.fuzz.bounded import BoundedMachine, Run
from tests.fuzz.bus_report import PATTERNS, BusReport
from tests.fuzz.core_campaign import (
    CONTROL_STALLS,
    MEMORY_CHANNELS,
    MOST_CYCLES,
    STALL_LEVELS,
    FuzzBench,
    gaps,
    state_seed,
)
from tests.fuzz.machine_campaign import Progress, consistent
from tests.fuzz.programs import (
    BASE,
    SIZE,
    Case,
    closed_bytes,
    good_image,
    good_result,
    inside,
    legal_program,
    operation_of,
    pristine,
    result_of,
)
from tests.sim.core_bench import ARCH, PROGRAM

LONG_SILENCE = 66_000
"""Cycles beyond the time that masters have to drain with the watchdog off."""


class FaultyMemory(Memory):
    """Memory of which some ranges answer errors, as the loop's do."""

    def __init__(self) -> None:
        super().__init__(SIZE, BASE)
        self.faults: list[Fault] = []
        self.accesses: list[tuple[int, int]] = []

    def read(self, address: int, count: int) -> np.ndarray:
        if self._hit(address, count):
            raise CoreError(ErrorCode.AXI_READ)
        return super().read(address, count)

    def write(self, address: int, data: np.ndarray) -> None:
        if self._hit(address, data.size):
            raise CoreError(ErrorCode.AXI_WRITE)
        super().write(address, data)

    def _hit(self, address: int, count: int) -> bool:
        self.accesses.append((address, count))
        return any(address < fault.end and fault.start < address + count for fault in self.faults)


class BusCampaign:
    """Trials of all kinds in turn, each round of them on a core with other stalls and another random initial state."""

    def __init__(self, build: SimulationBuild, seed: int) -> None:
        self.build, self.seed, self.report = build, seed, BusReport()
        self.bench: FuzzBench | None = None

    def run(self, count: int, progress: Progress | None = None) -> BusReport:
        for number in range(count):
            self.one(number)
            if progress:
                progress(number + 1, count)
        self.close()
        return self.report

    def one(self, number: int) -> None:
        """The trial with this number, and the good program."""
        if self.bench is None or number % len(ROUND) == 0:
            self.bench = self._fresh(number // len(ROUND))
            self.report.failures += [
                f"seed {self.seed}, before {number}: {p}" for p in Trial(self.bench, self.report, (0, 0)).good()
            ]
        trial = Trial(self.bench, self.report, (self.seed, number))
        kind = ROUND[number % len(ROUND)]
        self.report.trials[kind] += 1
        problems = [*KINDS[kind](trial), *trial.good()]
        self.report.failures += [f"seed {self.seed}, number {number}, {kind}: {problem}" for problem in problems]

    def close(self) -> None:
        if self.bench is not None:
            self.report.cycles += self.bench.loop.cycle
            self.report.stalls.update(self.bench.loop.stall_counts())
            self.bench.loop.close()
            self.bench = None

    def _fresh(self, core: int) -> FuzzBench:
        """A core that was just switched on: unique random registers and memories, other stalls on every channel."""
        self.close()
        rng, name = np.random.default_rng([self.seed, core]), list(PATTERNS)[core % len(PATTERNS)]
        levels = PATTERNS[name]
        if levels is None:
            levels = {channel: int(rng.choice((*STALL_LEVELS, 250))) for channel in MEMORY_CHANNELS}
        stalls = Stalls(**levels, control=CONTROL_STALLS, seed=core)
        bench = FuzzBench(self.build, seed=state_seed(self.seed, core), stalls=stalls)
        bench.memory = FaultyMemory()
        self.report.states += 1
        self.report.patterns[name] += 1
        return bench


class Trial:
    """One start of a random legal program, disturbed in one way; methods return what went wrong."""

    def __init__(self, bench: FuzzBench, report: BusReport, seed: tuple[int, int]) -> None:
        self.bench, self.report = bench, report
        self.rng = np.random.default_rng(seed)
        image = build_image(ARCH, legal_program(*seed))
        self.case = Case(kind="bus", image=image, length=len(image))
        assert isinstance(bench.memory, FaultyMemory) and isinstance(bench.machine, BoundedMachine)
        self.memory, self.machine = bench.memory, bench.machine

    def below(self, limit: int) -> int:
        return int(self.rng.integers(limit))

    def good(self) -> list[str]:
        """The good program on both sides, after whatever happened. Leaves both in one state."""
        image = good_image()
        case = Case(kind="good", image=image, length=len(image))
        self._give(case, [])
        run = self.machine.start(self.memory, case)
        outcome = self.bench.launch(case, 0)
        self.report.good_runs += 1
        self.report.good_bytes += len(good_result())
        if outcome != run.outcome:
            return [f"the good program after it ended with {outcome}"]
        try:
            self.bench._compare_writes(run.writes)
        except CoreMismatch as error:
            return [f"the good program after it: {error}"]
        same = result_of(self.bench.loop.memory) == good_result()
        return [] if same else ["the good program after it computed something else"]

    # kinds of trials ----------------------------------------------------------------------------------------------------

    def faults(self) -> list[str]:
        """1 or 2 words that the program reads, writes or is fetched from answer errors; the machine says where it ends."""
        touched, faults = self._accesses(), []
        for _ in range(1 + self.below(2)):
            start, count = touched[self.below(len(touched))]
            word = start + 16 * self.below(count // 16)
            faults.append(Fault(start=word, end=word + 16, response=(Response.SLVERR, Response.DECERR)[self.below(2)]))
        self._give(self.case, faults)
        run = self._expected()
        self.bench.launch(self.case, 0)
        outcome = self._outcome()
        self._count_errors()
        return self._ended(outcome, run) or self._written(run, outcome)

    def silences(self) -> list[str]:
        """The memory stops for hundreds of cycles, several times: nothing changes but the time."""
        run = self._start(0)
        for _ in range(1 + self.below(6)):
            self.bench.loop.run(self._cycle())
            self._silence(100 + self.below(900))
        self.bench.loop.run(MOST_CYCLES)
        outcome = self._outcome()
        return self._ended(outcome, run) or self._written(run, outcome)

    def abort(self) -> list[str]:
        """Abort at any time: ABORTED, or the program had ended."""
        run = self._start(0)
        self.bench.loop.run(self._cycle())
        self._abort()
        return self._stopped(run, ErrorCode.ABORTED)

    def abort_in_silence(self) -> list[str]:
        """Abort while the memory says nothing; it answers again before the core gives up."""
        run = self._start(0)
        self.bench.loop.run(self._cycle())
        self.bench.loop.set_silence(self.bench.loop.cycle)
        self.bench.loop.run(self.below(300) + 1)
        self._abort()
        self._silence(1 + self.below(3000))
        return self._stopped(run, ErrorCode.ABORTED)

    def watchdog(self) -> list[str]:
        """A watchdog of any time, while it is silent now and then: WATCHDOG, or the program had ended."""
        run = self._start((self._cycle, lambda: 1 + self.below(100))[self.below(2)]())
        return self._stopped(run, ErrorCode.WATCHDOG, ErrorCode.BUS_STUCK)

    def stuck(self) -> list[str]:
        """The memory falls silent for good; watchdog or abort end in BUS_STUCK, or in order if nothing was outstanding."""
        watchdog = (0, 50 + self._cycle())[self.below(2)]
        run = self._start(watchdog)
        self.bench.loop.run(self._cycle())
        self.bench.loop.set_silence(self.bench.loop.cycle)
        if not watchdog:
            self.bench.loop.run(500)
            self._abort()
        self.bench.loop.run(LONG_SILENCE + 4 * watchdog)
        problems = self._stopped(run, ErrorCode.BUS_STUCK, ErrorCode.WATCHDOG if watchdog else ErrorCode.ABORTED)
        return problems + self._refuses_to_start()

    def dirty(self) -> list[str]:
        """3 programs back to back, each on what the last one left on chip, in memory and in the core's registers."""
        for number in range(3):
            image = build_image(ARCH, legal_program(self.below(1 << 31), number))
            self.case = Case(kind="bus", image=image, length=len(image))
            self._give(self.case, [], dirty=number > 0)
            self._count_dirt()
            run = self._expected()
            self.bench.begin(self.case, 0)
            self.bench.loop.run(MOST_CYCLES)
            outcome = self._outcome()
            problems = self._ended(outcome, run) or self._written(run, outcome)
            if not problems and not np.array_equal(self.bench.loop.memory, self.memory.bytes):
                problems = ["memory differs after it"]
            if problems:
                return [f"program {number}: {problem}" for problem in problems]
        return []

    # steps --------------------------------------------------------------------------------------------------------------

    def _accesses(self) -> list[tuple[int, int]]:
        """(address, bytes) of everything that the machine accesses; its on-chip memories stay as they were."""
        chip = {name: words.copy() for name, words in self.machine.chip.items()}
        self._give(self.case, [])
        self.memory.accesses = []
        self._expected()
        self.machine.chip = chip
        return self.memory.accesses

    def _cycle(self) -> int:
        """A cycle of the program, or some time after its end."""
        program = [ARCH.instructions.decode(self.case.image[i : i + 64]) for i in range(64, self.case.length, 64)]
        memory = MemoryTiming(read_latency=20, write_latency=10, beat_interval=1)
        cycles = program_cycles(program, ARCH, memory, [region.base for region in self.case.regions])
        return 1 + self.below(cycles * (1, 2, 6)[self.below(3)])

    def _give(self, case: Case, faults: list[Fault], *, dirty: bool = False) -> None:
        self.bench.give(case, dirty=dirty)
        self.before = self.memory.bytes.copy()
        self.memory.faults = faults
        self.bench.loop.set_faults([*faults, *gaps(case)])

    def _expected(self) -> Run:
        return self.machine.start(self.memory, self.case)

    def _start(self, watchdog: int) -> Run:
        """Machine through the whole program, core at its START."""
        self._give(self.case, [])
        run = self._expected()
        self.bench.begin(self.case, watchdog)
        return run

    def _count_errors(self) -> None:
        """Bursts with error answers, by response and access; the log tells when the address of each was accepted."""
        program, beats = (self.case.address, self.case.address + self.case.length), self.bench.loop.trace().memory_writes
        for error in self.bench.loop.bus_errors():
            access = "write" if error["is_write"] else "fetch" if inside(int(error["address"]), 16, (program,)) else "read"
            self.report.errors[f"{Response(error['response']).name} {access}"] += 1
            early = beats[(beats["address"] == error["address"]) & (beats["cycle"] < error["cycle"])]
            self.report.data_before_address += bool(error["is_write"]) and len(early) > 0

    def _count_dirt(self) -> None:
        """Bytes that an earlier program left where this one begins; a fresh machine's memories hold zeros."""
        self.report.dirty_programs += 1
        fresh = pristine().copy()
        fresh[PROGRAM - BASE : PROGRAM - BASE + len(self.case.image)] = np.frombuffer(self.case.image, np.uint8)
        self.report.dirty_bytes += int(np.count_nonzero(self.memory.bytes != fresh))
        self.report.dirty_bytes += sum(int(np.count_nonzero(words)) for words in self.machine.chip.values())

    def _count_stop(self, outcome: Outcome) -> None:
        """What ran when the program was ended from outside: the instruction that was issued and did not retire, or a fetch."""
        open_ones = [row for row in self.bench.loop.trace().instructions if row["retire"] == NEVER]
        unit = "fetch"
        if open_ones:
            at = INSTRUCTION_BYTES * (int(open_ones[-1]["index"]) + 1)
            unit = operation_of(self.case.image[at : at + INSTRUCTION_BYTES]).name
        self.report.stopped_in[f"{outcome.error.name} in {unit}"] += 1

    def _abort(self) -> None:
        self.bench.write("CONTROL", BY_NAME["CONTROL"].mask("ABORT"))

    def _silence(self, cycles: int) -> None:
        loop = self.bench.loop
        loop.set_silence(loop.cycle)
        loop.run(cycles, until_interrupt=False)
        loop.set_silence(None)
        self.report.silences += 1
        self.report.silent_cycles += cycles

    def _outcome(self) -> Outcome | None:
        if not self.bench.loop.interrupt:
            return None
        outcome = self.bench.ending()
        self.report.outcomes[outcome.error.name] += 1
        return outcome

    def _ended(self, outcome: Outcome | None, run: Run) -> list[str]:
        """Where the machine ends, and nothing touched that it was not given."""
        if outcome != run.outcome:
            return [f"it ends with {outcome}, the machine with {run.outcome}"]
        return self._harmless()

    def _stopped(self, run: Run, *codes: ErrorCode) -> list[str]:
        """Ended from outside with one of these codes, or well; after BUS_STUCK the core is reset."""
        loop = self.bench.loop
        loop.run(MOST_CYCLES)
        outcome = self._outcome()
        if outcome is None:
            return [f"it hangs: no end after {MOST_CYCLES} cycles"]
        if outcome.error in codes:
            self._count_stop(outcome)
        fits = (
            outcome.error in codes
            and (outcome.index in (NO_INSTRUCTION, outcome.retired))
            and consistent(outcome, self.case.length)
        )
        problems = [] if fits or outcome == run.outcome else [f"it ends with {outcome}, the machine with {run.outcome}"]
        problems += [*self._harmless(), *self._written(run, outcome)]
        if outcome.error == ErrorCode.BUS_STUCK and ErrorCode.BUS_STUCK != codes[0]:
            self._reset()
        return problems

    def _refuses_to_start(self) -> list[str]:
        """After BUS_STUCK, START does nothing until reset."""
        bench, stuck = self.bench, self.bench.status("DONE", "ERROR", "STUCK")
        bench.loop.set_silence(None)
        if not stuck:
            return []
        bench.write("CONTROL", BY_NAME["CONTROL"].mask("ACKNOWLEDGE"))
        bench.write("CONTROL", BY_NAME["CONTROL"].mask("START"))
        bench.loop.run(500, until_interrupt=False)
        refused = bench.status("ERROR", "STUCK")
        self._reset()
        return [] if refused else ["it started in spite of BUS_STUCK"]

    def _reset(self) -> None:
        self.bench.loop.reset()
        self.report.resets += 1

    def _harmless(self) -> list[str]:
        problems, loop = list[str](), self.bench.loop
        if outside := self.bench.outside(self.case):
            problems.append(f"{outside} accesses outside of what it was given")
        if (loop.memory != self.before)[closed_bytes(self.case)].any():
            problems.append("memory outside of its regions changed")
        if (violations := loop.violations()).count:
            problems.append(f"{violations.count} protocol violations: {violations.first}")
        return problems

    def _written(self, run: Run, outcome: Outcome | None) -> list[str]:
        """Instructions that retired wrote what the machine wrote; the one that did not wrote a part of it, in order.

        A burst whose address was accepted must be finished: after the end its beats have no strobe and change nothing.
        """
        beats, problems = self.bench.loop.trace().memory_writes, []
        self.report.drained_beats += int((beats["strobe"] == 0).sum())
        for writes in run.writes:
            log = beats[beats["index"] == writes.index]
            whole = outcome is not None and writes.index < outcome.retired
            if not whole:
                log = log[log["strobe"] != 0]
            problems += self._same_words(writes, log, whole)
            self.report.compared_beats += len(log)
        return problems

    def _same_words(self, writes: Writes, log: np.ndarray, whole: bool) -> list[str]:
        """Whether the log is what the machine wrote, or its beginning, in the order of writing."""
        if "memory" not in writes.addresses:
            return [f"instruction {writes.index} wrote {len(log)} words, the machine none"] if len(log) else []
        addresses, data = np.concatenate(writes.addresses["memory"]), np.concatenate(writes.data["memory"])
        count = len(log)
        if count > len(addresses) or (whole and count < len(addresses)):
            return [f"instruction {writes.index} wrote {count} words, the machine {len(addresses)}"]
        same = np.array_equal(log["address"], addresses[:count]) and np.array_equal(log["data"], data[:count])
        full = bool((log["strobe"] == ALL_STROBES).all())
        return [] if same and full else [f"instruction {writes.index} wrote other words than the machine"]


KINDS = {
    "faults": Trial.faults,
    "silences": Trial.silences,
    "abort": Trial.abort,
    "abort in silence": Trial.abort_in_silence,
    "watchdog": Trial.watchdog,
    "stuck": Trial.stuck,
    "dirty": Trial.dirty,
}
"""Every way to disturb a program, by the names of ``bus_report.TRIALS``."""

ROUND = (*KINDS, "faults", "abort", "faults")
"""What a core goes through, one after the other."""
