"""The three products of a convolution: sums of FP16 products in FP32, in ascending order of the reduction.

``acc = +0; for k ascending: acc = RNE32(acc + x_k * w_k)``. The order of k is (kh, kw, ci) forward, (flipped kh and kw, co) for the
gradient of the input, (n, oh, ow) for that of the weights. Terms with a zero operand change nothing, so that padding, the holes of
strides and masked weights need not be left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """A convolution's sizes: input (height, width), kernel, stride and padding, each the same both ways but for the sizes."""

    height: int
    width: int
    kernel_h: int
    kernel_w: int
    stride: int = 1
    padding: int = 0

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.kernel_h, self.kernel_w, self.stride) < 1 or self.padding < 0:
            raise ValueError(f"a convolution's sizes and stride must be at least 1 and its padding at least 0, not {self}")
        if min(self.out_height, self.out_width) < 1:
            raise ValueError(f"a kernel of {self.kernel_h}x{self.kernel_w} does not fit into {self.height}x{self.width} "
                             f"with padding {self.padding}")

    @property
    def out_height(self) -> int:
        return (self.height + 2 * self.padding - self.kernel_h) // self.stride + 1

    @property
    def out_width(self) -> int:
        return (self.width + 2 * self.padding - self.kernel_w) // self.stride + 1


@dataclass(frozen=True, kw_only=True)
class Products:
    """Implementations of the three products, all equal: the definition below, or compiled kernels.

    forward(x, w, geometry), input_gradient(dy, w, geometry), weight_gradient(x, dy, geometry): x (N, H, W, CI), dy (N, OH, OW, CO),
    w (KH, KW, CI, CO), all float16, to float32 of the product's shape.
    """

    forward: Callable[[Array, Array, Geometry], Array]
    input_gradient: Callable[[Array, Array, Geometry], Array]
    weight_gradient: Callable[[Array, Array, Geometry], Array]


def window(x: Array, i: int, j: int, g: Geometry) -> Array:
    """What tap (i, j) of each output reads: x (N, H, W, C) to (N, OH, OW, C), 0 outside."""
    padded = np.pad(x, ((0, 0), (g.padding, g.padding), (g.padding, g.padding), (0, 0)))
    return padded[:, i : i + (g.out_height - 1) * g.stride + 1 : g.stride, j : j + (g.out_width - 1) * g.stride + 1 : g.stride]


def forward(x: Array, w: Array, g: Geometry) -> Array:
    acc = np.zeros((len(x), g.out_height, g.out_width, w.shape[3]), np.float32)
    for i in range(g.kernel_h):
        for j in range(g.kernel_w):
            taken = window(x, i, j, g).astype(np.float32)
            for c in range(w.shape[2]):
                acc += taken[..., c, None] * w[i, j, c].astype(np.float32)
    return acc


def input_gradient(dy: Array, w: Array, g: Geometry) -> Array:
    n, _, _, channels = dy.shape
    acc = np.zeros((n, g.height + 2 * g.padding, g.width + 2 * g.padding, w.shape[2]), np.float32)
    wide = dy.astype(np.float32)
    for i in reversed(range(g.kernel_h)):
        for j in reversed(range(g.kernel_w)):
            rows = slice(i, i + (g.out_height - 1) * g.stride + 1, g.stride)
            cols = slice(j, j + (g.out_width - 1) * g.stride + 1, g.stride)
            for c in range(channels):
                acc[:, rows, cols] += wide[..., c, None] * w[i, j, :, c].astype(np.float32)
    return acc[:, g.padding : g.padding + g.height, g.padding : g.padding + g.width]


def weight_gradient(x: Array, dy: Array, g: Geometry) -> Array:
    result = np.zeros((g.kernel_h, g.kernel_w, x.shape[3], dy.shape[3]), np.float32)
    gradients = dy.reshape(-1, dy.shape[3]).astype(np.float32)
    for i in range(g.kernel_h):
        for j in range(g.kernel_w):
            taken = window(x, i, j, g).reshape(-1, x.shape[3]).astype(np.float32)
            acc = result[i, j]
            for k in range(len(taken)):
                acc += taken[k, :, None] * gradients[k]
    return result


DEFINITION = Products(forward=forward, input_gradient=input_gradient, weight_gradient=weight_gradient)
"""The definition in numpy: exact and slow."""
