"""Damaged programs in the simulated core beside the machine."""

from __future__ import annotations

import pytest

from hw.sim.build import SimulationBuild
from hw.sim.core import build_core
from hw.spec.isa import Instruction
from tests.fuzz.bounded import BoundedMachine
from tests.fuzz.core_campaign import CASES_PER_CORE, CoreCampaign, CoreReport
from tests.fuzz.damage import DAMAGES
from tests.sim.core_bench import ARCH


@pytest.fixture(scope="session")
def core_build() -> SimulationBuild:
    return build_core(ARCH)


def _run(build: SimulationBuild, seed: int, count: int, stalls: int | None) -> CoreReport:
    return CoreCampaign(build, seed, stalls).run(count)


def _check(report: CoreReport, count: int) -> None:
    assert not report.failures, report.failures[:5]
    assert report.programs == count and report.states == -(-count // CASES_PER_CORE)
    assert report.good_runs == count + report.states and report.good_bytes == 8192 * report.good_runs
    assert report.outside == 0 and report.beats > 20 * count and report.compared_bytes > 100 * count
    assert report.between_clips > 10 * count and set(report.kinds) == set(DAMAGES)


@pytest.mark.parametrize(("seed", "stalls"), [(1, 0), (2, None)])
def test_damaged_programs_end_in_the_core_as_in_the_machine(core_build: SimulationBuild, seed: int, stalls: int | None) -> None:
    report = _run(core_build, seed, 60, stalls)
    _check(report, 60)
    assert len(report.outcomes) >= 10 and report.outcomes["NONE"] > 5


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "stalls"), [(100, 0), (101, 40), (102, None)])
def test_many_damaged_programs_in_the_core(core_build: SimulationBuild, seed: int, stalls: int | None) -> None:
    report = _run(core_build, seed, 500, stalls)
    _check(report, 500)
    assert report.unexercised() == [] and report.long > 20


def test_a_machine_that_computes_something_else_is_noticed(
    core_build: SimulationBuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BoundedMachine._store

    def skewed(self: BoundedMachine, i: Instruction) -> None:
        self.chip["fm"][i["chip_addr"] % len(self.chip["fm"])] ^= 1
        store(self, i)

    monkeypatch.setattr(BoundedMachine, "_store", skewed)
    report = _run(core_build, 1, 3, 0)
    assert any("other bytes" in failure or "something else" in failure for failure in report.failures)
