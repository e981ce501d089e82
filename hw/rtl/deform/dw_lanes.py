"""Arithmetic of the depthwise engine: 16 lanes of three taps per cycle.

Pipeline of a lane, ``delay`` = 4: operands, products, sum of three products, accumulator. The maximum runs beside the sum.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.deform.dw_control import SLOTS, ParameterWrite
from hw.rtl.deform.ports import ACC_BITS, WORD_BITS
from hw.spec.deform import LANES

TAPS = 3
OPERAND = signed(9)
TOTAL = signed(25)
"""Holds every sum: 255 x 255 activations of at most 255, or nine products."""

SMALLEST = -256
"""What a masked tap counts in a maximum: below every activation."""

LaneMode = data.StructLayout({"in_unsigned": 1, "maximum": 1, "unit_weights": 1})
"""``unit_weights``: every weight is 1 (sum pooling)."""


class Lane(wiring.Component):
    """One channel: accumulates sum(weight * activation) or max(activation) over the tap columns of a pixel.

    Members
    -------
    taps, enabled, weights : activations (bytes), which count, and weights, in one cycle
    first, valid : the tap column that came 3 cycles before is the first of its pixel, is one at all
    acc : accumulator, 4 cycles after the last tap column
    """

    mode: In(LaneMode)
    taps: In(data.ArrayLayout(8, TAPS))
    enabled: In(TAPS)
    weights: In(data.ArrayLayout(signed(8), TAPS))
    first: In(1)
    valid: In(1)
    acc: Out(signed(ACC_BITS))

    delay = 4

    def elaborate(self, platform: object) -> Module:
        m = Module()
        operands = [self._operand(m, tap) for tap in range(TAPS)]
        products = []
        for tap, operand in enumerate(operands):
            weight = Signal(signed(8), name=f"weight{tap}", reset_less=True)
            product = Signal(signed(17), name=f"product{tap}", reset_less=True)
            m.d.sync += [weight.eq(Mux(self.mode.unit_weights, 1, self.weights[tap])), product.eq(operand * weight)]
            products.append(product)
        total, total_acc = Signal(signed(19), reset_less=True), Signal(TOTAL, reset_less=True)
        m.d.sync += total.eq(sum(products))
        with m.If(self.valid):
            m.d.sync += total_acc.eq(Mux(self.first, 0, total_acc) + total)

        names = ("pair", "third", "largest", "largest_acc")
        pair, third, largest, largest_acc = (Signal(OPERAND, name=name, reset_less=True) for name in names)
        m.d.sync += [pair.eq(larger(operands[0], operands[1])), third.eq(operands[2]), largest.eq(larger(pair, third))]
        with m.If(self.valid):
            m.d.sync += largest_acc.eq(Mux(self.first, largest, larger(largest_acc, largest)))
        m.d.comb += self.acc.eq(Mux(self.mode.maximum, largest_acc, total_acc))
        return m

    def _operand(self, m: Module, tap: int) -> Signal:
        """9-bit activation; a masked tap is 0, or the smallest code of a maximum."""
        operand = Signal(OPERAND, name=f"operand{tap}", reset_less=True)
        byte, masked = self.taps[tap], Mux(self.mode.maximum, SMALLEST, 0)
        extended = Cat(byte, byte[7] & ~self.mode.in_unsigned).as_signed()
        m.d.sync += operand.eq(Mux(self.enabled[tap], extended, masked))
        return operand


def larger(a: Signal, b: Signal) -> Mux:
    return Mux(a > b, a, b)


class WeightStore(wiring.Component):
    """Weights of two channel words: three small memories, one per tap row, addressed by slot and column.

    Members
    -------
    write, i_data : a parameter word and where it goes
    slot, column : what to read; ``weights`` has it one cycle later, one word of 16 bytes per tap row
    """

    write: In(ParameterWrite)
    i_data: In(WORD_BITS)
    slot: In(1)
    column: In(2)
    weights: Out(data.ArrayLayout(WORD_BITS, TAPS))

    delay = 1

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for row in range(TAPS):
            m.submodules[f"row{row}"] = store = memory.Memory(shape=WORD_BITS, depth=SLOTS * 4, init=[])
            write, read = store.write_port(), store.read_port()
            m.d.comb += [
                write.en.eq(self.write.weight_rows[row]),
                write.addr.eq(Cat(self.write.column, self.write.slot)),
                write.data.eq(self.i_data),
                read.en.eq(Const(1)),
                read.addr.eq(Cat(self.column, self.slot)),
                self.weights[row].eq(read.data),
            ]
        return m


class LaneArray(wiring.Component):
    """All 16 lanes side by side; members as those of :class:`Lane`, words of 16 bytes per tap row."""

    mode: In(LaneMode)
    words: In(data.ArrayLayout(WORD_BITS, TAPS))
    enabled: In(TAPS)
    weights: In(data.ArrayLayout(WORD_BITS, TAPS))
    first: In(1)
    valid: In(1)
    acc: Out(data.ArrayLayout(signed(ACC_BITS), LANES))

    delay = Lane.delay

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for channel in range(LANES):
            m.submodules[f"lane{channel}"] = lane = Lane()
            m.d.comb += [
                lane.mode.eq(self.mode),
                lane.enabled.eq(self.enabled),
                lane.first.eq(self.first),
                lane.valid.eq(self.valid),
                self.acc[channel].eq(lane.acc),
            ]
            for tap in range(TAPS):
                m.d.comb += [
                    lane.taps[tap].eq(self.words[tap].word_select(channel, 8)),
                    lane.weights[tap].eq(self.weights[tap].word_select(channel, 8)),
                ]
        return m
