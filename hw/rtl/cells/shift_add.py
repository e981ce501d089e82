"""Multiplier cell without a multiplier: each digit of a weight is one or two signed powers of two, its product shifts and an addition.

A digit of -8..8 is a sum of at most two signed powers of two (7 is 8 - 1), so with two ``terms`` the cell computes the numbers of
:class:`~hw.rtl.cells.mac2.Mac2Cell` for every weight. With one it takes a digit for its leading power of two
(:func:`hw.spec.deform.digits.taken`), and programs have weights that it takes for themselves, such as those of one signed digit.

The two products of 13 bits are packed as in ``Mac2NarrowCell``: the upper one is less one where the lower one is negative.
Registers and the accumulator are those of ``Mac2Cell``; there is no multiplier, so no DSP block.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed

from hw.rtl.cells.mac2 import ACTIVATION_BITS, DIGIT_BITS, Mac2Cell
from hw.spec.deform.digits import DIGIT_MAX, DIGIT_MIN, MOST_TERMS, taken
from hw.spec.hot import signed_digit_terms

PRODUCT_BITS = ACTIVATION_BITS + DIGIT_BITS
"""-8 * -256 = 2048 needs all 13, and so does 8 * 255."""

EXPONENT_BITS = 2


class ShiftAddCell(Mac2Cell):
    """The cell. Parameters: ``field_bits`` as of :class:`~hw.rtl.cells.mac2.Mac2Cell`, whose members and latency it has; ``terms``,
    1 or 2, signed powers of two of a digit.

    Tested range: every weight byte with every activation and both ``terms`` (tests/rtl/test_shift_add.py).
    """

    def __init__(self, field_bits: int = 23, terms: int = MOST_TERMS) -> None:
        if not 1 <= terms <= MOST_TERMS:
            raise ValueError(f"shift-add cell must have 1 or {MOST_TERMS} terms, not {terms}")
        self.terms = terms
        super().__init__(field_bits)

    def _product(self, m: Module, operand: Value, activation: Value) -> Value:
        low, stored = operand[:DIGIT_BITS].as_signed(), operand[self.field_bits :].as_signed()
        high = Signal(signed(DIGIT_BITS + 1), name="high")
        m.d.comb += high.eq(stored + low[-1])  # the byte has one less beside a negative low digit
        lower, upper = (Signal(signed(PRODUCT_BITS), name=name, reset_less=True) for name in ("lower", "upper"))
        found = self._times(m, low, activation, "low"), self._times(m, high, activation, "high")
        m.d.sync += [lower.eq(found[0]), upper.eq(found[1] - found[0][-1])]
        return Cat(lower, lower[-1].replicate(self.field_bits - PRODUCT_BITS), upper).as_signed()

    def _times(self, m: Module, digit: Value, activation: Value, name: str) -> Value:
        """The product of a digit and the activation: a sum of shifted activations, each added or subtracted."""
        terms = [_Term(f"{name}_{place}") for place in range(self.terms)]
        with m.Switch(digit):
            for value in range(DIGIT_MIN, DIGIT_MAX + (len(digit) > DIGIT_BITS)):
                with m.Case(value):
                    signs, exponents = signed_digit_terms(taken(np.array(value), self.terms), self.terms)
                    m.d.comb += [term.take(int(s), int(e)) for term, s, e in zip(terms, signs, exponents, strict=True)]
        total = Signal(signed(PRODUCT_BITS), name=f"{name}_product")
        m.d.comb += total.eq(sum(term.value(activation) for term in terms))
        return total


class _Term:
    """One signed power of two, or none."""

    def __init__(self, name: str) -> None:
        self.there, self.negative = Signal(name=f"{name}_there"), Signal(name=f"{name}_negative")
        self.exponent = Signal(EXPONENT_BITS, name=f"{name}_exponent")

    def take(self, sign: int, exponent: int) -> list[Value]:
        return [self.there.eq(sign != 0), self.negative.eq(sign < 0), self.exponent.eq(exponent)]

    def value(self, activation: Value) -> Value:
        shifted = Mux(self.there, activation << self.exponent, 0)
        return (shifted ^ self.negative.replicate(PRODUCT_BITS)).as_signed() + self.negative


def cell_of(terms: int, otherwise: type[Mac2Cell]) -> Callable[[int], Mac2Cell]:
    """What makes the cells of an array with so many ``terms`` from field_bits; those that multiply for 0."""
    return (lambda field_bits: ShiftAddCell(field_bits, terms)) if terms else otherwise
