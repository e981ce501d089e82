"""The GEMM engine against the machine: memories, vector writes, saturation and cycles of random legal instructions."""

from __future__ import annotations

import pytest

from tests.sat.gemm_bench import Compared, bench_arch, execute
from tests.sat.gemm_jobs import Jobs

ARCHS = [bench_arch(4, 4), bench_arch(4, 8, latency=5, feed=2), bench_arch(8, 4, latency=6), bench_arch(8, 8, latency=4, feed=2)]


def name(arch) -> str:
    return f"{arch.rows}x{arch.columns}-latency{arch.latency}-feed{arch.feed}"


@pytest.mark.parametrize("arch", ARCHS, ids=name)
def test_random_instructions(arch) -> None:
    total = Compared()
    for seed in range(4):
        total += execute(arch, Jobs(arch, seed).draw(30), seed)
    assert total.instructions == 120 and total.acc_words > 900 and total.out_words > 400 and total.saturated > 20
