"""What every step of a quantised model is: `QuantOp`, and the limits of a fused activation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from hw.spec.fixed import FixedFormat, Overflow, Rounding, quantize
from sw.quant.points import ActivationPoint, Mode

__all__ = ["RELU", "UNBOUNDED", "Bounds", "QuantOp", "Shapes"]

Shapes = tuple[tuple[int, int, int], ...]
"""(C, H, W) of each input of a step."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Limits of an activation, in values: ReLU has ``low`` 0, ReLU6 also ``high`` 6. Not infinite, not crossed."""

    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        low, high = self._ends()
        if not low <= high or any(end is not None and not math.isfinite(end) for end in (self.low, self.high)):
            raise ValueError(f"limits of an activation must be finite and in order, not {self.low}..{self.high}")

    def _ends(self) -> tuple[float, float]:
        return (-math.inf if self.low is None else self.low), (math.inf if self.high is None else self.high)

    def then(self, after: Bounds) -> Bounds:
        """The limits of this activation followed by another."""
        first, last = after._ends()
        low, high = (min(max(end, first), last) for end in self._ends())
        return Bounds(low=None if math.isinf(low) else low, high=None if math.isinf(high) else high)

    @property
    def limited(self) -> bool:
        return self.low is not None or self.high is not None

    @property
    def non_negative(self) -> bool:
        return self.low is not None and self.low >= 0

    def apply(self, y: Tensor) -> Tensor:
        """The activation on values; it has at least one limit."""
        return y.clamp(self.low, self.high)

    def codes(self, fmt: FixedFormat, rounding: Rounding) -> tuple[int, int]:
        """The smallest and the largest code.

        Limits are rounded as the values are. Rounding keeps the order, so clipping codes after rounding is rounding
        values after the activation.
        """
        low, high = self._ends()
        low_code, high_code = quantize([low, high], fmt, rounding, Overflow.SAT)
        return int(low_code), int(high_code)


UNBOUNDED, RELU = Bounds(), Bounds(low=0.0)


class QuantOp(nn.Module):
    """One step of a quantised model. ``bounds`` is the activation fused into it, ``rounding`` is of its requantisation."""

    rounding = Rounding.RND
    shares_format = False
    """Whether inputs and output have one format (a sharing group)."""

    def __init__(self, *, bounds: Bounds = UNBOUNDED) -> None:
        super().__init__()
        self.bounds, self.mode = bounds, Mode.FLOAT

    @property
    def relu(self) -> bool:
        """Whether the fused activation cuts negative values off."""
        return self.bounds.non_negative

    def forward(self, xs: tuple[Tensor, ...], ins: tuple[ActivationPoint, ...], out: ActivationPoint) -> Tensor:
        """Values to values, in every mode but FROZEN."""
        raise NotImplementedError

    def freeze(self, ins: tuple[FixedFormat, ...], out: FixedFormat) -> None:
        """Fix the integers that `codes` and `operation` use."""
        self.ins, self.out = ins, out
        self.low, self.high = self.bounds.codes(out, self.rounding)

    def codes(self, *xs: Tensor) -> Tensor:
        """Codes to codes, in a float type; needs `freeze`."""
        raise NotImplementedError

    def operation(self, shapes: Shapes) -> Any:
        """The same step as an operation of `hw.spec.ops`, for inputs of these (C, H, W); needs `freeze`."""
        raise NotImplementedError

    def finish(self, y: Tensor, out: ActivationPoint, addend: Tensor | None = None) -> Tensor:
        """``y``, plus the addend if there is one, through the fused activation to the output's format."""
        if self.bounds in (UNBOUNDED, RELU):  # the quantiser does these in its one pass over memory
            return out(y, self.rounding, addend=addend, relu=self.bounds == RELU)
        return out(self.bounds.apply(y if addend is None else y + addend), self.rounding)
