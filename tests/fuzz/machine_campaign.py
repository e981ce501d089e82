"""Damaged programs in the interpreter: each ends with a legal code, touches nothing it was not given, and harms no later program."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from hw.spec.machine import Memory, Outcome
from hw.spec.regs import NO_INSTRUCTION, ErrorCode
from tests.fuzz.bounded import BoundedMachine, Run
from tests.fuzz.damage import DAMAGES, Damager
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
from tests.sim.core_bench import ARCH, PROGRAM, REGIONS

Progress = Callable[[int, int], None]

FROM_OUTSIDE = (ErrorCode.WATCHDOG, ErrorCode.ABORTED, ErrorCode.BUS_STUCK)
"""Errors that no program has of itself: they come from the host or from a broken memory."""

OWN_OUTCOMES = tuple(code.name for code in ErrorCode if code not in FROM_OUTSIDE)


@dataclass(kw_only=True)
class MachineReport:
    """What a campaign counted. ``failures`` name the case by (seed, number); it must be empty."""

    programs: int = 0
    determined: int = 0
    """Cases of which the damage alone says how they must end."""
    long: int = 0
    undefined: int = 0
    accesses: int = 0
    """Reads and writes of memory, each checked to lie in what the host gave."""
    good_runs: int = 0
    good_bytes: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def unexercised(self) -> list[str]:
        """What the campaign is for and did not come to; empty after a campaign that is large enough."""
        numbers = {name: getattr(self, name) for name in ("determined", "long", "accesses", "good_bytes")}
        return [
            *empty("kind", self.kinds, DAMAGES),
            *empty("outcome", self.outcomes, OWN_OUTCOMES),
            *empty("number of", numbers, numbers),
        ]


def empty(what: str, counts: Mapping[str, int], wanted: Iterable[str]) -> list[str]:
    """The wanted counts that are zero, in words."""
    return [f"{what} {name}" for name in wanted if not counts.get(name)]


class WatchedMemory(Memory):
    """Memory that keeps count of accesses and of those outside the windows that the host gave."""

    def __init__(self) -> None:
        super().__init__(SIZE, BASE)
        self.windows: tuple[tuple[int, int], ...] = ()
        self.accesses, self.outside = 0, list[int]()

    def give(self, case: Case) -> None:
        """Pristine contents, the case's program and pokes, and its windows."""
        self.bytes[:] = pristine()
        write_image(self.bytes, case.image, PROGRAM)
        for address, value in case.pokes:
            self.bytes[address - BASE] = value
        self.windows, self.outside = windows(case), []

    def read(self, address: int, count: int) -> np.ndarray:
        self._watch(address, count)
        return super().read(address, count)

    def write(self, address: int, data: np.ndarray) -> None:
        self._watch(address, data.size)
        super().write(address, data)

    def _watch(self, address: int, count: int) -> None:
        self.accesses += 1
        if not inside(address, count, self.windows):
            self.outside.append(address)


class MachineCampaign:
    """Runs damaged programs one after the other on one machine, and the good program after each."""

    def __init__(self, seed: int) -> None:
        self.seed, self.report = seed, MachineReport()
        self.machine, self.memory = BoundedMachine(ARCH, seed), WatchedMemory()

    def run(self, count: int, progress: Progress | None = None) -> MachineReport:
        for number in range(count):
            self.one(number)
            if progress:
                progress(number + 1, count)
        return self.report

    def one(self, number: int) -> None:
        """The case with this number, checked, and the good program."""
        case = Damager(self.seed, number).draw()
        self.memory.give(case)
        before = self.memory.bytes.copy()
        run = self.machine.start(self.memory, case)
        self._count(case, run)
        for problem in (*problems_of(case, run), *self._touched(case, before), *self._good_after()):
            self.report.failures.append(f"seed {self.seed}, number {number}, {case.kind}: {problem}")

    def _count(self, case: Case, run: Run) -> None:
        report = self.report
        report.programs += 1
        report.determined += case.expected is not None
        report.long += run.long
        report.undefined += run.undefined_from is not None
        report.kinds[case.kind] += 1
        report.outcomes["too long to end" if run.long else run.outcome.error.name] += 1

    def _touched(self, case: Case, before: np.ndarray) -> list[str]:
        changed = np.flatnonzero((self.memory.bytes != before) & closed_bytes(case))
        problems = [f"it wrote to {BASE + int(changed[0]):#x}, outside its regions"] if changed.size else []
        return problems + [f"it accessed {address:#x}, which it was not given" for address in self.memory.outside[:1]]

    def _good_after(self) -> list[str]:
        image = good_image()
        case = Case(kind="good", image=image, length=len(image))
        self.memory.give(case)
        outcome = self.machine.run(self.memory, REGIONS, PROGRAM, len(image))
        self.report.good_runs += 1
        self.report.accesses = self.memory.accesses
        if outcome.error != ErrorCode.NONE:
            return [f"the good program after it ended with {outcome}"]
        self.report.good_bytes += len(good_result())
        return [] if result_of(self.memory.bytes) == good_result() else ["the good program after it computed something else"]


def problems_of(case: Case, run: Run) -> list[str]:
    """What contradicts the case's expectation or the contract of outcomes."""
    problems = []
    if case.expected is not None and run.outcome != case.expected:
        problems.append(f"it must end with {case.expected}, not {run.outcome}")
    if not consistent(run.outcome, case.length):
        problems.append(f"{run.outcome} contradicts itself")
    return problems


def consistent(outcome: Outcome, length: int) -> bool:
    """Whether error, index and retired fit each other and the program's length."""
    count = length // 64 - 1
    if outcome.error == ErrorCode.NONE:
        return outcome.index == 0 and outcome.retired == count
    if outcome.index == NO_INSTRUCTION:
        return outcome.retired == 0
    return outcome.index == outcome.retired < count


__all__ = ["END", "OWN_OUTCOMES", "MachineCampaign", "MachineReport", "WatchedMemory", "consistent", "empty", "problems_of"]
