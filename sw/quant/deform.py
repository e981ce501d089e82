"""The general deformable convolution in plain torch: the float operator with the argument order of torchvision.ops."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sw.quant.primitives import sample_bilinear

__all__ = ["DeformConv2d", "contract", "deform_conv2d", "sample_taps"]

Pair = int | tuple[int, int]


def deform_conv2d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    mask: Tensor | None = None,
) -> Tensor:
    """Deformable convolution, version 2 if ``mask`` is given; differentiable in every tensor.

    Samples come from the unpadded image, bilinearly; corners outside count 0. Offsets are (row, column) pairs per tap.

    Parameters
    ----------
    input : (N, IC, H, W)
    offset : (N, 2 * D * KH * KW, OH, OW) for D offset groups of IC / D channels each
    weight : (OC, IC / G, KH, KW) for G groups
    bias : (OC,)
    mask : (N, D * KH * KW, OH, OW), multiplies each sample

    Returns (N, OC, OH, OW). Raises ValueError where shapes do not fit.
    """
    y = contract(sample_taps(input, offset, weight, stride, padding, dilation, mask), weight)
    return y if bias is None else y + bias.view(1, -1, 1, 1)


def sample_taps(
    input: Tensor, offset: Tensor, weight: Tensor, stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1,
    mask: Tensor | None = None,
) -> Tensor:
    """What each tap of `deform_conv2d` reads: (N, IC, KH * KW, OH, OW). Of ``weight`` only the shape is used."""
    kernel = int(weight.shape[2]), int(weight.shape[3])
    taps = kernel[0] * kernel[1]
    groups = _offset_groups(input, offset, weight, taps)
    rows, cols = _positions(offset, groups, kernel, _pair(stride), _pair(padding), _pair(dilation))
    size = _output_size(input, kernel, _pair(stride), _pair(padding), _pair(dilation))
    if rows.shape[3:] != size:
        raise ValueError(f"offset must have one value per output pixel {size}, not a map of {tuple(rows.shape[3:])}")
    parts = [sample_bilinear(x, rows[:, i], cols[:, i]) for i, x in enumerate(input.chunk(groups, 1))]
    if mask is not None:
        if mask.shape != (input.shape[0], groups * taps, *rows.shape[3:]):
            raise ValueError(f"mask must have one value per tap and output pixel, not shape {tuple(mask.shape)}")
        parts = [p * m.unsqueeze(1) for p, m in zip(parts, mask.chunk(groups, 1), strict=True)]
    return torch.cat(parts, 1)


def contract(samples: Tensor, weight: Tensor) -> Tensor:
    """samples (N, IC, T, OH, OW) and weight (OC, IC / G, KH, KW) to (N, OC, OH, OW)."""
    groups = samples.shape[1] // weight.shape[1]
    split = samples.unflatten(1, (groups, weight.shape[1]))
    kernels = weight.flatten(2).unflatten(0, (groups, -1))
    return torch.einsum("ngctyx,goct->ngoyx", split, kernels).flatten(1, 2)


class DeformConv2d(nn.Module):
    """Deformable convolution as a layer: ``forward(x, offset)``, one offset group, no mask; parameters as of Conv2d.

    x (N, IC, H, W), offset (N, 2 * KH * KW, OH, OW) of (row, column) pairs per tap; returns (N, OC, OH, OW).
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Pair, stride: Pair = 1, padding: Pair = 0,
        dilation: Pair = 1, groups: int = 1, bias: bool = True,
    ) -> None:
        super().__init__()
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(f"groups must divide {in_channels} input and {out_channels} output channels, not {groups}")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size, self.stride = _pair(kernel_size), _pair(stride)
        self.padding, self.dilation = _pair(padding), _pair(dilation)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, *self.kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, x: Tensor, offset: Tensor) -> Tensor:
        return deform_conv2d(x, offset, self.weight, self.bias, self.stride, self.padding, self.dilation)


def _positions(
    offset: Tensor, groups: int, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int],
    dilation: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Rows and columns (N, D, T, OH, OW) that each tap reads."""
    pairs = offset.unflatten(1, (groups, kernel[0] * kernel[1], 2))
    oh, ow = offset.shape[2:]

    def line(count: int) -> Tensor:
        return torch.arange(count, device=offset.device, dtype=offset.dtype)

    row_tap = (line(kernel[0]) * dilation[0] - padding[0]).repeat_interleave(kernel[1]).view(-1, 1, 1)
    col_tap = (line(kernel[1]) * dilation[1] - padding[1]).repeat(kernel[0]).view(-1, 1, 1)
    rows = line(oh).view(-1, 1) * stride[0] + row_tap
    cols = line(ow).view(1, -1) * stride[1] + col_tap
    return pairs[:, :, :, 0] + rows, pairs[:, :, :, 1] + cols


def _offset_groups(input: Tensor, offset: Tensor, weight: Tensor, taps: int) -> int:
    groups, rest = divmod(int(offset.shape[1]), 2 * taps)
    if rest or groups < 1 or input.shape[1] % groups:
        raise ValueError(f"offset must have 2 x {taps} channels for each of some groups that divide {input.shape[1]} "
                         f"input channels, not {offset.shape[1]}")
    if input.shape[1] % weight.shape[1] or weight.shape[0] % (input.shape[1] // weight.shape[1]):
        raise ValueError(f"weight {tuple(weight.shape)} must have groups that divide {input.shape[1]} input channels")
    return groups


def _output_size(
    input: Tensor, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int]
) -> tuple[int, ...]:
    return tuple((int(input.shape[2 + i]) + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in (0, 1))


def _pair(value: Pair) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)
