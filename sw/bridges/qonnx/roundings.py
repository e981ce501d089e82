"""One rounding said by another: where a record's steps are, and how far its sums move so that half to even is what it asks for.

Sums are whole. When all of them move up by less than what the nearest other sum is away from a tie, a tie goes up and nothing else
changes its side: half to even of the moved sum is half up of the sum itself. Moved down by half a step as well, it is the sum rounded
down. One fraction bit is enough for a power of two as scale; each bit of a multiplier takes another one.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import lru_cache

import numpy as np

from hw.spec.fixed import Rounding
from hw.spec.ops import Requant
from hw.spec.scales import Staircase

__all__ = ["near_steps", "offsets", "steps"]

_FAR = 2**60
"""Beyond every sum at which a record of 16-bit multipliers and shifts of 32 bits steps."""


@lru_cache(maxsize=4096)
def _row(multiplier: int, shift: int, rounding: Rounding, low: int, high: int) -> np.ndarray:
    ratio = Fraction(multiplier) / Fraction(2) ** shift
    return Staircase(ratio=ratio, offset=Fraction(0), rounding=rounding, low=low, high=high, least=-_FAR, most=_FAR).steps()


def steps(requant: Requant) -> np.ndarray:
    """For each channel the first sum, bias included, that reaches each code above ``lo``; int64 (C, hi - lo).

    They say all of what a record computes, however it is written.
    """
    scales = zip(requant.multiplier.tolist(), requant.shift.tolist(), strict=True)
    rows = [_row(multiplier, shift, requant.rounding, requant.lo, requant.hi) for multiplier, shift in scales]
    return np.array(rows, np.int64).reshape(requant.channels, requant.hi - requant.lo)


def near_steps(requant: Requant, least: np.ndarray, most: np.ndarray) -> np.ndarray:
    """The sums ``least``..``most`` (C,), bias included, on both sides of each step and at both ends; int64 (C, K).

    What rises with the sum is equal to the record everywhere if it is equal at these.
    """
    first = steps(requant)
    low, high = (end[:, None] + requant.bias[:, None] for end in (least, most))
    return np.concatenate([np.clip(first, low, high), np.clip(first - 1, low, high), low, high], 1)


def offsets(requant: Requant, least: np.ndarray, most: np.ndarray, native: Rounding) -> np.ndarray:
    """What to add to each channel's sums ``least``..``most`` so that a quantiser that rounds by ``native`` gives the record's codes.

    float64 (C,), exact. 0 where it gives them anyway: no tie is within reach, or nothing is rounded.
    """
    near = near_steps(requant, least, most) - requant.bias[:, None]
    theirs = replace(requant, rounding=native)
    differs = (requant(near[None]) != theirs(near[None]))[0].any(1)
    found = [_offset(Fraction(m) / Fraction(2) ** s, requant.rounding) if other else Fraction(0)
             for m, s, other in zip(requant.multiplier.tolist(), requant.shift.tolist(), differs.tolist(), strict=True)]
    return np.array([float(offset) for offset in found])


def _offset(ratio: Fraction, rounding: Rounding) -> Fraction:
    """A short binary number between minus half a step (TRN; 0 for RND) and the least distance of two products above it.

    Sums times the ``ratio`` are whole numbers over its denominator: 1 / numerator of a sum is the least that tells them apart.
    """
    bits, half = ratio.numerator.bit_length(), ratio.denominator if rounding is Rounding.TRN else 0
    return Fraction((-half << bits) // (2 * ratio.numerator) + 1, 1 << bits)
