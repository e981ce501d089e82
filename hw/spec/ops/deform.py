"""Deformable convolutions: the square one with one offset a pixel, and the general one with two for every tap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hw.spec.fixed import Rounding, round_shift
from hw.spec.ops.common import check_geometry, exact_matmul, weight_codes
from hw.spec.ops.requant import Requant

OFFSET_MIN, OFFSET_MAX = -7, 8
"""Range of the offset ``s`` of a square deformable convolution, in pixels; the sampler saturates to it."""

SQUARE_FRAC_MAX = 3
"""Most fraction bits of ``s``: its range then fits a byte."""


@dataclass(frozen=True, eq=False, kw_only=True)
class DeformDepthwiseConv2d:
    """Square deformable 3 x 3 depthwise convolution (CoDeNet, FPGA'21).

    Tap (i, j) of the output at (y, x) reads ``(y*stride + s*(i-1), x*stride + s*(j-1))`` where s, shared by all channels, is the
    offset at (y, x) saturated to [-7, 8]; samples outside the image are 0. ``weight`` (C, 3, 3); x (N, C, H, W); codes of s
    (N, 1, OH, OW) with ``offset_frac`` fraction bits (0..3) and ``OH = ceil(H / stride)``. Where there are any, samples are bilinear
    and rounded to codes of x, as in `DeformConv2d`.
    """

    op: ClassVar[str] = "deform_depthwise_conv2d"
    weight: np.ndarray
    requant: Requant
    stride: int = 1
    offset_frac: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", weight_codes(self.op, self.weight, 3))
        check_geometry(self.op, self.stride, 0)
        if not 0 <= self.offset_frac <= SQUARE_FRAC_MAX:
            raise ValueError(f"deform_depthwise_conv2d offset_frac must be in 0..{SQUARE_FRAC_MAX}, not {self.offset_frac}")
        if self.weight.shape[1:] != (3, 3):
            raise ValueError(f"deform_depthwise_conv2d weight must be (C, 3, 3), not {self.weight.shape}")

    def __call__(self, x: np.ndarray, s: np.ndarray) -> np.ndarray:
        n, c, h, w = x.shape
        oh, ow = -(-h // self.stride), -(-w // self.stride)
        if c != self.weight.shape[0] or s.shape != (n, 1, oh, ow):
            raise ValueError(
                f"deform_depthwise_conv2d expects {self.weight.shape[0]} channels and offsets "
                f"({n}, 1, {oh}, {ow}), not {x.shape} and {s.shape}"
            )
        offset = self.saturated(s[:, 0])
        rows = np.arange(oh)[:, None] * self.stride
        cols = np.arange(ow)[None, :] * self.stride
        acc = np.zeros((n, c, oh, ow), np.int64)
        for i in range(3):
            for j in range(3):
                taken = bilinear(x, rows, cols, offset * (i - 1), offset * (j - 1), self.offset_frac)
                acc += self.weight[None, :, i, j, None, None] * taken
        return self.requant(acc)

    def saturated(self, s: np.ndarray) -> np.ndarray:
        """Offset codes in the sampler's range."""
        return np.clip(s, OFFSET_MIN << self.offset_frac, OFFSET_MAX << self.offset_frac)

    def pixels(self, s: np.ndarray) -> np.ndarray:
        """Offset codes as the pixels that taps lie apart, float64."""
        return self.saturated(s) * 2.0**-self.offset_frac


def sample(x: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """x (N, C, H, W) at integer (rows, cols), each (N, OH, OW); 0 outside. Returns (N, C, OH, OW)."""
    n, _, h, w = x.shape
    inside = (rows >= 0) & (rows < h) & (cols >= 0) & (cols < w)
    picked = x[np.arange(n)[:, None, None], :, np.clip(rows, 0, h - 1), np.clip(cols, 0, w - 1)]
    return np.where(inside[:, None], picked.transpose(0, 3, 1, 2), 0)


def bilinear(x: np.ndarray, rows: np.ndarray, cols: np.ndarray, down: np.ndarray, right: np.ndarray, frac: int) -> np.ndarray:
    """x (N, C, H, W) at rows (OH, 1) and cols (1, OW) shifted by codes ``down`` and ``right`` (N, OH, OW) of ``frac`` fraction
    bits: (N, C, OH, OW), of the four codes around, rounded half up."""
    top, left = rows + (down >> frac), cols + (right >> frac)
    if not frac:
        return sample(x, top, left)
    one = 1 << frac
    low, far = ((shift & (one - 1))[:, None] for shift in (down, right))
    total = ((one - low) * (one - far) * sample(x, top, left) + (one - low) * far * sample(x, top, left + 1)
             + low * (one - far) * sample(x, top + 1, left) + low * far * sample(x, top + 1, left + 1))
    return round_shift(total, 2 * frac, Rounding.RND)


@dataclass(frozen=True, eq=False, kw_only=True)
class DeformConv2d:
    """Deformable convolution with fractional offsets in fixed point. ``weight`` (OC, IC / groups, KH, KW); x (N, IC, H, W).

    ``offset`` (N, 2 * KH * KW, OH, OW) holds a row and a column shift for each tap, rows first, taps row-major, as codes with
    ``offset_frac`` (f) fraction bits. Tap (i, j) of the output at (y, x) samples at ``(y*stride - padding + i*dilation,
    x*stride - padding + j*dilation)`` plus its shift, from the four codes around, each of which counts 0 outside the image:
    ``(sum of (2**f - dy or dy) * (2**f - dx or dx) * code + half) >> 2f``, a code again, rounded half up. Then the ordinary
    convolution and requantisation. One offset group, no mask.
    """

    op: ClassVar[str] = "deform_conv2d"
    weight: np.ndarray
    requant: Requant
    offset_frac: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", weight_codes(self.op, self.weight, 4))
        check_geometry(self.op, self.stride, self.padding)
        if self.dilation < 1 or self.groups < 1 or self.weight.shape[0] % self.groups:
            raise ValueError(f"deform_conv2d needs dilation >= 1 and groups that divide the {self.weight.shape[0]} output "
                             f"channels, not dilation {self.dilation}, groups {self.groups}")
        if not 0 <= self.offset_frac <= 7:
            raise ValueError(f"deform_conv2d offset_frac must be in 0..7, not {self.offset_frac}")

    def _size(self, x: np.ndarray) -> tuple[int, int]:
        kernel = self.weight.shape[2:]
        reach = (self.dilation * (k - 1) + 1 for k in kernel)
        oh, ow = ((n + 2 * self.padding - r) // self.stride + 1 for n, r in zip(x.shape[2:], reach, strict=True))
        return oh, ow

    def sample(self, x: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """The codes (N, IC, KH * KW, OH, OW) that the taps read."""
        kh, kw = self.weight.shape[2:]
        oh, ow = self._size(x)
        rows = np.arange(oh)[:, None] * self.stride - self.padding
        cols = np.arange(ow)[None, :] * self.stride - self.padding
        down, right = offset[:, 0::2], offset[:, 1::2]
        taps = [bilinear(x, rows + i * self.dilation, cols + j * self.dilation, down[:, kw * i + j], right[:, kw * i + j],
                         self.offset_frac) for i in range(kh) for j in range(kw)]
        return np.stack(taps, axis=2)

    def __call__(self, x: np.ndarray, offset: np.ndarray) -> np.ndarray:
        oc, ic, kh, kw = self.weight.shape
        if x.shape[1] != ic * self.groups or offset.shape != (x.shape[0], 2 * kh * kw, *self._size(x)):
            raise ValueError(f"deform_conv2d expects {ic * self.groups} channels and offsets ({x.shape[0]}, {2 * kh * kw}, "
                             f"{self._size(x)}), not {x.shape} and {offset.shape}")
        samples = np.split(self.sample(x, offset), self.groups, axis=1)
        parts = zip(samples, np.split(self.weight.reshape(oc, -1), self.groups), strict=True)
        acc = [exact_matmul(s.transpose(0, 3, 4, 1, 2).reshape(-1, ic * kh * kw), w.T) for s, w in parts]
        n, oh, ow = x.shape[0], *self._size(x)
        return self.requant(np.concatenate([a.reshape(n, oh, ow, -1) for a in acc], axis=3).transpose(0, 3, 1, 2))
