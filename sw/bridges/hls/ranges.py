"""What codes tensors and accumulators can reach, proven from the actual weights; exact integers of any size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hw.spec.ops import AvgPool2d, Clip, MaxPool2d, Requant, Table

__all__ = ["ACCUMULATOR_BITS", "accumulator", "clipped", "fits", "products", "reach"]

ACCUMULATOR_BITS = 33
"""Bits of ``acc + bias`` that the requantise step of ``hw.spec.ops`` is defined for."""

Interval = tuple[int, int]


def accumulator(operation: Any, x: Interval) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest sum (C,) of each output channel, without bias, as Python integers.

    ``x`` is the range of the input's codes; pads, and samples outside the image, are code 0. As every term may be 0, all partial
    sums in whatever order lie between the two as well.
    """
    low, high = min(x[0], 0), max(x[1], 0)
    plus, minus = _weight_sums(operation)
    return plus * low + minus * high, plus * high + minus * low


def _weight_sums(operation: Any) -> tuple[np.ndarray, np.ndarray]:
    """Sums (C,) of the positive and of the negative weights of each output channel."""
    if isinstance(operation, AvgPool2d):
        count = operation.kernel[0] * operation.kernel[1]
        return _exact(np.full(operation.requant.channels, count)), _exact(np.zeros(operation.requant.channels))
    weights = operation.weight.reshape(operation.weight.shape[0], -1)
    return _exact(np.maximum(weights, 0).sum(1)), _exact(np.minimum(weights, 0).sum(1))


def _exact(values: np.ndarray) -> np.ndarray:
    return values.astype(np.int64).astype(object)


def products(operation: Any) -> int:
    """Products, or values of a window, that one output code is made of; 0 where an operation has none."""
    if isinstance(operation, AvgPool2d):
        return int(operation.kernel[0] * operation.kernel[1])
    if isinstance(operation, MaxPool2d):
        return int(operation.kernel**2)
    weight = getattr(operation, "weight", None)
    return 0 if weight is None else int(weight[0].size)


def fits(operation: Any, low: np.ndarray, high: np.ndarray) -> bool:
    """Whether the sums with bias keep to the bits of the requantise step."""
    bias, most = _exact(operation.requant.bias), 1 << (ACCUMULATOR_BITS - 1)
    return bool(min(low + bias) >= -most and max(high + bias) < most)


def reach(operation: Any, inputs: Sequence[Interval]) -> Interval:
    """The smallest range that surely holds the output's codes; sums that do not fit count as all that the step lets through."""
    lows, highs = zip(*inputs, strict=True)
    both = min(lows), max(highs)
    if (requant := getattr(operation, "requant", None)) is not None:
        return _requantised(operation, requant, inputs[0])
    if isinstance(operation, Table):
        values = operation.values[np.arange(max(both[0], -128), min(both[1], 255) + 1) & 0xFF]
        return int(values.min()), int(values.max())
    if isinstance(operation, Clip):
        return clipped(both, operation.lo, operation.hi)
    if operation.op == "add":
        return clipped((sum(lows), sum(highs)), operation.lo, operation.hi)
    return both


def _requantised(operation: Any, requant: Requant, x: Interval) -> Interval:
    """Of a requantise step, which is monotone: the ends of the sums give the ends of the codes."""
    low, high = accumulator(operation, x)
    if not fits(operation, low, high):
        return requant.lo, requant.hi
    ends = requant(np.stack([low, high]).astype(np.int64))
    return int(ends.min()), int(ends.max())


def clipped(interval: Interval, low: int, high: int) -> Interval:
    return min(max(interval[0], low), high), min(max(interval[1], low), high)
