"""Control of GEMM: preload or zeros, chunks fed and computed, sums that settle, drain."""

from __future__ import annotations

from amaranth.hdl import Array as Choice
from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.common.decode import INSTRUCTION_BITS, view
from hw.rtl.sat.pe import SLOT_BITS, Broadcast
from hw.rtl.sat.ports import ADDR_BITS
from hw.rtl.sat.tile import TileWalker
from hw.spec.sat import SatArch
from hw.spec.sat.instructions import DRAIN_FP16, DRAIN_NONE, GEMM, INTERLEAVE_LOG2
from hw.spec.sat.latency import FP32_TO_FP16
from hw.spec.sat.timing.gemm import TOP, settle_cycles

HALVES = 2


class ChunkCount(wiring.Component):
    """Halves of the operand stores that are full.

    Members: ``clear``; ``fed``, ``computed``: last cycle of a chunk's feed, and of its computation; ``room``, ``ready``: a half is
    free, a half is full; ``one``: just one is full.
    """

    def __init__(self) -> None:
        flags = {name: In(1) for name in ("clear", "fed", "computed")}
        super().__init__({**flags, "room": Out(1), "ready": Out(1), "one": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        full = Signal(range(HALVES + 1), reset_less=True)
        m.d.comb += [self.room.eq(full != HALVES), self.ready.eq(full != 0), self.one.eq(full == 1)]
        with m.If(self.clear):
            m.d.sync += full.eq(0)
        with m.Elif(self.fed & ~self.computed):
            m.d.sync += full.eq(full + 1)
        with m.Elif(self.computed & ~self.fed):
            m.d.sync += full.eq(full - 1)
        return m


class GemmControl(wiring.Component):
    """State machine: idle, preload, loop over the chunks, settle, drain, flush.

    Members
    -------
    start, instruction, done : from the sequencer
    compute : steps may be done
    finished : last step of the last chunk
    preload : a word of accumulator memory is read; ``drain`` a row of sums is asked for, which is at the top TOP cycles later
    row, column, addr : of the word, as :class:`hw.rtl.sat.tile.TileWalker` has them
    all : broadcast to the array
    """

    def __init__(self, arch: SatArch) -> None:
        self.arch = arch
        self.tile = TileWalker(arch)
        super().__init__({
            "start": In(1),
            "instruction": In(INSTRUCTION_BITS),
            "done": Out(1),
            "compute": Out(1),
            "finished": In(1),
            "preload": Out(1),
            "drain": Out(1),
            "row": Out(self.tile.row.shape()),
            "column": Out(self.tile.column.shape()),
            "addr": Out(ADDR_BITS),
            "all": Out(Broadcast),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        i = view(GEMM, self.instruction)
        m.submodules.tile = tile = self.tile
        half = i.drain == DRAIN_FP16
        begins = Signal()
        m.d.comb += [
            tile.instruction.eq(self.instruction),
            tile.init.eq(self.start | begins),
            tile.base.eq(Mux(begins & half, i.out_addr, i.acc_addr)),
            tile.pitch.eq(Mux(self.drain & half, i.out_pitch, 1 << i.b_log2)),
            tile.step.eq(self.preload | self.drain),
            *(getattr(self, name).eq(getattr(tile, name)) for name in ("row", "column", "addr")),
        ]
        self._states(m, i, half, begins)
        self._broadcast(m, i)
        return m

    def _states(self, m: Module, i: data.View, half: Signal, begins: Signal) -> None:
        settle, flush = settle_cycles(self.arch) - 1, TOP + FP32_TO_FP16
        count = Signal(range(max(settle, flush)), reset_less=True)
        m.d.sync += count.eq(count - 1)
        with m.FSM():
            with m.State("IDLE"):
                with m.If(self.start):
                    m.next = "LOOP"
                    with m.If(i.preload):
                        m.next = "PRELOAD"
            with m.State("PRELOAD"):
                m.d.comb += self.preload.eq(1)
                with m.If(self.tile.end):
                    m.next = "LOOP"
            with m.State("LOOP"):
                m.d.comb += self.compute.eq(1)
                m.d.sync += count.eq(settle - 1)
                with m.If(self.finished):
                    m.next = "SETTLE"
            with m.State("SETTLE"):
                m.d.comb += begins.eq(1)
                with m.If(count == 0):
                    m.next = "DRAIN"
                    with m.If(i.drain == DRAIN_NONE):
                        m.next = "DONE"
            with m.State("DRAIN"):
                m.d.comb += self.drain.eq(1)
                m.d.sync += count.eq(TOP - 1 + Mux(half, FP32_TO_FP16, 0))
                with m.If(self.tile.end):
                    m.next = "FLUSH"
            with m.State("FLUSH"):
                with m.If(count == 0):
                    m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += self.done.eq(1)
                m.next = "IDLE"

    def _broadcast(self, m: Module, i: data.View) -> None:
        """Zeros from the cycle after the start on, a slot before its sum is used; a preload's slot when its last row has arrived.

        Slots that the instruction does not use keep their sums.
        """
        zero, zeroing = Signal(SLOT_BITS, reset_less=True), Signal()
        loaded, slot = Signal(), Signal(SLOT_BITS, reset_less=True)
        used = Choice([(1 << log2) - 1 for log2 in range(INTERLEAVE_LOG2 + 1)])[i.a_log2 + i.b_log2]
        with m.If(self.start):
            m.d.sync += [zeroing.eq(~i.preload & ~i.resume), zero.eq(0)]
        with m.Elif(zeroing):
            m.d.sync += [zeroing.eq(zero != used), zero.eq(zero + 1)]
        m.d.sync += [loaded.eq(self.preload & self.tile.last), slot.eq(self.tile.slot)]
        m.d.comb += [
            self.all.slot.eq(Mux(zeroing, zero, Mux(loaded, slot, self.tile.slot))),
            self.all.read.eq(self.drain),
            self.all.load.eq(self.drain & self.tile.first),
            self.all.write.eq(zeroing | loaded),
            self.all.clear.eq(zeroing),
        ]
