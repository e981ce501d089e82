"""Random programs on the whole core: every outcome and every written byte as in the spec's machine."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from hw.sim.build import SimulationBuild
from hw.sim.core import build_core
from hw.sim.loop import MemoryTiming, Stalls
from hw.sim.random_programs import Generator
from hw.spec.regs import ErrorCode
from tests.sim.core_bench import ARCH, CoreBench


@pytest.fixture(scope="session")
def core_build() -> SimulationBuild:
    return build_core(ARCH)


def _generator(bench: CoreBench, seed: int) -> Generator:
    return Generator(ARCH, seed, bench.region_bytes)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_programs_equal_the_machine(core_build: SimulationBuild, seed: int) -> None:
    seen, stalls = Counter[ErrorCode](), Stalls.everywhere(0 if seed == 1 else 100, seed)
    with CoreBench(core_build, seed=seed, stalls=stalls) as bench:
        bench.fill()
        generator, rng = _generator(bench, seed), np.random.default_rng(seed)
        for _ in range(80):
            instructions = [generator.instruction() for _ in range(rng.integers(1, 6))]
            if rng.random() < 0.4:
                instructions.insert(int(rng.integers(len(instructions) + 1)), generator.faulty())
            seen[bench.run(instructions).error] += 1
        assert seed == 1 or all(bench.loop.stall_counts()[channel] for channel in ("aw", "w", "ar", "r", "b"))
    assert min(bench.compared[space] for space in ("fm", "row", "wgt", "par", "tbl", "memory")) > 1000, bench.compared
    assert seen[ErrorCode.NONE] > 20 and len(seen) >= 6, seen


def test_the_timing_of_memory_changes_no_result(core_build: SimulationBuild) -> None:
    compared = []
    for timing in (MemoryTiming(read_latency=1, write_latency=1), MemoryTiming(read_latency=90, write_interval=3, read_interval=2)):
        with CoreBench(core_build, seed=9, timing=timing) as bench:
            bench.fill()
            generator = _generator(bench, 9)
            for _ in range(8):
                bench.run([generator.instruction() for _ in range(5)])
            compared.append(bench.compared)
    assert compared[0] == compared[1] and compared[0]["instructions"] > 40
