"""Golden operations: the one definition of what a fixed-point layer computes.

Every operation is a frozen, validated dataclass whose call maps integer codes to integer codes. Tensors are int64 arrays in
``(N, C, H, W)`` order; the zero point is always 0, so padding is code 0. The networks' formats (where the binary point stands)
are folded into each operation's :class:`Requant`; an operation itself sees integers only.

Matrix products run in float64: every operand is an integer, every partial sum stays below 2**53 (checked), so the result is the
exact integer whatever order the library sums in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from hw.spec.fixed import Rounding, round_shift

OFFSET_MIN, OFFSET_MAX = -7, 8
"""Range of the integer offset ``s`` of a square deformable convolution; the sampler saturates to it."""

CORE_ROUNDINGS = (Rounding.TRN, Rounding.RND, Rounding.RND_CONV)
"""Roundings that a core offers when it requantises."""

_EXACT = 2**53


@dataclass(frozen=True, eq=False, kw_only=True)
class Requant:
    """Accumulator codes to output codes, per channel: ``clip(round((acc + bias) * multiplier * 2**-shift))``.

    Parameters
    ----------
    bias : int64 array (C,), each in the signed 32-bit range, at the accumulator's binary point
    multiplier : int64 array (C,), each in 1..65535; 1 where scales are powers of two
    shift : int64 array (C,), each in -32..31; a negative shift is to the left
    rounding : TRN, RND or RND_CONV, applied once, to right shifts
    lo, hi : smallest and largest output code, both in -256..255; ReLU is lo = 0, an unsigned byte is 0..255
    """

    bias: np.ndarray
    multiplier: np.ndarray
    shift: np.ndarray
    rounding: Rounding
    lo: int
    hi: int

    def __post_init__(self) -> None:
        channels = np.asarray(self.bias).shape
        for name, low, high in (("bias", -(2**31), 2**31 - 1), ("multiplier", 1, 65535), ("shift", -32, 31)):
            array = np.asarray(getattr(self, name), dtype=np.int64)
            if array.ndim != 1 or array.shape != channels:
                raise ValueError(f"Requant {name} must have one value per channel {channels}, not shape {array.shape}")
            if array.size and (array.min() < low or array.max() > high):
                raise ValueError(f"Requant {name} must be in {low}..{high}, not {array.min()}..{array.max()}")
            object.__setattr__(self, name, array)
        if self.rounding not in CORE_ROUNDINGS:
            raise ValueError(f"Requant rounding must be TRN, RND or RND_CONV, not {self.rounding}")
        if not -256 <= self.lo <= self.hi <= 255:
            raise ValueError(f"Requant output range must lie in -256..255, not {self.lo}..{self.hi}")

    @property
    def channels(self) -> int:
        return int(self.bias.shape[0])

    def __call__(self, acc: np.ndarray) -> np.ndarray:
        """Accumulators (N, C, ...) to codes of the same shape. ``acc + bias`` must fit 33 bits."""
        if acc.shape[1] != self.channels:
            raise ValueError(f"Requant has {self.channels} channels, the accumulator has {acc.shape[1]}")
        view = (1, -1) + (1,) * (acc.ndim - 2)
        scaled = (acc + self.bias.reshape(view)) * self.multiplier.reshape(view)
        return np.clip(shift_saturating(scaled, self.shift.reshape(view), self.rounding), self.lo, self.hi)


def shift_saturating(values: np.ndarray, shift: np.ndarray, rounding: Rounding) -> np.ndarray:
    """``values * 2**-shift`` rounded; a left shift first saturates to 10 bits, so that it cannot overflow.

    The saturation never shows after the clip to at most 9 bits that follows: 512 << n is out of every output range too.
    """
    right = round_shift(values, np.maximum(shift, 0), rounding)
    left = np.clip(values, -512, 511) << np.minimum(np.maximum(-shift, 0), 9)
    return np.where(shift < 0, left, right)


def identity_requant(channels: int, lo: int, hi: int) -> Requant:
    """A requantise step that only clips: for max pooling and other operations that keep the format."""
    zeros = np.zeros(channels, np.int64)
    return Requant(bias=zeros, multiplier=zeros + 1, shift=zeros, rounding=Rounding.TRN, lo=lo, hi=hi)


def mean_requant(channels: int, count: int, extra_shift: int, rounding: Rounding, lo: int, hi: int) -> Requant:
    """Sum of ``count`` codes to their mean times ``2**-extra_shift``: the reciprocal that every average pool uses.

    A power of two is a pure shift. Else the multiplier is ``floor(2**k / count + 1/2)`` with k chosen so that it has 16 bits.
    """
    if count < 1:
        raise ValueError(f"a mean must be over at least 1 element, not {count}")
    log2 = count.bit_length() - 1
    power, multiplier = (log2, 1) if count == 1 << log2 else (log2 + 16, ((2 << (log2 + 16)) // count + 1) // 2)
    shift = power + extra_shift
    if not -32 <= shift <= 31:
        raise ValueError(f"mean of {count} elements needs a shift of {shift}, outside -32..31")
    ones = np.ones(channels, np.int64)
    return Requant(bias=ones * 0, multiplier=ones * multiplier, shift=ones * shift, rounding=rounding, lo=lo, hi=hi)


def _patches(x: np.ndarray, kernel: tuple[int, int], stride: int, padding: int, fill: int = 0) -> np.ndarray:
    """(N, C, H, W) to (N, C, OH, OW, KH, KW)."""
    pads = ((0, 0), (0, 0), (padding, padding), (padding, padding))
    padded = np.pad(x, pads, constant_values=fill)
    if padded.shape[2] < kernel[0] or padded.shape[3] < kernel[1]:
        raise ValueError(
            f"a {kernel[0]}x{kernel[1]} window does not fit an input of {x.shape[2]}x{x.shape[3]} padded by {padding}"
        )
    return np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=(2, 3))[:, :, ::stride, ::stride]


def _exact_matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Integer matrix product through float64; raises where a partial sum could leave the exact range."""
    limit = int(np.abs(a).max(initial=0)) * int(np.abs(b).max(initial=0)) * a.shape[-1]
    if limit >= _EXACT:
        raise ValueError(f"a product of {a.shape[-1]} terms could reach {limit}, beyond the exact range of 2**53")
    return (a.astype(np.float64) @ b.astype(np.float64)).astype(np.int64)


def _codes(name: str, weight: np.ndarray, ndim: int) -> np.ndarray:
    weight = np.asarray(weight, dtype=np.int64)
    if weight.ndim != ndim:
        raise ValueError(f"{name} weight must have {ndim} axes, not shape {weight.shape}")
    if weight.size and (weight.min() < -128 or weight.max() > 127):
        raise ValueError(f"{name} weight codes must be in -128..127, not {weight.min()}..{weight.max()}")
    return weight


def _geometry(name: str, stride: int, padding: int) -> None:
    if stride < 1 or padding < 0:
        raise ValueError(f"{name} needs stride >= 1 and padding >= 0, not stride {stride}, padding {padding}")


@dataclass(frozen=True, eq=False, kw_only=True)
class Conv2d:
    """K x K convolution in ``groups`` groups of channels. ``weight`` (OC, IC / groups, KH, KW); zero padding; x (N, IC, H, W).

    Group g maps input channels g * IC / groups to output channels g * OC / groups, each with as many channels; OC must be a
    multiple of groups.
    """

    op: ClassVar[str] = "conv2d"
    weight: np.ndarray
    requant: Requant
    stride: int = 1
    padding: int = 0
    groups: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", _codes(self.op, self.weight, 4))
        _geometry(self.op, self.stride, self.padding)
        if self.groups < 1 or self.weight.shape[0] % self.groups:
            raise ValueError(f"conv2d groups must divide the {self.weight.shape[0]} output channels, not {self.groups}")

    @property
    def in_channels(self) -> int:
        return int(self.weight.shape[1]) * self.groups

    def accumulate(self, x: np.ndarray) -> np.ndarray:
        """The accumulators (N, OC, OH, OW) before bias and requantisation."""
        if x.shape[1] != self.in_channels:
            raise ValueError(f"conv2d expects {self.in_channels} input channels, not {x.shape[1]}")
        parts = zip(np.split(x, self.groups, axis=1), np.split(self.weight, self.groups), strict=True)
        return np.concatenate([self._group(part, weight) for part, weight in parts], axis=1)

    def _group(self, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        oc, ic, kh, kw = weight.shape
        patches = _patches(x, (kh, kw), self.stride, self.padding)
        n, _, oh, ow = patches.shape[:4]
        columns = patches.transpose(0, 2, 3, 1, 4, 5).reshape(n * oh * ow, ic * kh * kw)
        return _exact_matmul(columns, weight.reshape(oc, -1).T).reshape(n, oh, ow, oc).transpose(0, 3, 1, 2)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self.requant(self.accumulate(x))


@dataclass(frozen=True, eq=False, kw_only=True)
class Linear:
    """Fully connected layer over channels. ``weight`` (OC, IC); x (N, IC, 1, 1) to (N, OC, 1, 1)."""

    op: ClassVar[str] = "linear"
    weight: np.ndarray
    requant: Requant

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", _codes(self.op, self.weight, 2))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        if x.shape[1:] != (self.weight.shape[1], 1, 1):
            raise ValueError(f"linear expects (N, {self.weight.shape[1]}, 1, 1), not {x.shape}")
        acc = _exact_matmul(x[:, :, 0, 0], self.weight.T)
        return self.requant(acc[:, :, None, None])


@dataclass(frozen=True, eq=False, kw_only=True)
class DepthwiseConv2d:
    """3 x 3 convolution, one filter per channel. ``weight`` (C, 3, 3); x (N, C, H, W)."""

    op: ClassVar[str] = "depthwise_conv2d"
    weight: np.ndarray
    requant: Requant
    stride: int = 1
    padding: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", _codes(self.op, self.weight, 3))
        _geometry(self.op, self.stride, self.padding)
        if self.weight.shape[1:] != (3, 3):
            raise ValueError(f"depthwise_conv2d weight must be (C, 3, 3), not {self.weight.shape}")

    def __call__(self, x: np.ndarray) -> np.ndarray:
        if x.shape[1] != self.weight.shape[0]:
            raise ValueError(f"depthwise_conv2d expects {self.weight.shape[0]} channels, not {x.shape[1]}")
        patches = _patches(x, (3, 3), self.stride, self.padding)
        return self.requant(np.einsum("nchwij,cij->nchw", patches, self.weight))


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
        object.__setattr__(self, "weight", _codes(self.op, self.weight, 3))
        _geometry(self.op, self.stride, 0)
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
                acc += self.weight[None, :, i, j, None, None] * _sample(x, rows + offset * (i - 1), cols + offset * (j - 1))
        return self.requant(acc)


def _sample(x: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
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
        object.__setattr__(self, "weight", _codes(self.op, self.weight, 4))
        _geometry(self.op, self.stride, self.padding)
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
        total = ((one - down) * (one - right) * _sample(x, top, left) + (one - down) * right * _sample(x, top, left + 1)
                 + down * (one - right) * _sample(x, top + 1, left) + down * right * _sample(x, top + 1, left + 1))
        return round_shift(total, 2 * self.offset_frac, Rounding.RND)

    def __call__(self, x: np.ndarray, offset: np.ndarray) -> np.ndarray:
        oc, ic, kh, kw = self.weight.shape
        if x.shape[1] != ic * self.groups or offset.shape != (x.shape[0], 2 * kh * kw, *self._size(x)):
            raise ValueError(f"deform_conv2d expects {ic * self.groups} channels and offsets ({x.shape[0]}, {2 * kh * kw}, "
                             f"{self._size(x)}), not {x.shape} and {offset.shape}")
        samples = np.split(self.sample(x, offset), self.groups, axis=1)
        parts = zip(samples, np.split(self.weight.reshape(oc, -1), self.groups), strict=True)
        acc = [_exact_matmul(s.transpose(0, 3, 4, 1, 2).reshape(-1, ic * kh * kw), w.T) for s, w in parts]
        n, oh, ow = x.shape[0], *self._size(x)
        return self.requant(np.concatenate([a.reshape(n, oh, ow, -1) for a in acc], axis=3).transpose(0, 3, 1, 2))


@dataclass(frozen=True, eq=False, kw_only=True)
class MaxPool2d:
    """Largest code of a window; padding never wins (it counts as the smallest code). x (N, C, H, W)."""

    op: ClassVar[str] = "max_pool2d"
    kernel: int
    stride: int
    padding: int = 0

    def __post_init__(self) -> None:
        _geometry(self.op, self.stride, self.padding)
        if not 0 <= self.padding <= self.kernel // 2:
            raise ValueError(f"max_pool2d padding must be at most half of the window {self.kernel}, not {self.padding}")

    def __call__(self, x: np.ndarray) -> np.ndarray:
        lowest = np.iinfo(np.int64).min
        return _patches(x, (self.kernel, self.kernel), self.stride, self.padding, lowest).max(axis=(4, 5))


@dataclass(frozen=True, eq=False, kw_only=True)
class AvgPool2d:
    """Mean of a window, padding counted as zeros; the reciprocal is in ``requant`` (:func:`mean_requant`). x (N, C, H, W).

    ``kernel`` (KH, KW); global average pooling is a window as large as the image.
    """

    op: ClassVar[str] = "avg_pool2d"
    kernel: tuple[int, int]
    requant: Requant
    stride: int = 1
    padding: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "kernel", tuple(int(k) for k in self.kernel))
        _geometry(self.op, self.stride, self.padding)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self.requant(_patches(x, self.kernel, self.stride, self.padding).sum(axis=(4, 5)))


@dataclass(frozen=True, eq=False, kw_only=True)
class Slice:
    """Channels start..stop-1: one part of a split. x (N, C, H, W) to (N, stop - start, H, W)."""

    op: ClassVar[str] = "slice"
    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise ValueError(f"slice must have 0 <= start < stop, not {self.start}..{self.stop}")

    def __call__(self, x: np.ndarray) -> np.ndarray:
        if x.shape[1] < self.stop:
            raise ValueError(f"slice of channels {self.start}..{self.stop - 1} needs {self.stop} channels, not {x.shape[1]}")
        return x[:, self.start : self.stop]


@dataclass(frozen=True, eq=False)
class ShuffleJoin:
    """Concatenate two tensors and shuffle their channels in two groups: out[2i] = left[i], out[2i+1] = right[i].

    Both inputs and the output share one format. left, right (N, C, H, W) to (N, 2C, H, W).
    """

    op: ClassVar[str] = "shuffle_join"

    def __call__(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        _same_shape(self.op, left, right)
        n, c, h, w = left.shape
        return np.stack([left, right], axis=2).reshape(n, 2 * c, h, w)


@dataclass(frozen=True, eq=False, kw_only=True)
class Add:
    """Residual sum of two tensors of one format, saturated to lo..hi. a, b (N, C, H, W)."""

    op: ClassVar[str] = "add"
    lo: int
    hi: int

    def __post_init__(self) -> None:
        if not -256 <= self.lo <= self.hi <= 255:
            raise ValueError(f"add output range must lie in -256..255, not {self.lo}..{self.hi}")

    def __call__(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        _same_shape(self.op, a, b)
        return np.clip(a + b, self.lo, self.hi)


@dataclass(frozen=True, eq=False, kw_only=True)
class Scale:
    """Per-channel multiply-add: a BatchNorm as a layer of its own. ``weight`` (C,), 8-bit codes; x (N, C, H, W)."""

    op: ClassVar[str] = "scale"
    weight: np.ndarray
    requant: Requant

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", _codes(self.op, self.weight, 1))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        if x.shape[1] != self.weight.shape[0]:
            raise ValueError(f"scale expects {self.weight.shape[0]} channels, not {x.shape[1]}")
        return self.requant(x * self.weight[:, None, None])


@dataclass(frozen=True, eq=False, kw_only=True)
class Table:
    """A function of one code by a table of all its values: sigmoid, tanh, SiLU, leaky ReLU and the like. x (N, C, H, W).

    ``values`` (256,) are output codes in -128..255, indexed by the input code's low byte: codes 0..255 of an unsigned input
    in order; of a signed one 0..127, then -128..-1.
    """

    op: ClassVar[str] = "table"
    values: np.ndarray

    def __post_init__(self) -> None:
        values = np.asarray(self.values, dtype=np.int64)
        if values.shape != (256,):
            raise ValueError(f"table values must be 256, one per byte, not shape {values.shape}")
        if values.min() < -128 or values.max() > 255:
            raise ValueError(f"table values must be in -128..255, not {values.min()}..{values.max()}")
        object.__setattr__(self, "values", values)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        if x.size and (x.min() < -128 or x.max() > 255):
            raise ValueError(f"table expects codes of at most 8 bits, not {x.min()}..{x.max()}")
        return self.values[x & 0xFF]


@dataclass(frozen=True, eq=False, kw_only=True)
class Clip:
    """Codes limited to lo..hi: a ReLU or ReLU6 that no layer before it can take. x (N, C, H, W)."""

    op: ClassVar[str] = "clip"
    lo: int
    hi: int

    def __post_init__(self) -> None:
        if not -256 <= self.lo <= self.hi <= 255:
            raise ValueError(f"clip range must lie in -256..255, not {self.lo}..{self.hi}")

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return np.clip(x, self.lo, self.hi)


@dataclass(frozen=True, eq=False)
class Concat:
    """Channels of two or more tensors of one format behind each other. xs (N, C_i, H, W) to (N, sum of C_i, H, W)."""

    op: ClassVar[str] = "concat"

    def __call__(self, *xs: np.ndarray) -> np.ndarray:
        if len(xs) < 2 or len({(x.shape[0], *x.shape[2:]) for x in xs}) != 1:
            raise ValueError(f"concat needs two or more tensors of one height and width, not {[x.shape for x in xs]}")
        return np.concatenate(xs, axis=1)


@dataclass(frozen=True, eq=False, kw_only=True)
class Shuffle:
    """Channel shuffle: of C = groups * k channels, output channel i * groups + g is input channel g * k + i. x (N, C, H, W)."""

    op: ClassVar[str] = "shuffle"
    groups: int

    def __post_init__(self) -> None:
        if self.groups < 1:
            raise ValueError(f"shuffle groups must be at least 1, not {self.groups}")

    def order(self, channels: int) -> np.ndarray:
        """The input channel of each output channel."""
        if channels % self.groups:
            raise ValueError(f"shuffle in {self.groups} groups does not divide {channels} channels")
        return np.arange(channels).reshape(self.groups, -1).T.reshape(-1)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return x[:, self.order(x.shape[1])]


@dataclass(frozen=True, eq=False)
class Upsample2x:
    """Nearest-neighbour upsampling by two. x (N, C, H, W) to (N, C, 2H, 2W)."""

    op: ClassVar[str] = "upsample2x"

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return x.repeat(2, axis=2).repeat(2, axis=3)


def _same_shape(op: str, a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape:
        raise ValueError(f"{op} needs two tensors of one shape, not {a.shape} and {b.shape}")


OPERATIONS: dict[str, Any] = {
    cls.op: cls
    for cls in (
        Conv2d,
        Linear,
        DepthwiseConv2d,
        DeformDepthwiseConv2d,
        MaxPool2d,
        AvgPool2d,
        Slice,
        ShuffleJoin,
        Add,
        Upsample2x,
        Scale,
        Table,
        Clip,
        Concat,
        Shuffle,
        DeformConv2d,
    )
}
"""Operation name to class: what an integer graph may contain."""
