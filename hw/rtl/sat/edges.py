"""The array's edges: from the words of the memories to the streams of the elements."""

from __future__ import annotations

from amaranth.hdl import C, Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.delay import delayed, later
from hw.rtl.arith.float_half import LARGEST_FP16, Fp16Normalise
from hw.rtl.sat.pe import SLOT_BITS, STORE_BITS, WeightStep, operand_write
from hw.rtl.sat.ports import FP16_BITS, INDEX_BITS, WORD_BITS
from hw.spec.sat import SatArch
from hw.spec.sat.latency import FP16_NORMALISE, FP16_PRODUCT
from hw.spec.sat.timing.gemm import COLUMN

StepControl = data.StructLayout({"address": STORE_BITS, "slot": SLOT_BITS, "en": 1})
"""A step of a column: address of its operand if it is dense, its sum, and whether it is one."""


def finite(half: Value) -> Value:
    """An FP16 whose exponent is all ones becomes the largest number of its sign."""
    return Mux(half[10:15].all(), Cat(C(LARGEST_FP16, 15), half[15]), half)


class ColumnEdge(wiring.Component):
    """Weights of all columns: a word per step in, one stream per column out, a cycle later for each column.

    Members
    -------
    step, words, positions : a step, its weights and, if ``sparse``, its positions
    sparse, wide : the instruction's; with ``wide`` chunks have 16 values; they hold still
    steps : what the elements of the uppermost row get; column c's are ``latency`` + c cycles later
    """

    latency = 1 + FP16_NORMALISE

    def __init__(self, arch: SatArch) -> None:
        self.arch = arch
        super().__init__({
            "step": In(StepControl),
            "words": In(FP16_BITS * arch.columns),
            "positions": In(INDEX_BITS * arch.columns),
            "sparse": In(1),
            "wide": In(1),
            "steps": Out(data.ArrayLayout(WeightStep, arch.columns)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if self.latency != COLUMN:
            raise ValueError(f"the columns' edge must have the latency COLUMN = {COLUMN}, not {self.latency}")
        summed, written = self.latency + FP16_PRODUCT, self.latency + FP16_PRODUCT + self.arch.latency - 1
        address, read_slot = later(m, self.step.address, 1, reset_less=True), later(m, self.step.slot, summed, reset_less=True)
        write_slot, write_en = later(m, self.step.slot, written, reset_less=True), later(m, self.step.en, written)
        for column in range(self.arch.columns):
            m.submodules[f"normalise_{column}"] = normalise = Fp16Normalise()
            word = finite(self.words.word_select(column, FP16_BITS))
            position = self.positions.word_select(column, INDEX_BITS)
            out = self.steps[column]
            m.d.comb += [
                normalise.i.eq(delayed(m, word, 1 + column, f"word_{column}", reset_less=True)[-1]),
                out.weight.eq(normalise.o),
                out.address.eq(self._address(m, address, delayed(m, position, 1 + column, f"position_{column}", reset_less=True)[-1])),
                out.read_slot.eq(read_slot),
                out.write_slot.eq(write_slot),
                out.write_en.eq(write_en),
            ]
            address, read_slot, write_slot = (later(m, value, 1, reset_less=True) for value in (address, read_slot, write_slot))
            write_en = later(m, write_en, 1)
        return m

    def _address(self, m: Module, dense: Value, position: Value) -> Signal:
        """With sparse weights the position takes the step's place within the chunk: three bits, or four."""
        address = Signal(STORE_BITS, reset_less=True)
        fourth = Mux(self.sparse & self.wide, position[3], dense[3])
        m.d.sync += address.eq(Cat(Mux(self.sparse, position[:3], dense[:3]), fourth, dense[4:]))
        return address


RowControl = data.StructLayout({"load": 1, "address": STORE_BITS, "en": 2})
"""A cycle of a row's queue: ``load`` a word; ``address`` of the value that leaves it then, or of the first of two, and which of two
memories by the address' lowest bit it goes to."""


class RowEdge(wiring.Component):
    """Operands of one row: words in, ``feed`` values per cycle out; or a value per cycle, of one lane.

    Members
    -------
    control : with ``load`` the values of ``word``, lowest first, leave from the next cycle on; with ``channels`` only ``lane``'s
    word, lane : FP16, finite
    channels : the instruction's, holds still
    operands : ``latency`` cycles later what the leftmost element gets
    """

    latency = 1 + FP16_NORMALISE

    def __init__(self, feed: int) -> None:
        self.feed = feed
        super().__init__({
            "control": In(RowControl),
            "word": In(WORD_BITS),
            "lane": In(FP16_BITS),
            "channels": In(1),
            "operands": Out(operand_write(feed)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        queue = Signal(WORD_BITS, reset_less=True)
        taken = FP16_BITS * self.feed
        first = Mux(self.channels, self.lane.replicate(self.feed), self.word[:taken])
        m.d.sync += queue.eq(Mux(self.control.load, Cat(first, self.word[taken:]), queue[taken:]))
        control = later(m, self.control, self.latency, reset_less=True)
        m.d.comb += [
            self.operands.address.eq(control.address[self.feed - 1 :]),
            self.operands.en.eq(control.en[: self.feed]),
        ]
        for number in range(self.feed):
            m.submodules[f"normalise_{number}"] = normalise = Fp16Normalise()
            m.d.comb += normalise.i.eq(queue.word_select(number, FP16_BITS))
            m.d.comb += self.operands["values"][number].eq(normalise.o)
        return m

