"""Integer operations on codes held in torch floats: the frozen forward pass.

Products run as `unfold` and matrix multiplication, never as `conv2d`, whose library may choose a transform algorithm
(Winograd, FFT) that is not exact on integers. A float32 product is used only where the caller has proven that no partial
sum of any channel leaves 2**24; float64 holds every case of the core. `sw.quant.guard` probes that products are exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hw.spec.fixed import FixedFormat, Rounding
from hw.spec.ops import OFFSET_MAX, OFFSET_MIN
from sw.quant.deform import sample_taps
from sw.quant.fake import exact_power_of_two, round_exact
from sw.quant.guard import exact_product
from sw.quant.primitives import pick, sample_bilinear, square_taps

__all__ = ["Geometry", "conv_codes", "deform_codes", "deform_conv_codes", "depthwise_codes", "exact_dtype",
           "requantise_codes"]

_FLOAT32_EXACT = 2**24


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Where a convolution's window moves: the same for rows and columns."""

    stride: int = 1
    padding: int = 0
    dilation: int = 1
    groups: int = 1


def exact_dtype(weight: np.ndarray, bias: np.ndarray, fmt: FixedFormat) -> torch.dtype:
    """The narrowest float type that holds every partial sum of every channel exactly.

    ``weight`` (C, ...) and ``bias`` (C,) are codes; activations are codes of ``fmt``.
    """
    largest = max(-fmt.min_code, fmt.max_code)
    bound = np.abs(weight).reshape(weight.shape[0], -1).sum(1) * largest + np.abs(bias)
    proven = int(bound.max(initial=0)) <= _FLOAT32_EXACT
    return torch.float32 if proven and torch.get_float32_matmul_precision() == "highest" else torch.float64


def _exact_operands(x: Tensor, weight: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    # Accelerators may run float32 products in reduced precision; float64 is never reduced.
    dtype = dtype if x.device.type == "cpu" else torch.float64
    return x.to(dtype), weight.to(x.device, dtype)


def conv_codes(x: Tensor, weight: Tensor, geometry: Geometry, dtype: torch.dtype) -> Tensor:
    """K x K convolution: x (N, IC, H, W), weight (OC, IC / groups, KH, KW); accumulators (N, OC, OH, OW)."""
    x, weight = _exact_operands(x, weight, dtype)
    columns, size = _unfold(x, weight, geometry)
    return _grouped_product(columns, weight, geometry.groups).unflatten(2, size)


def _unfold(x: Tensor, weight: Tensor, g: Geometry) -> tuple[Tensor, tuple[int, int]]:
    """Columns (N, C * KH * KW, OH * OW) and (OH, OW)."""
    kernel = (int(weight.shape[2]), int(weight.shape[3]))
    columns = F.unfold(x, kernel, g.dilation, g.padding, g.stride)
    h, w = ((int(x.shape[2 + i]) + 2 * g.padding - g.dilation * (kernel[i] - 1) - 1) // g.stride + 1 for i in (0, 1))
    return columns, (h, w)


def _grouped_product(columns: Tensor, weight: Tensor, groups: int) -> Tensor:
    """columns (N, IC * KH * KW, P) and weight (OC, IC / groups, KH, KW) to accumulators (N, OC, P)."""
    split = columns.unflatten(1, (groups, -1))
    rows = weight.flatten(1).unflatten(0, (groups, -1))
    if rows.shape[1] == 1:  # a matrix product of one row is slower than its sum
        return (split * rows.view(1, groups, -1, 1)).sum(2)
    return exact_product(rows, split).flatten(1, 2)


def depthwise_codes(x: Tensor, weight: Tensor, geometry: Geometry, dtype: torch.dtype) -> Tensor:
    """3 x 3 convolution per channel: x (N, C, H, W), weight (C, 1, 3, 3); accumulators (N, C, OH, OW)."""
    return conv_codes(x, weight, geometry, dtype)


def deform_codes(x: Tensor, offset: Tensor, weight: Tensor, stride: int, offset_frac: int, dtype: torch.dtype) -> Tensor:
    """Square deformable 3 x 3 per channel; offset codes (N, 1, OH, OW) saturate to -7..8 pixels; accumulators (N, C, OH, OW).

    Samples at fractional offsets are exact in float64, and rounded half up.
    """
    shifts = (offset.to(torch.float64) * 2.0**-offset_frac).clamp(OFFSET_MIN, OFFSET_MAX)
    rows, cols = square_taps(shifts, stride)
    if offset_frac:
        taps = round_exact(sample_bilinear(x.to(torch.float64), rows, cols), Rounding.RND)
    else:
        taps = pick(x, rows, cols)
    taps, weight = _exact_operands(taps, weight, dtype)
    return (taps * weight.view(1, -1, 9, 1, 1)).sum(2)


def deform_conv_codes(
    x: Tensor, offset: Tensor, weight: Tensor, geometry: Geometry, offset_frac: int, dtype: torch.dtype
) -> Tensor:
    """Deformable convolution; offset codes (N, 2 * KH * KW, OH, OW); accumulators (N, OC, OH, OW).

    A bilinear sample is a sum of codes times weights of 2 * 7 fraction bits at most: float64 holds it exactly, and it is
    rounded half up.
    """
    shifts = offset.to(torch.float64) * 2.0**-offset_frac
    samples = sample_taps(x.to(torch.float64), shifts, weight, geometry.stride, geometry.padding, geometry.dilation)
    taps, weight = _exact_operands(round_exact(samples, Rounding.RND), weight, dtype)
    return _grouped_product(taps.flatten(1, 2).flatten(2), weight, geometry.groups).unflatten(2, taps.shape[3:])


def requantise_codes(
    acc: Tensor, bias: Tensor, shift: Tensor, rounding: Rounding, low: int, high: int, multiplier: int = 1
) -> Tensor:
    """``clip(round((acc + bias) * multiplier * 2**-shift))`` per channel of axis 1, in float64: 33 + 16 bits are exact."""
    view = (1, -1) + (1,) * (acc.ndim - 2)
    total = (acc.to(torch.float64) + bias.to(acc.device, torch.float64).view(view)) * multiplier
    scale = exact_power_of_two(-shift.to(acc.device), torch.float64).view(view)
    return round_exact(total * scale, rounding).clamp(low, high)
