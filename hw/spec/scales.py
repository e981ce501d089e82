"""Any scale as a 16-bit multiplier and a shift: the closest requantise record, compared over every sum that can occur.

What is asked of a channel is ``code(sum) = clip(R(sum * ratio + offset), low, high)`` with a real ratio and offset; what a core
computes is ``clip(R((sum + bias) * multiplier * 2**-shift), low, high)``. Both are staircases in the sum, so they are compared exactly
by the sums at which they step. A record is exact where no sum in ``least``..``most`` gives another code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from hw.spec.fixed import Rounding
from hw.spec.ops import Requant

__all__ = ["Deviation", "Difference", "Staircase", "binary_point", "difference", "dyadic", "fit"]

_MULTIPLIER_MAX, _SHIFT_MIN, _SHIFT_MAX, _BIAS_MAX = 65535, -32, 31, 2**31 - 1
_NEARBY = 4
"""How many multipliers on either side of the rounded ratio are tried."""


def binary_point(scale: Fraction) -> int | None:
    """F where the scale is 2**-F, else None."""
    top, bottom = scale.numerator, scale.denominator
    return None if top <= 0 or top & (top - 1) or bottom & (bottom - 1) else bottom.bit_length() - top.bit_length()


def dyadic(ratio: Fraction) -> tuple[int, int] | None:
    """The multiplier (odd where it can be) and shift that are equal to a ratio, or None."""
    if ratio <= 0 or ratio.denominator & (ratio.denominator - 1):
        return None
    twos = (ratio.numerator & -ratio.numerator).bit_length() - 1
    multiplier, shift = ratio.numerator >> twos, ratio.denominator.bit_length() - 1 - twos
    while shift < _SHIFT_MIN and 2 * multiplier <= _MULTIPLIER_MAX:
        multiplier, shift = 2 * multiplier, shift + 1
    return (multiplier, shift) if multiplier <= _MULTIPLIER_MAX and _SHIFT_MIN <= shift <= _SHIFT_MAX else None


@dataclass(frozen=True, kw_only=True)
class Staircase:
    """What a channel should compute: ``ratio`` >= 0 and ``offset`` in output codes, rounding (RND, RND_CONV or TRN), the codes' range,
    and the sums ``least``..``most`` that its weights and inputs can make."""

    ratio: Fraction
    offset: Fraction
    rounding: Rounding
    low: int
    high: int
    least: int
    most: int

    def steps(self) -> np.ndarray:
        """For each code above ``low`` the first sum that reaches it, within least..most + 1; ascending int64."""
        return np.array([self._first(code) for code in range(self.low + 1, self.high + 1)], np.int64)

    def _first(self, code: int) -> int:
        edge = Fraction(2 * code - _half(self.rounding), 2) - self.offset
        falls = self.rounding is Rounding.RND_CONV and code % 2 == 1  # a value on the edge
        if not self.ratio:
            return self.least if edge < 0 or (edge == 0 and not falls) else self.most + 1
        place = edge / self.ratio
        first = -(-place.numerator // place.denominator) + (place.denominator == 1 and falls)
        return min(max(first, self.least), self.most + 1)

    def close(self, relative: float) -> int:
        """How many sums lie so near to a step that an error of the value, ``relative`` to the sizes of its terms, may decide the code:
        there, a float computation may round to the neighbour. 0 for ``relative`` 0."""
        if not self.ratio or relative <= 0:
            return 0
        edges = np.arange(self.low + 1, self.high + 1) - _half(self.rounding) / 2
        ratio, offset = float(self.ratio), float(self.offset)
        below = np.floor((edges - offset) / ratio)
        near = np.concatenate([below, below + 1])
        distance = np.abs(near * ratio + offset - np.concatenate([edges, edges]))
        tolerance = relative * (np.abs(near * ratio) + abs(offset) + 1)
        inside = (near >= self.least) & (near <= self.most)
        return int(np.unique(near[inside & (distance <= tolerance)]).size)


@dataclass(frozen=True, kw_only=True)
class Deviation:
    """How a record differs from what is wanted: on ``differing`` of ``sums``, by at most ``largest`` codes."""

    sums: int
    differing: int
    largest: int


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One layer's record against the model: of ``sums`` possible values of its channels ``differing`` give another code, at most
    ``largest`` codes away; ``channels`` of them do."""

    place: str
    channels: int
    sums: int
    differing: int
    largest: int

    def __str__(self) -> str:
        return (f"{self.place}: {self.differing} of {self.sums} sums, in {self.channels} channels, give another code, at most "
                f"{self.largest} away: the scale needs more than a 16-bit multiplier")


def difference(place: str, deviations: Sequence[Deviation]) -> Difference | None:
    """What the deviations of a layer's channels come to; None where all are exact."""
    off = [d for d in deviations if d.differing]
    if not off:
        return None
    return Difference(place=place, channels=len(off), sums=sum(d.sums for d in deviations), differing=sum(d.differing for d in off),
                      largest=max(d.largest for d in off))


# -- the closest record -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Choice:
    bias: int
    multiplier: int
    shift: int
    deviation: Deviation

    @property
    def rank(self) -> tuple[int, int]:
        return self.deviation.differing, self.deviation.largest


def fit(wanted: Sequence[Staircase], first: Sequence[tuple[int, int]] = ()) -> tuple[Requant, list[Deviation]]:
    """The record that comes closest, and how far each channel is off. Raises ValueError where no record is near.

    Channels have a common rounding and common codes. ``first`` are multipliers and shifts to try before all others, and to take if
    they are exact.

    A rounding half to even is tried half up as well: where a bias lies between two codes no tie occurs, and only half up then says
    on which side of it the sums are.
    """
    best: tuple[tuple[int, int], Rounding, list[_Choice]] | None = None
    rounding = wanted[0].rounding
    for mode in (rounding, Rounding.RND) if rounding is Rounding.RND_CONV else (rounding,):
        found = {each: _closest(each, mode, first) for each in dict.fromkeys(wanted)}
        choices = [found[each] for each in wanted]
        rank = sum(c.deviation.differing for c in choices), max(c.deviation.largest for c in choices)
        if best is None or rank < best[0]:
            best = rank, mode, choices
        if rank == (0, 0):
            break
    assert best is not None
    _, mode, choices = best
    bias, multiplier, shift = (np.array([getattr(c, name) for c in choices], np.int64) for name in ("bias", "multiplier", "shift"))
    record = Requant(bias=bias, multiplier=multiplier, shift=shift, rounding=mode, lo=wanted[0].low, hi=wanted[0].high)
    return record, [c.deviation for c in choices]


def _closest(wanted: Staircase, mode: Rounding, first: Sequence[tuple[int, int]]) -> _Choice:
    sums, exact = wanted.most - wanted.least + 1, dyadic(wanted.ratio) if wanted.ratio else (1, 0)
    whole = wanted.offset / wanted.ratio if wanted.ratio else wanted.offset
    if exact and wanted.ratio and mode is wanted.rounding and whole.denominator == 1 and abs(whole) <= _BIAS_MAX:
        return _Choice(bias=int(whole), multiplier=exact[0], shift=exact[1], deviation=Deviation(sums=sums, differing=0, largest=0))
    steps = wanted.steps()
    best: _Choice | None = None
    for multiplier, shift in [*first, *([exact] if exact else _near(wanted.ratio))]:
        core = _core_steps(multiplier, shift, mode, wanted.low, wanted.high)
        for bias in _biases(wanted, whole, steps, core):
            choice = _Choice(bias=bias, multiplier=multiplier, shift=shift, deviation=_deviation(wanted, steps, core - bias))
            if best is None or choice.rank < best.rank:
                best = choice
            if not best.deviation.differing:
                return best
    if best is None:
        raise ValueError(f"a scale ratio of {float(wanted.ratio):.3g} with an offset of {float(wanted.offset):.3g} codes must be a "
                         "16-bit multiplier, a shift of -32..31 and a 32-bit bias: rescale the layer")
    return best


def _near(ratio: Fraction) -> list[tuple[int, int]]:
    """Multipliers of 16 bits (fewer at the largest shift) and shifts near a ratio."""
    shift = min(max(16 - (ratio.numerator.bit_length() - ratio.denominator.bit_length()), _SHIFT_MIN), _SHIFT_MAX)
    while shift > _SHIFT_MIN and ratio * Fraction(2) ** shift >= 2**16:
        shift -= 1
    middle = round(ratio * Fraction(2) ** shift)
    return [(m, shift) for m in range(middle - _NEARBY, middle + _NEARBY + 1) if 1 <= m <= _MULTIPLIER_MAX]


def _half(rounding: Rounding) -> int:
    """Twice the distance from a code down to the edge from which on values become it."""
    return 0 if rounding is Rounding.TRN else 1


def _core_steps(multiplier: int, shift: int, rounding: Rounding, low: int, high: int) -> np.ndarray:
    """The first ``sum + bias`` that reaches each code above ``low`` on a core; int64."""
    codes = np.arange(low + 1, high + 1, dtype=np.int64)
    doubled = 2 * codes - _half(rounding)
    above, below = (doubled << (shift - 1), multiplier) if shift >= 1 else (doubled, 2 * multiplier << -shift)
    first, rest = np.divmod(above, below)
    falls = (codes % 2 != 0) if rounding is Rounding.RND_CONV else np.zeros(codes.shape, np.bool_)
    return first + np.where(rest == 0, falls, True)


def _biases(wanted: Staircase, whole: Fraction, steps: np.ndarray, core: np.ndarray) -> Iterator[int]:
    """The real offset rounded each way, and what the steps within the range ask for, likeliest first."""
    tried = [round(whole), whole.numerator // whole.denominator, -(-whole.numerator // whole.denominator)]
    inner = (core - steps)[(steps > wanted.least) & (steps <= wanted.most)]
    if inner.size:
        tried.append(int(np.median(inner)))
    return (bias for bias in dict.fromkeys(tried) if -_BIAS_MAX - 1 <= bias <= _BIAS_MAX)


def _deviation(wanted: Staircase, steps: np.ndarray, ours: np.ndarray) -> Deviation:
    """Both staircases on every stretch between two steps of either."""
    ours = np.clip(ours, wanted.least, wanted.most + 1)
    events = np.unique(np.concatenate([steps, ours, [wanted.least, wanted.most + 1]]))
    gap = np.abs(np.searchsorted(steps, events[:-1], "right") - np.searchsorted(ours, events[:-1], "right"))
    return Deviation(sums=wanted.most - wanted.least + 1, differing=int(np.diff(events)[gap > 0].sum()),
                     largest=int(gap.max(initial=0)))
