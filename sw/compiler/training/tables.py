"""Pixel tables: for each output pixel where its window begins in the activation memory, and which kernel rows and columns exist."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hw.spec.training import Geometry

MASK_BITS = 8
ENTRY_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Windows:
    """The windows of a product: output pixel (row, col) reads input rows ``row * stride + first_row`` and on, ``taps_h`` of them.

    ``rows``, ``cols``: output pixels; an output pixel stands in memory at (row * step + row_offset, ...), because the gradient of a
    strided convolution's input is made phase by phase. ``tap_rows``, ``tap_cols``: rows and columns of the kernel, in the order of k.
    A phase without taps has none and gives zeros.
    """

    rows: int
    cols: int
    stride: int
    first_row: int
    first_col: int
    tap_rows: tuple[int, ...]
    tap_cols: tuple[int, ...]
    step: int = 1
    row_offset: int = 0
    col_offset: int = 0

    @property
    def empty(self) -> bool:
        return not self.tap_rows or not self.tap_cols

    def input_rows(self, start: int, stop: int, height: int) -> tuple[int, int]:
        """The existing input rows that output rows start..stop-1 read; at least one."""
        first = max(0, min(height - 1, start * self.stride + self.first_row))
        last = (stop - 1) * self.stride + self.first_row + max(len(self.tap_rows), 1)
        return first, max(first + 1, min(height, last))


def forward_windows(g: Geometry) -> Windows:
    """Windows of the forward pass, and of the weights' gradient."""
    return Windows(
        rows=g.out_height, cols=g.out_width, stride=g.stride, first_row=-g.padding, first_col=-g.padding,
        tap_rows=tuple(range(g.kernel_h)), tap_cols=tuple(range(g.kernel_w)),
    )  # fmt: skip


def gradient_windows(g: Geometry) -> list[Windows]:
    """Windows over the gradient of the result, one per phase of the stride, with taps in flipped order."""
    return [_phase(g, row, col) for row in range(min(g.stride, g.height)) for col in range(min(g.stride, g.width))]


def _phase(g: Geometry, row: int, col: int) -> Windows:
    tap_rows, first_row = _phase_taps(g.kernel_h, row + g.padding, g.stride)
    tap_cols, first_col = _phase_taps(g.kernel_w, col + g.padding, g.stride)
    return Windows(
        rows=-(-(g.height - row) // g.stride), cols=-(-(g.width - col) // g.stride), stride=1,
        first_row=first_row, first_col=first_col, tap_rows=tap_rows, tap_cols=tap_cols,
        step=g.stride, row_offset=row, col_offset=col,
    )  # fmt: skip


def _phase_taps(kernel: int, shifted: int, stride: int) -> tuple[tuple[int, ...], int]:
    """Taps of the kernel that meet a phase, the last first, and the result's index that the first of them comes from."""
    taps = tuple(k for k in reversed(range(kernel)) if (shifted - k) % stride == 0)
    return taps, (shifted - taps[0]) // stride if taps else 0


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What lies in the activation memory: rows start..stop-1 of ``images`` images of height x width pixels of ``words`` words."""

    images: int
    start: int
    stop: int
    height: int
    width: int
    words: int


def table(w: Windows, rows: tuple[int, int], source: Loaded, size: int) -> bytes:
    """Entries of the output pixels of rows[0]..rows[1]-1 of each image, padded to ``size`` with pixels that do not exist."""
    images, width, height, words = source.images, source.width, source.height, source.words
    image, row, col = (a.reshape(-1) for a in np.meshgrid(np.arange(images), np.arange(*rows), np.arange(w.cols), indexing="ij"))
    y, x = row * w.stride + w.first_row, col * w.stride + w.first_col
    entries = np.zeros((size, ENTRY_BYTES), np.uint8)
    base = ((image * (source.stop - source.start) + y - source.start) * width + x) * words
    count = len(base)
    entries[:count, :2] = (base & 0xFFFF).astype("<u2").view(np.uint8).reshape(-1, 2)
    entries[:count, 2] = _mask(y, len(w.tap_rows), 0, height)
    entries[:count, 3] = _mask(x, len(w.tap_cols), 0, width)
    return entries.tobytes()


def _mask(start: np.ndarray, taps: int, low: int, high: int) -> np.ndarray:
    tap = start[:, None] + np.arange(taps)
    inside = ((tap >= low) & (tap < high)) << np.arange(taps)
    return inside.sum(axis=1).astype(np.uint8)
