"""What `sw.kernels.ordered` computes, in numpy: the definition, and what stands in where the kernels are off.

Every function continues float32 chains in place, one product at a time in the stated order: numpy's multiply and add of
float32 arrays are elementwise, so nothing is fused and no sum is reordered. Operands are float16 and are not checked here.
Padding, and the holes that a stride leaves in the backward pass, are zeros that are really added.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Halves", "Singles", "input_pass", "matmul", "narrow", "output_pass", "weight_pass"]

Halves = NDArray[np.float16]
Singles = NDArray[np.float32]
_ROWS = 4096
"""Rows of outputs in work at a time: they stay in a cache."""


def matmul(a: Halves, b: Halves, sums: Singles) -> None:
    """sums (I, J) += a (I, K) by b (K, J), k ascending."""
    wide = b.astype(np.float32)
    for start in range(0, len(a), _ROWS):
        part = np.ascontiguousarray(a[start : start + _ROWS].T, np.float32)
        rows = sums[start : start + _ROWS]
        for left, right in zip(part, wide, strict=True):
            rows += left[:, None] * right


def output_pass(x: Halves, w: Halves, sums: Singles, stride: tuple[int, int], padding: tuple[int, int]) -> None:
    """sums (N, OH, OW, CO) += windows of x (N, H, W, CI) by w (KH, KW, CI, CO), over (kh, kw, ci)."""
    padded = _padded(x, padding)
    for kh, kw in np.ndindex(*w.shape[:2]):
        taken = _window(padded, (kh, kw), stride, sums.shape[1:3])
        flat = sums.reshape(-1, sums.shape[-1])
        matmul(taken.reshape(len(flat), -1), w[kh, kw], flat)


def input_pass(dy: Halves, w: Halves, sums: Singles, stride: tuple[int, int], padding: tuple[int, int]) -> None:
    """sums (N, H, W, CI) += dy (N, OH, OW, CO) by w (KH, KW, CI, CO), over the flipped taps, then co.

    dy with zeros between its pixels, then a pass of stride 1 with the flipped and transposed weights.
    """
    (images, rows, columns, channels), taps = dy.shape, w.shape[:2]
    high, wide = (size + tap - 1 for size, tap in zip(sums.shape[1:3], taps, strict=True))
    top, left = (tap - 1 - pad for tap, pad in zip(taps, padding, strict=True))
    spread = np.zeros((images, high, wide, channels), np.float16)
    for i, j in np.ndindex(rows, columns):
        row, column = i * stride[0] + top, j * stride[1] + left
        if 0 <= row < high and 0 <= column < wide:
            spread[:, row, column] = dy[:, i, j]
    output_pass(spread, w[::-1, ::-1].transpose(0, 1, 3, 2), sums, (1, 1), (0, 0))


def weight_pass(x: Halves, dy: Halves, sums: Singles, stride: tuple[int, int], padding: tuple[int, int]) -> None:
    """sums (KH, KW, CI, CO) += windows of x (N, H, W, CI) by dy (N, OH, OW, CO), over (n, oh, ow)."""
    padded, wide = _padded(x, padding).astype(np.float32), dy.astype(np.float32)
    for n, i, j in np.ndindex(*dy.shape[:3]):
        row, column = i * stride[0], j * stride[1]
        window = padded[n, row : row + sums.shape[0], column : column + sums.shape[1]]
        sums += window[..., None] * wide[n, i, j]


def narrow(values: Singles) -> Halves:
    """float32 to float16, to nearest even, at most 65504 in magnitude."""
    return np.clip(values, np.float32(-65504), np.float32(65504)).astype(np.float16)


def _padded(x: Halves, padding: tuple[int, int]) -> Halves:
    return np.pad(x, ((0, 0), (padding[0],) * 2, (padding[1],) * 2, (0, 0)))


def _window(padded: Halves, at: tuple[int, int], stride: tuple[int, int], size: tuple[int, ...]) -> Halves:
    """For each output pixel the input pixel under one tap."""
    rows, columns = (slice(a, a + s * (n - 1) + 1, s) for a, s, n in zip(at, stride, size, strict=True))
    return np.ascontiguousarray(padded[:, rows, columns])
