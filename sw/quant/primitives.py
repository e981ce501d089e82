"""Float modules that have no counterpart in torch.nn and that the converter knows: channel split, shuffle, square deform."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hw.spec.ops import OFFSET_MAX, OFFSET_MIN

__all__ = ["ChannelSplit", "ShuffleJoin", "SquareDeform", "pick", "sample_bilinear", "square_deform",
           "square_samples", "square_taps", "weigh_taps", "whole_samples"]


class ChannelSplit(nn.Module):
    """(N, 2C, H, W) to its two halves, each (N, C, H, W)."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.shape[1] % 2:
            raise ValueError(f"a channel split needs an even number of channels, not {x.shape[1]}")
        half = x.shape[1] // 2
        return x[:, :half], x[:, half:]


class ShuffleJoin(nn.Module):
    """Concatenate two (N, C, H, W) and shuffle in two groups: out[2i] = left[i], out[2i + 1] = right[i]."""

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return torch.stack([left, right], dim=2).flatten(1, 2)


def square_taps(offset: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Rows and columns, each (N, 9, OH, OW), that the nine taps of a square deformable 3 x 3 read; taps row-major.

    ``offset`` (N, 1, OH, OW); tap (i, j) of output (y, x) reads (y*stride + s*(i-1), x*stride + s*(j-1)).
    """
    _, _, oh, ow = offset.shape
    step = torch.arange(9, device=offset.device)
    row_sign = (step // 3 - 1).to(offset.dtype).view(1, 9, 1, 1)
    col_sign = (step % 3 - 1).to(offset.dtype).view(1, 9, 1, 1)
    rows = torch.arange(oh, device=offset.device, dtype=offset.dtype).view(1, 1, oh, 1) * stride
    cols = torch.arange(ow, device=offset.device, dtype=offset.dtype).view(1, 1, 1, ow) * stride
    return rows + offset * row_sign, cols + offset * col_sign


def pick(x: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """x (N, C, H, W) at integer positions (N, T, OH, OW); 0 outside. Returns (N, C, T, OH, OW)."""
    n, c, h, w = x.shape
    flat = F.pad(x.flatten(2), (0, 1))
    return flat.gather(2, _flat_index(rows, cols, h, w).expand(n, c, -1)).view(n, c, *rows.shape[1:])


def _flat_index(rows: Tensor, cols: Tensor, h: int, w: int) -> Tensor:
    """(N, 1, T * OH * OW) in the pixels of an image and one more, which stands behind them for all positions outside."""
    inside = (rows >= 0) & (rows < h) & (cols >= 0) & (cols < w)
    return torch.where(inside, rows * w + cols, torch.full_like(rows, h * w)).to(torch.int64).flatten(1).unsqueeze(1)


def sample_bilinear(x: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """Bilinear samples of x (N, C, H, W) at (rows, cols), each (N, T, OH, OW): (N, C, T, OH, OW).

    Corners outside the image count 0. Differentiable in x and in the positions; exact at integer positions, where
    the gradient is the slope towards the next larger position.
    """
    top, left = torch.floor(rows.detach()), torch.floor(cols.detach())
    down, right = (rows - top).unsqueeze(1), (cols - left).unsqueeze(1)
    upper = torch.lerp(pick(x, top, left), pick(x, top, left + 1), right)
    lower = torch.lerp(pick(x, top + 1, left), pick(x, top + 1, left + 1), right)
    return torch.lerp(upper, lower, down)


class SquareDeform(nn.Module):
    """Square deformable 3 x 3 depthwise convolution: one offset per output pixel, shared by channels and taps.

    x (N, C, H, W), offset (N, 1, ceil(H / stride), ceil(W / stride)), limited to -7..8; returns (N, C, OH, OW). With ``whole`` the
    float layer rounds offsets half up, with a straight-through gradient; in fixed point the offsets' format says it.
    """

    def __init__(self, channels: int, stride: int = 1, bias: bool = False, *, whole: bool = False) -> None:
        super().__init__()
        self.channels, self.stride, self.whole = channels, stride, whole
        self.weight = nn.Parameter(torch.empty(channels, 1, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, x: Tensor, offset: Tensor) -> Tensor:
        if self.whole:
            y = weigh_taps(whole_samples(x, _WholeOffset.apply(offset), self.stride), self.weight)
        else:
            y = square_deform(x, offset, self.weight, self.stride)
        return y if self.bias is None else y + self.bias.view(1, -1, 1, 1)


def square_deform(x: Tensor, offset: Tensor, weight: Tensor, stride: int) -> Tensor:
    """The operator of `SquareDeform`, without bias; ``weight`` (C, 1, 3, 3)."""
    return weigh_taps(square_samples(x, offset, stride), weight)


def square_samples(x: Tensor, offset: Tensor, stride: int) -> Tensor:
    """What the nine taps read: (N, C, 9, OH, OW)."""
    return sample_bilinear(x, *square_taps(offset.clamp(OFFSET_MIN, OFFSET_MAX), stride))


def whole_samples(x: Tensor, offset: Tensor, stride: int) -> Tensor:
    """`square_samples` at whole offsets. An offset's gradient is half the difference between the samples a step further and a step
    nearer, since at a whole position a bilinear sample knows one side only."""
    found: Tensor = _WholeSamples.apply(x, offset.clamp(OFFSET_MIN, OFFSET_MAX), stride)
    return found


class _WholeOffset(torch.autograd.Function):
    """Rounded half up, with the gradient of what it was."""

    @staticmethod
    def forward(context: Any, offset: Tensor) -> Tensor:
        return torch.floor(offset + 0.5)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient


class _WholeSamples(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, offset: Tensor, stride: int) -> Tensor:
        context.save_for_backward(x, offset)
        context.stride = stride
        return pick(x, *square_taps(offset, stride))

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # type: ignore[override]
        x, offset = context.saved_tensors
        to_x = to_offset = None
        if context.needs_input_grad[0]:
            to_x = _put_back(gradient, *square_taps(offset, context.stride), x.shape)
        if context.needs_input_grad[1]:
            further, nearer = (pick(x, *square_taps(offset + step, context.stride)) for step in (1, -1))
            to_offset = (gradient * (further - nearer)).sum((1, 2), keepdim=True)[:, 0] / 2
        return to_x, to_offset, None


def _put_back(taken: Tensor, rows: Tensor, cols: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The transpose of `pick`: what was taken (N, C, T, OH, OW), added up where it came from, an image of ``shape``."""
    n, c, h, w = shape
    index = _flat_index(rows, cols, h, w).expand(n, c, -1)
    flat = taken.new_zeros(n, c, h * w + 1).scatter_add_(2, index, taken.flatten(2))
    return flat[:, :, :-1].unflatten(2, (h, w))


def weigh_taps(samples: Tensor, weight: Tensor) -> Tensor:
    """Sums (N, C, OH, OW) of samples (N, C, 9, OH, OW) times ``weight`` (C, 1, 3, 3)."""
    return (samples * weight.reshape(1, -1, 9, 1, 1)).sum(2)
