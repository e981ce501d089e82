"""Integer operations on codes held in torch floats: the frozen forward pass.

Products run as `unfold` and matrix multiplication, never as `conv2d`, whose library may choose a transform algorithm
(Winograd, FFT) that is not exact on integers. A float32 product is used only where the caller has proven that no partial
sum of any channel leaves 2**24; float64 holds every case of the core.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hw.spec.fixed import FixedFormat, Rounding
from hw.spec.ops import OFFSET_MAX, OFFSET_MIN
from sw.quant.fake import exact_power_of_two, round_exact
from sw.quant.primitives import pick, square_taps

__all__ = ["conv_codes", "deform_codes", "depthwise_codes", "exact_dtype", "requantise_codes"]

_FLOAT32_EXACT = 2**24


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


def conv_codes(x: Tensor, weight: Tensor, stride: int, padding: int, dtype: torch.dtype) -> Tensor:
    """K x K convolution: x (N, IC, H, W), weight (OC, IC, KH, KW); accumulators (N, OC, OH, OW)."""
    x, weight = _exact_operands(x, weight, dtype)
    kernel = (int(weight.shape[2]), int(weight.shape[3]))
    oh, ow = _output_size(x, kernel, stride, padding)
    with torch.autocast(x.device.type, enabled=False):
        columns = F.unfold(x, kernel, stride=stride, padding=padding)
        return (weight.flatten(1) @ columns).view(x.shape[0], -1, oh, ow)


def depthwise_codes(x: Tensor, weight: Tensor, stride: int, padding: int, dtype: torch.dtype) -> Tensor:
    """3 x 3 convolution per channel: x (N, C, H, W), weight (C, 1, 3, 3); accumulators (N, C, OH, OW)."""
    x, weight = _exact_operands(x, weight, dtype)
    n, c = x.shape[:2]
    oh, ow = _output_size(x, (3, 3), stride, padding)
    columns = F.unfold(x, (3, 3), stride=stride, padding=padding).view(n, c, 9, oh, ow)
    return (columns * weight.view(1, c, 9, 1, 1)).sum(2)


def deform_codes(x: Tensor, offset: Tensor, weight: Tensor, stride: int, dtype: torch.dtype) -> Tensor:
    """Square deformable 3 x 3 per channel; offset codes (N, 1, OH, OW) saturate to -7..8; accumulators (N, C, OH, OW)."""
    x, weight = _exact_operands(x, weight, dtype)
    rows, cols = square_taps(offset.to(x.dtype).clamp(OFFSET_MIN, OFFSET_MAX), stride)
    return (pick(x, rows, cols) * weight.view(1, -1, 9, 1, 1)).sum(2)


def _output_size(x: Tensor, kernel: tuple[int, int], stride: int, padding: int) -> tuple[int, int]:
    h, w = ((int(x.shape[2 + i]) + 2 * padding - kernel[i]) // stride + 1 for i in (0, 1))
    return h, w


def requantise_codes(
    acc: Tensor, bias: Tensor, shift: Tensor, rounding: Rounding, low: int, high: int, multiplier: int = 1
) -> Tensor:
    """``clip(round((acc + bias) * multiplier * 2**-shift))`` per channel of axis 1, in float64: 33 + 16 bits are exact."""
    view = (1, -1) + (1,) * (acc.ndim - 2)
    total = (acc.to(torch.float64) + bias.to(acc.device, torch.float64).view(view)) * multiplier
    scale = exact_power_of_two(-shift.to(acc.device), torch.float64).view(view)
    return round_exact(total * scale, rounding).clamp(low, high)
