"""Proofs of the AXI masters, and the faults that they must find."""

from __future__ import annotations

import pytest

from hw.rtl.common import read, write
from hw.rtl.formal import cover, prove
from hw.spec.arch import Arch
from tests.formal.masters_proof import ReadProof, WriteProof
from tests.formal.mutants import Fault, expect_counterexample, parameters

ONE_MANAGER = Arch()
TWO_MANAGERS = Arch(outstanding=2, managers=2, region_manager=(0, 1, 0, 1))
MANY = Arch(outstanding=16, managers=4, region_manager=(0, 1, 2, 3))
ARCHS = pytest.mark.parametrize(
    "arch",
    (ONE_MANAGER, TWO_MANAGERS, pytest.param(MANY, marks=pytest.mark.slow)),
    ids=lambda arch: f"{arch.managers}_managers",
)
READ_FAULTS = (
    Fault(name="address overwritten", module=read, old="~pending & may_issue", new="may_issue", fails="address_room"),
    Fault(name="address withdrawn", module=read, old="with m.Elif(ready):", new="with m.Else():", fails="address"),
    Fault(name="one burst too many", module=read, old="& may_issue(self._arch, in_flight, offered.manager, address.manager)",
          new="", fails="in_flight"),
    Fault(name="wrong port", module=read, old="port.arvalid.eq(pending & (selected == number))",
          new="port.arvalid.eq(pending)", fails="address"),
    Fault(name="length of the next burst", module=read, old="port.arlen.eq(address.length)",
          new="port.arlen.eq(offered.length)", fails="address"),
    Fault(name="word overwritten", module=read, old="free.eq(~held | self.runs.data.ready | self.drain)",
          new="free.eq(1)", fails="word_holds"),
    Fault(name="free word refused", module=read, old="free.eq(~held | self.runs.data.ready | self.drain)",
          new="free.eq(~held | self.drain)", fails="ready"),
    Fault(name="two managers at once", module=read, old="offered.manager, address.manager)",
          new="address.manager, address.manager)", fails="one_manager"),
    Fault(name="address of the next burst", module=read, old="port.araddr[SIZE_WORD:].eq(address.addr)",
          new="port.araddr[SIZE_WORD:].eq(offered.addr)", fails="address_holds"),
    Fault(name="retires without last", module=read, old="retire.eq(self.beat & last)",
          new="retire.eq(self.beat)", fails="in_flight"),
    Fault(name="drained word kept", module=read, old="held.eq(valid & ~self.drain)", new="held.eq(valid)", fails="word"),
    Fault(name="error forgotten", module=read, old="with m.Elif(self.beat & failed):",
          new="with m.Elif(self.beat & failed & last):", fails="failed"),
    Fault(name="idle too early", module=read, old="(in_flight == 0) & ~self.runs.data.valid",
          new="(in_flight == 0)", fails="idle"),
)  # fmt: skip
WRITE_FAULTS = (
    Fault(name="address overwritten", module=write, old="~pending & may_issue",
          new="may_issue", fails="address_room"),
    Fault(name="last one beat early", module=write, old="last.eq(left == 0)", new="last.eq(left == 1)", fails="last"),
    Fault(name="one beat too many", module=write, old="load & (left == 0)", new="load & last", fails="last"),
    Fault(name="beat without a burst", module=write, old="free.eq(active & (", new="free.eq((", fails="owed"),
    Fault(name="beat overwritten", module=write, old="(~valid | Array(port.wready for port in self.axi)[selected])",
          new="1", fails="beat_holds"),
    Fault(name="length of another burst", module=write, old="self._send(m, selected, issue, offered.length)",
          new="self._send(m, selected, issue, address.length)", fails="last"),
    Fault(name="drained bytes written", module=write, old="strobed.eq(~self.drain)", new="strobed.eq(1)", fails="word"),
    Fault(name="bytes never written", module=write, old="strobed.eq(~self.drain)", new="strobed.eq(0)", fails="blank"),
    Fault(name="answer refused", module=write, old="port.bready.eq(selected == number)",
          new="port.bready.eq((selected == number) & ~failed)", fails="answers"),
    Fault(name="word lost in a drain", module=write, old="self.runs.data.ready.eq(free & ~self.drain)",
          new="self.runs.data.ready.eq(free)", fails="word"),
    Fault(name="one burst too many", module=write, old="& may_issue(self._arch, in_flight, offered.manager, address.manager)",
          new="", fails="in_flight"),
    Fault(name="idle too early", module=write, old="self.runs.idle.eq(~splitter.busy & (in_flight == 0))",
          new="self.runs.idle.eq(~splitter.busy & ~pending)", fails="idle"),
)  # fmt: skip


@ARCHS
def test_read(arch: Arch) -> None:
    prove(ReadProof(read, arch), 1)


@ARCHS
def test_write(arch: Arch) -> None:
    prove(WriteProof(write, arch), 1)


def test_masters_are_exercised() -> None:
    assert cover(ReadProof(read, TWO_MANAGERS), 7) == ("full", "held_back", "other_manager")
    assert cover(WriteProof(write, TWO_MANAGERS), 9) == ("behind_another", "blank_last", "full", "long", "other_manager")


@parameters(READ_FAULTS)
def test_faulty_read(fault: Fault) -> None:
    expect_counterexample(fault, lambda module: ReadProof(module, TWO_MANAGERS), 7)


@parameters(WRITE_FAULTS)
def test_faulty_write(fault: Fault) -> None:
    expect_counterexample(fault, lambda module: WriteProof(module, TWO_MANAGERS), 8)
