"""Random programs on the whole training core: every outcome and every written byte as in the spec's machine, and every cycle."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from hw.sim.bench import CoreBench, CoreMismatch
from hw.sim.build import SimulationBuild
from hw.sim.checks import TestBed, power_up_states, timing
from hw.sim.core import build_core
from hw.sim.coverage import Coverage
from hw.sim.loop import MemoryTiming, Stalls
from hw.sim.sat_programs import Generator
from hw.spec.program import build_image
from hw.spec.regs import ErrorCode
from hw.spec.sat import SatArch
from hw.spec.sat.instructions import SPACES
from hw.spec.sat.machine import SatMachine
from tests.sim.sat_bench import ARCHES, SMALL, MachineBench

FASTEST = MemoryTiming(read_latency=1, write_latency=1)
ENCODE = SMALL.instructions.encode


@pytest.fixture(scope="session")
def sat_build() -> SimulationBuild:
    return build_core(SMALL)


def _run_random(bench: CoreBench | MachineBench, seed: int, programs: int) -> Counter[ErrorCode]:
    """Programs of which two in five hold an instruction that may be refused; how they ended."""
    seen, generator = Counter[ErrorCode](), Generator(bench.arch, seed, bench.region_bytes)
    rng = np.random.default_rng(seed)
    for _ in range(programs):
        instructions = generator.program(int(rng.integers(1, 6)))
        if rng.random() < 0.4:
            instructions.insert(int(rng.integers(len(instructions) + 1)), generator.faulty())
        outcome = bench.run(instructions)
        seen[(outcome if isinstance(bench, CoreBench) else outcome[0]).error] += 1
        if isinstance(bench, MachineBench) and outcome[0].error:
            bench.fill()
    return seen


@pytest.mark.parametrize("seed", [1, 2])
def test_random_programs_equal_the_machine(sat_build: SimulationBuild, seed: int) -> None:
    with CoreBench(sat_build, SMALL, seed=seed, stalls=Stalls.everywhere(0 if seed == 1 else 100, seed)) as bench:
        bench.fill()
        seen = _run_random(bench, seed, 40)
        assert seed == 1 or all(bench.loop.stall_counts()[channel] for channel in ("aw", "w", "ar", "r", "b"))
    assert min(bench.compared[space] for space in (*SPACES, "memory")) > 1000, bench.compared
    assert seen[ErrorCode.NONE] > 20 and len(seen) >= 4, seen


def test_the_timing_of_memory_changes_no_result(sat_build: SimulationBuild) -> None:
    compared = []
    for memory in (FASTEST, MemoryTiming(read_latency=90, write_interval=3, read_interval=2)):
        with CoreBench(sat_build, SMALL, seed=9, timing=memory) as bench:
            bench.fill()
            generator = Generator(SMALL, 9, bench.region_bytes)
            for _ in range(6):
                bench.run(generator.program(5))
            compared.append(bench.compared)
    assert compared[0] == compared[1] and compared[0]["instructions"] > 35


def test_cycles_and_states_at_power_up(sat_build: SimulationBuild) -> None:
    """Instructions, fetches and whole programs take the cycles of the timing model, without an error of any size."""
    bed = TestBed(build=sat_build, arch=SMALL, seeds=(1,))
    counts = timing(bed)
    assert counts["instructions"] >= 96 and counts["fetches"] >= 75 and counts["programs"] == 21
    assert power_up_states(bed)["instructions"] > 120


@pytest.mark.slow
@pytest.mark.parametrize("name", ["4x4", "4x8", "8x8"])
def test_cycles_of_many_random_programs(name: str) -> None:
    """Seven programs on each of three memories per seed, whole programs and each of their instructions: no cycle of difference."""
    build = build_core(ARCHES[name])
    total: Counter[str] = Counter()
    for seed in range(10):
        total.update(timing(TestBed(build=build, arch=ARCHES[name], seeds=(100 + seed,))))
    assert total["programs"] == 210 and total["instructions"] > 900


def test_halves_of_a_word_in_any_order(sat_build: SimulationBuild) -> None:
    """Rows that go down write the upper half of a word before the lower one, which the machine tells in the order of halves."""
    down = {"out_pitch": (1 << 20) - 1, "out_rows": 4, "out_words": 1}
    across = {"b_log2": 1, "out_pitch": 2, "out_rows": 4, "out_words": 2}
    with CoreBench(sat_build, SMALL, seed=3, timing=FASTEST) as bench:
        bench.fill()
        for bank in range(3):
            for place in (40, 41):
                shapes = ({**down, "out_addr": place + 9}, {**across, "out_addr": place})
                bench.run([ENCODE("GEMM", drain=2, out_bank=bank, act_addr=64, **shape) for shape in shapes])
            log = bench.loop.trace().written("vec")
            first = {lane: dict(zip(log["address"][log["lane"] == lane], log["cycle"][log["lane"] == lane], strict=True))
                     for lane in (2 * bank, 2 * bank + 1)}  # fmt: skip
            both = set.intersection(*(set(cycles) for cycles in first.values()))
            assert any(first[2 * bank + 1][address] < first[2 * bank][address] for address in both)
        assert bench.compared["instructions"] == len(bench.arch.space_units()) + 12
    words = bench.machine.chip["vec"].reshape(3, -1, 16)
    assert np.unique(words[:, 20:24].reshape(-1, 8), axis=0).shape[0] > 5


def test_the_programs_are_what_the_machine_defines() -> None:
    """Legal programs end well, accumulators stay in the adder's domain, and every bin can be hit but for stalls and endings."""
    for name, arch in ARCHES.items():
        coverage, endings = Coverage(arch), Counter[ErrorCode]()
        bench = MachineBench(arch, 5)
        generator, legal = Generator(arch, 5, bench.region_bytes), 0
        for _ in range(150):
            program = generator.program(4)
            outcome, written = bench.run(program)
            assert outcome.error is ErrorCode.NONE, (name, outcome)
            coverage.retired(build_image(arch, program), written)
            sums = np.abs(bench.machine.chip["acc"].view("<f4").astype(np.float64))
            assert sums.max() < 2.0**80 and not (sums * 2.0**48 % 1).any()
            legal += len(written)
        endings = _run_random(bench, 5, 60)
        empty = [bin for bin in coverage.empty if not bin.startswith(("stall", "ending")) and "token" not in bin]
        assert legal > 600 and len(empty) <= 12, (name, empty)
        assert len(endings) >= 6, endings


def test_nothing_is_written_twice_or_read_by_its_writer() -> None:
    """No program's meaning hangs on an order that the machine leaves open: no word of an instruction twice (halves apart)."""
    looked_at = 0
    for arch in ARCHES.values():
        bench = MachineBench(arch, 6)
        generator = Generator(arch, 6, bench.region_bytes)
        for _ in range(80):
            program = generator.program(4)
            for writes in bench.run(program)[1]:
                instruction = arch.instructions.decode(program[writes.index])
                for space in writes.addresses:
                    addresses = writes.sorted(space)[0]
                    most = 2 if space == "vec" and instruction.name == "GEMM" and arch.columns == 4 else 1
                    assert np.unique(addresses, return_counts=True)[1].max() <= most
                    looked_at += len(addresses)
    assert looked_at > 20_000


FAULTS = {
    "wrong row": ("_acc_units", lambda machine, units, i: np.roll(units, 1, axis=0), "acc"),
    "wrong column word": ("_operand", lambda machine, values, i, name, word: values[::-1], "vec|chn"),
    "wrong record": ("_channel_words", lambda machine, words, i, word, lanes: words[::-1], "vec|chn"),
    "sums that round": ("_to_fp16", lambda machine, values, wide: np.nextafter(values, np.float16(0)), "vec"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_bench_sees_a_wrong_machine(sat_build: SimulationBuild, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    method, change, spaces = FAULTS[name]
    right = getattr(SatMachine, method)
    monkeypatch.setattr(SatMachine, method, lambda self, *arguments: change(self, right(self, *arguments), *arguments))
    with CoreBench(sat_build, SMALL, seed=1, timing=FASTEST) as bench:
        bench.fill()
        with pytest.raises(CoreMismatch, match=rf"writes to ({spaces}): other|writes to memory: other"):
            _run_random(bench, 1, 60)


def test_memories_that_are_too_small_are_refused() -> None:
    small = SatArch(rows=16, columns=4, acc_words=128)
    with pytest.raises(ValueError, match="acc_words must be at least 256 for random programs, not 128"):
        Generator(small, 1, lambda *place: b"")
