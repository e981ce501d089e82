"""General FP32 addition: subnormals in and out, saturation."""

from amaranth.hdl import Cat, Mux, Value
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.float_mac import AddSteps
from hw.rtl.arith.float_parts import Parts, PipelinedUnit, Step, Values, saturated
from hw.spec.sat.latency import FP32_ADD


class GeneralAddSteps(AddSteps):
    """The steps of an FP32 addition of any finite numbers."""

    def exponent(self, parts: Parts) -> Value:
        return parts.exponent

    def magnitude(self, parts: Parts) -> Value:
        return Cat(parts.significand, parts.exponent)

    def limited(self, zeros: Value, exponent: Value) -> Value:
        """Until the exponent is the smallest, at most."""
        return Mux(exponent < zeros, exponent, zeros)[: len(zeros)]

    def round_up(self, v: Values) -> Values:
        o, over = saturated(v["sign"], self.magnitude_rounded(v))
        return {"o": o, "saturated": over}


class Fp32Add(PipelinedUnit):
    """``o = hw.spec.floats.fp32_add(a, b)``; one pair per cycle.

    Members
    -------
    a, b : finite FP32
    o : FP32, ``latency`` cycles later
    saturated : with ``o``: it is the largest number in place of one beyond

    Tested over all finite numbers.
    """

    a: In(32)
    b: In(32)
    o: Out(32)
    saturated: Out(1)

    latency = FP32_ADD

    _s = GeneralAddSteps()
    stages: tuple[tuple[Step, ...], ...] = (_s.compare, _s.order), (_s.align,), (_s.add,), (_s.count,), (_s.normalise,), (_s.round_up,)
