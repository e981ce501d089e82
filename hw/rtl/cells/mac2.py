"""Multiplier cell: two weights of 4 bits times one activation, accumulated in one 48-bit register.

The weight byte ``w`` becomes the operand ``A = (sext(w[7:4]) << field_bits) + (sext(w[3:0]) mod 2**field_bits)``, which is mere
wiring, and ``P`` sums ``A * activation``. Its lower ``field_bits`` hold the sum for the lower digit, the rest the sum for the upper
digit, less one where the lower sum is negative (see :func:`unpack`). For the digits (h, l) store :func:`pack_digits` (h, l): its
upper nibble is one less where l is negative, so that A is exactly ``h * 2**field_bits + l``.

With ``field_bits`` = 23 the operands (27 x 9 bits), the three registers and the multiplexer of ``first`` are those of a DSP48E2:
A/B registers, MREG, PREG; ``first`` selects 0 instead of P at the Z multiplexer. A cell has no enable: where nothing is to be
added the activation is zero.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.spec.deform.latency import CELL

WEIGHT_BITS = 8
DIGIT_BITS = 4
ACTIVATION_BITS = 9
PACKED_BITS = 48


def pack_digits(high: int, low: int) -> int:
    """The weight byte of two digits. With a negative ``low`` the upper digit must be above -8."""
    if not (-8 <= low <= 7 and -8 <= high - (low < 0) <= 7):
        raise ValueError(f"digits must be in -8..7 (the upper one -7..7 beside a negative lower one), not {high} and {low}")
    return ((high - (low < 0)) & 15) << DIGIT_BITS | low & 15


def unpack(packed: int, field_bits: int) -> tuple[int, int]:
    """(low, high) sums in a packed accumulator, which is a signed 48-bit number."""
    half = 1 << (field_bits - 1)
    low = ((packed + half) & (2 * half - 1)) - half
    return low, (packed >> field_bits) + (low < 0)


def operand(weight: int, field_bits: int) -> int:
    """A of a weight byte: a signed number of field_bits + 4 bits."""
    high, low = weight >> DIGIT_BITS, weight & 15
    high, low = high - 16 * (high > 7), low - 16 * (low > 7)
    return (high << field_bits) + low % (1 << field_bits)


def model(weights: npt.ArrayLike, activations: npt.ArrayLike, field_bits: int) -> int:
    """The accumulator after the products of two (K,) arrays, bytes and signed activations; ``first`` is set for the first."""
    pairs = zip(np.asarray(weights).tolist(), np.asarray(activations).tolist(), strict=True)
    total = sum(operand(weight, field_bits) * activation for weight, activation in pairs)
    half = 1 << (PACKED_BITS - 1)
    return (total + half) % (2 * half) - half


class Mac2Cell(wiring.Component):
    """The cell. Latency CELL: operands of cycle t show in ``acc`` in cycle t + CELL; one pair of products per cycle.

    Parameters: ``field_bits``, 16..23: place of the upper sum.

    Members: ``weight`` (the byte), ``activation`` (9 bits, signed), ``first`` (the sum starts anew with the product of the operands
    that came CELL - 1 cycles before: one delay line serves all cells of a row), ``acc`` (48 bits, signed, wraps; undefined until
    the first ``first``).
    """

    def __init__(self, field_bits: int = 23) -> None:
        if not 16 <= field_bits <= 23:
            raise ValueError(f"multiplier cell must have field_bits in 16..23, not {field_bits}")
        self.field_bits = field_bits
        super().__init__({
            "weight": In(WEIGHT_BITS),
            "activation": In(signed(ACTIVATION_BITS)),
            "first": In(1),
            "acc": Out(signed(PACKED_BITS)),
        })

    @property
    def latency(self) -> int:
        """Operand, product and accumulator register."""
        return 3

    def elaborate(self, platform: object) -> Module:
        if self.latency != CELL:
            raise ValueError(f"multiplier cell must have the latency CELL = {CELL}, not {self.latency}")
        m = Module()
        weight = Signal(WEIGHT_BITS, reset_less=True)
        activation = Signal(signed(ACTIVATION_BITS), reset_less=True)
        acc = Signal(signed(PACKED_BITS), reset_less=True)
        low, high = weight[:DIGIT_BITS].as_signed(), weight[DIGIT_BITS:]
        operand = Cat(low, low[-1].replicate(self.field_bits - DIGIT_BITS), high).as_signed()
        m.d.sync += [weight.eq(self.weight), activation.eq(self.activation)]
        product = self._product(m, operand, activation)
        m.d.sync += acc.eq(Mux(self.first, 0, acc) + product)
        m.d.comb += self.acc.eq(acc)
        return m

    def _product(self, m: Module, operand: Value, activation: Value) -> Value:
        """The product, from a register: what a variant of the cell computes in another way."""
        product = Signal(signed(self.field_bits + DIGIT_BITS + ACTIVATION_BITS), name="product", reset_less=True)
        m.d.sync += product.eq(operand * activation)
        return product
