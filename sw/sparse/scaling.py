"""The loss scale of FP16 training: halved where a step's gradients saturate, doubled after a number of good steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["DivergedError", "LossScaling", "Scale"]


LARGEST = 2.0**15
"""Gradients of logits are at most 1 in magnitude, and FP16 ends at 65504."""


class DivergedError(ValueError):
    """Gradients that saturate at the smallest loss scale."""


@dataclass(frozen=True, kw_only=True)
class LossScaling:
    """How a loss scale moves; all scales are powers of two of at most 2**15, at which the gradient of the loss cannot saturate.

    Parameters
    ----------
    initial : the first scale
    growth_steps : good steps in a row after which it doubles; 0 keeps it from growing
    smallest, largest : where it stops
    """

    initial: float = 1024.0
    growth_steps: int = 1000
    smallest: float = 1.0
    largest: float = 32768.0

    def __post_init__(self) -> None:
        for name in ("initial", "smallest", "largest"):
            value = float(getattr(self, name))
            object.__setattr__(self, name, value)
            if not 2.0**-126 <= value <= LARGEST or np.frexp(value)[0] != 0.5:
                raise ValueError(f"{name} must be a power of two of at most {LARGEST:g}, not {value:g}")
        if not self.smallest <= self.initial <= self.largest:
            raise ValueError(f"initial must be in {self.smallest}..{self.largest}, not {self.initial}")
        if self.growth_steps < 0:
            raise ValueError(f"growth_steps must be at least 0, not {self.growth_steps}")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The scale of the next step, and the good steps since it last moved."""

    value: float
    good_steps: int = 0

    def after(self, skipped: bool, rule: LossScaling) -> Scale:
        """The scale after a step. Raises DivergedError where it would have to be smaller than the smallest."""
        if skipped:
            if self.value <= rule.smallest:
                raise DivergedError(f"gradients saturate at the smallest loss scale, {rule.smallest:g}: the training diverged (lower "
                                    "the learning rate), or the smallest scale is too large")
            return Scale(value=self.value / 2)
        good = self.good_steps + 1
        if rule.growth_steps and good >= rule.growth_steps and self.value < rule.largest:
            return Scale(value=self.value * 2)
        return Scale(value=self.value, good_steps=good)
