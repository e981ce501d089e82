"""What a cell of the array multiplies by: the two digits of a weight byte, and what cells without a multiplier make of them."""

from __future__ import annotations

import numpy as np

DIGIT_BITS = 4
DIGIT_MIN, DIGIT_MAX = -8, 8
"""Range of a digit; the lower one ends at 7."""

MOST_TERMS = 2
"""Signed powers of two that every digit is a sum of at most so many of: 7 is 8 - 1."""


def weight_digits(byte: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(high, low) of weight bytes 0..255: the stored upper nibble is one less beside a negative low digit."""
    high, low = ((byte >> shift & 15 ^ 8) - 8 for shift in (DIGIT_BITS, 0))
    return high + (low < 0), low


def taken(digit: np.ndarray, terms: int) -> np.ndarray:
    """What a cell takes a digit for: itself where the cell multiplies (``terms`` 0) or adds two powers of two; where it knows one, the
    largest that is not above the magnitude, with the sign. Of the digits that programs have, all are taken for themselves."""
    if terms != 1:
        return digit
    magnitude = np.abs(digit)
    power = 1 << np.maximum(np.frexp(magnitude)[1] - 1, 0)
    return np.where(magnitude == 0, 0, np.sign(digit) * power)


def is_taken(digit: np.ndarray, terms: int) -> np.ndarray:
    """Whether a cell takes digits for themselves."""
    return np.asarray(taken(digit, terms) == digit)
