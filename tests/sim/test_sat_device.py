"""The training core as a device: a program's container on the interpreter and on the simulated core, every write and cycle equal."""

from __future__ import annotations

import numpy as np
import pytest

from hw.sim.bench import bench_memory, bench_regions, dirt_program
from hw.sim.core import build_core
from hw.sim.loop import MemoryTiming
from hw.sim.sat_programs import Generator
from hw.spec.machine import Writes
from hw.spec.program import Program, Region, build_image
from hw.spec.sat.instructions import SPACES
from hw.spec.sat.machine import SatMachine
from sw.flow.link import Link
from sw.flow.machine_rtl import Describer, RtlTally, compare_runs, run_recorded
from sw.flow.predict import predictor
from sw.runtime import open_device
from sw.runtime.interpreter import InterpreterDevice
from tests.sim.sat_bench import SMALL

TIMING = MemoryTiming(read_latency=7, write_latency=5)


def container(seed: int, length: int) -> Program:
    """A random program with what it reads: contents of the on-chip memories, data, and room for results."""
    memory, regions = bench_memory(SMALL, seed), bench_regions(SMALL)
    data, at = [], regions[0].base
    for region in regions:
        start = region.base - at
        data.append(memory[-sum(r.size for r in regions) :][start : start + region.size].tobytes())
    generator = Generator(SMALL, seed, lambda region, word, count: data[region][16 * word : 16 * (word + count)])
    kinds = ("parameters", "parameters", "output")
    return Program(
        arch=SMALL,
        image=build_image(SMALL, [*dirt_program(SMALL), *generator.program(length)]),
        regions=tuple(
            Region(name=f"r{i}", kind=kind, size=regions[i].size, data=data[i] if kind == "parameters" else b"")
            for i, kind in enumerate(kinds)
        ),
        inputs=(),
        outputs=(),
    )


def _tally(program: Program) -> RtlTally:
    with InterpreterDevice(seed=3) as machine, open_device("sim", arch=SMALL, build=build_core(SMALL), timing=TIMING) as core:
        places = machine.load(program), core.load(program)
        expected = run_recorded(machine, program, places[0], {}, strict=True)
        got = run_recorded(core, program, places[1], {}, strict=False)
        assert not got.problem
        assert {*SPACES, "memory"} <= set(got.record.writes)
        tally = RtlTally(link=Link(name="rtl", unit="bytes"), timing=Link(name="timing", unit="instructions"))
        compare_runs(tally, Describer(program), 0, expected, got, predictor(program, places[1], TIMING))
        assert core.arch_id == SMALL.arch_id
    return tally


def test_interpreter_and_simulated_core_do_the_same() -> None:
    program = container(11, 40)
    tally = _tally(program)
    assert tally.link.compared > 40_000 and tally.link.mismatches == 0
    assert tally.timing.compared == program.instruction_count and tally.timing.mismatches == 0
    assert tally.counters["COMPUTE"] > 1000


def test_a_dropped_word_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    add = Writes.add

    def dropping(self: Writes, space: str, addresses: np.ndarray, data: np.ndarray) -> None:
        keep = slice(1 if space == "vec" and len(addresses) > 8 else 0, None)
        add(self, space, addresses[keep], data[keep])

    monkeypatch.setattr(Writes, "add", dropping)
    assert SatMachine(SMALL).writes.addresses == {}
    assert _tally(container(11, 10)).link.mismatches > 0
