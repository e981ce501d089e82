"""The GEMM engine against the machine: memories, vector writes, saturation and cycles of random legal instructions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hw.spec.isa import Instruction
from hw.spec.machine import CoreError
from hw.spec.sat import SatArch
from hw.spec.sat.machine import SatMachine
from hw.spec.sat.timing.gemm import gemm_cycles, loop_cycles
from tests.sat.gemm_bench import Compared, Script, bench_arch, compiled, execute
from tests.sat.gemm_jobs import Jobs, instruction

ARCHS = [bench_arch(4, 4), bench_arch(4, 8, latency=5, feed=2), bench_arch(8, 4, latency=6), bench_arch(8, 8, latency=4, feed=2)]
MORE = [
    *(bench_arch(4, 4, latency=latency, feed=feed) for latency in (4, 5, 6) for feed in (1, 2)),
    *(bench_arch(8, 8, latency=latency, feed=feed) for latency, feed in ((4, 1), (5, 2), (6, 1))),
    bench_arch(16, 4, latency=4, feed=2),
    bench_arch(16, 8, latency=5, feed=1),
    bench_arch(4, 16, latency=6, feed=2),
    bench_arch(4, 32),
    bench_arch(32, 4, latency=5, feed=2),
]
SMALL, HIGH = ARCHS[0], ARCHS[2]


def name(arch: SatArch) -> str:
    return f"{arch.rows}x{arch.columns}-latency{arch.latency}-feed{arch.feed}"


def random_instructions(arch: SatArch, scripts: int, count: int) -> Compared:
    total = Compared()
    for seed in range(scripts):
        total += execute(arch, Jobs(arch, seed).draw(count), seed)
    assert total.instructions == scripts * count and total.saturated > scripts
    return total


@pytest.mark.parametrize("arch", ARCHS, ids=name)
def test_random_instructions(arch: SatArch) -> None:
    total = random_instructions(arch, 4, 30)
    assert total.acc_words > 900 and total.out_words > 400


@pytest.mark.slow
@pytest.mark.parametrize("arch", MORE, ids=name)
def test_many_random_instructions(arch: SatArch) -> None:
    total = random_instructions(arch, 20, 100)
    assert total.acc_words > 10_000 and total.out_words > 5_000


@pytest.mark.parametrize("a_log2, b_log2", [(a, b) for a in range(3) for b in range(5 - a)])
def test_every_interleave(a_log2: int, b_log2: int) -> None:
    jobs = Jobs(SMALL, 10 * a_log2 + b_log2)
    total = execute(SMALL, jobs.draw(12, a_log2=a_log2, b_log2=b_log2), 1)
    assert total.instructions == 12 and total.acc_words + total.out_words > 0


@pytest.mark.parametrize("arch, fixed", [(SMALL, {}), (HIGH, {"a_log2": 0, "b_log2": 0})], ids=["any", "one_sum"])
def test_an_instruction_that_is_broken_off_leaves_nothing_behind(arch: SatArch, fixed: dict[str, int]) -> None:
    """In eight rows, a step that was still on its way down would meet a single sum after it was cleared."""
    rng, jobs = np.random.default_rng(5), Jobs(arch, 5)
    first, *others = jobs.draw(100, resume=0, **fixed)
    broken = []
    for job, victim in zip(others, jobs.draw(100, drain=0, **fixed)[1:], strict=True):
        cycles = int(rng.integers(1, gemm_cycles(victim.instruction, arch)))
        broken.append(replace(job, victim=(victim.instruction, cycles), gap=int(rng.integers(0, 2))))
    assert execute(arch, [first, *broken], 5).instructions == 100


def fetched(fields: dict[str, int]) -> tuple[Instruction, np.ndarray]:
    """An instruction on a table all of whose entries have base 0."""
    return instruction(SMALL, **fields), np.tile(np.array([0, 0, 255, 255], np.uint8), 4 * SMALL.tbl_words).reshape(-1, 16)


LIMITS = {
    "tbl": ("table_addr", SMALL.table_entries - 4, {}),
    "act": ("act_addr", SMALL.act_words - 2, {"chunk_log2": 1}),
    "wgt": ("wgt_addr", SMALL.wgt_words - 7, {"wgt_pitch": 2}),
    "idx": ("idx_addr", SMALL.wgt_words - 8, {"wgt_pitch": 2, "sparse": 1, "b_log2": 1}),
    "preload": ("acc_addr", SMALL.acc_words - 8, {"preload": 1, "b_log2": 1}),
    "drain": ("acc_addr", SMALL.acc_words - 4, {"drain": 1}),
}


@pytest.mark.parametrize("space", LIMITS)
def test_an_access_outside_a_memory_is_told(space: str) -> None:
    field, last, more = LIMITS[space]
    for beyond in (0, 1, (1 << 20) - last - 1 if field != "act_addr" else 9):
        i, table = fetched({"steps": 4, field: last + beyond, **more})
        machine, script = SatMachine(SMALL, 0), Script(arch=SMALL, rng=np.random.default_rng(0))
        script.write("tbl", 0, table)
        machine.chip["tbl"][:] = table
        start, end = script.execute(i)
        script.idle(2)
        found = script.run(compiled(SMALL), 1)
        assert found["ended"][end] == 1
        assert found["missed"][start : end + 1].any() == bool(beyond)
        if beyond:
            with pytest.raises(CoreError, match="BUFFER_RANGE"):
                machine.execute(i)
        else:
            machine.execute(i)


def recurrence(chunks: int, feed: int, compute: int, preload: int) -> int:
    feeds, computed = [0], [0, 0]
    for _ in range(chunks):
        feeds.append(max(feeds[-1], computed[-2]) + feed)
        computed.append(max(computed[-1], feeds[-1], preload) + compute)
    return computed[-1]


def test_the_loop_takes_as_long_as_its_recurrence() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5000):
        case = {"chunks": int(rng.integers(1, 12)), **{n: int(rng.integers(1, 40)) for n in ("feed", "compute")}}
        case["preload"] = int(rng.integers(0, 120))
        assert loop_cycles(**case) == recurrence(**case), case
