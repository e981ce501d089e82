"""Projections to few one bits and few signed digits, against brute force over every code."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest

from hw.spec import hot

WIDTHS, DIGITS = range(4, 11), range(1, 5)


def brute_k_hot(width: int, digits: int) -> np.ndarray:
    """By definition: every choice of bits, both signs."""
    sums = {sum(1 << place for place in places) for count in range(digits + 1) for places in combinations(range(width - 1), count)}
    return np.array(sorted({sign * value for value in sums for sign in (1, -1)}))


def brute_signed_digits(width: int, digits: int) -> np.ndarray:
    """By definition: every sum of signed powers up to 2**(width - 1), kept if it fits the width."""
    terms = [0, *(sign << place for place in range(width) for sign in (1, -1))]
    reached = {0}
    for _ in range(digits):
        reached = {value + term for value, term in product(reached, terms)}
    return np.array(sorted(value for value in reached if abs(value) < 1 << width - 1))


def nearest(values: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """The nearest code of each value; ties to the larger magnitude."""
    above = np.clip(np.searchsorted(codes, values), 1, len(codes) - 1)
    low, high = codes[above - 1], codes[above]
    down, up = np.abs(values - low), np.abs(values - high)
    larger = np.where(np.abs(high) > np.abs(low), high, low)
    return np.where(down < up, low, np.where(up < down, high, larger))


def inputs(width: int) -> np.ndarray:
    """A grid of quarter steps to beyond the range, values beside every half, and random ones."""
    most = 1 << width - 1
    halves = np.arange(-2 * most, 2 * most + 1) / 2
    beside = np.concatenate([np.nextafter(halves, np.inf), np.nextafter(halves, -np.inf)])
    random = np.random.default_rng(width).normal(0, most / 2, 2000)
    return np.concatenate([np.arange(-5 * most, 5 * most + 1) / 4, beside, random, [np.inf, -np.inf, 1e300, -1e300, 5e-324]])


FAMILIES = ((hot.project_k_hot, brute_k_hot, hot.k_hot), (hot.project_signed_digits, brute_signed_digits, hot.signed_digits))


@pytest.mark.parametrize("digits", DIGITS)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("project", "brute", "listed"), FAMILIES, ids=["k_hot", "signed_digits"])
def test_projection_is_the_nearest_code(project, brute, listed, width: int, digits: int) -> None:
    codes, values = brute(width, digits), inputs(width)
    assert np.array_equal(listed(width, digits), codes)
    found, wanted = project(values, width=width, digits=digits), nearest(np.clip(values, -1e6, 1e6), codes)
    assert found.dtype == np.int64 and np.isin(found, codes).all()
    wrong = np.flatnonzero(found != wanted)
    assert not len(wrong), [(values[i], int(found[i]), int(wanted[i])) for i in wrong[:5]]
    assert len(values) > 2000


@pytest.mark.parametrize("digits", DIGITS)
def test_terms_add_up_to_the_codes(digits: int) -> None:
    codes = hot.signed_digits(10, digits)
    signs, exponents = hot.signed_digit_terms(codes, digits)
    assert signs.shape == exponents.shape == (*codes.shape, digits)
    assert np.array_equal((signs.astype(np.int64) << exponents).sum(-1), codes)
    assert set(np.unique(signs)) <= {-1, 0, 1} and exponents.max() == (9 if digits > 1 else 8) and (exponents[signs == 0] == 0).all()


def test_all_widths_project_their_own_codes() -> None:
    rng, compared = np.random.default_rng(1), 0
    for width in range(2, hot.MAX_WIDTH + 1):
        for digits in DIGITS:
            values = rng.integers(-(1 << width - 1) + 1, 1 << width - 1, 300).astype(float)
            for project, allowed in ((hot.project_k_hot, hot.is_k_hot), (hot.project_signed_digits, hot.is_signed_digits)):
                codes = project(values, width=width, digits=digits)
                assert allowed(codes, digits).all() and np.abs(codes).max() < 1 << width - 1
                assert np.array_equal(project(codes.astype(float), width=width, digits=digits), codes)
                compared += len(codes)
    assert compared == 2 * 31 * 4 * 300


@pytest.mark.parametrize(("arguments", "words"), [
    ({"width": 1, "digits": 1}, r"width must be 2\.\.32"), ({"width": 33, "digits": 1}, r"width must be 2\.\.32"),
    ({"width": 8, "digits": 0}, "digits must be at least 1"),
])  # fmt: skip
def test_bad_parameters(arguments: dict[str, int], words: str) -> None:
    for project in (hot.project_k_hot, hot.project_signed_digits):
        with pytest.raises(ValueError, match=words):
            project([1.0], **arguments)


def test_bad_values() -> None:
    with pytest.raises(ValueError, match="NaN"):
        hot.project_k_hot([1.0, float("nan")], width=8, digits=2)
    with pytest.raises(ValueError, match="at most 2 signed powers of two, and 21 is not"):
        hot.signed_digit_terms([4, 21], 2)
    with pytest.raises(TypeError, match="integers"):
        hot.is_k_hot([1.5], 2)
