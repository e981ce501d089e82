"""The package's bench on the architecture of the tests."""

from __future__ import annotations

from typing import Any

from hw.sim import bench
from hw.sim.bench import BASE, PROGRAM, bench_regions, dirt_program
from hw.sim.build import SimulationBuild
from hw.spec.deform import DeformArch

__all__ = ["ARCH", "BASE", "DATA", "DIRT", "PROGRAM", "REGIONS", "RESULT", "SIZE", "CoreBench", "dirt_program"]

ARCH = DeformArch(rows=2, feature_words=512, row_words=64, weight_words=512, parameter_words=256, burst_beats=16)
"""The architecture of the end-to-end tests too, so that one simulator serves all."""

REGIONS = bench_regions(ARCH)
DIRT, DATA, RESULT = ((region.base, region.size) for region in REGIONS)
SIZE = RESULT[0] + RESULT[1] - BASE


class CoreBench(bench.CoreBench):
    """A bench of the tests' architecture."""

    def __init__(self, build: SimulationBuild, arch: DeformArch = ARCH, **options: Any) -> None:
        super().__init__(build, arch, **options)
