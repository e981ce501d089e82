"""FP16 operands: normalised at the array's edge, multiplied exactly to FP32, and the conversions between the formats.

A normalised operand is an :obj:`Operand`, 18 bits: its number is ``significand * 2**(exponent - 42)``, with the sign. The significand's
top bit is set, also for a subnormal FP16, and clear for zero only.
"""

from amaranth.hdl import C, Cat, Module, Mux
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.float_parts import (
    FRACTION,
    PipelinedUnit,
    Step,
    Values,
    at_least,
    check_latency,
    leading_zeros,
    pipeline,
    shifted_left,
    shifted_right,
    unpack,
)
from hw.spec.sat.latency import FP16_NORMALISE, FP16_PRODUCT, FP16_TO_FP32, FP32_TO_FP16

Operand = data.StructLayout({"significand": 11, "exponent": 6, "sign": 1})
"""A normalised FP16; ``exponent`` is the FP16's own field plus 17, with 1 for the field of a subnormal and one less for each place
that its significand moved: 8..47."""

OPERAND_OFFSET = 17
LARGEST_FP16 = 0x7BFF


def counted(v: Values) -> Values:
    """The parts of a finite FP16, ``i``, and the zeros above its leading one: a step of its own, so that they are built once."""
    fraction, field, sign = v["i"][:10], v["i"][10:15], v["i"][15]
    significand = Cat(fraction, field.any())
    return {"sign": sign, "field": field, "significand": significand, "zeros": leading_zeros(significand)}


def normalised(v: Values) -> Values:
    """Sign, exponent and significand of an :obj:`Operand`."""
    # As subnormals are shifted by the zeros above the fraction, exponents run on below 1: 18 - zeros for the field 0.
    normal = v["significand"][-1]
    exponent = Mux(normal, v["field"] + OPERAND_OFFSET, OPERAND_OFFSET + 1 - v["zeros"])
    return {"significand": shifted_left(v["significand"], v["zeros"]), "exponent": exponent[:6], "sign": v["sign"]}


class Fp16Normalise(wiring.Component):
    """A finite FP16 to an :obj:`Operand`, one per cycle.

    Members: ``i``, 16 bits; ``o``, ``latency`` cycles later; for zero the significand is 0 and the exponent has no meaning.
    Tested for every FP16.
    """

    i: In(16)
    o: Out(Operand)

    latency = FP16_NORMALISE

    def elaborate(self, platform: object) -> Module:
        m = Module()
        stages: list[list[Step]] = [[counted, normalised]]
        check_latency(self, len(stages), self.latency)
        values = pipeline(m, {"i": self.i}, stages)
        m.d.comb += [self.o[name].eq(value) for name, value in values.items()]
        return m


def take(v: Values) -> Values:
    """The operands' registers, which belong to the multiplier's slice."""
    return dict(v)


def multiply(v: Values) -> Values:
    return {
        "product": v["a_significand"] * v["b_significand"],
        "exponent": v["a_exponent"] + v["b_exponent"],
        "nonzero": v["a_significand"][-1] & v["b_significand"][-1],
        "sign": v["a_sign"] ^ v["b_sign"],
    }


def pack(v: Values) -> Values:
    """The leading one is the top bit of the product or the one below."""
    product, top = v["product"], v["product"][-1]
    fraction = Mux(top, Cat(C(0, 2), product[:21]), Cat(C(0, 3), product[:20]))
    # 97 + the sum of the fields, and one more if the top bit is set; the operands' exponents have 17 each already.
    field = (v["exponent"] + (97 - 2 * OPERAND_OFFSET) + top)[:8]
    return {"o": Cat(fraction, field & v["nonzero"].replicate(8), v["sign"])}


class Fp16Product(wiring.Component):
    """The exact product of two normalised operands as FP32, one per cycle, with one 11 x 11 multiplier.

    Members: ``a``, ``b``, :obj:`Operand` as :class:`Fp16Normalise` gives them; ``o``, FP32, ``latency`` cycles later; a zero has the
    sign of the product. Tested for every pair of significands, and for random and special FP16.
    """

    a: In(Operand)
    b: In(Operand)
    o: Out(32)

    latency = FP16_PRODUCT
    stages: tuple[tuple[Step, ...], ...] = (take,), (multiply,), (pack,)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        check_latency(self, len(self.stages), self.latency)
        operands = {f"{port}_{name}": getattr(self, port)[name] for port in "ab" for name in Operand.members}
        m.d.comb += self.o.eq(pipeline(m, operands, self.stages)["o"])
        return m


def widen(v: Values) -> Values:
    """A normalised operand's bits in FP32's places; its exponent is the field plus 17, of a bias that is 112 less."""
    nonzero = v["significand"][-1]
    field = (v["exponent"] + (112 - OPERAND_OFFSET))[:8] & nonzero.replicate(8)
    return {"o": Cat(C(0, FRACTION - 10), v["significand"][:10], field, v["sign"])}


class Fp16ToFp32(PipelinedUnit):
    """``o = hw.spec.floats.to_fp32(i)``, exact, one per cycle.

    Members: ``i``, finite FP16; ``o``, FP32, ``latency`` cycles later. Tested for every FP16.
    """

    i: In(16)
    o: Out(32)

    latency = FP16_TO_FP32
    stages: tuple[tuple[Step, ...], ...] = ((counted, normalised, widen),)


def distant(v: Values) -> Values:
    """Whether FP16 has no normal number of that exponent, and how far the significand moves then: a step of its own, see `counted`.

    The field of FP16 is 112 less, and 0 for what lies below its normal numbers: that moves right by 113 - field places, of which 12
    leave nothing that could round up. FP32's subnormals are among those.
    """
    field = unpack(v["i"]).field
    under = ~at_least(field, 113)
    distance = (113 - field)[:8]
    return {"i": v["i"], "under": under, "amount": Mux(under, Mux(at_least(distance, 15), 15, distance[:4]), 0)}


def narrow(v: Values) -> Values:
    """The significand's upper 12 bits at the place that FP16 gives them, and whether a one was lost."""
    number = unpack(v["i"])
    # The number's own top bit, then ten of the fraction, then the first one below.
    kept, lost = shifted_right(number.significand[12:], v["amount"])
    field = Mux(v["under"], 0, number.field - 112)[:8]
    return {"sign": number.sign, "field": field, "kept": kept[:11], "lost": lost | number.significand[:12].any()}


def round_half(v: Values) -> Values:
    kept = v["kept"]
    magnitude = Cat(kept[1:11], v["field"]) + (kept[0] & (v["lost"] | kept[1]))
    over = at_least(magnitude[10:], 31)
    return {"o": Cat(Mux(over, LARGEST_FP16, magnitude[:15]), v["sign"]), "saturated": over}


class Fp32ToFp16(PipelinedUnit):
    """``o = hw.spec.floats.to_fp16(i)``: rounded to nearest even, saturating; one per cycle.

    Members: ``i``, finite FP32; ``o``, FP16, ``latency`` cycles later; ``saturated``, with ``o``: it is the largest number in place of
    one beyond. Tested for every FP32.
    """

    i: In(32)
    o: Out(16)
    saturated: Out(1)

    latency = FP32_TO_FP16
    stages: tuple[tuple[Step, ...], ...] = (distant, narrow), (round_half,)
