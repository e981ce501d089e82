"""The narrow multiplier cell against the wide one, by proof over every sequence, and against the definition."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.hdl import Signal, Value, signed
from amaranth.sim import Simulator

from hw.rtl.cells.mac2 import ACTIVATION_BITS, WEIGHT_BITS, Mac2Cell, model
from hw.rtl.cells.mac2_narrow import Mac2NarrowCell
from hw.rtl.deform.core import DeformCore
from hw.rtl.formal import Harness, ProofFailed, cover, prove
from hw.spec.deform import DeformArch
from hw.spec.deform.latency import CELL


class SameNumbers(Harness):
    """Both cells with the same inputs, any in any cycle: all 48 bits are equal from the first sum on."""

    def __init__(self, field_bits: int, narrow: type[Mac2Cell] = Mac2NarrowCell) -> None:
        self.field_bits, self.narrow = field_bits, narrow

    def describe(self) -> None:
        wide, narrow = Mac2Cell(self.field_bits), self.narrow(self.field_bits)
        self.m.submodules.wide, self.m.submodules.narrow = wide, narrow
        inputs = {"weight": WEIGHT_BITS, "activation": signed(ACTIVATION_BITS), "first": 1, "en": 1}
        given = {name: self.any(shape, name) for name, shape in inputs.items()}
        for cell in (wide, narrow):
            self.m.d.comb += [getattr(cell, name).eq(value) for name, value in given.items()]
        begun = Signal()
        begins = self.past(given["first"] & given["en"] & self.after_reset, "begins", CELL - 1)
        with self.m.If(begins & self.since_reset(CELL)):
            self.m.d.sync += begun.eq(1)
        self.check("equal", ~begun | (wide.acc == narrow.acc))
        self.cover("negative_lower", begun & wide.acc[self.field_bits - 1] & ~wide.acc[-1])


@pytest.mark.slow
@pytest.mark.parametrize("field_bits", [16, 20, 23])
def test_equal_for_ever(field_bits: int) -> None:
    """Induction over CELL + 1 cycles: operands and products are those of the window, the sums were equal before it."""
    prove(SameNumbers(field_bits), CELL + 1)
    assert cover(SameNumbers(field_bits), 2 * CELL) == ("negative_lower",)


class _Unextended(Mac2NarrowCell):
    """A planted fault: the lower product is not sign-extended into its field."""

    def _product(self, m, operand: Value, activation: Value) -> Value:
        whole = super()._product(m, operand, activation)
        return (whole & ~(1 << self.field_bits - 1)).as_signed()


def test_fault_is_found() -> None:
    with pytest.raises(ProofFailed, match="equal"):
        prove(SameNumbers(23, _Unextended), CELL + 1, search=2 * CELL)


def test_sums_against_the_definition() -> None:
    rng = np.random.default_rng(7)
    weights, activations = rng.integers(0, 256, 600), rng.integers(-256, 256, 600)
    weights[:4], activations[:4] = [0x88, 0x08, 0x80, 0x7F], [-256, -256, 255, 255]
    dut, found = Mac2NarrowCell(), []

    async def testbench(ctx) -> None:
        ctx.set(dut.en, 1)
        for k in range(len(weights) + CELL):
            if k < len(weights):
                ctx.set(dut.weight, int(weights[k]))
                ctx.set(dut.activation, int(activations[k]))
                ctx.set(dut.first, k == 0)
            await ctx.tick()
            found.append(ctx.get(dut.acc))

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(testbench)
    sim.run()
    compared = 0
    for count in (1, 2, 3, 4, 100, 600):
        assert found[count - 1 + CELL - 1] == model(weights[:count], activations[:count], 23)
        compared += 1
    assert compared == 6


def test_the_cell_is_not_part_of_the_architecture() -> None:
    """Either cell makes a core of the same identity, and no other signal of the core's ports differs."""
    arch = DeformArch(rows=1)
    wide, narrow = DeformCore(arch), DeformCore(arch, Mac2NarrowCell)
    assert wide.signature == narrow.signature
