"""Arithmetic of the depthwise engine: 16 lanes of three taps per cycle.

Pipeline of a lane, ``delay`` = 4: operands, products, sum of three products, accumulator. The maximum runs beside the sum.
A sample's weights are the same in all lanes; :class:`Interpolation` makes them while the row memory is read.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.delay import data_register
from hw.rtl.common.decode import view
from hw.rtl.common.interfaces import INSTRUCTION_BITS
from hw.rtl.deform.dw_control import SLOTS, ParameterWrite
from hw.rtl.deform.dw_offset import Fraction
from hw.rtl.deform.ports import ACC_BITS, WORD_BITS
from hw.spec.deform import LANES
from hw.spec.deform.instructions import DW, SAMPLE_SIDE

TAPS = 3
OPERAND = signed(9)
FACTOR_BITS = 8
SHARED_BITS = 15
"""Of a sample's weight: up to 2 ** 7 times 2 ** 7."""

PRODUCT = signed(24)
"""Holds a code times a sample's weight, and the sum of three products: the weights of a sample's tap column are at most 2 ** 14."""

TOTAL = signed(25)
"""Holds every sum: 255 x 255 activations of at most 255, nine products, or a sample."""

SMALLEST = -256
"""What a masked tap counts in a maximum: below every activation."""

LaneMode = data.StructLayout({"in_unsigned": 1, "maximum": 1, "unit_weights": 1, "shared_weights": 1})
"""``unit_weights``: every weight is 1 (sum pooling). ``shared_weights``: those of a sample count, and the third tap is masked."""


class Lane(wiring.Component):
    """One channel: accumulates sum(weight * activation) or max(activation) over the tap columns of a pixel.

    Members
    -------
    taps, enabled, weights, shared : activations (bytes), which count, and weights, in one cycle
    first, valid : the tap column that came 3 cycles before is the first of its pixel, is one at all
    acc : accumulator, 4 cycles after the last tap column
    """

    mode: In(LaneMode)
    taps: In(data.ArrayLayout(8, TAPS))
    enabled: In(TAPS)
    weights: In(data.ArrayLayout(signed(8), TAPS))
    shared: In(data.ArrayLayout(SHARED_BITS, SAMPLE_SIDE))
    first: In(1)
    valid: In(1)
    acc: Out(signed(ACC_BITS))

    delay = 4

    def elaborate(self, platform: object) -> Module:
        m = Module()
        operands = [self._operand(m, tap) for tap in range(TAPS)]
        products = []
        for tap, operand in enumerate(operands):
            own = Mux(self.mode.unit_weights, 1, self.weights[tap])
            chosen = Mux(self.mode.shared_weights, self.shared[tap], own) if tap < SAMPLE_SIDE else own
            weight = Signal(Value.cast(chosen).shape(), name=f"weight{tap}", reset_less=True)
            product = Signal(PRODUCT if tap < SAMPLE_SIDE else signed(17), name=f"product{tap}", reset_less=True)
            m.d.sync += [weight.eq(chosen), product.eq(operand * weight)]
            products.append(product)
        total, total_acc = Signal(PRODUCT, reset_less=True), Signal(TOTAL, reset_less=True)
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


class Interpolation(wiring.Component):
    """Weights of a sample's two pixels in one of its tap columns, from the fraction of its offset, ``delay`` cycles later.

    Members
    -------
    fraction : of the tap column
    weights : of the upper and the lower pixel, as parts of 2 ** (2 * offset_frac)
    """

    instruction: In(INSTRUCTION_BITS)
    fraction: In(Fraction)
    weights: Out(data.ArrayLayout(SHARED_BITS, SAMPLE_SIDE))

    delay = 2

    def elaborate(self, platform: object) -> Module:
        m = Module()
        one = Signal(FACTOR_BITS)
        column, upper, lower = (Signal(FACTOR_BITS, reset_less=True) for _ in range(3))
        m.d.comb += one.eq(1 << view(DW, self.instruction).offset_frac)
        m.d.sync += [
            column.eq(Mux(self.fraction.second, self.fraction.right, one - self.fraction.right)),
            upper.eq(one - self.fraction.down),
            lower.eq(self.fraction.down),
        ]
        weights = data_register(m, self.weights)
        for tap, row in enumerate((upper, lower)):
            m.d.sync += weights[tap].eq(row * column)
        return m


class LaneArray(wiring.Component):
    """All 16 lanes side by side; members as those of :class:`Lane`, words of 16 bytes per tap row."""

    mode: In(LaneMode)
    words: In(data.ArrayLayout(WORD_BITS, TAPS))
    enabled: In(TAPS)
    weights: In(data.ArrayLayout(WORD_BITS, TAPS))
    shared: In(data.ArrayLayout(SHARED_BITS, SAMPLE_SIDE))
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
                lane.shared.eq(self.shared),
                self.acc[channel].eq(lane.acc),
            ]
            for tap in range(TAPS):
                m.d.comb += [
                    lane.taps[tap].eq(self.words[tap].word_select(channel, 8)),
                    lane.weights[tap].eq(self.weights[tap].word_select(channel, 8)),
                ]
        return m
