"""Flow control of transfers: the queues between the run loop, feature memory and the write master are never overrun."""

from __future__ import annotations

from types import ModuleType

from amaranth.hdl import Signal, Value

from hw.rtl.common.runs import RunLoopParameters
from hw.rtl.deform.store import PREFETCH, spaces
from hw.rtl.formal import Harness
from hw.spec.deform import DeformArch
from hw.spec.deform.latency import MEMORY_READ


class LoopProof(Harness):
    """``RunLoop`` with any fields (which hold still), starts, answers and readiness.

    Checks: ``room``, a run is accepted only where the queue of places has one free, so that none is lost; ``holds``, a request that is
    not accepted is made again, unchanged, but for ``start`` and ``stop``.
    """

    def __init__(self, module: ModuleType, queue: int) -> None:
        self._module, self._queue = module, queue

    def describe(self) -> None:
        m = self.m
        dut = self._module.RunLoop(RunLoopParameters(banks=9, queue=self._queue))
        inside = self.part(dut)
        m.d.comb += Value.cast(dut.fields).eq(self.constant(len(Value.cast(dut.fields)), "fields"))
        for port in ("start", "stop", "banked", "size"):
            m.d.comb += getattr(dut, port).eq(self.any(len(getattr(dut, port)), port))
        m.d.comb += [dut.request.ready.eq(self.any(1, "ready")), dut.chip.ready.eq(self.any(1, "taken"))]
        accepted = dut.request.valid & dut.request.ready
        self.check("room", ~accepted | (inside["queue.level"] != self._queue))
        stayed = self.since_reset(1) & self.past(dut.request.valid & ~dut.request.ready & ~dut.start, "stayed") & ~dut.stop
        same = Value.cast(dut.request.payload) == self.past(Value.cast(dut.request.payload), "asked")
        self.check("holds", ~stayed | (same & (dut.request.valid | self.past(dut.chip.valid & dut.chip.ready, "left"))))
        self.cover("full", inside["queue.level"] == self._queue)
        self.cover("waited", stayed & accepted)


class PrefetchProof(Harness):
    """``StoreEngine``, from its first ``start`` on, with any instructions, runs, words and readiness.

    Checks: ``room``, a word comes from feature memory only where the queue of words has room; ``owed``, as many words as were
    asked for and not sent are in the queue or on their way; ``holds``, a word that is offered and not taken is offered unchanged
    in the next cycle, unless an instruction starts.
    """

    def __init__(self, module: ModuleType, arch: DeformArch) -> None:
        self._module, self._arch = module, arch

    def describe(self) -> None:
        m, dut = self.m, self._module.StoreEngine(self._arch, spaces(self._arch), latency=MEMORY_READ)
        state = self.part(dut)
        start = self.any(1, "start")
        m.d.comb += [
            dut.command.start.eq(start),
            dut.command.instruction.eq(self.any(len(dut.command.instruction), "instruction")),
        ]
        for name in ("refused", "failed", "idle"):
            m.d.comb += getattr(dut.runs, name).eq(self.any(1, name))
        m.d.comb += [dut.runs.request.ready.eq(self.any(1, "accepted")), dut.runs.data.ready.eq(self.any(1, "taken"))]
        m.d.comb += dut.feature.data.eq(self.any(len(dut.feature.data), "word"))
        begun, owed = Signal(name="begun"), Signal(8, name="owed_words")
        sent = dut.runs.data.valid & dut.runs.data.ready
        m.d.sync += owed.eq(owed + dut.feature.en - sent)
        with m.If(start):
            m.d.sync += [begun.eq(1), owed.eq(0)]
        level, coming = state["words.level"], state["coming"]
        self.check("room", ~(begun & coming[-1]) | (level != PREFETCH))
        self.check("owed", ~begun | ((owed == level + sum(coming)) & (owed <= PREFETCH)))
        self.invariant("places", ~begun | (state["places"] + owed == PREFETCH))
        data = dut.runs.data
        stayed = self.since_reset(1) & self.past(data.valid & ~data.ready & ~start, "stayed")
        self.check("holds", ~(begun & stayed) | (data.valid & (data.payload == self.past(data.payload, "offered"))))
        produce, consume = state["words.produce"], state["words.consume"]
        self.invariant("words", (level <= PREFETCH) & ((consume + level - produce) % PREFETCH == 0))
        self.cover("full", begun & (level == PREFETCH))
        self.cover("sent_while_read", begun & sent & dut.feature.en & (level != 0))
