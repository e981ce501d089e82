"""The shell on buses that cocotbext-axi plays, with two managers and random back-pressure on all channels."""

from __future__ import annotations

from pathlib import Path

import pytest

from hw.rtl.emit import EmittedVerilog, emit
from hw.sim.bus_checks import HoldChecker
from hw.sim.cocotb_runner import run_bench
from tests.sim.copy_core import CopyCore

CHANNELS = ["s_axi.b", "s_axi.r", *(f"m_axi_{i}.{channel}" for i in range(2) for channel in ("aw", "w", "ar"))]


@pytest.fixture(scope="session")
def copy_core() -> EmittedVerilog:
    return emit(CopyCore(), "copy_core")


@pytest.mark.parametrize(("seed", "probability"), [(1, 0.0), (2, 0.3), (3, 0.7)])
def test_programs_under_random_back_pressure(copy_core: EmittedVerilog, tmp_path: Path, seed: int, probability: float) -> None:
    report = run_bench(copy_core, "tests.sim.shell_bench", tmp_path, {"seed": seed, "probability": probability})
    assert report["problems"] == []
    assert report["compared"] == 13 << 16
    counts = report["counts"]
    assert sorted(counts) == sorted(CHANNELS)
    assert all(counts[channel]["transfers"] > 5 for channel in CHANNELS), counts
    if probability:
        assert all(counts[channel].get("stalls", 0) > 5 for channel in CHANNELS), counts


def test_the_hold_checker_sees_what_it_must() -> None:
    good = [(0, 1, None), (1, 0, 5), (1, 0, 5), (1, 1, 5), (1, 1, 6), (0, 0, None), (1, 1, 7)]
    dropped = [(1, 0, 5), (0, 0, None), (1, 1, 5)]
    changed = [(1, 0, 5), (1, 1, 6)]
    for steps, problems in ((good, 0), (dropped, 1), (changed, 1)):
        checker = HoldChecker("w")
        for step in steps:
            checker.step(*step)
        assert len(checker.problems) == problems
        assert sum(checker.counts.values()) == len(steps)
