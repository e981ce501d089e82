"""Errors, silences, aborts and watchdogs at any time: the core ends in order, writes nothing wrong, and runs the next program."""

from __future__ import annotations

import pytest

from hw.sim.build import SimulationBuild
from hw.sim.core import build_core
from tests.fuzz.bus_campaign import KINDS, BusCampaign, BusReport
from tests.sim.core_bench import ARCH


@pytest.fixture(scope="session")
def core_build() -> SimulationBuild:
    return build_core(ARCH)


def _check(report: BusReport, count: int) -> None:
    assert not report.failures, report.failures[:5]
    assert sum(report.trials.values()) == count and len(report.trials) == len(KINDS)
    assert report.good_runs == count + -(-count // BusCampaign.TRIALS_PER_CORE) and report.good_bytes == 8192 * report.good_runs
    assert report.compared_beats > 5 * count and report.error_bursts > count // 10 and report.silences > count // 10
    assert all(report.stalls[channel] for channel in ("aw", "w", "b", "ar", "r"))
    assert {"NONE", "ABORTED", "WATCHDOG", "BUS_STUCK", "AXI_READ"} <= set(report.outcomes) and report.resets


@pytest.mark.parametrize("seed", [1])
def test_a_core_that_is_disturbed_ends_in_order(core_build: SimulationBuild, seed: int) -> None:
    _check(BusCampaign(core_build, seed).run(63), 63)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [100, 101])
def test_a_core_that_is_disturbed_a_thousand_times(core_build: SimulationBuild, seed: int) -> None:
    report = BusCampaign(core_build, seed).run(1000)
    _check(report, 1000)
    assert report.drained_beats and report.outcomes["ABORTED"] > 150
