"""A lane of the vector unit's arithmetic: ``(a * S + b * T) + U``, rounded after each operation, and comparisons."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.delay import data_register, later
from hw.rtl.arith.float_add import Fp32Add
from hw.rtl.arith.float_half import Fp16ToFp32, Fp32ToFp16
from hw.rtl.arith.float_multiply import Fp32Multiply
from hw.spec.sat.instructions import VEC_EQUAL, VEC_MAX
from hw.spec.sat.timing.vec import MASK, RELU

MINUS_ZERO = 1 << 31
"""The number that an addition does not notice: x + -0 is x, also for both zeros."""

Modes = data.StructLayout({"fp32": 1, "use_b": 1, "use_u": 1, "masked": 1, "relu": 1})
"""What an affine instruction asks for; holds still during it."""


class AffineLane(wiring.Component):
    """One lane; a pixel per cycle.

    Parameters: ``wide``, whether it takes part where a word has four FP32 values.

    Members
    -------
    modes : see :obj:`Modes`
    a, b, c : finite FP16 or FP32 (the lower half, or all of the bits)
    s, t : constants, ``convert_cycle`` cycles later
    u : constant, ``sum_cycle`` cycles later
    o_half, o_full : results, ``half_cycle`` and ``full_cycle`` cycles after a, b, c
    saturated : after the product, the first and second sum, and the rounding to FP16; each at its own cycle (``event_cycles``)
    """

    convert_cycle = MASK + Fp16ToFp32.latency
    product_cycle = convert_cycle + Fp32Multiply.latency
    sum_cycle = product_cycle + Fp32Add.latency
    total_cycle = sum_cycle + Fp32Add.latency
    full_cycle = total_cycle + RELU
    half_cycle = full_cycle + Fp32ToFp16.latency
    event_cycles = (product_cycle, sum_cycle, total_cycle, half_cycle)

    def __init__(self, *, wide: bool) -> None:
        self._wide = wide
        operand = 32 if wide else 16
        super().__init__({
            "modes": In(Modes),
            **{name: In(operand) for name in "abc"},
            **{name: In(32) for name in "stu"},
            "o_half": Out(16),
            "o_full": Out(32),
            "saturated": Out(len(self.event_cycles)),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        modes = self.modes
        a = self._operand(m, "a", self.a, self._positive(m) | ~modes.masked)
        b = self._operand(m, "b", self.b, modes.use_b)
        m.submodules.product_a, m.submodules.product_b = products = Fp32Multiply(), Fp32Multiply()
        m.submodules.sum, m.submodules.total = added, total = Fp32Add(), Fp32Add()
        m.submodules.round = rounding = Fp32ToFp16()
        full = data_register(m, self.o_full)
        m.d.sync += full.eq(Mux(modes.relu & total.o[31], 0, total.o))
        for unit, operand, constant in zip(products, (a, b), (self.s, self.t), strict=True):
            m.d.comb += [unit.a.eq(operand), unit.b.eq(constant)]
        m.d.comb += [
            added.a.eq(products[0].o),
            added.b.eq(products[1].o),
            total.a.eq(added.o),
            total.b.eq(self.u),
            rounding.i.eq(self.o_full),
            self.o_half.eq(rounding.o),
            self.saturated.eq(
                Cat(products[0].saturated | products[1].saturated, added.saturated, total.saturated, rounding.saturated)
            ),
        ]
        return m

    def _positive(self, m: Module) -> Signal:
        """Whether c is above zero."""
        positive = Signal()
        half = ~self.c[15] & self.c[:15].any()
        full = ~self.c[31] & self.c[:31].any() if self._wide else half
        m.d.comb += positive.eq(Mux(self.modes.fp32, full, half))
        return positive

    def _operand(self, m: Module, name: str, bits: Value, counts: Value) -> Value:
        """The operand as FP32, ``convert_cycle`` cycles later; +0 where it does not count."""
        m.submodules[f"convert_{name}"] = convert = Fp16ToFp32()
        kept = Signal(len(bits), name=f"kept_{name}", reset_less=True)
        m.d.sync += kept.eq(bits & counts.replicate(len(bits)))
        m.d.comb += convert.i.eq(kept[:16])
        if not self._wide:
            return convert.o
        return Mux(self.modes.fp32, later(m, kept, convert.latency, reset_less=True), convert.o)


def chosen(op: Value, a: Value, b: Value, c: Value) -> Value:
    """MAX, EQUAL or UNEQUAL of finite FP16, as numbers: both zeros are equal."""
    larger, same = a[:15] > b[:15], a[:15] == b[:15]
    zeros = ~(a[:15].any() | b[:15].any())
    at_least = Mux(a[15], Mux(b[15], ~larger, zeros), b[15] | larger | same)
    equal = (same & (a[15] == b[15])) | zeros
    keep = equal == (op == VEC_EQUAL)
    return Mux(op == VEC_MAX, Mux(at_least, a, b), Mux(keep, c, 0))
