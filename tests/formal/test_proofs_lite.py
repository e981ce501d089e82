"""Proof of the AXI4-Lite endpoint, and the faults that it must find."""

from __future__ import annotations

from hw.rtl.common import lite
from hw.rtl.formal import cover, prove
from tests.formal.lite_proof import LiteProof
from tests.formal.mutants import Fault, expect_counterexample, parameters

FAULTS = (
    Fault(name="data overwritten", module=lite, old="bus.wready.eq(~have_data)", new="bus.wready.eq(1)", fails="write_room"),
    Fault(name="write without data", module=lite, old="have_address & have_data &", new="have_address &", fails="write"),
    Fault(name="write before the answer is taken", module=lite, old="& (~bus.bvalid | bus.bready)", new="", fails="b_answers"),
    Fault(name="write answer withdrawn", module=lite, old="with m.If(bus.bready):", new="with m.If(1):", fails="holds"),
    Fault(name="read answer withdrawn", module=lite, old="with m.If(bus.rready):", new="with m.If(1):", fails="holds"),
    Fault(name="read before the answer is taken", module=lite, old="~self.read_en & ~bus.rvalid",
          new="~self.read_en", fails="r_answers"),
    Fault(name="byte address", module=lite, old="index.eq(bus.araddr[2:])", new="index.eq(bus.araddr)", fails="index"),
    Fault(name="value of a cycle later", module=lite, old="word.eq(self.read_data)]",
          new="word.eq(0)]\n        with m.If(bus.rvalid):\n            m.d.sync += word.eq(self.read_data)", fails="data"),
    Fault(name="strobes lost", module=lite, old="strobe.eq(bus.wstrb)", new="strobe.eq(15)", fails="write"),
    Fault(name="writes late", module=lite, old="self.write_en.eq(have_address", new="self.write_en.eq(~bus.arvalid & have_address",
          fails="pace"),
)  # fmt: skip


def test_lite() -> None:
    prove(LiteProof(lite), 1)
    assert cover(LiteProof(lite), 7) == ("answer_refused", "data_first")


@parameters(FAULTS)
def test_faulty_lite(fault: Fault) -> None:
    expect_counterexample(fault, LiteProof, 6)
