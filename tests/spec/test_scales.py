"""Scales as multipliers and shifts: what is told of a requantise record is what trying every sum finds."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest

from hw.spec.fixed import Rounding
from hw.spec.ops import Requant
from hw.spec.scales import Deviation, Staircase, binary_point, difference, dyadic, fit

EVEN = {"rounding": Rounding.RND_CONV, "low": -8, "high": 7}


def wanted_code(stair: Staircase, total: int) -> int:
    value = total * stair.ratio + stair.offset
    below, part = floor(value), value - floor(value)
    up = {Rounding.TRN: False, Rounding.RND: part >= Fraction(1, 2),
          Rounding.RND_CONV: part > Fraction(1, 2) or (part == Fraction(1, 2) and below % 2 == 1)}[stair.rounding]
    return min(max(below + up, stair.low), stair.high)


def gaps(stair: Staircase, record: Requant) -> np.ndarray:
    """How many codes the record is off, sum by sum."""
    sums = np.arange(stair.least, stair.most + 1)
    return np.abs(record(sums.reshape(1, 1, -1, 1)).ravel() - [wanted_code(stair, int(total)) for total in sums])


def random_staircase(rng: np.random.Generator) -> Staircase:
    denominator = int(rng.choice([16, 1000, 77, 64, 3]))
    ratio = Fraction(int(rng.integers(0, 300)), denominator * int(rng.choice([1, 16, 50])))
    offset = Fraction(int(rng.integers(-4000, 4000)), int(rng.choice([1, 2, 16, 100])))
    least, rounding = int(rng.integers(-3000, 0)), rng.choice(np.array([Rounding.TRN, Rounding.RND, Rounding.RND_CONV], object))
    return Staircase(ratio=ratio, offset=offset, rounding=rounding, low=int(rng.choice([-128, -8, 0])), high=int(rng.choice([7, 127])),
                     least=least, most=least + int(rng.integers(1, 4000)))


def test_the_deviation_is_that_of_every_single_sum() -> None:
    rng, compared, exact = np.random.default_rng(6), 0, 0
    for _ in range(60):
        stair = random_staircase(rng)
        record, (told,) = fit([stair])
        off = gaps(stair, record)
        assert told == Deviation(sums=off.size, differing=int((off > 0).sum()), largest=int(off.max()))
        compared += off.size
        exact += told.differing == 0
    assert compared > 100_000 and 15 < exact < 60


@pytest.mark.parametrize("rounding", [Rounding.RND_CONV, Rounding.TRN])
def test_ratios_of_any_kind(rounding: Rounding) -> None:
    rng, exact = np.random.default_rng(1), 0
    for _ in range(60):
        ratio = Fraction(int(rng.integers(1, 999)), int(rng.integers(1, 99_999)))
        offset = Fraction(int(rng.integers(-99, 99)), int(rng.integers(1, 50)))
        stair = Staircase(ratio=ratio, offset=offset, rounding=rounding, low=-8, high=7, least=-int(rng.integers(0, 2000)),
                          most=int(rng.integers(0, 2000)))
        record, (told,) = fit([stair])
        off = gaps(stair, record)
        assert told == Deviation(sums=off.size, differing=int((off > 0).sum()), largest=int(off.max()))
        exact += told.differing == 0
    assert 10 < exact < 60


@pytest.mark.parametrize(("ratio", "offset"), [
    (Fraction(1, 6), Fraction(0)), (Fraction(5, 14), Fraction(1, 2)), (Fraction(1, 10), Fraction(3)),  # ties of what is wanted
    (Fraction(3, 4), Fraction(1, 2)), (Fraction(3, 8), Fraction(1, 3)), (Fraction(5, 8), Fraction(3, 8)),  # ties of the core
])  # fmt: skip
def test_sums_right_on_a_tie_are_compared_too(ratio: Fraction, offset: Fraction) -> None:
    """Random ratios hardly ever meet a tie."""
    stair = Staircase(ratio=ratio, offset=offset, least=-60, most=60, **EVEN)
    record, (told,) = fit([stair])
    assert told.differing == int((gaps(stair, record) > 0).sum())


@pytest.mark.parametrize("rounding", [Rounding.RND_CONV, Rounding.TRN, Rounding.RND])
def test_a_ratio_of_zero_is_a_constant(rounding: Rounding) -> None:
    """On a tie too: a channel whose weights are all zero has one sum."""
    for halves in range(-20, 21):
        stair = Staircase(ratio=Fraction(0), offset=Fraction(halves, 2), least=0, most=0, rounding=rounding, low=-8, high=7)
        record, (told,) = fit([stair])
        assert (told.differing, int(gaps(stair, record)[0])) == (0, 0)


def test_the_bias_makes_up_for_the_multipliers_error() -> None:
    """The real offset, rounded, would be wrong on 186 sums of a ratio that no multiplier is."""
    stair = Staircase(ratio=Fraction(8, 94_129), offset=Fraction(-1007, 14), rounding=Rounding.TRN, low=-128, high=127, least=-125_352,
                      most=162_079)
    _, (told,) = fit([stair])
    assert told == Deviation(sums=287_432, differing=18, largest=1)


def test_powers_of_two_and_their_biases_are_always_exact() -> None:
    rng = np.random.default_rng(2)
    for _ in range(200):
        ratio = Fraction(2) ** int(rng.integers(-20, 3))
        stair = Staircase(ratio=ratio, offset=ratio * int(rng.integers(-10**6, 10**6)), rounding=Rounding.RND_CONV, low=-128,
                          high=127, least=-10**7, most=10**7)
        record, (told,) = fit([stair])
        assert (int(record.multiplier[0]), told.differing) == (1, 0)


def test_channels_have_one_rounding_and_are_told_together() -> None:
    common = {"offset": Fraction(1, 7), "rounding": Rounding.TRN, "low": -256, "high": 255}
    stairs = [Staircase(ratio=Fraction(255, 30_001), least=-30_000, most=30_000, **common),
              Staircase(ratio=Fraction(1, 4), least=-40, most=40, **common)]
    record, told = fit(stairs)
    found = difference("layer", told)
    assert found is not None and (found.channels, found.sums, found.largest) == (1, 60_082, 1)
    assert found.differing == told[0].differing == int((gaps(stairs[0], fit(stairs[:1])[0]) > 0).sum()) > 0
    assert str(found).startswith(f"layer: {found.differing} of 60082 sums, in 1 channels, give another code, at most 1 away")
    assert difference("layer", told[1:]) is None and record.rounding is Rounding.TRN


@pytest.mark.parametrize(
    "stair", [{"ratio": Fraction(2**60), "offset": Fraction(0)}, {"ratio": Fraction(1, 3), "offset": Fraction(10**12)}]
)
def test_a_scale_that_no_record_holds_is_refused(stair: dict[str, Fraction]) -> None:
    with pytest.raises(ValueError, match="rescale the layer"):
        fit([Staircase(rounding=Rounding.RND_CONV, low=0, high=255, least=0, most=10**6, **stair)])


def test_ratios_that_are_exact() -> None:
    assert dyadic(Fraction(3, 8)) == (3, 3) and dyadic(Fraction(12)) == (3, -2) and dyadic(Fraction(1, 3)) is None
    assert dyadic(Fraction(2) ** 40) == (256, -32) and dyadic(Fraction(1, 2**32)) is None and dyadic(Fraction(65537)) is None
    assert dyadic(Fraction(0)) is None
    assert [binary_point(Fraction(2) ** -n) for n in (-5, 0, 7)] == [-5, 0, 7]
    assert [binary_point(scale) for scale in (Fraction(3, 4), Fraction(1, 3), Fraction(0))] == [None] * 3
