"""Control of the depthwise engine: which tap columns are issued when, and which parameters are read when.

A *tap column* is what the engine reads in one cycle: one column of three rows of a window. The loops are, from the inside: column
of the window, group of three window rows, output column, output row, channel word. The two parameter slots decouple the two
components of this file: the loader fills a free slot, the sequencer issues a channel word when its slot is full.
"""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.delay import data_register, later
from hw.rtl.common.decode import view
from hw.rtl.common.interfaces import INSTRUCTION_BITS
from hw.rtl.deform.ports import ReadPort
from hw.spec.deform.instructions import ADDR_BITS, DW
from hw.spec.deform.latency import MEMORY_READ
from hw.spec.deform.timing.dw import RECORD_WORDS, WEIGHT_WORDS, WEIGHTED_MODES

SLOTS = 2
"""Channel words whose parameters are held at once: the one that is computed and the next."""

Step = data.StructLayout({
    "valid": 1,
    "word_first": 1,
    "row_first": 1,
    "pixel_first": 1,
    "group_first": 1,
    "pixel_last": 1,
    "word_last": 1,
    "column": 2,
    "rows": 3,
    "slot": 1,
})
"""One tap column on its way through the pipeline. ``*_first``: first of its channel word, output row, output pixel, group of window
rows; ``*_last`` likewise; ``column``: of the window, modulo 4; ``rows``: which of its three rows the window has; ``slot``: where its
parameters are. All zero when not ``valid``."""


class Loop(wiring.Component):
    """A loop counter with its first and last passes known in advance, from registers.

    Parameters
    ----------
    width : bits of ``count``
    stride : how much of ``count`` a pass does; the last does the rest

    Members
    -------
    load : begin; ``count`` is sampled
    step : one pass is done; after the last the loop begins again
    first, last : this pass is the first, the last
    left : what is left to do, this pass included
    """

    def __init__(self, width: int, stride: int = 1) -> None:
        self._stride = stride
        super().__init__({
            "load": In(1),
            "step": In(1),
            "count": In(width),
            "first": Out(1),
            "last": Out(1),
            "left": Out(width),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        left, first, last = (data_register(m, output) for output in (self.left, self.first, self.last))
        with m.If(self.load | (self.step & last)):
            m.d.sync += [left.eq(self.count), first.eq(1), last.eq(self.count <= self._stride)]
        with m.Elif(self.step):
            m.d.sync += [left.eq(left - self._stride), first.eq(0), last.eq(left <= 2 * self._stride)]
        return m


class TapSequencer(wiring.Component):
    """Issues the tap columns of all channel words, one per cycle while the channel word's parameters are there.

    Members
    -------
    start : begin an instruction; ``instruction`` holds still from then on
    loaded : a slot has become full
    step : the tap column issued in this cycle
    """

    start: In(1)
    instruction: In(INSTRUCTION_BITS)
    loaded: In(1)
    step: Out(Step)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fields = view(DW, self.instruction)
        m.submodules.column = column = Loop(width=8)
        m.submodules.group = group = Loop(width=8, stride=3)
        m.submodules.out_col = out_col = Loop(width=16)
        m.submodules.out_row = out_row = Loop(width=16)
        counts = (fields.kernel_w, fields.kernel_h, fields.out_cols, fields.out_rows)
        full = Signal(range(SLOTS + 1))
        advance = Signal()
        m.d.comb += advance.eq(full != 0)
        done, first = advance, advance
        ends, begins = [], []
        for loop, count in zip((column, group, out_col, out_row), counts, strict=True):
            m.d.comb += [loop.load.eq(self.start), loop.count.eq(count), loop.step.eq(done)]
            done, first = done & loop.last, first & loop.first
            ends.append(done)
            begins.append(first)

        step = self.step
        word_last = ends[3]
        slot, position = Signal(reset_less=True), Signal(2, reset_less=True)
        m.d.comb += [
            step.valid.eq(advance),
            step.group_first.eq(begins[0]),
            step.pixel_first.eq(begins[1]),
            step.row_first.eq(begins[2]),
            step.word_first.eq(begins[3]),
            step.pixel_last.eq(ends[1]),
            step.word_last.eq(word_last),
            step.column.eq(position & advance.replicate(2)),
            step.slot.eq(slot & advance),
        ]
        for row in range(3):
            m.d.comb += step.rows[row].eq(advance & (group.left > row))
        m.d.sync += full.eq(full + self.loaded - word_last)  # 0 again at an instruction's end
        with m.If(self.start):
            m.d.sync += [slot.eq(0), position.eq(0)]
        with m.Else():
            m.d.sync += slot.eq(slot ^ word_last)
            with m.If(advance):
                m.d.sync += position.eq((position + 1) & (~column.last).replicate(2))
        return m


ParameterWrite = data.StructLayout({
    "slot": 1,
    "weight_rows": 3,
    "column": 2,
    "record": 1,
    "record_index": 3,
})
"""Where a parameter word goes: to the weights of one tap row (one bit of ``weight_rows``) and ``column``, or to the requantise
records. All zero when there is none."""


class ParameterLoader(wiring.Component):
    """Reads weights and requantise records of one channel word after the other into the two slots.

    A channel word takes 17 cycles with weights, 8 without; the next follows at once if a slot is free.

    Members
    -------
    start : begin an instruction; ``instruction`` holds still from then on
    released : the oldest full slot has become free
    loaded : in the cycle in which a channel word's last word is asked for
    write : destination of ``par.data`` in this cycle
    """

    start: In(1)
    instruction: In(INSTRUCTION_BITS)
    released: In(1)
    par: Out(ReadPort)
    loaded: Out(1)
    write: Out(ParameterWrite)

    delay = 1 + MEMORY_READ
    """Cycles from a word being asked for to ``write``."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fields = view(DW, self.instruction)
        first = Signal(range(WEIGHT_WORDS + 1))
        left, index = Signal(16), Signal(range(WEIGHT_WORDS + RECORD_WORDS), reset_less=True)
        free, slot = Signal(range(SLOTS + 1), reset_less=True), Signal(reset_less=True)
        weighted = (fields.mode == WEIGHTED_MODES[0]) | (fields.mode == WEIGHTED_MODES[1])
        ask, last = Signal(), Signal()
        m.d.comb += [
            first.eq(WEIGHT_WORDS * ~weighted),
            ask.eq((left != 0) & (free != 0)),
            last.eq(index == WEIGHT_WORDS + RECORD_WORDS - 1),
            self.loaded.eq(ask & last),
        ]
        with m.If(self.start):
            m.d.sync += [left.eq(fields.words), free.eq(SLOTS), slot.eq(0), index.eq(first)]
        with m.Else():
            m.d.sync += [
                free.eq(free + self.released - self.loaded),
                left.eq(left - self.loaded),
                slot.eq(slot ^ self.loaded),
            ]
            with m.If(ask):
                m.d.sync += index.eq(index + 1)
            with m.If(self.loaded):
                m.d.sync += index.eq(first)
        self._read(m, fields, ask, index < WEIGHT_WORDS)
        self._destination(m, ask, index, slot)
        return m

    def _read(self, m: Module, fields: data.View, ask: Signal, is_weight: Signal) -> None:
        """Address register: weights and records lie in two contiguous streams."""
        weight_addr, record_addr = Signal(ADDR_BITS, reset_less=True), Signal(ADDR_BITS, reset_less=True)
        en, addr = data_register(m, self.par.en), data_register(m, self.par.addr)
        m.d.sync += [en.eq(ask), addr.eq(Mux(is_weight, weight_addr, record_addr))]
        with m.If(self.start):
            m.d.sync += [weight_addr.eq(fields.weight_addr), record_addr.eq(fields.param_addr)]
        with m.Elif(ask & is_weight):
            m.d.sync += weight_addr.eq(weight_addr + 1)
        with m.Elif(ask):
            m.d.sync += record_addr.eq(record_addr + 1)

    def _destination(self, m: Module, ask: Signal, index: Signal, slot: Signal) -> None:
        """What word ``index`` is, delayed until the memory has answered."""
        target = Signal(ParameterWrite)
        with m.If(ask):
            m.d.comb += target.slot.eq(slot)
            with m.If(index >= WEIGHT_WORDS):
                m.d.comb += [target.record.eq(1), target.record_index.eq(index - WEIGHT_WORDS)]
            for tap in range(WEIGHT_WORDS):
                with m.If(index == tap):
                    m.d.comb += [target.weight_rows.eq(1 << tap // 3), target.column.eq(tap % 3)]
        m.d.comb += self.write.eq(later(m, target, self.delay, reset_less=True))

