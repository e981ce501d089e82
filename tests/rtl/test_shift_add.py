"""The cell without a multiplier: every weight byte with every activation, sums, and what it takes digits for."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.hdl import Value

from hw.rtl.cells.mac2 import model
from hw.rtl.cells.shift_add import ShiftAddCell
from hw.spec.deform import DeformArch
from hw.spec.deform.digits import DIGIT_MAX, DIGIT_MIN, is_taken, taken, weight_digits
from tests.rtl.cell_bench import accumulators


def by_definition(weights: np.ndarray, activations: np.ndarray, terms: int, field_bits: int) -> np.ndarray:
    """Products as the packed number of two plain ones, of digits that are taken for what ``terms`` allow."""
    high, low = (taken(digit, terms) for digit in weight_digits(weights))
    return ((high * activations) << field_bits) + low * activations


@pytest.mark.parametrize(("terms", "field_bits"), [(1, 23), (2, 23), pytest.param(2, 16, marks=pytest.mark.slow)])
def test_every_byte_with_every_activation(terms: int, field_bits: int) -> None:
    weights, activations = (grid.reshape(-1) for grid in np.meshgrid(np.arange(256), np.arange(-256, 256), indexing="ij"))
    found = accumulators(ShiftAddCell(field_bits, terms), weights, activations, np.ones(weights.size, bool))
    wanted = by_definition(weights, activations, terms, field_bits)
    assert found.size == 131_072 and np.array_equal(found, wanted) and np.unique(wanted).size > 10_000


def test_two_terms_are_the_multiplier_in_sums() -> None:
    rng = np.random.default_rng(7)
    weights, activations = rng.integers(0, 256, 600), rng.integers(-256, 256, 600)
    weights[:4], activations[:4] = [0x88, 0x08, 0x80, 0x7F], [-256, -256, 255, 255]
    found = accumulators(ShiftAddCell(), weights, activations, np.arange(600) == 0)
    for count in (1, 2, 3, 4, 100, 600):
        assert found[count - 1] == model(weights[:count], activations[:count], 23)


def test_what_digits_are_taken_for() -> None:
    digits = np.arange(DIGIT_MIN, DIGIT_MAX + 1)
    assert np.array_equal(taken(digits, 0), digits) and np.array_equal(taken(digits, 2), digits)
    assert taken(digits, 1).tolist() == [-8, -4, -4, -4, -4, -2, -2, -1, 0, 1, 2, 2, 4, 4, 4, 4, 8]
    assert digits[is_taken(digits, 1)].tolist() == [-8, -4, -2, -1, 0, 1, 2, 4, 8]


class _NeverNegative(ShiftAddCell):
    """A planted fault: the upper product is not less one beside a negative lower one."""

    def _times(self, m, digit: Value, activation: Value, name: str) -> Value:
        found = super()._times(m, digit, activation, name)
        return found if name == "high" else found & 0xFFF


def test_fault_is_found() -> None:
    weights, activations = np.array([0x19, 0x91]), np.array([7, -7])
    found = accumulators(_NeverNegative(), weights, activations, np.ones(2, bool))
    assert not np.array_equal(found, by_definition(weights, activations, 2, 23))


@pytest.mark.parametrize("terms", [0, 3])
def test_terms_that_cannot_be(terms: int) -> None:
    with pytest.raises(ValueError, match=f"must have 1 or 2 terms, not {terms}"):
        ShiftAddCell(23, terms)
    if terms:
        with pytest.raises(ValueError, match=r"weight_terms must be in 0\.\.2"):
            DeformArch(weight_terms=terms)
