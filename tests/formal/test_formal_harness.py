"""The proof tool itself: what it must prove, refute, and refuse to call covered."""

from __future__ import annotations

import pytest
from amaranth.hdl import Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.rtl.formal import Harness, NotCovered, ProofFailed, bounded, cover, prove


class Counter(wiring.Component):
    """Counts 0..9 while ``en``; the last number that it left lies in row 1 of a memory."""

    def __init__(self, reset_less: bool = False) -> None:
        super().__init__({"en": In(1), "count": Out(4)})
        self._reset_less = reset_less

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.last = last = Memory(shape=4, depth=2, init=[5, 5])
        write = last.write_port()
        count = Signal(4, reset_less=self._reset_less)
        m.d.comb += [self.count.eq(count), write.en.eq(self.en), write.addr.eq(1), write.data.eq(count)]
        with m.If(self.en):
            m.d.sync += count.eq(Mux(count == 9, 0, count + 1))
        return m


class CounterProof(Harness):
    """``limit`` is claimed never to be reached."""

    def __init__(self, limit: int, reset_less: bool = False, assumed: int = 1) -> None:
        self._limit, self._reset_less, self._assumed = limit, reset_less, assumed

    def describe(self) -> None:
        dut = Counter(self._reset_less)
        inside = self.part(dut)
        en = self.any(1, "en")
        self.m.d.comb += dut.en.eq(en)
        self.assume(Const(self._assumed, 1))
        self.check("limit", dut.count != self._limit)
        self.check("nothing", Const(0) == Const(0))
        kept = self.since_reset(1) & self.past(en, "asked")
        self.check("row", ~kept | (inside["last[1]"] == self.past(dut.count, "before")))
        self.cover("nine", dut.count == 9)


def test_induction_needs_no_reachable_state() -> None:
    """That 10 is never reached follows from any one cycle; that 12 is not needs the states 10 and 11 to be excluded."""
    prove(CounterProof(10), 1)
    with pytest.raises(ProofFailed, match="limit") as failure:
        prove(CounterProof(12), 1)
    assert not failure.value.from_reset


def test_search_finds_the_first_cycle() -> None:
    bounded(CounterProof(3), 3)
    with pytest.raises(ProofFailed, match="after a reset") as failure:
        bounded(CounterProof(3), 4)
    assert failure.value.checks == ("limit",) and failure.value.trace.values["en"][1:4] == [1, 1, 1]


def test_registers_without_reset_and_memories_start_anyhow() -> None:
    with pytest.raises(ProofFailed):
        bounded(CounterProof(7, reset_less=True), 1)
    proof = CounterProof(10)
    proof.only = "row"
    prove(proof, 1)


def test_cover_tells_what_is_out_of_reach() -> None:
    assert cover(CounterProof(10), 10) == ("nine",)
    with pytest.raises(NotCovered, match="nine"):
        cover(CounterProof(10), 8)
    with pytest.raises(NotCovered, match="nine"):
        cover(CounterProof(10, assumed=0), 10)
