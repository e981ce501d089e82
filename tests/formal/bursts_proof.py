"""The burst splitter against runs and bursts in plain arithmetic, at full widths."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

from amaranth.hdl import Mux, Signal, Value
from amaranth.lib import data

from hw.rtl.common.axi import BOUNDARY_WORDS
from hw.rtl.common.bursts import WORD_ADDRESS_BITS, LocatedRun
from hw.rtl.common.interfaces import Run
from hw.rtl.formal import Harness
from hw.spec.arch import Arch
from tests.formal.streams_proof import drive_windows, locate

WORDS_BITS = 17
"""Counts a run's words, 65535 at most."""

POSITION_BITS = WORD_ADDRESS_BITS + 1
"""Holds every sum of a base and an offset."""


@dataclass(frozen=True)
class Place:
    """A run of the model: ``there``, and the run with the window that its region had when it was accepted."""

    there: Signal
    run: data.View

    @property
    def legal(self) -> Value:
        """Its last word lies in the region and in the address space; no sum wraps."""
        end = self.run.offset + self.run.words
        return (end <= self.run.size) & (self.run.base + end <= 1 << WORD_ADDRESS_BITS)

    @property
    def sane(self) -> Value:
        """It has a word, and ``last`` is the last one's offset."""
        return ~self.there | ((self.run.words >= 1) & (self.run.last + 1 == self.run.offset + self.run.words))


class SplitterProof(Harness):
    """Any runs and windows, any readiness, ``cancel`` at any time, ``clear`` while not busy.

    The model keeps the accepted runs, of which there are at most two, and where (``at``) in the address space the ``first`` goes on
    and how many of its words are ``left``, without wrapping.
    Checks, of each burst that is offered: ``legal``, there is a run, and it lies in its region and in the address space;
    ``address``, it begins where the run's last burst ended, in the run's manager; ``length``, it has 1 to ``burst_beats`` beats, not
    more than the run has left, and is the longest such; ``boundary``, it lies in one 4 KB block. Of the whole: ``busy``, exactly
    while a run is not yet split or refused, so that none is lost; ``room``; ``refused`` rises only for a run that is not
    legal, of which no burst was issued, and stays; then ``closed``, no run is accepted and no burst offered; ``hold``, a burst
    that is offered and not taken is offered unchanged in the next cycle, but for ``cancel``; ``pace``, in any three cycles with a run
    inside there is an offer, a refusal or a cancel. The other checks are invariants that the induction needs.

    With ``small`` only some of these are looked at: small numbers, and bases at both ends of the address space. In so few a
    solver finds witnesses soon; it proves nothing.
    """

    def __init__(self, module: ModuleType, arch: Arch, small: bool = False) -> None:
        self._module, self._arch, self._small = module, arch, small

    def describe(self) -> None:
        self.dut = dut = self._module.BurstSplitter(self._arch)
        self.inside = self.part(dut)
        self.burst = burst = dut.burst.payload
        self.beats = self.named("beats_offered", burst.length + 1)
        self._drive()
        self.first, self.second = self._place("first"), self._place("second")
        self.at, self.left = Signal(POSITION_BITS, name="at"), Signal(WORDS_BITS, name="left_over")
        self.begun = Signal(name="begun")
        self.issued = self.named("issues", dut.burst.valid & dut.burst.ready)
        self.stopped = self.named("stopped", dut.refused | dut.cancel)
        self._model()
        self._check_bursts()
        self._check_protocol()
        self._invariants()
        self._covers()

    def _place(self, name: str) -> Place:
        return Place(Signal(name=f"{name}_there"), Signal(LocatedRun, name=name))

    def _drive(self) -> None:
        m, dut = self.m, self.dut
        self.windows = drive_windows(self, dut, self._arch)
        self.run = run = data.View(Run, self.any(Run.size, "run"))
        m.d.comb += [dut.request.payload.eq(run), dut.request.valid.eq(self.any(1, "request"))]
        m.d.comb += [
            dut.burst.ready.eq(self.any(1, "ready")),
            dut.clear.eq(self.any(1, "clear")),
            dut.cancel.eq(self.any(1, "cancel")),
        ]
        self.assume(~dut.request.valid | (run.words >= 1))
        self.assume(~dut.clear | ~dut.busy)
        if self._small:
            self.assume((run.words < 64) & (run.offset < 64))
            for base, size in self.windows.values():
                self.assume((base[14:].all() | ~base[14:].any()) & (size < 1 << 14))

    def _model(self) -> None:
        m, first, second = self.m, self.first, self.second
        accepted = self.named("accepts", self.dut.request.valid & self.dut.request.ready)
        located = data.View(LocatedRun, self.named("located_run", locate(self._arch, self.windows, self.run)))
        ended = self.named("ends", self.issued & (self.beats == self.left))
        with m.If(self.issued):
            m.d.sync += [self.at.eq(self.at + self.beats), self.left.eq(self.left - self.beats), self.begun.eq(1)]
        with m.If(ended):
            m.d.sync += [first.there.eq(second.there), second.there.eq(0)]
            self._begin(second.run)
        free = Mux(ended, ~second.there, ~first.there)
        with m.If(accepted & free):
            m.d.sync += first.there.eq(1)
            self._begin(located)
        with m.Elif(accepted):
            m.d.sync += [second.there.eq(1), Value.cast(second.run).eq(Value.cast(located))]
        with m.If(self.stopped):
            m.d.sync += [first.there.eq(0), second.there.eq(0)]
        self.check("room", ~(accepted & first.there & second.there) | ended)

    def _begin(self, run: data.View) -> None:
        self.m.d.sync += [Value.cast(self.first.run).eq(Value.cast(run)), self.begun.eq(0)]
        self.m.d.sync += [self.at.eq(run.base + run.offset), self.left.eq(run.words)]

    def _check_bursts(self) -> None:
        run, burst, offered, start, left = self.first.run, self.burst, self.dut.burst.valid, self.at, self.left
        to_boundary = self.named("to_boundary", BOUNDARY_WORDS - start % BOUNDARY_WORDS)
        self.check("legal", ~offered | (self.first.there & self.first.legal))
        self.check("address", ~offered | ((burst.addr == start) & (burst.manager == run.manager)))
        longest = Mux(left < to_boundary, left, to_boundary)
        longest = Mux(longest < self._arch.burst_beats, longest, self._arch.burst_beats)
        within = (self.beats >= 1) & (self.beats <= self._arch.burst_beats) & (self.beats <= left)
        self.check("length", ~offered | (within & (self.beats == longest)))
        self.check("boundary", ~offered | ((burst.addr % BOUNDARY_WORDS) + self.beats <= BOUNDARY_WORDS))

    def _check_protocol(self) -> None:
        m, dut, stopped = self.m, self.dut, self.stopped
        later = self.since_reset(1)
        self.check("busy", stopped | (dut.busy == self.first.there))
        rose = later & dut.refused & ~self.past(dut.refused, "refused")
        illegal = self.first.there & ~self.first.legal & ~self.begun
        self.check("refused", ~rose | illegal | self.past(dut.cancel, "cancelled"))
        self.check("stays", ~later | dut.refused | ~self.past(dut.refused & ~dut.clear, "kept"))
        self.check("closed", ~stopped | ~(dut.request.ready | dut.burst.valid))
        stayed = later & self.past(dut.burst.valid & ~dut.burst.ready, "stayed") & ~dut.cancel
        same = Value.cast(self.burst) == self.past(Value.cast(self.burst), "offered")
        self.check("hold", ~stayed | (dut.burst.valid & same))
        quiet = Signal(2, name="quiet")
        m.d.sync += quiet.eq(Mux(self.first.there & ~dut.burst.valid & ~stopped, quiet + 1, 0))
        self.check("pace", quiet <= 2)
        self._quiet = quiet

    def _invariants(self) -> None:
        state, first, second = self.inside, self.first, self.second
        full, measure, offer = state["lookup.full"], state["measure"], state["offer"]
        active = measure | offer
        counted = (first.there == (active | full)) & (second.there == (active & full))
        self.invariant("inside", self.dut.refused | (~(measure & offer) & counted))
        self.invariant("empty", ~self.dut.refused | (~active & (~full | ~self.past(self.dut.refused, "before"))))
        waits = data.View(LocatedRun, Mux(active, Value.cast(second.run), Value.cast(first.run)))
        located = state["lookup.located"]
        self.invariant("waiting", self.dut.refused | ~full | (Value.cast(located) == Value.cast(waits)))
        self.invariant("sane", first.sane & second.sane)
        run, addr = first.run, self.burst.addr
        same = (addr == self.at[:WORD_ADDRESS_BITS]) & (self.burst.manager == run.manager)
        left = (state["left"] == self.left) & (self.left != 0) & (self.left <= run.words)
        fits = (state["inside"] == first.legal) & (first.legal | ~self.begun) & (~offer | first.legal)
        self.invariant("splitting", ~active | self.dut.refused | (same & left & fits))
        same_end = self.at + self.left == run.base + run.offset + run.words
        self.invariant("position", ~first.there | (same_end & Mux(self.begun, active, self.left == run.words)))
        ends = state["final"] == (self.beats == self.left)
        self.invariant("offering", ~offer | self.dut.refused | (ends & (state["beats"] == self.beats)))
        waited = Mux(active, Mux(measure, self._quiet <= ~self.begun, 1), self._quiet == 0)
        self.invariant("waited", self.stopped | ~first.there | waited)

    def _covers(self) -> None:
        dut = self.dut
        to_boundary = BOUNDARY_WORDS - self.burst.addr % BOUNDARY_WORDS
        self.cover("short_before_boundary", self.issued & ~self.begun & (self.beats == to_boundary))
        self.cover("second_run", self.issued & self.second.there & (self.beats == self.left))
        self.cover("second_burst", self.issued & self.begun)
        self.cover("refused_behind_another", dut.refused & self.past(self.issued, "last", 2))
        self.cover("to_the_last_address", self.issued & (self.burst.addr + self.beats == 1 << WORD_ADDRESS_BITS))
