"""Arbitrary scales on a core that multiplies by 16 bits and shifts: the closest requantise step, and how far it is off.

What is wanted of a channel is ``code(acc) = clip(R(acc * ratio + offset), low, high)`` with real ratio and offset. What a
core computes is ``clip(R((acc + bias) * multiplier * 2**-shift), low, high)``. Both are staircases in the accumulator, so
they are compared by the accumulators at which they step, exactly and over the whole range, however long it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from hw.spec.fixed import Rounding
from hw.spec.ops import Requant

__all__ = ["Deviation", "Staircase", "fit", "record"]

_MULTIPLIER_MAX, _SHIFT_MIN, _SHIFT_MAX = 65535, -32, 31
_BIAS_MAX = 2**31 - 1
_NEARBY = 4
"""How many multipliers on either side of the rounded ratio are tried."""


@dataclass(frozen=True, kw_only=True)
class Staircase:
    """What a channel should compute: ``ratio`` >= 0 and ``offset`` in output codes, rounding (RND, RND_CONV or TRN), the
    codes' range, and the accumulators ``least``..``most`` that its weights and inputs can make."""

    ratio: Fraction
    offset: Fraction
    rounding: Rounding
    low: int
    high: int
    least: int
    most: int

    def steps(self) -> np.ndarray:
        """For each code above ``low`` the first accumulator that reaches it, within least..most + 1; ascending int64."""
        return np.array([self._first(code) for code in range(self.low + 1, self.high + 1)], np.int64)

    def _first(self, code: int) -> int:
        edge = Fraction(code) - (0 if self.rounding is Rounding.TRN else Fraction(1, 2)) - self.offset
        if not self.ratio:
            reached = edge < 0 or (edge == 0 and _reaches(code, self.rounding))
            return self.least if reached else self.most + 1
        place = edge / self.ratio
        first = math.ceil(place)
        if first == place and not _reaches(code, self.rounding):
            first += 1
        return min(max(first, self.least), self.most + 1)

    def close(self, relative: float) -> int:
        """How many accumulators lie so near to a step that an error of the value, ``relative`` to the sizes of its terms,
        may decide the code: there, a float computation may round to the neighbour. A value on a tie counts if the error
        is not 0; powers of two have none (0 is returned for ``relative`` 0)."""
        if not self.ratio or relative <= 0:
            return 0
        half = 0.0 if self.rounding is Rounding.TRN else 0.5
        edges = np.arange(self.low + 1, self.high + 1) - half
        ratio, offset = float(self.ratio), float(self.offset)
        below = np.floor((edges - offset) / ratio)
        near = np.concatenate([below, below + 1])
        distance = np.abs(near * ratio + offset - np.concatenate([edges, edges]))
        tolerance = relative * (np.abs(near * ratio) + abs(offset) + 1)
        inside = (near >= self.least) & (near <= self.most)
        return int(np.unique(near[inside & (distance <= tolerance)]).size)


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """How a channel of a core differs from what is wanted: on ``differing`` of ``accumulators`` possible values, by at most
    ``largest`` codes; 0 and 0 where they are equal everywhere."""

    accumulators: int
    differing: int
    largest: int


def _reaches(code: int, rounding: Rounding) -> bool:
    """Whether a value exactly on the edge below ``code`` rounds up to it."""
    return code % 2 == 0 if rounding is Rounding.RND_CONV else True


def core_steps(wanted: Staircase, multiplier: int, shift: int) -> np.ndarray:
    """The first ``acc + bias`` that reaches each code above ``low`` on a core; int64, not limited."""
    codes = np.arange(wanted.low + 1, wanted.high + 1, dtype=np.int64)
    doubled = 2 * codes - (0 if wanted.rounding is Rounding.TRN else 1)  # twice the edge
    if shift < 0:
        step = multiplier << -shift
        edge, rest = np.divmod(doubled, 2 * step)
    elif shift == 0:
        edge, rest = np.divmod(doubled, 2 * multiplier)
    else:
        edge, rest = np.divmod(doubled << (shift - 1), multiplier)
    passes = np.array([_reaches(int(code), wanted.rounding) for code in codes])
    return edge + np.where(rest == 0, ~passes, True)


def compare(wanted: Staircase, steps: np.ndarray, bias: int, core: np.ndarray) -> Deviation:
    """The deviation of a core whose steps in ``acc + bias`` are ``core``."""
    ours = np.clip(core - bias, wanted.least, wanted.most + 1)
    events = np.unique(np.concatenate([steps, ours, [wanted.least, wanted.most + 1]]))
    gap = np.abs(np.searchsorted(steps, events[:-1], "right") - np.searchsorted(ours, events[:-1], "right"))
    return Deviation(accumulators=wanted.most - wanted.least + 1, differing=int(np.diff(events)[gap > 0].sum()),
                     largest=int(gap.max(initial=0)))


def _candidates(ratio: Fraction) -> list[tuple[int, int]]:
    """Multipliers and shifts near a ratio: one pair if it is exact, else some with as many bits as there are."""
    if not ratio:
        return [(1, 0)]
    power = ratio.denominator.bit_length() - 1
    if ratio.denominator == 1 << power:
        odd = (ratio.numerator & -ratio.numerator).bit_length() - 1
        multiplier, shift = ratio.numerator >> odd, power - odd
        if multiplier <= _MULTIPLIER_MAX and _SHIFT_MIN <= shift <= _SHIFT_MAX:
            return [(multiplier, shift)]
    shift = 15
    two = Fraction(2)
    while ratio * two**shift >= 2**16 and shift > _SHIFT_MIN:
        shift -= 1
    while ratio * two**shift < 2**15 and shift < _SHIFT_MAX:
        shift += 1
    middle = round(ratio * two**shift)
    found = [(m, shift) for m in range(middle - _NEARBY, middle + _NEARBY + 1) if 1 <= m <= _MULTIPLIER_MAX]
    if not found:
        raise ValueError(f"a scale ratio of {float(ratio):.3g} must be below 2**48 to be a 16-bit multiplier and a "
                         "shift: rescale the layer")
    return found


def fit(wanted: Staircase) -> tuple[int, int, int, Deviation]:
    """Bias, multiplier and shift that are nearest to what is wanted, and how they deviate over the whole range.

    Raises ValueError for a ratio or an offset that no record of a core holds.
    """
    steps = wanted.steps()
    best: tuple[tuple[int, int], int, int, int, Deviation] | None = None
    for multiplier, shift in _candidates(wanted.ratio):
        core = core_steps(wanted, multiplier, shift)
        for bias in _biases(wanted, steps, core, multiplier, shift):
            found = compare(wanted, steps, bias, core)
            rank = (found.largest, found.differing)
            if best is None or rank < best[0]:
                best = (rank, bias, multiplier, shift, found)
    if best is None:
        raise ValueError(f"an offset of {float(wanted.offset):.3g} output codes must fit a 32-bit bias: rescale the layer")
    return best[1:]


def _biases(wanted: Staircase, steps: np.ndarray, core: np.ndarray, multiplier: int, shift: int) -> list[int]:
    """The rounded bias, and the one that the steps within the range ask for."""
    tried = {round(wanted.offset * Fraction(2) ** shift / multiplier)}
    inner = (steps > wanted.least) & (steps <= wanted.most)
    if inner.any():
        tried.add(int(np.median((core - steps)[inner])))
    return sorted(b for b in tried if -_BIAS_MAX - 1 <= b <= _BIAS_MAX)


def record(wanted: Sequence[Staircase]) -> tuple[Requant, list[Deviation]]:
    """The requantise record of a layer, one staircase per channel with common rounding and codes, and its deviations."""
    fitted = [fit(one) for one in wanted]
    bias, multiplier, shift = (np.array([f[i] for f in fitted], np.int64) for i in range(3))
    first = wanted[0]
    made = Requant(bias=bias, multiplier=multiplier, shift=shift, rounding=first.rounding, lo=first.low, hi=first.high)
    return made, [f[3] for f in fitted]
