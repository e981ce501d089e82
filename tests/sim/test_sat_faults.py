"""Faults in the training core's hardware, chosen by the build_id pins, which the bench must see; without one it must see nothing."""

from __future__ import annotations

import pytest
from amaranth.hdl import Module, Signal

from hw.rtl.emit import emit
from hw.rtl.sat import core
from hw.rtl.sat.memories import AccumulatorMemory, ActivationMemory, TableMemory, WeightMemory
from hw.rtl.sat.vec_flag import SaturationFlag
from hw.sim.bench import CoreBench, CoreMismatch
from hw.sim.build import SimulationBuild, build_simulation
from hw.sim.loop import MemoryTiming
from hw.spec.sat import SatArch
from tests.sim.sat_bench import SIZES
from tests.sim.test_sat_programs import _run_random

ARCH = SatArch(rows=8, columns=4, feed=2, burst_beats=16, **SIZES)
"""Two copies of the activation memory, and column words of half a memory word."""

FASTEST = MemoryTiming(read_latency=1, write_latency=1)
FAULTS = ("wrong copy", "wrong copy of the table", "dropped word", "wrong row", "lost event")


def faulty_core() -> core.SatCore:
    """The core with all faults in it, of which ``build_id`` selects one (from 1), or none (0)."""
    selected = Signal(8, name="selected_fault")

    def active(name: str) -> Signal:
        return selected == 1 + FAULTS.index(name)

    class Activations(ActivationMemory):
        def elaborate(self, platform: object) -> Module:
            m = super().elaborate(platform)
            with m.If(active("wrong copy")):
                m.d.comb += m.submodules.copy_1.write_addr.eq(self.write.addr ^ 1)
            return m

    class Table(TableMemory):
        def elaborate(self, platform: object) -> Module:
            m = super().elaborate(platform)
            with m.If(active("wrong copy of the table")):
                m.d.comb += m.submodules.copy_1.write_en.eq(0)
            return m

    class Weights(WeightMemory):
        def elaborate(self, platform: object) -> Module:
            m = super().elaborate(platform)
            with m.If(active("dropped word") & (self.write.addr[:4] == 5)):
                m.d.comb += m.submodules.bank.write_en.eq(0)
            return m

    class Accumulators(AccumulatorMemory):
        def elaborate(self, platform: object) -> Module:
            m = super().elaborate(platform)
            with m.If(active("wrong row") & self.write.en):
                m.d.comb += m.submodules.bank.write_addr.eq(self.write.addr ^ 2)
            return m

    class Flag(SaturationFlag):
        def elaborate(self, platform: object) -> Module:
            m = super().elaborate(platform)
            with m.If(active("lost event")):
                m.d.sync += self.port.saturated.eq(0)
            return m

    class Faulty(core.SatCore):
        def elaborate(self, platform: object) -> Module:
            parts = {"ActivationMemory": Activations, "TableMemory": Table, "WeightMemory": Weights,
                     "AccumulatorMemory": Accumulators, "SaturationFlag": Flag}  # fmt: skip
            with pytest.MonkeyPatch.context() as patch:
                for name, part in parts.items():
                    patch.setattr(core, name, part)
                m = super().elaborate(platform)
            m.d.comb += selected.eq(self.build_id)
            return m

    return Faulty(ARCH)


@pytest.fixture(scope="module")
def faulty_build() -> SimulationBuild:
    return build_simulation(emit(faulty_core(), "sat_core"), random_state=True)


def _bench(build: SimulationBuild, selected: int) -> CoreBench:
    return CoreBench(build, ARCH, seed=4, timing=FASTEST, build_id=selected)


@pytest.mark.slow
def test_without_a_fault_all_is_equal(faulty_build: SimulationBuild) -> None:
    with _bench(faulty_build, 0) as bench:
        bench.fill()
        _run_random(bench, 4, 120)
        assert bench.compared["programs"] >= 120 and bench.compared["instructions"] > 300


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_seen(faulty_build: SimulationBuild, name: str) -> None:
    with _bench(faulty_build, 1 + FAULTS.index(name)) as bench:
        bench.fill()
        with pytest.raises(CoreMismatch, match=r"differs|other bytes|must end with"):
            _run_random(bench, 4, 120)
        assert bench.compared["instructions"] > 7
