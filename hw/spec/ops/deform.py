"""Deformable convolutions: the square one with whole offsets, and the general one with fractional offsets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hw.spec.fixed import Rounding, round_shift
from hw.spec.ops.common import check_geometry, exact_matmul, weight_codes
from hw.spec.ops.requant import Requant

OFFSET_MIN, OFFSET_MAX = -7, 8
"""Range of the integer offset ``s`` of a square deformable convolution; the sampler saturates to it."""


@dataclass(frozen=True, eq=False, kw_only=True)
class DeformDepthwiseConv2d:
    """Square deformable 3 x 3 depthwise convolution with integer offsets (CoDeNet, FPGA'21).

    Tap (i, j) of the output at (y, x) reads ``(y*stride + s*(i-1), x*stride + s*(j-1))`` where s, shared by all channels, is the
    offset code at (y, x) saturated to [-7, 8]; samples outside the image are 0. ``weight`` (C, 3, 3); x (N, C, H, W);
    s (N, 1, OH, OW) with ``OH = ceil(H / stride)``.
    """

    op: ClassVar[str] = "deform_depthwise_conv2d"
    weight: np.ndarray
    requant: Requant
    stride: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", weight_codes(self.op, self.weight, 3))
        check_geometry(self.op, self.stride, 0)
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
        offset = np.clip(s[:, 0], OFFSET_MIN, OFFSET_MAX)
        rows = np.arange(oh)[None, :, None] * self.stride
        cols = np.arange(ow)[None, None, :] * self.stride
        acc = np.zeros((n, c, oh, ow), np.int64)
        for i in range(3):
            for j in range(3):
                acc += self.weight[None, :, i, j, None, None] * sample(x, rows + offset * (i - 1), cols + offset * (j - 1))
        return self.requant(acc)


def sample(x: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """x (N, C, H, W) at integer (rows, cols), each (N, OH, OW); 0 outside. Returns (N, C, OH, OW)."""
    n, _, h, w = x.shape
    inside = (rows >= 0) & (rows < h) & (cols >= 0) & (cols < w)
    picked = x[np.arange(n)[:, None, None], :, np.clip(rows, 0, h - 1), np.clip(cols, 0, w - 1)]
    return np.where(inside[:, None], picked.transpose(0, 3, 1, 2), 0)


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
        taps = [self._tap(x, rows + i * self.dilation, cols + j * self.dilation, offset[:, 2 * (kw * i + j):][:, :2])
                for i in range(kh) for j in range(kw)]
        return np.stack(taps, axis=2)

    def _tap(self, x: np.ndarray, rows: np.ndarray, cols: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """One tap: rows (OH, 1) and cols (1, OW) before the shift (N, 2, OH, OW). Returns (N, IC, OH, OW)."""
        one = 1 << self.offset_frac
        top, left = rows + (shift[:, 0] >> self.offset_frac), cols + (shift[:, 1] >> self.offset_frac)
        down, right = ((shift[:, axis] & (one - 1))[:, None] for axis in (0, 1))
        total = ((one - down) * (one - right) * sample(x, top, left) + (one - down) * right * sample(x, top, left + 1)
                 + down * (one - right) * sample(x, top + 1, left) + down * right * sample(x, top + 1, left + 1))
        return round_shift(total, 2 * self.offset_frac, Rounding.RND)

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
