"""Proofs of the packed multiplier cell and of its unpacking, and the faults that they must find."""

from __future__ import annotations

import pytest

from hw.rtl.cells import mac2, shift_add
from hw.rtl.cells.mac2 import pack_digits
from hw.rtl.deform import pw_drain
from hw.rtl.formal import bounded, cover, prove
from hw.spec.deform import LANES
from hw.spec.deform.latency import CELL
from tests.formal.cells_proof import CellProof, FieldsProof, ProductProof, ShiftAddProof, packed_sum_lemma, wide_sum_lemma
from tests.formal.mutants import Fault, expect_counterexample, parameters

FIELD_BITS = 23
"""Of the cores; the cell allows 16 to 23."""

CELL_FAULTS = (
    Fault(name="low digit unsigned", module=mac2, old="low[-1].replicate(", new="(low[-1] & 0).replicate(", fails="sum"),
    Fault(name="sum never restarts", module=mac2, old="Mux(self.first, 0, acc)", new="acc", fails="sum"),
    Fault(
        name="restarts from the product",
        module=mac2,
        old="Mux(self.first, 0, acc)",
        new="Mux(self.first, product, acc)",
        fails="sum",
    ),
    Fault(
        name="one product skipped",
        module=mac2,
        old="weight.eq(self.weight), activation",
        new="weight.eq(Mux(self.first, 0, self.weight)), activation",
        fails="sum",
    ),
    Fault(
        name="activation unsigned",
        module=mac2,
        old="activation = Signal(signed(ACTIVATION_BITS)",
        new="activation = Signal((ACTIVATION_BITS)",
        fails="sum",
    ),
)
UNPACK_FAULTS = (
    Fault(
        name="no carry from a negative low sum",
        module=pw_drain,
        old=".as_signed() + (0 if self.apart else low[-1]))",
        new=".as_signed())",
        fails="high",
    ),
    Fault(name="low sum unsigned", module=pw_drain, old="packed[: self.field_bits].as_signed()", new="packed[: self.field_bits]",
          fails="low"),
    Fault(name="digits one bit closer", module=pw_drain, old="C(0, DIGIT_BITS)", new="C(0, DIGIT_BITS - 1)", fails="wide"),
    Fault(name="enable ignored", module=pw_drain, old="Mux(self.en, Mux(", new="Mux(1, Mux(", fails="off"),
)  # fmt: skip


SHIFT_ADD_FAULTS = (
    Fault(name="nothing carried in", module=shift_add, old="(Cat(carry, a)", new="(Cat(0 & carry, a)", fails="low"),
    Fault(
        name="shifted in zeros",
        module=shift_add,
        old="Cat(power.negative, inverted)",
        new="Cat(power.negative & 0, inverted)",
        fails="low",
    ),
    Fault(name="no long shift", module=shift_add, old="self._far.eq(power.exponent[1])", new="self._far.eq(0)", fails="low"),
    Fault(name="sum never restarts", module=shift_add, old="Mux(self.first, 0, acc)", new="acc", fails="low"),
    Fault(name="no borrow of the low digit", module=shift_add, old=".as_signed() + low[-1])", new=".as_signed())", fails="high"),
    Fault(name="a term always there", module=shift_add, old="power.there.eq(sign != 0)", new="power.there.eq(1)", fails="low"),
)


def test_every_wide_weight_is_two_digits() -> None:
    compared = 0
    for weight in range(-128, 128):
        low = (weight + 8) % 16 - 8
        high = (weight - low) // 16
        assert weight == 16 * high + low and -8 <= low <= 7 and -8 <= high <= 8
        if high - (low < 0) <= 7:
            byte = pack_digits(high, low)
            assert (high - (low < 0)) % 16 == byte >> 4 and low % 16 == byte & 15
            compared += 1
    assert compared == 256


@pytest.mark.parametrize("field_bits", [16, FIELD_BITS])
def test_cell(field_bits: int) -> None:
    prove(CellProof(mac2, field_bits), CELL)
    assert packed_sum_lemma(field_bits) and wide_sum_lemma()


def test_cell_is_exercised() -> None:
    assert cover(CellProof(mac2, FIELD_BITS), 8) == ("negative", "restarted")


@parameters(CELL_FAULTS)
def test_faulty_cell(fault: Fault) -> None:
    expect_counterexample(fault, lambda module: CellProof(module, FIELD_BITS), 7)


@pytest.mark.parametrize("terms", [1, 2])
def test_shift_add_cell(terms: int) -> None:
    prove(ShiftAddProof(shift_add, FIELD_BITS, terms), CELL)


def test_shift_add_cell_is_exercised() -> None:
    assert cover(ShiftAddProof(shift_add, FIELD_BITS, 2), 8) == ("negative", "restarted")


@parameters(SHIFT_ADD_FAULTS)
def test_faulty_shift_add_cell(fault: Fault) -> None:
    expect_counterexample(fault, lambda module: ShiftAddProof(module, FIELD_BITS, 2), 7)


def test_unpack() -> None:
    bounded(FieldsProof(pw_drain, FIELD_BITS, LANES - 1), 2)
    assert cover(FieldsProof(pw_drain, FIELD_BITS, LANES - 1), 2) == ("high", "low", "off", "wide")


@pytest.mark.slow
@pytest.mark.parametrize("lane", range(LANES - 1))
def test_unpack_in_every_lane(lane: int) -> None:
    bounded(FieldsProof(pw_drain, FIELD_BITS, lane), 2)


@parameters(UNPACK_FAULTS)
def test_faulty_unpack(fault: Fault) -> None:
    expect_counterexample(fault, lambda module: FieldsProof(module, FIELD_BITS, 0), 2)


@pytest.mark.slow
@pytest.mark.parametrize("upper", range(16))
def test_product(upper: int) -> None:
    bounded(ProductProof(mac2, pw_drain, FIELD_BITS, upper), CELL + 2)


def test_product_is_exercised() -> None:
    assert cover(ProductProof(mac2, pw_drain, FIELD_BITS, 9), CELL + 2) == ("high", "low", "wide")


def test_faulty_product() -> None:
    """The digit-split weight whose upper digit does not carry."""
    carry = ".as_signed() + (0 if self.apart else low[-1]))"
    fault = Fault(name="no carry", module=pw_drain, old=carry, new=".as_signed())", fails="wide")
    expect_counterexample(fault, lambda module: ProductProof(mac2, module, FIELD_BITS, 9), CELL + 2)
