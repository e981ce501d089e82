"""Scales as multipliers and shifts: what an import proves of a requantise record is what trying every sum finds."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from hw.spec.fixed import Rounding
from sw.bridges.qonnx.records import Wanted, dyadic, fit


@pytest.mark.parametrize("rounding", [Rounding.RND_CONV, Rounding.TRN])
def test_records_are_compared_over_every_sum(rounding: Rounding) -> None:
    """The deviation that is told is the one that trying every sum finds."""
    random, exact_ones = np.random.default_rng(1), 0
    for _ in range(60):
        ratio = Fraction(int(random.integers(1, 999)), int(random.integers(1, 99_999)))
        offset = Fraction(int(random.integers(-99, 99)), int(random.integers(1, 50)))
        wanted = Wanted(ratio=ratio, offset=offset, least=-int(random.integers(0, 2000)), most=int(random.integers(0, 2000)))
        record, (told,) = fit([wanted], rounding, -8, 7)
        sums = range(wanted.least, wanted.most + 1)
        real = [s * ratio + offset for s in sums]
        codes = np.clip([v.numerator // v.denominator if rounding is Rounding.TRN else round(v) for v in real], -8, 7)
        gap = np.abs(codes - record(np.array(sums)[:, None])[:, 0])
        assert (told.sums, told.differing, told.largest) == (len(sums), int((gap > 0).sum()), int(gap.max()))
        exact_ones += not told.differing
    assert 10 < exact_ones < 60


@pytest.mark.parametrize(("ratio", "offset"), [
    (Fraction(1, 6), Fraction(0)), (Fraction(5, 14), Fraction(1, 2)), (Fraction(1, 10), Fraction(3)),  # ties of the model
    (Fraction(3, 4), Fraction(1, 2)), (Fraction(3, 8), Fraction(1, 3)), (Fraction(5, 8), Fraction(3, 8)),  # ties of the core
])  # fmt: skip
def test_sums_right_on_a_tie_are_compared_too(ratio: Fraction, offset: Fraction) -> None:
    """Random ratios hardly ever meet a tie; here the model has them, or the core has where the model has none."""
    wanted = Wanted(ratio=ratio, offset=offset, least=-60, most=60)
    record, (told,) = fit([wanted], Rounding.RND_CONV, -8, 7)
    codes = np.clip([round(s * ratio + offset) for s in range(-60, 61)], -8, 7)
    assert told.differing == int((codes != record(np.arange(-60, 61)[:, None])[:, 0]).sum())


def test_ratios_that_are_exact() -> None:
    assert dyadic(Fraction(3, 8)) == (3, 3) and dyadic(Fraction(12)) == (3, -2) and dyadic(Fraction(1, 3)) is None
    assert dyadic(Fraction(2) ** 40) == (256, -32) and dyadic(Fraction(1, 2**32)) is None and dyadic(Fraction(65537)) is None
    assert dyadic(Fraction(0)) is None
