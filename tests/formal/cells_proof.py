"""The packed multiplier cell, and what unpacks it, against two plain integer accumulators.

No solver multiplies 27 by 9 bits twice and sees that the results agree, so the claim is split at the ring law
``(h * 2**f + l) * a == (h * a) * 2**f + l * a``: :class:`CellProof` shows for every input sequence that the cell sums
``operand * activation`` with ``operand == h * 2**f + l``; :func:`packed_sum_lemma` shows over the integers that such a sum
is two plain sums; :class:`FieldsProof` that the fields of the packed number are those two; :func:`wide_sum_lemma` that these are the
sum of the weights of which they are the digits. :class:`ProductProof` needs no cut, for sums of one product.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import z3
from amaranth.hdl import C, Cat, Mux, Signal, Value, signed

from hw.rtl.cells.mac2 import ACTIVATION_BITS, DIGIT_BITS, PACKED_BITS, WEIGHT_BITS
from hw.rtl.formal import Harness
from hw.spec.deform import LANES
from hw.spec.deform.digits import DIGIT_MAX, DIGIT_MIN, taken
from hw.spec.deform.latency import CELL


def digits(weight: Value) -> tuple[Value, Value]:
    """(low, high) of a weight byte as ``pack_digits`` stores them: the upper nibble is one less beside a negative low digit."""
    low = weight[:DIGIT_BITS].as_signed()
    return low, weight[DIGIT_BITS:].as_signed() + (low < 0)


def packed_sum_lemma(field_bits: int) -> bool:
    """One more product keeps ``acc == high * 2**field_bits + low``, over all integers."""
    acc, low_sum, high_sum, low, high, activation = z3.Ints("acc low_sum high_sum low high activation")
    scale = 1 << field_bits
    after = acc + (high * scale + low) * activation
    sums = (high_sum + high * activation) * scale + (low_sum + low * activation)
    solver = z3.Solver()
    solver.add(acc == high_sum * scale + low_sum, z3.simplify(after - sums, som=True) != 0)
    return solver.check() == z3.unsat


def wide_sum_lemma() -> bool:
    """Sixteen times the sum of the upper digits and the sum of the lower ones is the sum of the weights, over all integers, by step."""
    low_sum, high_sum, low, high, activation = z3.Ints("low_sum high_sum low high activation")
    scale = 1 << DIGIT_BITS
    before, after = high_sum * scale + low_sum, (high_sum + high * activation) * scale + low_sum + low * activation
    step = z3.simplify(after - before - (high * scale + low) * activation, som=True)
    return z3.is_int_value(step) and step.as_long() == 0


class CellProof(Harness):
    """Any sequence of weight bytes, activations and restarts, from any state.

    Checks: ``operand``, the operand's bits are the number ``h * 2**field_bits + l``; ``sum``, from the first ``first`` on the
    accumulator is the sum of ``operand * activation`` modulo 2**48.
    """

    def __init__(self, module: ModuleType, field_bits: int) -> None:
        self._module, self._field = module, field_bits

    def describe(self) -> None:
        m, dut = self.m, self._module.Mac2Cell(self._field)
        self.part(dut)
        weight, activation = self.any(WEIGHT_BITS, "weight"), self.any(signed(ACTIVATION_BITS), "activation")
        first = self.any(1, "first")
        m.d.comb += [dut.weight.eq(weight), dut.activation.eq(activation), dut.first.eq(first)]
        product = self._product(self.past(weight, "weight"), self.past(activation, "activation"))
        total, begun = Signal(signed(PACKED_BITS), name="total", reset_less=True), Signal(name="begun")
        m.d.sync += total.eq(Mux(first, 0, total) + product)
        with m.If(first & self.since_reset(CELL - 1)):
            m.d.sync += begun.eq(1)
        self.check("sum", ~begun | (dut.acc == total))
        self.cover("negative", begun & (total < -1000))
        self.cover("restarted", begun & first & (total != 0))

    def _product(self, weight: Value, activation: Value) -> Signal:
        low, high = digits(weight)
        bits = Cat(weight[:DIGIT_BITS], low[-1].replicate(self._field - DIGIT_BITS), weight[DIGIT_BITS:]).as_signed()
        self.check("operand", bits == (high << self._field) + low)
        product = Signal(signed(len(bits) + ACTIVATION_BITS), name="product", reset_less=True)
        self.m.d.sync += product.eq(bits * activation)
        return product


class ShiftAddProof(Harness):
    """The cell without a multiplier behind what recodes its weights: any weight bytes, activations and restarts, from any state.

    Checks: ``low``, ``high``: from the first ``first`` on each accumulator is the sum of its digit, as ``terms`` take it, times the
    activation, modulo 2**field_bits.
    """

    def __init__(self, module: ModuleType, field_bits: int, terms: int) -> None:
        self._module, self._field, self._terms = module, field_bits, terms

    def describe(self) -> None:
        m, dut = self.m, self._module.ShiftAddCell(self._field, self._terms)
        self.part(dut)
        weight, activation = self.any(WEIGHT_BITS, "weight"), self.any(signed(ACTIVATION_BITS), "activation")
        first = self.any(1, "first")
        code = self._module.recoded(m, weight, self._terms, "code")
        m.d.comb += [dut.weight.eq(code), dut.activation.eq(activation), dut.first.eq(first)]
        begun = Signal(name="begun")
        with m.If(first & self.since_reset(CELL - 1)):
            m.d.sync += begun.eq(1)
        weights, activations = self.past(weight, "weight"), self.past(activation, "activation")
        for place, (name, digit) in enumerate(zip(("low", "high"), digits(weights), strict=True)):
            total = self._total(m, digit, activations, first, name)
            found = dut.acc.as_unsigned()[place * self._field : (place + 1) * self._field].as_signed()
            self.check(name, ~begun | (found == total))
        self.cover("negative", begun & (total < -1000))
        self.cover("restarted", begun & first & (total != 0))

    def _total(self, m: Any, digit: Value, activation: Value, first: Value, name: str) -> Signal:
        """The sum by multiplication, as late as the cell's."""
        product, total = (Signal(signed(self._field), name=f"{name}_{what}", reset_less=True) for what in ("product", "total"))
        with m.Switch(digit):
            for value in range(DIGIT_MIN, DIGIT_MAX + (len(digit) > DIGIT_BITS)):
                with m.Case(value):
                    m.d.sync += product.eq(activation * int(taken(np.array(value), self._terms)))
        m.d.sync += total.eq(Mux(first, 0, total) + product)
        return total


class ProductProof(Harness):
    """One product through the cell and ``Unpack``, for every weight byte with the upper nibble ``upper`` and every activation,
    against plain multiplication. There are sixteen cells, one for each byte: with constant weights a solver is done at once.

    Checks: ``low`` and ``high``, of the two packed weights; ``wide``, of the byte as one weight of 8 bits, of which the packed
    ones are the digits.
    """

    def __init__(self, cells: ModuleType, drain: ModuleType, field_bits: int, upper: int) -> None:
        self._cells, self._drain, self._field, self._upper = cells, drain, field_bits, upper

    def describe(self) -> None:
        m, unpack = self.m, self._drain.Unpack(self._field)
        self.part(unpack, "unpack")
        activation = self.constant(signed(ACTIVATION_BITS), "activation")
        high, wide = self.constant(1, "high"), self.constant(1, "wide")
        m.d.comb += [unpack.en.eq(1), unpack.high.eq(high), unpack.wide.eq(wide)]
        weights = [C(self._upper << DIGIT_BITS | lane, WEIGHT_BITS) for lane in range(LANES)]
        for lane, weight in enumerate(weights):
            cell = self._cells.Mac2Cell(self._field)
            self.part(cell, f"cell_{lane}")
            m.d.comb += [
                cell.weight.eq(weight),
                cell.activation.eq(activation),
                cell.first.eq(1),
                unpack.packed[lane].eq(cell.acc),
            ]
        ready = self.since_reset(CELL + 1)
        low, up = ([digits(weight)[side] for weight in weights] for side in range(2))
        for name, applies, factors in (
            ("low", ~high & ~wide, low),
            ("high", high & ~wide, up),
            ("wide", wide, [weight.as_signed() for weight in weights]),
        ):
            equal = Cat(unpack.acc[lane] == factor * activation for lane, factor in enumerate(factors)).all()
            self.check(name, ~(ready & applies) | equal)
            self.cover(name, ready & applies & (unpack.acc[LANES - 1] < -8))


class FieldsProof(Harness):
    """``Unpack``, lane ``lane`` of sixteen, beside arbitrary other lanes: any two sums that fit the packed number.

    The lower sum has ``field_bits`` bits; the upper one is such that the packed number has 48. Checks ``low``, ``high``, ``wide``
    (16 * high + low) and ``off`` (zero).
    """

    def __init__(self, module: ModuleType, field_bits: int, lane: int) -> None:
        self._module, self._field, self._lane = module, field_bits, lane

    def describe(self) -> None:
        m, dut = self.m, self._module.Unpack(self._field)
        self.part(dut)
        en, high, wide = (self.any(1, name) for name in ("en", "high", "wide"))
        m.d.comb += [dut.en.eq(en), dut.high.eq(high), dut.wide.eq(wide)]
        m.d.comb += [
            dut.packed[lane].eq(self.any(PACKED_BITS, f"packed_{lane}")) for lane in range(LANES) if lane != self._lane
        ]
        low_sum, high_sum = self._sums(dut.packed[self._lane])
        acc, ready = dut.acc[self._lane], self.since_reset(1)
        en, high, wide, low_sum, high_sum = (
            self.past(v, n)
            for v, n in ((en, "en"), (high, "high"), (wide, "wide"), (low_sum, "low_sum"), (high_sum, "high_sum"))
        )
        for name, applies, wanted in (
            ("low", en & ~high & ~wide, low_sum),
            ("high", en & high & ~wide, high_sum),
            ("wide", en & wide, (high_sum << DIGIT_BITS) + low_sum),
            ("off", ~en, 0),
        ):
            self.check(name, ~(ready & applies) | (acc == wanted))
            self.cover(name, ready & applies & (high_sum < 0) & (low_sum < 0))

    def _sums(self, packed: Value) -> tuple[Signal, Signal]:
        field = self._field
        low_sum, high_sum = self.any(signed(field), "low_sum"), self.any(signed(PACKED_BITS - field + 1), "high_sum")
        both = self.named("both", (high_sum << field) + low_sum)
        self.assume(both == both[:PACKED_BITS].as_signed())
        self.m.d.comb += packed.eq(both)
        return low_sum, high_sum
