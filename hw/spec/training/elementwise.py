"""Operations on single FP16 values: sums of gradients, masks, pooling. Each FP32 operation and each FP16 result is rounded once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hw.spec.floats import FP16_MAX
from hw.spec.training import rounded
from hw.spec.training.rounded import half, multiply, wide

Array = np.ndarray


def add(a: Array, b: Array) -> Array:
    """Sum of two gradients (float16)."""
    return half(rounded.add(wide(a), wide(b)))


def summed(a: Array, b: Array, relu: bool) -> Array:
    """Sum of two tensors (float16); with ``relu`` what is negative or -0 becomes +0."""
    result = rounded.add(wide(a), wide(b))
    return half(np.where(result > 0, result, np.float32(0)) if relu else result)


def scaled(a: Array, factor: np.float32) -> Array:
    """float16 times an FP32 constant."""
    return half(multiply(wide(a), np.broadcast_to(factor, a.shape)))


def masked(gradient: Array, activated: Array) -> Array:
    """The gradient before a ReLU with the result ``activated``: kept where that is above 0, else +0."""
    return np.where(activated > 0, gradient, np.float16(0))


@dataclass(frozen=True, kw_only=True)
class PoolWindow:
    """Windows of pooling: (rows, columns) of the kernel, of the stride (the kernel's, if not given) and of the padding."""

    kernel: tuple[int, int]
    stride: tuple[int, int] = (0, 0)
    padding: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if self.stride == (0, 0):
            object.__setattr__(self, "stride", self.kernel)
        if min(*self.kernel, *self.stride) < 1 or any(not 0 <= p < k for p, k in zip(self.padding, self.kernel, strict=True)):
            raise ValueError(f"a pool's kernel and stride must be at least 1 and its padding below the kernel, not {self}")

    @property
    def overlaps(self) -> bool:
        """Whether a value may lie in several windows, or a window reach outside."""
        return self.padding != (0, 0) or any(s < k for s, k in zip(self.stride, self.kernel, strict=True))

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the result."""
        sizes = zip((height, width), self.kernel, self.stride, self.padding, strict=True)
        rows, cols = ((n + 2 * p - k) // s + 1 for n, k, s, p in sizes)
        return rows, cols

    def places(self) -> Iterator[tuple[int, int]]:
        """Places of a window in raster order."""
        return ((i, j) for i in range(self.kernel[0]) for j in range(self.kernel[1]))


OUTSIDE = -FP16_MAX
"""What counts outside of the image in a maximum: the smallest number."""


def _padded(x: Array, w: PoolWindow) -> Array:
    rows, cols = w.padding
    return np.pad(x, ((0, 0), (rows, rows), (cols, cols), (0, 0)), constant_values=OUTSIDE)


def _lattice(padded: Array, w: PoolWindow, size: tuple[int, int], place: tuple[int, int]) -> Array:
    """A view of what stands at one place of each window: (N, rows, columns, C)."""
    rows, cols = (slice(p, p + (n - 1) * s + 1, s) for p, n, s in zip(place, size, w.stride, strict=True))
    return padded[:, rows, cols]


def max_pool(x: Array, w: PoolWindow) -> Array:
    """The largest value of each window; of equal ones (+0 and -0 too) the first in raster order."""
    padded, size = _padded(x, w), w.size(*x.shape[1:3])
    taken = [_lattice(padded, w, size, place) for place in w.places()]
    result = taken[0]
    for value in taken[1:]:
        result = np.where(result >= value, result, value)
    return result


def max_pool_backward(dy: Array, x: Array, y: Array, w: PoolWindow) -> Array:
    """The gradient goes to the first value of each window that equals the result; where windows overlap, gradients are added.

    They are added in the order of the places that the value has in its windows, to +0.
    """
    padded, left = _padded(x, w), dy
    dx = np.zeros_like(padded)
    for place in w.places():
        equal = _lattice(padded, w, y.shape[1:3], place) == y
        part = np.where(equal, left, np.float16(0))
        target = _lattice(dx, w, y.shape[1:3], place)
        target[...] = add(target, part) if w.overlaps else part
        left = np.where(equal, np.float16(0), left)
    (rows, cols), (height, width) = w.padding, x.shape[1:3]
    return dx[:, rows : rows + height, cols : cols + width]


def reciprocal(w: PoolWindow) -> np.float32:
    """What a mean multiplies by: the FP32 nearest to 1 / values of a window."""
    return np.float32(1 / (w.kernel[0] * w.kernel[1]))


def average_pool(x: Array, w: PoolWindow) -> Array:
    """Means of windows: ``acc = FP16(x_0 * r); acc = FP16(acc + x_i * r)``, raster order, r = FP32(1 / n). Windows must not overlap."""
    size = w.size(*x.shape[1:3])
    first, *others = (_lattice(x, w, size, place) for place in w.places())
    result = scaled(first, reciprocal(w))
    for value in others:
        product = multiply(wide(value), np.broadcast_to(reciprocal(w), value.shape))
        result = half(rounded.add(wide(result), product))
    return result


def average_pool_backward(dy: Array, w: PoolWindow) -> Array:
    """The gradient divided evenly."""
    return scaled(dy, reciprocal(w)).repeat(w.kernel[0], axis=1).repeat(w.kernel[1], axis=2)
