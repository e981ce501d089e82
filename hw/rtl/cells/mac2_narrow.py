"""Multiplier cell for parts whose multipliers are narrower than 27 bits: the same numbers as :class:`~hw.rtl.cells.mac2.Mac2Cell`.

One product of a 4-bit digit and an activation needs 13 bits; the 23 bits of ``field_bits`` are there for the sum alone. So the
digits are multiplied in a packed operand of 17 bits, which one 18 x 18 multiplier takes (ECP5's MULT18X18D, DSP48E1, UP5K's DSP),
and the product is unpacked into fields of ``field_bits`` before it is added. Unpacking is wiring: the upper digit's product is less
one where the lower one's is negative in either packing, and the lower field is merely sign-extended. All 48 bits of the
accumulator are those of ``Mac2Cell`` in every cycle: its registers are the same, but for the product's, which is narrower.

What differs is where the adder lies: the accumulator is 48 bits of logic, because no such part adds behind its multiplier.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal, Value, signed

from hw.rtl.cells.mac2 import ACTIVATION_BITS, DIGIT_BITS, Mac2Cell

PRODUCT_FIELD = DIGIT_BITS + ACTIVATION_BITS
"""Bits of one product; -8 * -256 = 2048 needs all 13."""


class Mac2NarrowCell(Mac2Cell):
    """The cell; parameters, members and latency are those of :class:`~hw.rtl.cells.mac2.Mac2Cell`.

    Tested range: every weight byte with every activation, for every ``field_bits``; sums by proof (tests/rtl/test_mac2_narrow.py).
    """

    def _product(self, m: Module, operand: Value, activation: Value) -> Value:
        low, high = operand[:DIGIT_BITS], operand[self.field_bits :]
        narrow = Cat(low, low[-1].replicate(PRODUCT_FIELD - DIGIT_BITS), high).as_signed()
        product = Signal(signed(len(narrow) + ACTIVATION_BITS), name="product", reset_less=True)
        m.d.sync += product.eq(narrow * activation)
        lower, upper = product[:PRODUCT_FIELD], product[PRODUCT_FIELD:]
        return Cat(lower, lower[-1].replicate(self.field_bits - PRODUCT_FIELD), upper).as_signed()
