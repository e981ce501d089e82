"""``count * SUM_2 - SUM_1 * KEPT`` modulo 2**128, one addition per cycle."""

from amaranth.hdl import Array, C, Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.delay import data_register
from hw.spec.sat.channel import CROSS_BITS, FIRST_BITS, SECOND_BITS
from hw.spec.sat.timing.chn import COUNT_BITS


class CrossSums(wiring.Component):
    """Horner's rule over the bits of SUM_1, and from bit COUNT_BITS - 1 on those of the count between them, with one adder.

    Members
    -------
    start : begin; the operands hold still until ``done``
    count : unsigned
    first, second, kept : SUM_1, SUM_2, KEPT
    done : one cycle, ``delay`` cycles after ``start``
    o : the result, from ``done`` to the next ``start``
    """

    start: In(1)
    count: In(COUNT_BITS)
    first: In(FIRST_BITS)
    second: In(SECOND_BITS)
    kept: In(FIRST_BITS)
    done: Out(1)
    o: Out(CROSS_BITS)

    delay = 1 + FIRST_BITS + COUNT_BITS

    def elaborate(self, platform: object) -> Module:
        m = Module()
        total = data_register(m, self.o)
        active, counting = Signal(), Signal(reset_less=True)
        bit = Signal(range(FIRST_BITS), reset_less=True)
        begin, counts = bit == FIRST_BITS - 1, bit < COUNT_BITS
        taken, subtracted = Signal(), Signal()
        base, addend = Signal(CROSS_BITS), Signal(CROSS_BITS)
        counted = Array(self.count)[bit[: (COUNT_BITS - 1).bit_length()]]
        m.d.comb += [
            taken.eq(Mux(counting, counted, Array(self.first)[bit])),
            # The top bit of a signed number counts as negative.
            subtracted.eq(~counting & ~begin & taken),
            base.eq(Mux(counting, total, Mux(begin, 0, Cat(C(0, 1), total)))),
            addend.eq(Mux(taken, Mux(counting, self.second.as_signed(), self.kept.as_signed()), 0)),
        ]
        end = active & (bit == 0) & counting
        m.d.sync += self.done.eq(end)
        with m.If(self.start):
            m.d.sync += [active.eq(1), counting.eq(0), bit.eq(FIRST_BITS - 1)]
        with m.Elif(active):
            m.d.sync += [
                total.eq(base + (addend ^ subtracted.replicate(CROSS_BITS)) + subtracted),
                counting.eq(counts & ~counting),
                active.eq(~end),
            ]
            with m.If(~counts | counting):
                m.d.sync += bit.eq(bit - 1)
        return m
