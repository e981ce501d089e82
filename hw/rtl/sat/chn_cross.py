"""``count * SUM_2 - SUM_1 * KEPT`` modulo 2**128, one addition per cycle."""

from amaranth.hdl import Array, C, Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.delay import data_register, later
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

    delay = 2 + FIRST_BITS + COUNT_BITS

    def elaborate(self, platform: object) -> Module:
        m = Module()
        active, counting = Signal(), Signal(reset_less=True)
        bit = Signal(range(FIRST_BITS), reset_less=True)
        counts, end = bit < COUNT_BITS, Signal()
        counted = Array(self.count)[bit[: (COUNT_BITS - 1).bit_length()]]
        taken = Mux(counting, counted, Array(self.first)[bit])
        m.d.comb += end.eq(active & (bit == 0) & counting)
        with m.If(self.start):
            m.d.sync += [active.eq(1), counting.eq(0), bit.eq(FIRST_BITS - 1)]
        with m.Elif(active):
            m.d.sync += [counting.eq(counts & ~counting), active.eq(~end)]
            with m.If(~counts | counting):
                m.d.sync += bit.eq(bit - 1)
        self._add(m, active, counting, bit == FIRST_BITS - 1, taken)
        m.d.comb += self.done.eq(later(m, end, 2))
        return m

    def _add(self, m: Module, active: Value, counting: Value, begin: Value, taken: Value) -> None:
        """The addition for a bit, the cycle after it was picked."""
        total = data_register(m, self.o)
        adding = later(m, active, 1)
        by_count, top, one = (Signal(name=name, reset_less=True) for name in ("by_count", "top", "one"))
        base, addend, subtracted = Signal(CROSS_BITS), Signal(CROSS_BITS), Signal()
        m.d.sync += [by_count.eq(counting), top.eq(begin), one.eq(taken)]
        m.d.comb += [
            # The top bit of a signed number counts as negative.
            subtracted.eq(~by_count & ~top & one),
            base.eq(Mux(by_count, total, Mux(top, 0, Cat(C(0, 1), total)))),
            addend.eq(Mux(one, Mux(by_count, self.second.as_signed(), self.kept.as_signed()), 0)),
        ]
        with m.If(adding):
            m.d.sync += total.eq(base + (addend ^ subtracted.replicate(CROSS_BITS)) + subtracted)
