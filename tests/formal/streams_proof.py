"""Queues and register slices: no word is lost, doubled, changed or overtaken; valid and payload hold until ready.

Content and order are shown by following one word, picked at an arbitrary moment: its data, and how many words are before it.
As moment and data are arbitrary, what holds for this word holds for every word.
"""

from __future__ import annotations

from types import ModuleType

from amaranth.hdl import Array, Mux, ResetInserter, Signal, Value
from amaranth.lib import data

from hw.rtl.common.bursts import LocatedRun
from hw.rtl.common.interfaces import PROGRAM_REGION, Run
from hw.rtl.formal import Harness
from hw.spec.arch import Arch


class FifoProof(Harness):
    """``amaranth.lib.fifo.SyncFIFO`` with writes, reads and ``flush`` (its synchronous reset) at any time.

    A word enters where ``w_en`` and ``w_rdy`` are high, and leaves where ``r_en`` and ``r_rdy`` are. Checks: ``writable`` and
    ``readable``, by the count of words that entered and did not leave; ``order``, the followed word is read after exactly those
    before it, with its content; ``hold``, what is offered and not taken is offered unchanged in the next cycle; ``inside`` and
    ``kept``, invariants.
    """

    def __init__(self, module: ModuleType, width: int, depth: int) -> None:
        self._module, self._width, self._depth = module, width, depth

    def describe(self) -> None:
        m, depth = self.m, self._depth
        self.fifo = fifo = self._module.SyncFIFO(width=self._width, depth=depth)
        flush, mark = self.any(1, "flush"), self.any(1, "mark")
        self.inside = self.part(ResetInserter(flush)(fifo))
        m.d.comb += [fifo.w_en.eq(self.any(1, "w_en")), fifo.r_en.eq(self.any(1, "r_en"))]
        m.d.comb += fifo.w_data.eq(self.any(self._width, "w_data"))
        enters, leaves = fifo.w_en & fifo.w_rdy, fifo.r_en & fifo.r_rdy
        stored = Signal(range(depth + 1), name="stored")
        m.d.sync += stored.eq(Mux(flush, 0, stored + enters - leaves))
        self.check("writable", fifo.w_rdy == (stored != depth))
        self.check("readable", (fifo.r_rdy == (stored != 0)) & (fifo.level == stored))
        stayed = self.since_reset(1) & self.past(fifo.r_rdy & ~fifo.r_en & ~flush, "stayed")
        self.check("hold", ~stayed | (fifo.r_rdy & (fifo.r_data == self.past(fifo.r_data, "offered"))))
        self._follow(enters & mark, leaves, stored, flush)
        self.cover("full", stored == depth)

    def _follow(self, enters: Value, leaves: Value, stored: Signal, flush: Signal) -> None:
        m, fifo, depth = self.m, self.fifo, self._depth
        followed, word = Signal(name="followed"), Signal(self._width, name="word")
        before, place = Signal(range(depth + 1), name="before"), Signal(range(depth), name="place")
        produce, consume = self.inside["produce"], self.inside["consume"]
        with m.If(followed):
            m.d.sync += [before.eq(before - leaves), followed.eq(~(leaves & (before == 0)))]
        with m.Elif(enters):
            m.d.sync += [followed.eq(1), word.eq(fifo.w_data), before.eq(stored - leaves), place.eq(produce)]
        with m.If(flush):
            m.d.sync += followed.eq(0)
        self.check("order", ~(followed & (before == 0)) | (fifo.r_rdy & (fifo.r_data == word)))
        distance = self.named("distance", Mux(produce >= consume, produce - consume, produce + depth - consume))
        full_or_empty = (distance == 0) & ((stored == 0) | (stored == depth))
        self.invariant(
            "inside", (produce < depth) & (consume < depth) & (full_or_empty | ((distance != 0) & (stored == distance)))
        )
        ahead = self.named("ahead", Mux(place >= consume, place - consume, place + depth - consume))
        rows = Array(self.inside[f"storage[{row}]"] for row in range(depth))
        kept = (place < depth) & (ahead == before) & (before < stored) & (rows[place] == word)
        self.invariant("kept", ~followed | kept)
        self.cover("order", followed & leaves & (before == 0) & self.past(leaves & (before == (depth > 1)), "left"))


class LookupProof(Harness):
    """``RunLookup``, a register slice that adds the region's window to a run: runs, readiness, ``flush`` and windows at any time.

    Checks: ``valid``, exactly while a run is inside and nothing flushes; ``payload``, it is the accepted run's, with the window
    that its region had then, and none for an unknown region; ``ready``, exactly when the place is or becomes free; ``hold``.
    """

    def __init__(self, module: ModuleType, arch: Arch) -> None:
        self._module, self._arch = module, arch

    def describe(self) -> None:
        m, dut = self.m, self._module.RunLookup(self._arch)
        self.part(dut)
        windows = drive_windows(self, dut, self._arch)
        run = data.View(Run, self.any(Run.size, "run"))
        m.d.comb += [dut.i.payload.eq(run), dut.i.valid.eq(self.any(1, "i_valid"))]
        m.d.comb += [dut.o.ready.eq(self.any(1, "o_ready")), dut.flush.eq(self.any(1, "flush"))]
        self.assume(run.words >= 1)
        full = Signal(name="holds")
        wanted = Signal(LocatedRun, name="wanted")
        enters, leaves = dut.i.valid & dut.i.ready, dut.o.valid & dut.o.ready
        m.d.sync += full.eq(~dut.flush & ((full & ~leaves) | enters))
        with m.If(enters):
            m.d.sync += Value.cast(wanted).eq(locate(self._arch, windows, run))
        self.check("valid", dut.o.valid == (full & ~dut.flush))
        self.check("payload", ~dut.o.valid | (Value.cast(dut.o.payload) == Value.cast(wanted)))
        self.check("ready", dut.i.ready == (~dut.flush & (~full | dut.o.ready)))
        stayed = self.since_reset(1) & self.past(dut.o.valid & ~dut.o.ready, "stayed") & ~dut.flush
        before = self.past(Value.cast(dut.o.payload), "offered")
        self.check("hold", ~stayed | (dut.o.valid & (Value.cast(dut.o.payload) == before)))
        self.cover("waited", stayed & leaves & (wanted.size != 0) & (wanted.last > wanted.words))
        self.cover("one_after_the_other", self.past(leaves & enters, "both") & leaves)
        self.cover("unknown_region", dut.o.valid & (run.region > PROGRAM_REGION) & (wanted.size == 0))


def drive_windows(harness: Harness, dut: object, arch: Arch) -> dict[int, tuple[Signal, Signal]]:
    """Arbitrary windows for all regions and the program, any in any cycle: (base, size) in bytes by region number."""
    windows = {}
    for region, port in [*((i, dut.regions[i]) for i in range(arch.regions)), (PROGRAM_REGION, dut.program)]:
        base, size = harness.any(64, f"base_{region}"), harness.any(64, f"size_{region}")
        harness.m.d.comb += [port.base.eq(base), port.size.eq(size)]
        windows[region] = base, size
    return windows


def locate(arch: Arch, windows: dict[int, tuple[Signal, Signal]], run: data.View) -> Value:
    """What ``RunLookup`` must answer, as the bits of a LocatedRun."""
    base, size, manager = Value.cast(0), Value.cast(0), Value.cast(0)
    for region, (of_base, of_size) in windows.items():
        hit = run.region == region
        base, size = Mux(hit, of_base, base), Mux(hit, of_size, size)
        manager = Mux(hit, arch.region_manager[region] if region != PROGRAM_REGION else 0, manager)
    fields = {"offset": run.offset, "words": run.words, "last": run.offset + run.words - 1, "base": base >> 4, "size": size >> 4,
              "manager": manager}  # fmt: skip
    located: Value = Value.cast(0)
    for name, field in LocatedRun:
        located = located | (Value.cast(fields[name])[: field.width] << field.offset)
    return located[: LocatedRun.size]
