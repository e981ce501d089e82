"""Damaged programs in the simulated core beside the machine."""

from __future__ import annotations

import pytest

from hw.sim.build import SimulationBuild
from hw.sim.core import build_core
from hw.sim.loop import Stalls
from hw.spec.isa import Instruction
from tests.fuzz.bounded import BoundedMachine
from tests.fuzz.core_campaign import CoreCampaign, CoreReport
from tests.sim.core_bench import ARCH


@pytest.fixture(scope="session")
def core_build() -> SimulationBuild:
    return build_core(ARCH)


def _run(build: SimulationBuild, seed: int, count: int, stalls: int) -> CoreReport:
    campaign = CoreCampaign(build, seed, Stalls.everywhere(stalls, seed))
    try:
        return campaign.run(count)
    finally:
        campaign.close()


def _check(report: CoreReport, count: int) -> None:
    assert not report.failures, report.failures[:5]
    assert report.programs == count and report.good_runs == count + 1 and report.good_bytes == 8192 * (count + 1)
    assert report.outside == 0 and report.beats > 20 * count and report.compared_bytes > 100 * count


@pytest.mark.parametrize(("seed", "stalls"), [(1, 0), (2, 90)])
def test_damaged_programs_end_in_the_core_as_in_the_machine(core_build: SimulationBuild, seed: int, stalls: int) -> None:
    report = _run(core_build, seed, 60, stalls)
    _check(report, 60)
    assert len(report.outcomes) >= 10 and report.outcomes["NONE"] > 5


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "stalls"), [(100, 0), (101, 40), (102, 150)])
def test_many_damaged_programs_in_the_core(core_build: SimulationBuild, seed: int, stalls: int) -> None:
    report = _run(core_build, seed, 500, stalls)
    _check(report, 500)
    assert len(report.outcomes) >= 15 and report.long > 20


def test_a_machine_that_computes_something_else_is_noticed(core_build: SimulationBuild, monkeypatch: pytest.MonkeyPatch) -> None:
    store = BoundedMachine._store

    def skewed(self: BoundedMachine, i: Instruction) -> None:
        self.chip["fm"][i["chip_addr"] % len(self.chip["fm"])] ^= 1
        store(self, i)

    monkeypatch.setattr(BoundedMachine, "_store", skewed)
    report = _run(core_build, 1, 3, 0)
    assert any("other bytes" in failure or "something else" in failure for failure in report.failures)
