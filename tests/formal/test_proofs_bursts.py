"""Proofs of the burst splitter, and the faults that they must find."""

from __future__ import annotations

import pytest

from hw.rtl.common import bursts
from hw.rtl.formal import cover, prove
from hw.spec.arch import Arch
from tests.formal.bursts_proof import SplitterProof
from tests.formal.mutants import Fault, expect_counterexample, parameters

TWO_MANAGERS = Arch(burst_beats=16, managers=2, region_manager=(0, 1, 0, 1))
OTHERS = tuple(Arch(burst_beats=beats) for beats in (1, 64, 256))
FAULTS = (
    Fault(name="boundary ignored", module=bursts, old="& addr[:bits].any()),", new="& 0),", fails="boundary"),
    Fault(name="boundary taken for a whole run", module=bursts, old=" & ~(short & at_least(beyond, self._arch.burst_beats + 1))",
          new="", fails="boundary"),
    Fault(name="one word beyond the region", module=bursts, old="(run.last < run.size)",
          new="(run.last <= run.size)", fails="legal"),
    Fault(name="wraps around the address space", module=bursts, old=" & ~end[-1]", new="", fails="legal"),
    Fault(name="next burst overlaps", module=bursts, old="burst.addr + beats",
          new="burst.addr + burst.length", fails="address"),
    Fault(name="manager of the next run", module=bursts, old="burst.manager.eq(lookup.o.payload.manager)",
          new="burst.manager.eq(lookup.i.payload.region)", fails="address"),
    Fault(name="longest burst one short", module=bursts, old="Mux(short, ~addr[:bits], self._arch.burst_beats - 1)",
          new="Mux(short, ~addr[:bits], self._arch.burst_beats - 2)", fails="length"),
    Fault(name="accepts after a refusal", module=bursts, old="lookup.flush.eq(refused | self.cancel)",
          new="lookup.flush.eq(self.cancel)", fails="closed"),
    Fault(name="offers during cancel", module=bursts, old="offer & ~self.cancel", new="offer", fails="closed"),
    Fault(name="offer withdrawn", module=bursts, old="offer & ~self.cancel",
          new="offer & ~self.cancel & ~self.request.valid", fails="hold"),
    Fault(name="rest of the run lost", module=bursts, old="(issued & final)", new="issued", fails="room"),
    Fault(name="legal run refused", module=bursts, old="refused.eq(~inside)",
          new="refused.eq(~inside | ends)", fails="refused"),
    Fault(name="refusal forgotten", module=bursts, old="with m.If(self.clear):",
          new="with m.If(self.clear | self.request.valid):", fails="stays"),
    Fault(name="waits for the next run", module=bursts, old="with m.If(measure):",
          new="with m.If(measure & self.request.valid):", fails="pace"),
    Fault(name="busy without the next run", module=bursts, old="self.busy.eq(lookup.o.valid | measure | offer)",
          new="self.busy.eq(measure | offer)", fails="busy"),
)  # fmt: skip


def test_splitter() -> None:
    prove(SplitterProof(bursts, TWO_MANAGERS), 1)


@pytest.mark.slow
@pytest.mark.parametrize("arch", OTHERS, ids=lambda arch: f"{arch.burst_beats}_beats")
def test_other_splitter(arch: Arch) -> None:
    prove(SplitterProof(bursts, arch), 1)


def test_splitter_is_exercised() -> None:
    assert cover(SplitterProof(bursts, TWO_MANAGERS, small=True), 9) == (
        "refused_behind_another", "second_burst", "second_run", "short_before_boundary", "to_the_last_address",
    )  # fmt: skip


@parameters(FAULTS)
def test_faulty_splitter(fault: Fault) -> None:
    expect_counterexample(fault, lambda module: SplitterProof(module, TWO_MANAGERS, small=True), 7)
