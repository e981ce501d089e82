"""Weights of few digits in torch: the projections of `hw.spec.hot`, equal on every value, with gradients.

A code is the allowed code nearest to the *real* value ``x * 2**F`` (not to its rounded code), between two equally near the
one with the larger magnitude: a search among the half-way points of the allowed magnitudes, which are exact in float32.
The gradient is straight-through as in `sw.quant.fake`; a value counts as clipped where the nearest code without a limit of
width would need more bits.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hw.spec.hot import k_hot, signed_digits
from sw.quant.fake import along, backward_of, check_values, exact_power_of_two

__all__ = ["BINARY", "DIGIT_KINDS", "DigitSet", "fake_project", "project_codes"]

DIGIT_KINDS = {"k_hot": k_hot, "signed": signed_digits}
"""Kind to the list of its codes: at most K one bits in the magnitude, or a sum of at most K signed powers of two."""

BINARY = "binary"
"""The kind of weights of one bit: codes -1 and 1, and none between; zero becomes 1."""

MAX_WIDTH, MAX_DIGITS = 16, 8


@dataclass(frozen=True, kw_only=True)
class DigitSet:
    """The codes of ``width`` bits (2..16, sign included) that ``digits`` (K, 1..8) digits of a kind reach; of `BINARY` two, with a
    width of 2."""

    kind: str
    digits: int
    width: int

    def __post_init__(self) -> None:
        if self.kind == BINARY:
            if (self.digits, self.width) != (1, 2):
                raise ValueError(f"binary weights must have 1 digit and a width of 2, not {self.digits} and {self.width}")
            return
        if self.kind not in DIGIT_KINDS:
            raise ValueError(f"the kind of digits must be one of {', '.join(DIGIT_KINDS)}, not {self.kind!r}")
        for name, low, high in (("digits", 1, MAX_DIGITS), ("width", 2, MAX_WIDTH)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} of a weight must be {low}..{high}, not {getattr(self, name)}")

    @functools.cached_property
    def largest(self) -> int:
        """The largest code; the smallest is its negative."""
        return int(self.codes()[-1])

    @property
    def clipped_from(self) -> float:
        """The magnitude from which on the nearest code would be ``2**(width - 1)``, which has too many bits."""
        return (self.largest + 2 ** (self.width - 1)) / 2

    def codes(self) -> Tensor:
        """All allowed codes (C,), int64, ascending; symmetric about zero."""
        if self.kind == BINARY:
            return torch.tensor([-1, 1])
        return torch.from_numpy(DIGIT_KINDS[self.kind](self.width, self.digits))


@functools.cache
def _table(digits: DigitSet, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Allowed magnitudes, ascending, and the half-way points between neighbours."""
    codes = digits.codes()
    magnitudes = codes[codes >= 0].to(device, dtype)
    return magnitudes, (magnitudes[1:] + magnitudes[:-1]) / 2


def _scaled_codes(values: Tensor, frac: Tensor, digits: DigitSet, axis: int | None) -> tuple[Tensor, Tensor]:
    """Codes, and the magnitudes of ``values * 2**frac`` (limited above the range)."""
    check_values(values, frac, digits.width)
    scaled = values * along(values, exact_power_of_two(frac, values.dtype), axis)
    magnitude = scaled.abs().clamp_(max=2.0**digits.width)
    table, half_way = _table(digits, values.dtype, values.device)
    nearest = table[torch.bucketize(magnitude, half_way, right=True)]
    return torch.copysign(nearest, scaled + 0.0), magnitude  # -0 + 0 is 0: the two zeros are one value


def project_codes(values: Tensor, frac: Tensor, digits: DigitSet, *, axis: int | None = None) -> Tensor:
    """The nearest allowed codes, as integers in the float type of ``values``.

    Parameters
    ----------
    values : float32 or float64, any shape; NaN raises ValueError, infinity becomes the largest code
    frac : integer tensor, a scalar or one binary point per channel of ``axis``, each in -100..100
    """
    return _scaled_codes(values, frac, digits, axis)[0]


class _FakeProject(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, integer_bits: Tensor, digits: DigitSet, axis: int | None) -> Tensor:
        frac = digits.width - torch.round(integer_bits).to(torch.int64)
        codes, magnitude = _scaled_codes(values, frac, digits, axis)
        projected = codes.mul_(along(values, exact_power_of_two(-frac, values.dtype), axis))
        inside = magnitude < digits.clipped_from
        ctx.save_for_backward(inside, torch.where(inside, projected - values, projected))
        ctx.axis, ctx.points = axis, integer_bits
        return projected

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return *backward_of(ctx, grads[0]), None, None


def fake_project(values: Tensor, integer_bits: Tensor, digits: DigitSet, *, axis: int | None = None) -> Tensor:
    """``values`` on the allowed values of ``fixed<width, round(integer_bits)>``, with gradients to both tensors.

    ``integer_bits`` is a float tensor, a scalar or one per channel of ``axis``; the rest is as in `project_codes`.
    """
    result: Tensor = _FakeProject.apply(values, integer_bits, digits, axis)  # type: ignore[no-untyped-call]
    return result
