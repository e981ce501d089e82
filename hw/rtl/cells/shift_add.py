"""Multiplier cell without a multiplier: each digit of a weight is one or two signed powers of two, its product shifts and an addition.

A digit of -8..8 is a sum of at most two signed powers of two (7 is 8 - 1), so with two ``terms`` the cell computes every product of
:class:`~hw.rtl.cells.mac2.Mac2Cell`. With one it takes a digit for its leading power of two (:func:`hw.spec.deform.digits.taken`), and
programs have weights that it takes for themselves, such as those of one signed digit. What a weight byte asks of the terms is worked
out once, before the first row of an array (:func:`recoded`), and passes down its rows in the byte's place.

The two digits have a sum each, of ``field_bits``; they are not packed into one number, so that neither carries into the other and no
digit is corrected for the sign of the other one. A term is negated by inverting the activation, what is shifted in included; the one
that is missing to two's complement is the carry into the next addition. So each stage is a look-up table and a carry chain deep:

    1  activation, inverted and shifted by 0 or 1, for each term
    2  shifted by 0 or 2 more; with two terms their sum
    3  the accumulator
"""

from __future__ import annotations

import numpy as np
from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.cells.mac2 import ACTIVATION_BITS, DIGIT_BITS, PACKED_BITS, WEIGHT_BITS
from hw.spec.deform.digits import DIGIT_MAX, DIGIT_MIN, MOST_TERMS, taken
from hw.spec.deform.latency import CELL
from hw.spec.hot import signed_digit_terms

TERM_BITS = ACTIVATION_BITS + DIGIT_BITS - 1
"""An activation times 8, or its inverse: -2048..2047. A product is one more where its leading term is negative."""

Power = data.StructLayout({"there": 1, "negative": 1, "exponent": 2})
"""A signed power of two, or none; all bits are 0 then. The exponent of a second one is 0 or 1."""


def weight_layout(terms: int) -> data.StructLayout:
    """What a cell gets for a weight byte: the powers of two of its digits, the leading ones first."""
    if not 1 <= terms <= MOST_TERMS:
        raise ValueError(f"shift-add cell must have 1 or {MOST_TERMS} terms, not {terms}")
    powers = data.ArrayLayout(Power, terms)
    return data.StructLayout({"low": powers, "high": powers})


class ShiftAddCell(wiring.Component):
    """The cell. Latency CELL: operands of cycle t show in ``acc`` in cycle t + CELL; products of two digits per cycle.

    Parameters: ``field_bits``, of each sum; ``terms``, 1 or 2, signed powers of two of a digit. Tested range: every weight byte with
    every activation and both ``terms`` (tests/rtl/test_shift_add.py).

    Members: ``weight`` (:func:`recoded`), ``activation`` (9 bits, signed), ``first`` (the sums start anew with the products of the
    operands that came CELL - 1 cycles before), ``acc`` (the low digit's sum in the lower ``field_bits``, the high digit's above it,
    :func:`sums_of`; each wraps; undefined until the first ``first``).
    """

    def __init__(self, field_bits: int = 23, terms: int = MOST_TERMS) -> None:
        self.field_bits, self.terms = field_bits, terms
        super().__init__({
            "weight": In(weight_layout(terms)),
            "activation": In(signed(ACTIVATION_BITS)),
            "first": In(1),
            "acc": Out(signed(PACKED_BITS)),
        })

    @property
    def latency(self) -> int:
        """Terms, products and accumulators."""
        return 3

    def elaborate(self, platform: object) -> Module:
        if self.latency != CELL:
            raise ValueError(f"shift-add cell must have the latency CELL = {CELL}, not {self.latency}")
        m = Module()
        m.d.comb += self.acc.eq(Cat(self._sum(m, self.weight.low, "low"), self._sum(m, self.weight.high, "high")).as_signed())
        return m

    def _sum(self, m: Module, powers: data.View, name: str) -> Value:
        """The accumulator of a digit's products."""
        leading, *second = (_Term(m, powers[place], self.activation, f"{name}_{place}") for place in range(self.terms))
        product = Signal(signed(TERM_BITS), name=f"{name}_product", reset_less=True)
        carry = Signal(name=f"{name}_carry", reset_less=True)
        m.d.sync += carry.eq(leading.negative)
        m.d.sync += product.eq(_added(second[0].value, leading.shifted, second[0].negative) if second else leading.shifted)
        acc = Signal(signed(self.field_bits), name=f"{name}_acc", reset_less=True)
        m.d.sync += acc.eq(_added(product, Mux(self.first, 0, acc), carry))
        return acc


class _Term:
    """A term after the first stage: ``value``, the activation, inverted where ``negative``, shifted by 0 or 1."""

    def __init__(self, m: Module, power: data.View, activation: Value, name: str) -> None:
        self.value = Signal(signed(ACTIVATION_BITS + 1), name=f"{name}_value", reset_less=True)
        self.negative, self._far = (Signal(name=f"{name}_{what}", reset_less=True) for what in ("negative", "far"))
        inverted = (activation.as_unsigned() ^ power.negative.replicate(ACTIVATION_BITS)).as_signed()
        once = Mux(power.exponent[0], Cat(power.negative, inverted).as_signed(), inverted)
        m.d.sync += [
            self.value.eq(Mux(power.there, once, 0)),
            self.negative.eq(power.negative),
            self._far.eq(power.exponent[1]),
        ]

    @property
    def shifted(self) -> Value:
        """Shifted by 2 more, where the exponent is 2 or 3."""
        return Mux(self._far, Cat(self.negative.replicate(2), self.value).as_signed(), self.value)


def _added(a: Value, b: Value, carry: Value) -> Value:
    """a + b + carry of signed numbers, by one chain: the carry is what a bit below them gives."""
    return (Cat(carry, a).as_signed() + Cat(carry, b).as_signed()) >> 1


def recoded(m: Module, weight: Value, terms: int, name: str) -> data.View:
    """What cells of so many ``terms`` get for a weight byte; combinational."""
    found = Signal(weight_layout(terms), name=name)
    low, high = weight[:DIGIT_BITS].as_signed(), Signal(signed(DIGIT_BITS + 1), name=f"{name}_high")
    m.d.comb += high.eq(weight[DIGIT_BITS:WEIGHT_BITS].as_signed() + low[-1])  # the byte has one less beside a negative low digit
    for digit, powers in ((low, found.low), (high, found.high)):
        with m.Switch(digit):
            for value in range(DIGIT_MIN, DIGIT_MAX + (len(digit) > DIGIT_BITS)):
                with m.Case(value):
                    signs, exponents = signed_digit_terms(taken(np.array(value), terms), terms)
                    for power, sign, exponent in zip(powers, signs.tolist(), exponents.tolist(), strict=True):
                        m.d.comb += [power.there.eq(sign != 0), power.negative.eq(sign < 0), power.exponent.eq(exponent)]
    return found


def sums_of(acc: np.ndarray, field_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) sums in ``acc``, a signed number of 48 bits."""
    low, high = (((acc >> place) & ((1 << field_bits) - 1)) for place in (0, field_bits))
    return tuple((each ^ (1 << field_bits - 1)) - (1 << field_bits - 1) for each in (low, high))  # type: ignore[return-value]
