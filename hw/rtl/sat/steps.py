"""The steps of GEMM: one product of every element per cycle, and the weights that they need."""

from __future__ import annotations

from amaranth.hdl import Array as Choice
from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.delay import delayed, later
from hw.rtl.common.decode import INSTRUCTION_BITS, view
from hw.rtl.sat.edges import StepControl
from hw.rtl.sat.pe import SLOT_BITS
from hw.rtl.sat.ports import ADDR_BITS, FP16_BITS, INDEX_BITS, read_port
from hw.spec.sat import SatArch
from hw.spec.sat.instructions import GEMM, INTERLEAVE_LOG2
from hw.spec.sat.timing.gemm import ISSUE


class StepSequence(wiring.Component):
    """Counts the steps of a chunk as long as there are chunks: for each step the output rows' interleave, within it the columns'.

    Members
    ----------
    start, instruction : the instruction holds still from ``start`` on
    ready : a chunk's operands are there
    step : what the elements do in this cycle; nothing while the adder needs more cycles than there are sums
    column : column interleave of the step
    step_end : last cycle of a step; ``chunk_end``: of a chunk
    """

    def __init__(self, arch: SatArch) -> None:
        self.arch = arch
        super().__init__({
            "start": In(1),
            "instruction": In(INSTRUCTION_BITS),
            "ready": In(1),
            "step": Out(StepControl),
            "column": Out(INTERLEAVE_LOG2),
            "step_end": Out(1),
            "chunk_end": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        i = view(GEMM, self.instruction)
        slot, number, half = Signal(SLOT_BITS, reset_less=True), Signal(INTERLEAVE_LOG2, reset_less=True), Signal(reset_less=True)
        outputs = [1 << log2 for log2 in range(INTERLEAVE_LOG2 + 1)]
        sums, last = (Signal(SLOT_BITS, name=name) for name in ("sums", "last"))
        log2 = i.a_log2 + i.b_log2
        m.d.comb += [
            sums.eq(Choice([count - 1 for count in outputs])[log2]),
            last.eq(Choice([max(count, self.arch.latency) - 1 for count in outputs])[log2]),
            self.step_end.eq(self.ready & (slot == last)),
            self.chunk_end.eq(self.step_end & (number + 1 == i.steps)),
            self.column.eq(slot & Choice([count - 1 for count in outputs])[i.b_log2]),
            self.step.slot.eq(slot),
            self.step.en.eq(self.ready & (slot <= sums)),
            self.step.address.eq(Cat(self._place(i, slot >> i.b_log2, number), half)),
        ]
        with m.If(self.start | self.step_end):
            m.d.sync += slot.eq(0)
        with m.Elif(self.ready):
            m.d.sync += slot.eq(slot + 1)
        with m.If(self.start | self.chunk_end):
            m.d.sync += number.eq(0)
        with m.Elif(self.step_end):
            m.d.sync += number.eq(number + 1)
        with m.If(self.start):
            m.d.sync += half.eq(0)
        with m.Elif(self.chunk_end):
            m.d.sync += half.eq(~half)
        return m

    @staticmethod
    def _place(i: data.View, row: Value, number: Value) -> Value:
        """Place of the step's operand in a chunk of four rows of 8 values, or of two of 16; five bits."""
        return Mux(i.chunk_log2, Cat(number, row[0]), Cat(number[:3], row[:2]))


class WeightWalker(wiring.Component):
    """Reads the weights, and the positions of sparse ones, ISSUE cycles after a step's control.

    Members
    ----------
    start, instruction : the instruction holds still from ``start`` on
    en, column, step_end : of :class:`StepSequence`
    wgt, idx : the memories
    """

    latency = 2
    """Registers of offset and address."""

    def __init__(self, arch: SatArch) -> None:
        super().__init__({
            "start": In(1),
            "instruction": In(INSTRUCTION_BITS),
            "en": In(1),
            "column": In(INTERLEAVE_LOG2),
            "step_end": In(1),
            "wgt": Out(read_port(FP16_BITS * arch.columns)),
            "idx": Out(read_port(INDEX_BITS * arch.columns)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        i = view(GEMM, self.instruction)
        en = delayed(m, self.en, ISSUE, "en")[-1]
        late = ISSUE - self.latency
        column, step_end = later(m, self.column, late, reset_less=True), later(m, self.step_end, late)
        step, offset = Signal(ADDR_BITS, reset_less=True), Signal(ADDR_BITS, reset_less=True)
        with m.If(self.start):
            m.d.sync += step.eq(0)
        with m.Elif(step_end):
            m.d.sync += step.eq(step + i.wgt_pitch)
        m.d.sync += offset.eq(step + column)
        for port, base, wanted in ((self.wgt, i.wgt_addr, 1), (self.idx, i.idx_addr, i.sparse)):
            addr = Signal(ADDR_BITS, reset_less=True)
            m.d.sync += addr.eq(base + offset)
            m.d.comb += [port.en.eq(en & wanted), port.addr.eq(addr)]
        return m

