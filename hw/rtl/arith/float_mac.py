"""The accumulator's adder: FP32 plus FP32, for sums of products of FP16 (`hw.spec.floats`, domain of the multiply-accumulate).

Both operands are 0 or multiples of 2**-48 below 2**80: never subnormal, infinite or NaN, and so is their sum. That leaves out what
the general adder (`hw.rtl.arith.float_add`) spends on subnormals and saturation; the steps are otherwise the same.
"""

from __future__ import annotations

from amaranth.hdl import C, Cat, Module, Mux, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.float_parts import (
    Parts,
    Step,
    Values,
    combined,
    leading_zeros,
    nearest,
    pipeline,
    register,
    shifted_left,
    shifted_right,
    unpack,
)
from hw.spec.sat.latency import MAC_ADDER

EXTRA = 3
"""Bits below the significand of an aligned operand: one for the shift to the left that a difference may need, one to round with, one
that stands for all that was lost."""


class AddSteps:
    """The steps of an FP32 addition, from the bits ``a`` and ``b``; for operands that are normal or 0."""

    def exponent(self, parts: Parts) -> Value:
        """What the distance of the operands is measured in."""
        return parts.field

    def magnitude(self, parts: Parts) -> Value:
        """The exponent above enough of the significand, so that larger integers are larger numbers."""
        return Cat(parts.fraction, parts.field)

    def compare(self, v: Values) -> Values:
        """One subtraction tells the larger operand and the distance.

        The exponents' part of the difference of the magnitudes is that of the exponents, less a borrow from below. If ``b`` is the
        larger one it is negative, and its complement lacks one. Either way the distance is ``amount`` or one more, ``extra``.
        """
        a, b = unpack(v["a"]), unpack(v["b"])
        difference = self.magnitude(a) - self.magnitude(b)
        swap, top = difference[-1], difference[-9:-1]
        borrow = top[0] ^ self.exponent(a)[0] ^ self.exponent(b)[0]
        return {**v, "swap": swap, "amount": top ^ swap.replicate(8), "extra": borrow ^ swap}

    def order(self, v: Values) -> Values:
        """The larger operand, and the smaller one with one more bit below, moved by ``extra``."""
        a, b = unpack(v["a"]), unpack(v["b"])
        small = Mux(v["swap"], a.significand, b.significand)
        return {
            "sign": Mux(v["swap"], b.sign, a.sign),
            "subtract": a.sign ^ b.sign,
            "exponent": Mux(v["swap"], self.exponent(b), self.exponent(a)),
            "big": Mux(v["swap"], b.significand, a.significand),
            "small": Mux(v["extra"], small, Cat(C(0, 1), small)),
            "amount": v["amount"],
        }

    def align(self, v: Values) -> Values:
        """Moves the smaller operand to the larger one's place; its lowest bit stands for all that was lost. With ``far`` only that bit
        counts."""
        near, lost = shifted_right(Cat(C(0, EXTRA - 1), v["small"]), v["amount"][:5])
        far = v["amount"][5:].any()
        lowest = Mux(far, v["small"].any(), near[0] | lost)
        return {**{key: v[key] for key in ("sign", "subtract", "exponent", "big")}, "aligned": Cat(lowest, near[1:]), "far": far}

    def add(self, v: Values) -> Values:
        """Sum or difference, never negative, with a bit above for the carry."""
        subtract, aligned = v["subtract"], v["aligned"]
        aligned = Cat(aligned[0], aligned[1:] & (~v["far"]).replicate(len(aligned) - 1), C(0, 1))
        # One chain of carries: a one below everything, so that the one of a two's complement comes in as a carry.
        big = Cat(C(1, 1), C(0, EXTRA), v["big"])
        total = (big + Cat(subtract, aligned ^ subtract.replicate(len(aligned))))[1 : 26 + EXTRA]
        return {**{key: v[key] for key in ("sign", "subtract", "exponent")}, "total": total}

    def limited(self, zeros: Value, exponent: Value) -> Value:
        """How far a sum with so many zeros above its leading one may move up."""
        return zeros

    def count(self, v: Values) -> Values:
        """How far to move the sum; the sign is plus where a difference is nothing."""
        zeros = leading_zeros(v["total"])
        nothing = zeros[2:].all()  # 28 or more
        sign = v["sign"] & ~(v["subtract"] & nothing)
        return {"sign": sign, "exponent": v["exponent"], "total": v["total"], "shift": self.limited(zeros, v["exponent"])}

    def normalise(self, v: Values) -> Values:
        """The leading one to the top, and the exponent that belongs to it, less one."""
        return {
            "sign": v["sign"],
            "field": (v["exponent"] - v["shift"])[:8],
            "total": shifted_left(v["total"], v["shift"]),
        }

    def round_up(self, v: Values) -> Values:
        """To nearest, ties to even. The leading one is the one that the field lacks; without it the field is 0."""
        return {"o": Cat(self.magnitude_rounded(v)[:31], v["sign"])}

    @staticmethod
    def magnitude_rounded(v: Values) -> Value:
        total = v["total"]
        top, kept, half, lost = total[-1], total[EXTRA + 1 : -1], total[EXTRA], total[:EXTRA].any()
        return nearest(v["field"] & top.replicate(8), kept, half, lost, top)


class MacAdder(wiring.Component):
    """``o = acc + product``, rounded to nearest even, with IEEE's signs of zero; one pair per cycle.

    Parameters: ``latency``, one of MAC_ADDER: cycles from the operands to ``o``, its register (the accumulator) included.

    Members
    -------
    acc, product : FP32, 0 or multiples of 2**-48 below 2**80
    o : FP32, ``latency`` cycles later
    o_next : the same one cycle earlier, before that register: for accumulators that are kept in a memory

    Tested over its domain only; outside of it (subnormals, infinity, NaN) the result has no meaning.
    """

    def __init__(self, latency: int) -> None:
        if latency not in MAC_ADDER:
            raise ValueError(f"latency of the accumulator's adder must be one of {MAC_ADDER}, not {latency}")
        self.latency = latency
        super().__init__({"acc": In(32), "product": In(32), "o": Out(32), "o_next": Out(32)})

    @property
    def stages(self) -> tuple[tuple[Step, ...], ...]:
        """The steps between registers, for each latency."""
        s = AddSteps()
        return {
            4: ((s.compare, s.order), (s.align,), (s.add, s.count), (s.normalise, s.round_up)),
            5: ((s.compare, s.order), (s.align,), (s.add, s.count), (s.normalise,), (s.round_up,)),
            6: ((s.compare, s.order), (s.align,), (s.add,), (s.count,), (s.normalise,), (s.round_up,)),
        }[self.latency]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        *inner, last = self.stages
        values = pipeline(m, {"a": self.acc, "b": self.product}, inner)
        result = combined(m, values, last)
        m.d.comb += [self.o_next.eq(result["o"]), self.o.eq(register(m, result, self.latency)["o"])]
        return m
