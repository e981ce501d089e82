"""STORE: an on-chip memory to memory, three loops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from amaranth.hdl import Module, Mux, ResetInserter, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from hw.rtl.common.decode import view
from hw.rtl.common.interfaces import DATA_BITS, EngineCommand, WriteRuns
from hw.rtl.common.memory_ports import ReadPort
from hw.rtl.common.runs import RunLoop, RunLoopParameters, join_loop, outcome
from hw.spec.arch import Arch
from hw.spec.regs import ErrorCode

QUEUE_MARGIN = 4
"""Runs accepted but not yet being read, beyond the bursts in flight: looked up, split, being sent, and one spare."""

PREFETCH_MARGIN = 2
"""Words between on-chip memory and master, beyond the memory's latency: enough for a word per cycle, as a place is asked for again
2 cycles after its word left, and the latency later it is filled."""


@dataclass(frozen=True, kw_only=True)
class StoreSpace:
    """An on-chip memory that STORE reads: its number in the field ``space``, the name of its read port, its 16-byte words."""

    number: int
    port: str
    words: int


class StoreEngine(wiring.Component):
    """Runs STORE instructions; ``hw.spec.transfer_timing.store_cycles`` tells how long.

    After an error it stops asking and ends when what was already addressed is answered; an AXI error wins over what was found
    in a later run, so the outcome does not depend on timing.

    Parameters
    ----------
    arch : of the core; its instruction table has a STORE, with a field ``space`` where there are several spaces
    spaces : the on-chip memories that it reads
    latency : cycles from a port's ``en`` to its data

    Members
    -------
    command : from the sequencer
    runs : to the write master
    the spaces' ports : of which the instruction's one reads
    """

    def __init__(self, arch: Arch, spaces: Sequence[StoreSpace], *, latency: int) -> None:
        self._arch, self._spaces, self._latency = arch, tuple(spaces), latency
        ports = {space.port: Out(ReadPort) for space in spaces}
        super().__init__({"command": In(EngineCommand), "runs": Out(WriteRuns), **ports})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fields = view(self._arch.instructions.operation("STORE"), self.command.instruction)
        parameters = RunLoopParameters(banks=1, queue=self._arch.outstanding + QUEUE_MARGIN)
        m.submodules.loop = loop = RunLoop(parameters)
        join_loop(m, loop, self.command, fields, self.runs)
        m.d.comb += loop.size.eq(self._chosen(fields, [space.words for space in self._spaces]))
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

    def _chosen(self, fields: data.View, values: Sequence[Value | int]) -> Value | int:
        """Of one value per space the instruction's."""
        chosen = values[-1]
        for space, value in zip(reversed(self._spaces[:-1]), reversed(values[:-1]), strict=True):
            chosen = Mux(fields.space == space.number, value, chosen)
        return chosen

    def _read(self, m: Module, loop: RunLoop, fields: data.View) -> None:
        """The accepted runs' words, ahead of the master as far as the places of the queue allow."""
        prefetch = self._latency + PREFETCH_MARGIN
        m.submodules.words = words = ResetInserter(self.command.start)(SyncFIFO(width=DATA_BITS, depth=prefetch))
        ports = [getattr(self, space.port) for space in self._spaces]
        active = Signal(reset_less=True)
        left = Signal(16, reset_less=True)
        addr = Signal(20, reset_less=True)
        places = Signal(range(prefetch + 1), reset_less=True)
        coming = Signal(self._latency, reset_less=True)
        en = ports[0].en if len(ports) == 1 else Signal(name="reading")
        sent = Signal()
        last = Signal()
        m.d.comb += [
            en.eq(active & (places != 0)),
            *(port.addr.eq(addr) for port in ports),
            last.eq(en & (left == 1)),
            loop.chip.ready.eq(~active | last),
            words.w_en.eq(coming[-1]),
            words.w_data.eq(self._chosen(fields, [port.data for port in ports])),
            self.runs.data.valid.eq(words.r_rdy),
            self.runs.data.payload.eq(words.r_data),
            words.r_en.eq(self.runs.data.ready),
            sent.eq(words.r_rdy & self.runs.data.ready),
        ]
        if len(ports) > 1:
            m.d.comb += [port.en.eq(en & (fields.space == space.number)) for space, port in zip(self._spaces, ports, strict=True)]
        m.d.sync += [places.eq(places - en + sent), coming.eq((coming << 1) | en)]
        with m.If(loop.chip.ready):
            m.d.sync += [active.eq(loop.chip.valid), left.eq(fields.n0), addr.eq(loop.chip.payload.addr)]
        with m.Elif(en):
            m.d.sync += [left.eq(left - 1), addr.eq(addr + 1)]
        with m.If(self.command.start):
            m.d.sync += [active.eq(0), places.eq(prefetch), coming.eq(0)]
