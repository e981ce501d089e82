"""Errors, silences, aborts and watchdogs at any time: the core ends in order, writes nothing wrong, and runs the next program."""

from __future__ import annotations

import pytest

from hw.sim.build import SimulationBuild
from hw.sim.core import build_core
from tests.fuzz.bus_campaign import KINDS, ROUND, BusCampaign, FaultyMemory
from tests.fuzz.bus_report import PATTERNS, TRIALS, BusReport
from tests.sim.core_bench import ARCH


@pytest.fixture(scope="session")
def core_build() -> SimulationBuild:
    return build_core(ARCH)


def _check(report: BusReport, count: int) -> None:
    assert not report.failures, report.failures[:5]
    assert sum(report.trials.values()) == count and report.states == -(-count // len(ROUND))
    assert report.good_runs == count + report.states and report.good_bytes == 8192 * report.good_runs
    assert report.compared_beats > 5 * count and sum(report.errors.values()) > count // 5 and report.silences > count // 10
    assert report.dirty_programs >= 3 * (count // len(ROUND)) and report.dirty_bytes > 10_000 * report.dirty_programs
    assert all(report.stalls[channel] for channel in ("aw", "w", "b", "ar", "r"))
    assert {"NONE", "ABORTED", "WATCHDOG", "BUS_STUCK", "AXI_READ", "AXI_WRITE"} == set(report.outcomes) and report.resets


def test_the_report_knows_every_trial() -> None:
    assert set(KINDS) == set(TRIALS) == set(ROUND)
    assert len(BusReport().unexercised()) == len(TRIALS) + len(PATTERNS) + 5 + 6 + 6 + 5 + 9


@pytest.mark.parametrize("seed", [1])
def test_a_core_that_is_disturbed_ends_in_order(core_build: SimulationBuild, seed: int) -> None:
    report = BusCampaign(core_build, seed).run(60)
    _check(report, 60)
    assert set(report.trials) == set(TRIALS) and set(report.patterns) == set(PATTERNS)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [100, 101])
def test_a_core_that_is_disturbed_a_thousand_times(core_build: SimulationBuild, seed: int) -> None:
    report = BusCampaign(core_build, seed).run(1000)
    _check(report, 1000)
    assert report.unexercised() == [] and report.outcomes["ABORTED"] > 150


def test_a_machine_that_ends_elsewhere_is_noticed(core_build: SimulationBuild, monkeypatch: pytest.MonkeyPatch) -> None:
    def deaf(self: FaultyMemory, address: int, count: int) -> bool:
        self.accesses.append((address, count))
        return False

    monkeypatch.setattr(FaultyMemory, "_hit", deaf)
    report = BusCampaign(core_build, 1).run(len(ROUND))
    assert any("faults: it ends with" in failure for failure in report.failures) and report.errors


def test_a_campaign_says_what_it_never_came_to(core_build: SimulationBuild) -> None:
    missing = BusCampaign(core_build, 1).run(3).unexercised()
    assert {"trial dirty", "stalls late data", "number of dirty_bytes"} <= set(missing)
    assert "trial faults" not in missing and "number of states" not in missing
