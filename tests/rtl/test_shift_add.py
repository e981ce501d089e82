"""The cell without a multiplier: every weight byte with every activation, sums, and what it takes digits for."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from hw.rtl.cells import shift_add
from hw.rtl.cells.mac2 import WEIGHT_BITS, model, unpack
from hw.rtl.cells.shift_add import ShiftAddCell, recoded, sums_of
from hw.spec.deform import DeformArch
from hw.spec.deform.digits import DIGIT_MAX, DIGIT_MIN, is_taken, taken, weight_digits
from tests.rtl.cell_bench import accumulators


def by_definition(weights: np.ndarray, activations: np.ndarray, terms: int) -> np.ndarray:
    """Products (2, ...) of the low and the high digits, of what ``terms`` take them for."""
    high, low = (taken(digit, terms) for digit in weight_digits(weights))
    return np.stack([low * activations, high * activations])


class Recoded(wiring.Component):
    """A cell behind what an array puts before its first row."""

    def __init__(self, cell: ShiftAddCell) -> None:
        self.cell = cell
        super().__init__({**cell.signature.members, "weight": In(WEIGHT_BITS)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.cell = cell = self.cell
        m.d.comb += [
            cell.weight.eq(recoded(m, self.weight, cell.terms, "code")),
            cell.activation.eq(self.activation),
            cell.first.eq(self.first),
            self.acc.eq(cell.acc),
        ]
        return m


def sums(cell: ShiftAddCell, weights: np.ndarray, activations: np.ndarray, firsts: np.ndarray) -> np.ndarray:
    """Sums (2, ...) of the low and the high digits after each pair."""
    return np.stack(sums_of(accumulators(Recoded(cell), weights, activations, firsts), cell.field_bits))


@pytest.mark.parametrize(("terms", "field_bits"), [(1, 23), (2, 23), pytest.param(2, 16, marks=pytest.mark.slow)])
def test_every_byte_with_every_activation(terms: int, field_bits: int) -> None:
    weights, activations = (grid.reshape(-1) for grid in np.meshgrid(np.arange(256), np.arange(-256, 256), indexing="ij"))
    found = sums(ShiftAddCell(field_bits, terms), weights, activations, np.ones(weights.size, bool))
    wanted = by_definition(weights, activations, terms)
    assert found.size == 2 * 131_072 and np.array_equal(found, wanted) and np.unique(wanted).size > 1000


@pytest.mark.parametrize("terms", [1, 2])
def test_sums_wrap_each_for_itself(terms: int) -> None:
    rng = np.random.default_rng(7)
    weights, activations = rng.integers(0, 256, 600), rng.integers(-256, 256, 600)
    weights[:100], activations[:100] = 0x88, -256
    found = sums(ShiftAddCell(16, terms), weights, activations, np.arange(600) == 0)
    wanted = by_definition(weights, activations, terms).cumsum(axis=1)
    assert np.array_equal(found, (wanted + (1 << 15)) % (1 << 16) - (1 << 15)) and (found != wanted).any(axis=1).all()


def test_two_terms_are_the_multiplier_in_sums() -> None:
    rng = np.random.default_rng(7)
    weights, activations = rng.integers(0, 256, 600), rng.integers(-256, 256, 600)
    weights[:4], activations[:4] = [0x88, 0x08, 0x80, 0x7F], [-256, -256, 255, 255]
    found = sums(ShiftAddCell(), weights, activations, np.arange(600) == 0)
    for count in (1, 2, 3, 4, 100, 600):
        assert tuple(found[:, count - 1]) == unpack(model(weights[:count], activations[:count], 23), 23)


def test_what_digits_are_taken_for() -> None:
    digits = np.arange(DIGIT_MIN, DIGIT_MAX + 1)
    assert np.array_equal(taken(digits, 0), digits) and np.array_equal(taken(digits, 2), digits)
    assert taken(digits, 1).tolist() == [-8, -4, -4, -4, -4, -2, -2, -1, 0, 1, 2, 2, 4, 4, 4, 4, 8]
    assert digits[is_taken(digits, 1)].tolist() == [-8, -4, -2, -1, 0, 1, 2, 4, 8]


def test_fault_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: additions without the carry, so that one is missing to what is subtracted."""
    monkeypatch.setattr(shift_add, "_added", lambda a, b, carry: a + b)
    weights, activations = np.array([0x12, 0xA1]), np.array([7, -7])
    found = sums(ShiftAddCell(terms=1), weights, activations, np.ones(2, bool))
    assert (found != by_definition(weights, activations, 1)).tolist() == [[False, False], [False, True]]


@pytest.mark.parametrize("terms", [0, 3])
def test_terms_that_cannot_be(terms: int) -> None:
    with pytest.raises(ValueError, match=f"must have 1 or 2 terms, not {terms}"):
        ShiftAddCell(23, terms)
    if terms:
        with pytest.raises(ValueError, match=r"weight_terms must be in 0\.\.2"):
            DeformArch(weight_terms=terms)
