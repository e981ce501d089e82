"""Types of hls4ml: ``ap_fixed`` with its modes as text, and the type that rounds and limits as a requantise step does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hw.spec.fixed import FixedFormat, Overflow, Rounding
from sw.bridges.hls.ranges import Interval

__all__ = ["ApFixed", "holding", "limiting", "of_format", "spanning"]


@dataclass(frozen=True)
class ApFixed:
    """A type: ``width`` bits of which ``frac`` stand behind the binary point (any integer), and the modes of an assignment to it."""

    width: int
    frac: int
    signed: bool
    rounding: Rounding = Rounding.TRN
    overflow: Overflow = Overflow.WRAP

    @property
    def integer(self) -> int:
        """Bits before the binary point, the sign included."""
        return self.width - self.frac

    @property
    def low(self) -> int:
        """The smallest code that an assignment can leave."""
        return 0 if not self.signed else -(1 << (self.width - 1)) + (self.overflow is Overflow.SAT_SYM)

    @property
    def high(self) -> int:
        """The largest code."""
        return (1 << (self.width - self.signed)) - 1

    def __str__(self) -> str:
        """As hls4ml's configuration has it."""
        return f"ap_{'' if self.signed else 'u'}fixed<{self.width},{self.integer},AP_{self.rounding.name},AP_{self.overflow.name}>"


def of_format(fmt: FixedFormat) -> ApFixed:
    return ApFixed(fmt.width, fmt.frac, fmt.signed)


def spanning(low: int, high: int, frac: int) -> ApFixed:
    """The narrowest type that holds the codes low..high."""
    signed = low < 0
    magnitude = max(high, ~low if signed else 0).bit_length()
    return ApFixed(max(magnitude + signed, 1), frac, signed)


def holding(codes: Iterable[int], frac: int) -> ApFixed:
    """The narrowest type that holds codes of a binary point; zeros behind the last one of all codes take no bits."""
    values = [int(code) for code in codes]
    used = 0
    for value in values:
        used |= value
    zeros = (used & -used).bit_length() - 1 if used else 0
    return spanning(min(values) >> zeros, max(values) >> zeros, frac - zeros)


_LIMITS = [(Overflow.SAT, width, signed) for width in range(1, 11) for signed in (False, True)]
_LIMITS += [(Overflow.SAT_SYM, width, True) for width in range(2, 11)]
"""What saturates, narrowest first: to 0..2**n - 1, to -2**n..2**n - 1, to the same without the smallest code."""


def limiting(free: Interval, low: int, high: int, frac: int, rounding: Rounding) -> tuple[ApFixed, bool]:
    """The type of codes low..high, and whether its saturation alone limits values in ``free`` (rounded, not yet limited) to them.

    Where it does not, the type holds low..high, and what lies beyond is to be limited afterwards.
    """
    for overflow, width, signed in _LIMITS:
        found = ApFixed(width, frac, signed, rounding, overflow)
        below = found.low == low or found.low <= free[0] >= low
        above = found.high == high or found.high >= free[1] <= high
        if below and above:
            return found, True
    plain = spanning(low, high, frac)
    return ApFixed(plain.width, frac, plain.signed, rounding, Overflow.SAT), False
