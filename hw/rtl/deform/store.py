"""STORE: feature memory to memory, three loops."""

from __future__ import annotations

from amaranth.hdl import Module, ResetInserter, Signal
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from hw.rtl.common.decode import view
from hw.rtl.common.interfaces import DATA_BITS, EngineCommand, WriteRuns
from hw.rtl.common.runs import RunLoop, RunLoopParameters, TransferFields, outcome
from hw.rtl.deform.ports import ReadPort
from hw.spec.deform import DeformArch
from hw.spec.deform.instructions import STORE
from hw.spec.deform.latency import MEMORY_READ
from hw.spec.regs import ErrorCode

PREFETCH = MEMORY_READ + 2
"""Words between feature memory and master: enough for a word per cycle, as a place is asked for again 2 cycles after its word
left and the memory's latency later it is filled."""

QUEUE_MARGIN = 4
"""Runs accepted but not yet being read, beyond the bursts in flight: looked up, split, being sent, and one spare."""


class StoreEngine(wiring.Component):
    """Runs STORE instructions; ``hw.spec.deform.timing.transfer.store_cycles`` tells how long.

    After an error it stops asking and ends when what was already addressed is answered; an AXI error wins over what was found
    in a later run, so the outcome does not depend on timing.

    Members
    -------
    command : from the sequencer
    runs : to the write master
    feature : read port of the feature memory
    """

    def __init__(self, arch: DeformArch) -> None:
        self._arch = arch
        super().__init__({"command": In(EngineCommand), "runs": Out(WriteRuns), "feature": Out(ReadPort)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fields = view(STORE, self.command.instruction)
        parameters = RunLoopParameters(banks=1, queue=self._arch.outstanding + QUEUE_MARGIN)
        m.submodules.loop = loop = RunLoop(parameters)
        m.d.comb += [
            loop.start.eq(self.command.start),
            *(loop.fields[name].eq(fields[name]) for name in TransferFields.members),
            loop.size.eq(self._arch.feature_words),
            loop.stop.eq(self.runs.refused | self.runs.failed),
            self.runs.request.valid.eq(loop.request.valid),
            self.runs.request.payload.eq(loop.request.payload),
            loop.request.ready.eq(self.runs.request.ready),
        ]
        self._read(m, loop, fields)
        code = Signal.like(self.command.error, reset_less=True)
        with m.FSM():
            with m.State("IDLE"), m.If(self.command.start):
                m.next = "CLEAR"
            with m.State("CLEAR"):
                m.d.comb += self.runs.clear.eq(1)
                m.next = "RUN"
            with m.State("RUN"), m.If(~loop.busy & self.runs.idle):
                m.d.sync += code.eq(outcome(loop, self.runs, ErrorCode.AXI_WRITE, ErrorCode.NONE))
                m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += [self.command.done.eq(1), self.command.error.eq(code)]
                m.next = "IDLE"
        return m

    def _read(self, m: Module, loop: RunLoop, fields: data.View) -> None:
        """The accepted runs' words, ahead of the master as far as ``PREFETCH`` allows."""
        m.submodules.words = words = ResetInserter(self.command.start)(SyncFIFO(width=DATA_BITS, depth=PREFETCH))
        active = Signal(reset_less=True)
        left = Signal(16, reset_less=True)
        addr = Signal(20, reset_less=True)
        places = Signal(range(PREFETCH + 1), reset_less=True)
        coming = Signal(MEMORY_READ, reset_less=True)
        sent = Signal()
        last = Signal()
        m.d.comb += [
            self.feature.en.eq(active & (places != 0)),
            self.feature.addr.eq(addr),
            last.eq(self.feature.en & (left == 1)),
            loop.chip.ready.eq(~active | last),
            words.w_en.eq(coming[-1]),
            words.w_data.eq(self.feature.data),
            self.runs.data.valid.eq(words.r_rdy),
            self.runs.data.payload.eq(words.r_data),
            words.r_en.eq(self.runs.data.ready),
            sent.eq(words.r_rdy & self.runs.data.ready),
        ]
        m.d.sync += [places.eq(places - self.feature.en + sent), coming.eq((coming << 1) | self.feature.en)]
        with m.If(loop.chip.ready):
            m.d.sync += [active.eq(loop.chip.valid), left.eq(fields.n0), addr.eq(loop.chip.payload.addr)]
        with m.Elif(self.feature.en):
            m.d.sync += [left.eq(left - 1), addr.eq(addr + 1)]
        with m.If(self.command.start):
            m.d.sync += [active.eq(0), places.eq(PREFETCH), coming.eq(0)]
