"""The narrow multiplier cell against the wide one, by proof over every sequence, and against the definition."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.hdl import Cat, Signal, Value, signed

from hw.rtl.cells.mac2 import ACTIVATION_BITS, WEIGHT_BITS, Mac2Cell, model
from hw.rtl.cells.mac2_narrow import PRODUCT_FIELD, Mac2NarrowCell
from hw.rtl.deform.core import DeformCore
from hw.rtl.formal import Harness, ProofFailed, bounded, cover, prove
from hw.spec.deform import DeformArch
from hw.spec.deform.latency import CELL
from tests.rtl.cell_bench import accumulators


class SameNumbers(Harness):
    """Both cells with the same inputs, any in any cycle: all 48 bits are equal from the first sum on."""

    def __init__(self, field_bits: int, narrow: type[Mac2Cell] = Mac2NarrowCell) -> None:
        self.field_bits, self.narrow = field_bits, narrow

    def describe(self) -> None:
        cells = Mac2Cell(self.field_bits), self.narrow(self.field_bits)
        wide, narrow = (self.part(cell, name) for cell, name in zip(cells, ("wide", "narrow"), strict=True))
        inputs = {"weight": WEIGHT_BITS, "activation": signed(ACTIVATION_BITS), "first": 1}
        given = {name: self.any(shape, name) for name, shape in inputs.items()}
        for cell in cells:
            self.m.d.comb += [getattr(cell, name).eq(value) for name, value in given.items()]
        loaded, multiplied, begun = self.since_reset(1), Signal(name="multiplied"), Signal(name="begun")
        self.m.d.sync += multiplied.eq(loaded)
        with self.m.If(given["first"] & multiplied):
            self.m.d.sync += begun.eq(1)
        self.invariant("order", (~multiplied | loaded) & (~begun | multiplied))
        self.invariant("operands", ~loaded | Cat(wide[name] == narrow[name] for name in ("weight", "activation")).all())
        self.invariant("product", ~multiplied | (wide["product"] == self._widened(narrow["product"])))
        self.check("equal", ~begun | (cells[0].acc == cells[1].acc))
        self.cover("negative_lower", begun & cells[0].acc[self.field_bits - 1] & ~cells[0].acc[-1])

    def _widened(self, product: Signal) -> Value:
        """The number that the fields of the narrow product are, with the upper one ``field_bits`` up."""
        lower, upper = product[:PRODUCT_FIELD].as_signed(), product[PRODUCT_FIELD:].as_signed()
        return (upper << self.field_bits) + (lower & (1 << self.field_bits) - 1)


@pytest.mark.slow
@pytest.mark.parametrize("field_bits", [16, 20, 23])
def test_equal_for_ever(field_bits: int) -> None:
    """Induction over one cycle: equal operands have equal products, and equal products keep the sums equal."""
    prove(SameNumbers(field_bits), 1)
    assert cover(SameNumbers(field_bits), 2 * CELL) == ("negative_lower",)


class _Unextended(Mac2NarrowCell):
    """A planted fault: the lower product is not sign-extended into its field."""

    def _product(self, m, operand: Value, activation: Value) -> Value:
        whole = super()._product(m, operand, activation)
        return (whole & ~(1 << self.field_bits - 1)).as_signed()


def test_fault_is_found() -> None:
    faulty = SameNumbers(23, _Unextended)
    faulty.only = "equal"
    with pytest.raises(ProofFailed, match="equal"):
        bounded(faulty, CELL + 2)


def test_sums_against_the_definition() -> None:
    rng = np.random.default_rng(7)
    weights, activations = rng.integers(0, 256, 600), rng.integers(-256, 256, 600)
    weights[:4], activations[:4] = [0x88, 0x08, 0x80, 0x7F], [-256, -256, 255, 255]
    found = accumulators(Mac2NarrowCell(), weights, activations, np.arange(len(weights)) == 0)
    compared = 0
    for count in (1, 2, 3, 4, 100, 600):
        assert found[count - 1] == model(weights[:count], activations[:count], 23)
        compared += 1
    assert compared == 6


def test_the_cell_is_not_part_of_the_architecture() -> None:
    """Either cell makes a core of the same identity, and no other signal of the core's ports differs."""
    arch = DeformArch(rows=1)
    wide, narrow = DeformCore(arch), DeformCore(arch, Mac2NarrowCell)
    assert wide.signature == narrow.signature
