"""General FP32 multiplication: subnormals in and out, saturation.

Of two subnormal operands the product rounds to zero, so at most one has to be normalised before the multiplier: it becomes ``x``.
"""

from amaranth.hdl import C, Cat, Mux
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.float_parts import (
    BIAS,
    FRACTION,
    SIGNIFICAND,
    PipelinedUnit,
    Step,
    Values,
    distance_to_normal,
    leading_zeros,
    rounded,
    shifted_left,
    shifted_right,
    unpack,
)
from hw.spec.sat.latency import FP32_MULTIPLY

SPLIT = 17
"""Bits of one operand that a DSP slice takes beside the other's 24; the rest goes to a second slice."""

KEPT = SIGNIFICAND + 2
"""Bits of the product that are rounded from: one more may move in from below; what lies beneath counts only as lost."""


def unpack_step(v: Values) -> Values:
    """A subnormal operand becomes ``x``; its leading zeros; the exponent of the product's top bit, were both normal."""
    a, b = unpack(v["a"]), unpack(v["b"])
    x = Mux(a.normal, b.significand, a.significand)
    return {
        "sign": a.sign ^ b.sign,
        "x": x,
        "y": Mux(a.normal, a.significand, b.significand),
        "zeros": leading_zeros(x),
        "exponent": (a.exponent + b.exponent - (BIAS - 1)).as_signed(),
    }


def normalise(v: Values) -> Values:
    return {
        "sign": v["sign"],
        "x": shifted_left(v["x"], v["zeros"]),
        "y": v["y"],
        "exponent": (v["exponent"] - v["zeros"])[:10].as_signed(),
    }


def multiply(v: Values) -> Values:
    return {"sign": v["sign"], "low": v["x"] * v["y"][:SPLIT], "high": v["x"] * v["y"][SPLIT:], "exponent": v["exponent"]}


def add_products(v: Values) -> Values:
    """The product of 48 bits; and how far its top bit is below the normal numbers."""
    upper = v["high"] + v["low"][SPLIT:]
    under, distance = distance_to_normal(v["exponent"])
    return {
        "sign": v["sign"],
        "product": Cat(v["low"][:SPLIT], upper[: 2 * SIGNIFICAND - SPLIT]),
        "exponent": v["exponent"],
        "under": under,
        "distance": distance,
    }


def align(v: Values) -> Values:
    """One place to the left where the top bit is clear and the exponent allows for it, or to the right until that is in range."""
    product, exponent, top = v["product"], v["exponent"], v["product"][-1]
    moved = Mux(top | (exponent < 2), product, Cat(C(0, 1), product[:-1]))
    below = len(product) - KEPT
    value, lost = shifted_right(moved[below:], v["distance"])
    field = Mux(v["under"] | ~(top | product[-2]), 0, exponent - ~top)[:9]
    return {"sign": v["sign"], "field": field, "value": value, "lost": lost | moved[:below].any()}


def round_up(v: Values) -> Values:
    value = v["value"]
    o, saturated = rounded(v["sign"], v["field"], value[2 : 2 + FRACTION], value[1], value[0] | v["lost"])
    return {"o": o, "saturated": saturated}


class Fp32Multiply(PipelinedUnit):
    """``o = hw.spec.floats.fp32_mul(a, b)``; one pair per cycle.

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

    latency = FP32_MULTIPLY
    stages: tuple[tuple[Step, ...], ...] = (unpack_step,), (normalise,), (multiply,), (add_products,), (align,), (round_up,)
