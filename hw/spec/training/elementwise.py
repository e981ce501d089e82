"""Operations on single FP16 values: sums of gradients, masks, pooling. Each FP32 operation and each FP16 result is rounded once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hw.spec.training import rounded
from hw.spec.training.rounded import half, multiply, wide

Array = np.ndarray


def add(a: Array, b: Array) -> Array:
    """Sum of two gradients (float16)."""
    return half(rounded.add(wide(a), wide(b)))


def scaled(a: Array, factor: np.float32) -> Array:
    """float16 times an FP32 constant."""
    return half(multiply(wide(a), np.broadcast_to(factor, a.shape)))


def masked(gradient: Array, activated: Array) -> Array:
    """The gradient before a ReLU with the result ``activated``: kept where that is above 0, else +0."""
    return np.where(activated > 0, gradient, np.float16(0))


def _positions(kernel: tuple[int, int]) -> Iterator[tuple[int, int]]:
    return ((i, j) for i in range(kernel[0]) for j in range(kernel[1]))


def _lattice(x: Array, kernel: tuple[int, int], place: tuple[int, int]) -> Array:
    """What stands at one place of each window: x (N, H, W, C), windows of ``kernel`` without overlap."""
    return x[:, place[0] :: kernel[0], place[1] :: kernel[1]]


def max_pool(x: Array, kernel: tuple[int, int]) -> Array:
    """The largest value of each window; of equal ones (+0 and -0 too) the first in raster order."""
    result: Array | None = None
    for place in _positions(kernel):
        taken = _lattice(x, kernel, place)
        result = taken if result is None else np.where(result >= taken, result, taken)
    assert result is not None
    return result


def max_pool_backward(dy: Array, x: Array, y: Array, kernel: tuple[int, int]) -> Array:
    """The gradient goes to the first value of the window that equals the result."""
    dx, left = np.zeros_like(x), dy
    for place in _positions(kernel):
        equal = _lattice(x, kernel, place) == y
        _lattice(dx, kernel, place)[...] = np.where(equal, left, np.float16(0))
        left = np.where(equal, np.float16(0), left)
    return dx


def reciprocal(kernel: tuple[int, int]) -> np.float32:
    """What a mean multiplies by: the FP32 nearest to 1 / values of a window."""
    return np.float32(1 / (kernel[0] * kernel[1]))


def average_pool(x: Array, kernel: tuple[int, int]) -> Array:
    """Means of windows: ``acc = x_0 / n; acc = FP16(acc + x_i / n)`` in raster order."""
    result: Array | None = None
    for place in _positions(kernel):
        taken = _lattice(x, kernel, place)
        if result is None:
            result = scaled(taken, reciprocal(kernel))
        else:
            product = multiply(wide(taken), np.broadcast_to(reciprocal(kernel), taken.shape))
            result = half(rounded.add(wide(result), product))
    assert result is not None
    return result


def average_pool_backward(dy: Array, kernel: tuple[int, int]) -> Array:
    """The gradient divided evenly."""
    return scaled(dy, reciprocal(kernel)).repeat(kernel[0], axis=1).repeat(kernel[1], axis=2)
