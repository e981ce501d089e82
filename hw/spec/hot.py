"""Weights without a multiplier: codes of few one bits (K-hot), or sums of few signed powers of two (signed digits).

A product with such a weight is at most K shifts and additions. The projections give the *nearest* such code to a real value;
that they do is compared with brute force (``tests/spec/test_hot.py``).

- K-hot: the magnitude has at most ``digits`` one bits; ``width`` counts the sign, so it is below ``2**(width - 1)``.
- Signed digits: a sum of at most ``digits`` terms ``+-2**e``, 0 <= e <= width - 1, with a magnitude below ``2**(width - 1)``:
  16 - 2 is a code of 5 bits and two digits.

Both follow "Trainable Fixed-Point Quantization for Deep Learning Acceleration on FPGAs" (QFX, 2024), whose projection truncates;
here the last digit is rounded to nearest, which is optimal.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

__all__ = ["MAX_WIDTH", "is_k_hot", "is_signed_digits", "k_hot", "largest_k_hot", "project_k_hot", "project_signed_digits",
           "signed_digit_terms", "signed_digits"]

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

MAX_WIDTH = 32
"""Bits, sign included."""


def project_k_hot(values: npt.ArrayLike, *, width: int, digits: int) -> Codes:
    """The nearest K-hot code of each value; between two equally near the one with the larger magnitude.

    Parameters
    ----------
    values : finite floats in units of the code (a weight times 2**frac), any shape
    width : bits of a code, sign included, 2..32
    digits : K, the most one bits, at least 1

    Raises ValueError for NaN and for parameters out of range; infinity becomes the largest code.
    """
    _check(width, digits)
    return _by_magnitude(values, lambda magnitude: np.minimum(_greedy(magnitude, digits, _one_bit), largest_k_hot(width, digits)))


def project_signed_digits(values: npt.ArrayLike, *, width: int, digits: int) -> Codes:
    """The nearest sum of at most ``digits`` signed powers of two; parameters and errors as of :func:`project_k_hot`."""
    _check(width, digits)
    largest = float(_largest_signed_digits(width, digits))
    return _by_magnitude(values, lambda magnitude: np.minimum(_greedy(magnitude, digits, _nearest_power), largest))


def largest_k_hot(width: int, digits: int) -> int:
    """The largest code: ``digits`` one bits from the top of the magnitude."""
    _check(width, digits)
    bits = width - 1
    return (1 << bits) - (1 << bits - min(digits, bits))


def k_hot(width: int, digits: int) -> Codes:
    """All K-hot codes of a width, ascending; by counting bits of every code, up to 16 bits."""
    return _all_codes(width, digits, is_k_hot)


def signed_digits(width: int, digits: int) -> Codes:
    """All codes that signed digits reach, ascending; up to 16 bits."""
    return _all_codes(width, digits, is_signed_digits)


def is_k_hot(codes: npt.ArrayLike, digits: int) -> npt.NDArray[np.bool_]:
    """Whether magnitudes have at most ``digits`` one bits."""
    magnitude = np.abs(_as_codes(codes))
    return np.asarray(sum(magnitude >> bit & 1 for bit in range(MAX_WIDTH)) <= digits)


def is_signed_digits(codes: npt.ArrayLike, digits: int) -> npt.NDArray[np.bool_]:
    """Whether codes are sums of at most ``digits`` signed powers of two: no fewer are needed than non-zero digits of the
    non-adjacent form (G. W. Reitwiesner, "Binary arithmetic", 1960)."""
    return np.asarray(sum(np.abs(term) for term in _non_adjacent(_as_codes(codes))) <= digits)


def signed_digit_terms(codes: npt.ArrayLike, digits: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8]]:
    """The shift-and-add plan of codes (any shape): signs and exponents, each of shape (*codes.shape, digits), the largest exponent
    first; unused terms have sign 0 and exponent 0. ValueError where a code needs more digits."""
    whole = _as_codes(codes)
    if not is_signed_digits(whole, digits).all():
        worst = whole[~is_signed_digits(whole, digits)].flat[0]
        raise ValueError(f"codes must be sums of at most {digits} signed powers of two, and {worst} is not: project them first")
    form = np.stack(_non_adjacent(whole), axis=-1)[..., ::-1]
    order = np.argsort(form == 0, axis=-1, kind="stable")[..., :digits]
    signs = np.take_along_axis(form, order, axis=-1).astype(np.int8)
    exponents = np.where(signs == 0, 0, form.shape[-1] - 1 - order).astype(np.int8)
    return _padded(signs, digits), _padded(exponents, digits)


# --- digits of a magnitude ------------------------------------------------------------------------------------------


def _greedy(magnitude: Floats, digits: int, step: Callable[[Floats], Floats]) -> Floats:
    """Take ``digits`` - 1 digits by ``step`` off what is left, then the nearest power of two, or none."""
    total, left = np.zeros_like(magnitude), magnitude
    for _ in range(digits - 1):
        digit = step(left)
        total, left = total + digit, left - digit
    return total + _nearest_power(left)


def _one_bit(left: Floats) -> Floats:
    """The leading one bit: 2**floor(log2), 0 below 1."""
    return np.where(left >= 1, np.ldexp(0.5, np.frexp(left)[1]), 0.0)


def _nearest_power(left: Floats) -> Floats:
    """The nearest of 0 and the powers of two from 1 on, with the sign of ``left``; ties upwards, as the whole's magnitude grows."""
    magnitude, positive = np.abs(left), left > 0
    mantissa, exponent = np.frexp(magnitude)  # magnitude = mantissa * 2**exponent, mantissa in [0.5, 1)
    up = (mantissa > 0.75) | ((mantissa == 0.75) & positive)
    power = np.ldexp(1.0, np.where(up, exponent, exponent - 1))
    one = (magnitude > 0.5) | ((magnitude == 0.5) & positive)
    return np.copysign(np.where(magnitude < 1, one.astype(np.float64), power), left)


def _by_magnitude(values: npt.ArrayLike, project: Callable[[Floats], Floats]) -> Codes:
    given = np.asarray(values, np.float64)
    if np.isnan(given).any():
        raise ValueError("values to project must be numbers, and there are NaN among them: look for a diverged training")
    # Above the largest code every magnitude projects to it, and 2**MAX_WIDTH is above all of them.
    magnitude = np.minimum(np.abs(given), 2.0**MAX_WIDTH)
    return np.copysign(project(magnitude), given).astype(np.int64)


def _non_adjacent(codes: Codes) -> list[Codes]:
    """Digits -1, 0, 1 from the lowest, no two neighbours both non-zero."""
    left, form = codes.copy(), []
    for _ in range(MAX_WIDTH + 1):
        digit = np.where(left & 1, 2 - (left & 3), 0)
        form.append(digit)
        left = (left - digit) >> 1
    return form


def _largest_signed_digits(width: int, digits: int) -> int:
    """2**(width - 1) - 1 in non-adjacent form has two digits; one digit reaches a power of two only."""
    return 1 << width - 2 if digits == 1 else (1 << width - 1) - 1


# --- checks -----------------------------------------------------------------------------------------------------------


def _check(width: int, digits: int) -> None:
    if not 2 <= width <= MAX_WIDTH:
        raise ValueError(f"width must be 2..{MAX_WIDTH} bits, sign included, not {width}")
    if digits < 1:
        raise ValueError(f"digits must be at least 1, not {digits}")


def _as_codes(codes: npt.ArrayLike) -> Codes:
    whole = np.asarray(codes)
    if whole.dtype.kind not in "iu":
        raise TypeError(f"codes must be integers, not {whole.dtype}")
    whole = whole.astype(np.int64)
    if np.abs(whole).max(initial=0) >= 1 << MAX_WIDTH:
        raise ValueError(f"codes must be below 2**{MAX_WIDTH} in magnitude, not {np.abs(whole).max()}")
    return whole


def _all_codes(width: int, digits: int, wanted: Callable[[Codes, int], npt.NDArray[np.bool_]]) -> Codes:
    _check(width, digits)
    if width > 16:
        raise ValueError(f"listing all codes takes a width up to 16 bits, not {width}")
    most = (1 << width - 1) - 1
    codes = np.arange(-most, most + 1, dtype=np.int64)
    return codes[wanted(codes, digits)]


def _padded(terms: npt.NDArray[np.int8], digits: int) -> npt.NDArray[np.int8]:
    missing = digits - terms.shape[-1]
    return terms if missing <= 0 else np.pad(terms, [(0, 0)] * (terms.ndim - 1) + [(0, missing)])
