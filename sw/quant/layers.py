"""Quantised layers with weights: convolutions, deformable ones, linear, and BatchNorm as a layer of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hw.spec import ops
from hw.spec.fixed import Rounding
from sw.quant.base import QuantOp, Shapes
from sw.quant.deform import DeformConv2d, contract, sample_taps
from sw.quant.emulate import Geometry, conv_codes, deform_codes, deform_conv_codes, depthwise_codes
from sw.quant.fake import round_exact
from sw.quant.points import ActivationPoint, Mode
from sw.quant.primitives import SquareDeform, square_samples, weigh_taps, whole_samples
from sw.quant.weighted import QuantLayer

__all__ = [
    "QuantConv2d",
    "QuantDeformConv2d",
    "QuantDeformDepthwise",
    "QuantDepthwiseConv2d",
    "QuantLayer",
    "QuantLinear",
    "QuantOp",
    "QuantScale",
]


def geometry(conv: Any) -> Geometry:
    """Stride, padding, dilation and groups of a convolution that `supported.check_module` let pass."""
    window, dilation = int(conv.kernel_size[0]), int(conv.dilation[0])
    padding = conv.padding
    if isinstance(padding, str):
        padding = dilation * (window - 1) // 2 if padding == "same" else 0
    return Geometry(stride=int(conv.stride[0]), padding=padding if isinstance(padding, int) else int(padding[0]),
                    dilation=dilation, groups=int(conv.groups))


class QuantConv2d(QuantLayer):
    """K x K convolution in groups of channels, 1 x 1 and depthwise with any window included."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d | None = None, **options: Any) -> None:
        super().__init__(conv.weight, conv.bias, norm, **options)
        self.geometry = geometry(conv)

    def linear_map(self, xs: tuple[Tensor, ...], weight: Tensor) -> Tensor:
        return self._map(xs, weight, None)

    def affine_map(self, xs: tuple[Tensor, ...], weight: Tensor, bias: Tensor) -> Tensor:
        return self._map(xs, weight, bias)

    def _map(self, xs: tuple[Tensor, ...], weight: Tensor, bias: Tensor | None) -> Tensor:
        g = self.geometry
        return F.conv2d(xs[0], weight, bias, g.stride, g.padding, g.dilation, g.groups)

    def accumulate(self, xs: tuple[Tensor, ...], weight: Tensor, dtype: torch.dtype) -> Tensor:
        return conv_codes(xs[0], weight, self.geometry, dtype)

    def operation(self, shapes: Shapes) -> ops.Conv2d:
        """A dilated kernel becomes a larger one with zeros between its weights."""
        g = self.geometry
        return ops.Conv2d(weight=_dilated(self._frozen().weight, g.dilation), requant=self.requant(), stride=g.stride,
                          padding=g.padding, groups=g.groups)


def _dilated(weight: np.ndarray, dilation: int) -> np.ndarray:
    spread = np.zeros((*weight.shape[:2], *((k - 1) * dilation + 1 for k in weight.shape[2:])), weight.dtype)
    spread[:, :, ::dilation, ::dilation] = weight
    return spread


class QuantDepthwiseConv2d(QuantConv2d):
    """3 x 3 convolution with one filter per channel."""

    def accumulate(self, xs: tuple[Tensor, ...], weight: Tensor, dtype: torch.dtype) -> Tensor:
        return depthwise_codes(xs[0], weight, self.geometry, dtype)

    def operation(self, shapes: Shapes) -> ops.DepthwiseConv2d:  # type: ignore[override]
        weight, g = self._frozen().weight[:, 0].copy(), self.geometry
        return ops.DepthwiseConv2d(weight=weight, requant=self.requant(), stride=g.stride, padding=g.padding)


class Sampled(QuantLayer):
    """A layer whose taps lie at offsets, its second input. Samples at fractional ones are rounded to codes of x's format.

    While training, that rounding is straight-through, and so is that of the offsets, which learn by the slopes of the samples.
    """

    step: float | None = None
    """What samples are rounded to multiples of; None: not at all."""

    whole = False
    """Whether offsets are whole numbers."""

    def forward(self, xs: tuple[Tensor, ...], ins: tuple[ActivationPoint, ...], out: ActivationPoint) -> Tensor:
        rounds = self.mode is Mode.QAT
        self.whole = rounds and ins[1].fmt.frac <= 0
        self.step = 2.0 ** -ins[0].fmt.frac if rounds and not self.whole else None
        return super().forward(xs, ins, out)

    def on_grid(self, samples: Tensor) -> Tensor:
        """Samples as the core has them, with their gradient."""
        if self.step is None:
            return samples
        rounded = round_exact(samples.detach() / self.step, Rounding.RND) * self.step
        return samples + (rounded - samples.detach())


class QuantDeformDepthwise(Sampled):
    """Square deformable 3 x 3 depthwise convolution; inputs are x and one offset a pixel, whole or with 1..3 fraction bits."""

    def __init__(self, deform: SquareDeform, norm: nn.BatchNorm2d | None = None, **options: Any) -> None:
        super().__init__(deform.weight, deform.bias, norm, **options)
        self.stride = deform.stride

    def linear_map(self, xs: tuple[Tensor, ...], weight: Tensor) -> Tensor:
        if self.whole:
            return weigh_taps(whole_samples(xs[0], xs[1], self.stride), weight)
        return weigh_taps(self.on_grid(square_samples(xs[0], xs[1], self.stride)), weight)

    def accumulate(self, xs: tuple[Tensor, ...], weight: Tensor, dtype: torch.dtype) -> Tensor:
        return deform_codes(xs[0], xs[1], weight, self.stride, self.ins[1].frac, dtype)

    def operation(self, shapes: Shapes) -> ops.DeformDepthwiseConv2d:
        weight = self._frozen().weight[:, 0].copy()
        return ops.DeformDepthwiseConv2d(weight=weight, requant=self.requant(), stride=self.stride, offset_frac=self.ins[1].frac)


class QuantDeformConv2d(Sampled):
    """Deformable convolution; inputs are x and offsets of 0..7 fraction bits, two for every tap."""

    def __init__(self, deform: DeformConv2d, norm: nn.BatchNorm2d | None = None, **options: Any) -> None:
        super().__init__(deform.weight, deform.bias, norm, **options)
        self.geometry = geometry(deform)

    def linear_map(self, xs: tuple[Tensor, ...], weight: Tensor) -> Tensor:
        g = self.geometry
        return contract(self.on_grid(sample_taps(xs[0], xs[1], weight, g.stride, g.padding, g.dilation)), weight)

    def accumulate(self, xs: tuple[Tensor, ...], weight: Tensor, dtype: torch.dtype) -> Tensor:
        return deform_conv_codes(xs[0], xs[1], weight, self.geometry, self.ins[1].frac, dtype)

    def operation(self, shapes: Shapes) -> ops.DeformConv2d:
        g = self.geometry
        return ops.DeformConv2d(weight=self._frozen().weight.copy(), requant=self.requant(), offset_frac=self.ins[1].frac,
                                stride=g.stride, padding=g.padding, dilation=g.dilation, groups=g.groups)


class QuantLinear(QuantLayer):
    """Fully connected layer, to (N, C, 1, 1). On (N, C, H, W) larger than 1 x 1 its window is the image."""

    def __init__(self, linear: nn.Linear, norm: nn.BatchNorm1d | None = None, **options: Any) -> None:
        super().__init__(linear.weight, linear.bias, norm, **options)

    def linear_map(self, xs: tuple[Tensor, ...], weight: Tensor) -> Tensor:
        return F.linear(xs[0].flatten(1), weight)[:, :, None, None]

    def accumulate(self, xs: tuple[Tensor, ...], weight: Tensor, dtype: torch.dtype) -> Tensor:
        return conv_codes(xs[0], weight.view(-1, *xs[0].shape[1:]), Geometry(), dtype)

    def operation(self, shapes: Shapes) -> ops.Linear | ops.Conv2d:
        weight = self._frozen().weight.copy()
        if shapes[0][1:] == (1, 1):
            return ops.Linear(weight=weight, requant=self.requant())
        return ops.Conv2d(weight=weight.reshape(-1, *shapes[0]), requant=self.requant())


class QuantScale(QuantLayer):
    """BatchNorm as a layer of its own: a coefficient code and a bias per channel.

    In training it normalises by the batch until the model's ``learn_statistics(False)``.
    """

    def __init__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d, **options: Any) -> None:
        super().__init__(torch.ones(norm.num_features), None, norm, **options)
        self.weight.requires_grad_(False)
        assert self.norm is not None
        self.norm.frozen_statistics = False

    def fit(self, method: str) -> None:
        self.point.fit(self.folded()[0].detach().view(-1, 1), Rounding.RND, method)

    def linear_map(self, xs: tuple[Tensor, ...], weight: Tensor) -> Tensor:
        return xs[0] * weight.view(1, -1, 1, 1)

    def accumulate(self, xs: tuple[Tensor, ...], weight: Tensor, dtype: torch.dtype) -> Tensor:
        return xs[0].to(dtype) * weight.to(xs[0].device, dtype).view(1, -1, 1, 1)

    def operation(self, shapes: Shapes) -> ops.Scale:
        return ops.Scale(weight=self._frozen().weight.copy(), requant=self.requant())
