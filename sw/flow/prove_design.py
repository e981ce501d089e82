"""Proves a design: runs the coverage programs on its Verilog, compares with the machine, and makes the design record."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hw.spec.arch import Arch
from hw.spec.records import Check, DesignRecord, definition_sha256
from sw.flow.commands import versions

if TYPE_CHECKING:
    from hw.sim.build import SimulationBuild
    from hw.sim.checks import Check as Checker
    from hw.sim.checks import TestBed

SEEDS = (1, 2, 3)
PROGRAMS = 60
"""Random programs per seed, in each of the two checks that run them."""

Progress = Callable[[str, int, int], None]
"""Told (check, parts done, parts in all)."""


class ProofFailure(RuntimeError):
    """The design is not what the machine is; ``failures`` say for each failed check what differed first."""

    def __init__(self, verilog_sha256: str, failures: Sequence[str]) -> None:
        self.failures = tuple(failures)
        listed = "\n".join(f"  {words}" for words in self.failures)
        super().__init__(f"the design {verilog_sha256[:12]} is not proven, {len(self.failures)} checks failed:\n{listed}")


def prove_design(
    arch: Arch,
    verilog: Path | None = None,
    *,
    seeds: Sequence[int] = SEEDS,
    programs: int = PROGRAMS,
    build: SimulationBuild | None = None,
    progress: Progress = lambda check, done, total: None,
    tell: Callable[[str], None] | None = None,
) -> DesignRecord:
    """Run every check of ``hw.sim.checks`` on the Verilog; ProofFailure names what did not hold.

    Parameters
    ----------
    arch : the architecture whose machine defines what is right
    verilog : the file to prove; None takes the generated one
    seeds, programs : of the random programs: so many for each seed
    build : a simulator that has been built already; then ``verilog`` is not read
    tell : is told in words what goes on while the simulator is built
    """
    from hw.sim.checks import CHECKS, TestBed
    from hw.sim.core import build_core

    build = build or build_core(arch, verilog, progress=tell)
    _check_identity(arch, build)
    bed = TestBed(build=build, arch=arch, seeds=tuple(seeds), programs=programs)
    passed: list[Check] = []
    failures: list[str] = []
    for number, (name, check) in enumerate(CHECKS.items()):
        progress("checks", number, len(CHECKS))
        _run(bed, name, check, progress, passed, failures)
    progress("checks", len(CHECKS), len(CHECKS))
    if not failures and bed.coverage.empty:
        failures.append(f"coverage: nothing hit {', '.join(bed.coverage.empty)}; run more programs or seeds")
    if failures:
        raise ProofFailure(build.verilog_sha256, failures)
    return DesignRecord(
        verilog_sha256=build.verilog_sha256,
        arch_id=arch.arch_id,
        definition_sha256=definition_sha256(),
        checks=tuple(passed),
        coverage=bed.coverage.counts,
        tools=versions(),
    )


def _check_identity(arch: Arch, build: SimulationBuild) -> None:
    """ProofFailure at once for a core of another architecture: every check would say so, each in its own words."""
    from sw.runtime.sim import SimDevice

    with SimDevice(arch, build=build) as core:
        found = core.driver.identity.arch_id
    if found != arch.arch_id:
        words = f"the Verilog is a core of arch_id {found:016x}, and the architecture is {arch.arch_id:016x}"
        raise ProofFailure(build.verilog_sha256, [f"{words}: name the one that it was emitted for"])


def _run(bed: TestBed, name: str, check: Checker, progress: Progress, passed: list[Check], failures: list[str]) -> None:
    """One check: what it compared, or what differed first."""
    from hw.sim.bench import CoreMismatch
    from hw.sim.loop import SimulationError

    bed.told = lambda done, total: progress(name, done, total)
    start = time.perf_counter()
    try:
        compared = check(bed)
    except (CoreMismatch, SimulationError) as error:
        failures.append(f"{name}: {error}")
        return
    if not compared or min(compared.values()) < 1:
        failures.append(f"{name}: nothing was compared {[kind for kind, count in compared.items() if count < 1] or ''}".strip())
        return
    seconds = round(time.perf_counter() - start, 2)
    passed.append(Check(name=name, compared=compared, mismatches=0, seeds=bed.seeds, seconds=seconds))
