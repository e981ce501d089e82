"""Residual addition: two bytes to the clipped byte of their sum, as ``MERGE_ADD`` of ``hw.spec.deform.machine`` defines it."""

from amaranth.hdl import Cat, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.compare import clipped
from hw.spec.deform.latency import ADD

SUM_BITS = 10
"""Holds every sum of two bytes, signed or not."""


class AddClip(wiring.Component):
    """``min(max(a + b, lo), hi)`` in two stages, sum and clip; one pair per cycle. Where the clips cross, the lower one wins.

    Members
    -------
    a, b : bytes, both signed, or both unsigned with ``unsigned``
    lo, hi : clips, 9 bits, signed; they and ``unsigned`` hold still while pairs are under way
    o : the low byte, ``delay`` cycles later
    """

    a: In(8)
    b: In(8)
    unsigned: In(1)
    lo: In(signed(9))
    hi: In(signed(9))
    o: Out(8)

    delay = ADD

    def elaborate(self, platform: object) -> Module:
        m = Module()
        wide = [Cat(byte, byte[-1] & ~self.unsigned).as_signed() for byte in (self.a, self.b)]
        total = Signal(signed(SUM_BITS), reset_less=True)
        byte = Signal(8, reset_less=True)
        m.d.sync += [total.eq(wide[0] + wide[1]), byte.eq(clipped(total, self.lo, self.hi)[:8])]
        m.d.comb += self.o.eq(byte)
        return m
