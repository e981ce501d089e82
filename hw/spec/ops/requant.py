"""Requantisation: what every operation with sums ends in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hw.spec.fixed import Rounding, round_shift

CORE_ROUNDINGS = (Rounding.TRN, Rounding.RND, Rounding.RND_CONV)
"""Roundings that a core offers when it requantises."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Requant:
    """Accumulator codes to output codes, per channel: ``clip(round((acc + bias) * multiplier * 2**-shift))``.

    Parameters
    ----------
    bias : int64 array (C,), each in the signed 32-bit range, at the accumulator's binary point
    multiplier : int64 array (C,), each in 1..65535; 1 where scales are powers of two
    shift : int64 array (C,), each in -32..31; a negative shift is to the left
    rounding : TRN, RND or RND_CONV, applied once, to right shifts
    lo, hi : smallest and largest output code, both in -256..255; ReLU is lo = 0, an unsigned byte is 0..255
    """

    bias: np.ndarray
    multiplier: np.ndarray
    shift: np.ndarray
    rounding: Rounding
    lo: int
    hi: int

    def __post_init__(self) -> None:
        channels = np.asarray(self.bias).shape
        for name, low, high in (("bias", -(2**31), 2**31 - 1), ("multiplier", 1, 65535), ("shift", -32, 31)):
            array = np.asarray(getattr(self, name), dtype=np.int64)
            if array.ndim != 1 or array.shape != channels:
                raise ValueError(f"Requant {name} must have one value per channel {channels}, not shape {array.shape}")
            if array.size and (array.min() < low or array.max() > high):
                raise ValueError(f"Requant {name} must be in {low}..{high}, not {array.min()}..{array.max()}")
            object.__setattr__(self, name, array)
        if self.rounding not in CORE_ROUNDINGS:
            raise ValueError(f"Requant rounding must be TRN, RND or RND_CONV, not {self.rounding}")
        if not -256 <= self.lo <= self.hi <= 255:
            raise ValueError(f"Requant output range must lie in -256..255, not {self.lo}..{self.hi}")

    @property
    def channels(self) -> int:
        return int(self.bias.shape[0])

    def __call__(self, acc: np.ndarray) -> np.ndarray:
        """Accumulators (N, C, ...) to codes of the same shape. ``acc + bias`` must fit 33 bits."""
        if acc.shape[1] != self.channels:
            raise ValueError(f"Requant has {self.channels} channels, the accumulator has {acc.shape[1]}")
        view = (1, -1) + (1,) * (acc.ndim - 2)
        scaled = (acc + self.bias.reshape(view)) * self.multiplier.reshape(view)
        return np.clip(shift_saturating(scaled, self.shift.reshape(view), self.rounding), self.lo, self.hi)


def shift_saturating(values: np.ndarray, shift: np.ndarray, rounding: Rounding) -> np.ndarray:
    """``values * 2**-shift`` rounded; a left shift first saturates to 10 bits, so that it cannot overflow.

    The saturation never shows after the clip to at most 9 bits that follows: 512 << n is out of every output range too.
    """
    right = round_shift(values, np.maximum(shift, 0), rounding)
    left = np.clip(values, -512, 511) << np.minimum(np.maximum(-shift, 0), 9)
    return np.where(shift < 0, left, right)


def identity_requant(channels: int, lo: int, hi: int) -> Requant:
    """A requantise step that only clips: for max pooling and other operations that keep the format."""
    zeros = np.zeros(channels, np.int64)
    return Requant(bias=zeros, multiplier=zeros + 1, shift=zeros, rounding=Rounding.TRN, lo=lo, hi=hi)


def mean_requant(channels: int, count: int, extra_shift: int, rounding: Rounding, lo: int, hi: int) -> Requant:
    """Sum of ``count`` codes to their mean times ``2**-extra_shift``: the reciprocal that every average pool uses.

    A power of two is a pure shift. Else the multiplier is ``floor(2**k / count + 1/2)`` with k chosen so that it has 16 bits.
    """
    if count < 1:
        raise ValueError(f"a mean must be over at least 1 element, not {count}")
    log2 = count.bit_length() - 1
    power, multiplier = (log2, 1) if count == 1 << log2 else (log2 + 16, ((2 << (log2 + 16)) // count + 1) // 2)
    shift = power + extra_shift
    if not -32 <= shift <= 31:
        raise ValueError(f"mean of {count} elements needs a shift of {shift}, outside -32..31")
    ones = np.ones(channels, np.int64)
    return Requant(bias=ones * 0, multiplier=ones * multiplier, shift=ones * shift, rounding=rounding, lo=lo, hi=hi)
