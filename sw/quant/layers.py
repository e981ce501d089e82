"""Quantised layers with weights: convolutions, the square deformable one, and linear.

A layer holds float weights, an optional BatchNorm that is folded into them on every forward pass, and a learned binary
point per output channel. It computes in the four modes of `Mode`; formats of activations belong to sharing groups and
are passed in. All tensors are (N, C, H, W); a linear layer's output is (N, C, 1, 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hw.spec import ops
from hw.spec.fixed import FixedFormat, Overflow, Rounding
from sw.quant.emulate import conv_codes, deform_codes, depthwise_codes, exact_dtype, requantise_codes
from sw.quant.fake import exact_power_of_two, round_exact
from sw.quant.points import ActivationPoint, BinaryPoint, Mode
from sw.quant.primitives import SquareDeform, square_deform

__all__ = [
    "FoldedNorm",
    "Integers",
    "QuantConv2d",
    "QuantDeformDepthwise",
    "QuantDepthwiseConv2d",
    "QuantLayer",
    "QuantLinear",
    "QuantOp",
]

SHIFT_MIN, SHIFT_MAX = -32, 31
_BIAS_BITS = 21
"""Bias codes stay within 2**21, so that a channel whose weights are almost zero leaves room in a packed accumulator."""


class QuantOp(nn.Module):
    """One step of a quantised model. ``relu`` is fused into the requantisation, ``rounding`` is its rounding."""

    relu = False
    rounding = Rounding.RND
    shares_format = False
    """Whether inputs and output have one format (a sharing group)."""

    def __init__(self) -> None:
        super().__init__()
        self.mode = Mode.FLOAT

    def forward(self, xs: tuple[Tensor, ...], ins: tuple[ActivationPoint, ...], out: ActivationPoint) -> Tensor:
        """Values to values, in every mode but FROZEN."""
        raise NotImplementedError

    def freeze(self, ins: tuple[FixedFormat, ...], out: FixedFormat) -> None:
        """Fix the integers that `codes` and `operation` use."""
        self.ins, self.out = ins, out

    def codes(self, *xs: Tensor) -> Tensor:
        """Codes to codes, in a float type; needs `freeze`."""
        raise NotImplementedError

    def operation(self, shapes: tuple[tuple[int, int, int], ...]) -> Any:
        """The same step as an operation of `hw.spec.ops`, for inputs of these (C, H, W); needs `freeze`."""
        raise NotImplementedError

    def finish(self, y: Tensor, out: ActivationPoint) -> Tensor:
        """ReLU, then the output's format."""
        return out(torch.relu(y) if self.relu else y, self.rounding)

    @property
    def low(self) -> int:
        return max(0, self.out.min_code) if self.relu else self.out.min_code


class FoldedNorm(nn.Module):
    """A BatchNorm2d that is folded into the layer before it; by default with frozen statistics."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        if norm.running_mean is None or norm.running_var is None:
            raise ValueError("a BatchNorm2d must keep running statistics to be folded: track_running_stats=True")
        channels = norm.num_features
        gamma, beta = (torch.ones(channels), torch.zeros(channels)) if norm.weight is None else (norm.weight, norm.bias)
        self.weight, self.bias = nn.Parameter(gamma.detach().clone()), nn.Parameter(beta.detach().clone())
        self.register_buffer("running_mean", norm.running_mean.clone())
        self.register_buffer("running_var", norm.running_var.clone())
        self.eps, self.momentum = norm.eps, 0.1 if norm.momentum is None else norm.momentum
        self.frozen_statistics = True

    def fold(self, weight: Tensor, bias: Tensor, batch: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """Weights (C, ...) and bias (C,) with the normalisation folded in; ``batch`` replaces the running statistics."""
        mean, var = batch or (self.running_mean, self.running_var)
        scale = self.weight * torch.rsqrt(var + self.eps)
        return weight * scale.view(-1, *[1] * (weight.ndim - 1)), self.bias + (bias - mean) * scale

    def observe(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance per channel of ``y`` (N, C, H, W); the running statistics follow."""
        mean, var = y.mean((0, 2, 3)), y.var((0, 2, 3), unbiased=False)
        count = y.numel() // y.shape[1]
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * (count / max(1, count - 1)), self.momentum)
        return mean, var


@dataclass(frozen=True, kw_only=True, eq=False)
class Integers:
    """A frozen layer: weight codes in the layer's weight shape; bias and shift per output channel; all int64."""

    weight: np.ndarray
    bias: np.ndarray
    shift: np.ndarray
    dtype: torch.dtype


class QuantLayer(QuantOp):
    """A layer with weights (OC, ...), quantised per output channel."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm2d | None, *, weight_bits: int = 4,
        rounding: Rounding = Rounding.RND, relu: bool = False,
    ) -> None:
        super().__init__()
        channels = weight.shape[0]
        self.weight = nn.Parameter(weight.detach().clone())
        self.bias = nn.Parameter(torch.zeros(channels) if bias is None else bias.detach().clone())
        # A bias in front of a BatchNorm, or one that the model does not have, has nothing to learn.
        self.bias.requires_grad_(bias is not None and norm is None)
        self.norm = None if norm is None else FoldedNorm(norm)
        self.point = BinaryPoint(width=weight_bits, signed=True, overflow=Overflow.SAT_SYM, channels=channels)
        self.relu, self.rounding = relu, rounding
        self.integers: Integers | None = None

    def linear_map(self, xs: tuple[Tensor, ...], weight: Tensor) -> Tensor:
        """Float sums of products (N, OC, OH, OW), differentiable, without bias."""
        raise NotImplementedError

    def accumulate(self, xs: tuple[Tensor, ...], weight: Tensor, dtype: torch.dtype) -> Tensor:
        """The same on codes, exactly."""
        raise NotImplementedError

    def folded(self, xs: tuple[Tensor, ...] | None = None) -> tuple[Tensor, Tensor]:
        """Weight and bias with the BatchNorm folded in; with batch statistics of ``xs`` while those are learned."""
        if self.norm is None:
            return self.weight, self.bias
        batch = None
        if xs is not None and self.training and not self.norm.frozen_statistics:
            batch = self.norm.observe(self.linear_map(xs, self.weight) + self.bias.view(1, -1, 1, 1))
        return self.norm.fold(self.weight, self.bias, batch)

    def frac_limits(self, bias: Tensor, in_frac: int, out_frac: int) -> tuple[Tensor, Tensor]:
        """Per channel, the weight fraction bits that keep the shift and the bias in the core's range."""
        low = torch.full_like(bias, out_frac - in_frac + SHIFT_MIN)
        room = torch.floor(_BIAS_BITS - torch.log2(bias.detach().abs().clamp_min(2.0**-60))) - in_frac
        return low, room.clamp_max(out_frac - in_frac + SHIFT_MAX)

    def quantised(self, weight: Tensor, bias: Tensor, in_frac: int, out_frac: int) -> tuple[Tensor, Tensor]:
        """Weight and bias as fixed-point values with gradients."""
        limits = self.frac_limits(bias, in_frac, out_frac)
        code, scale = self._bias_codes(bias, in_frac, self.point.frac(*limits))
        on_grid = (code / scale).to(bias.dtype)
        return self.point.quantise(weight, Rounding.RND, *limits), bias + (on_grid - bias).detach()

    @staticmethod
    def _bias_codes(bias: Tensor, in_frac: int, frac: Tensor) -> tuple[Tensor, Tensor]:
        """Codes at the accumulator's binary point, in float64, and the scale 2**frac of that point."""
        scale = exact_power_of_two(frac + in_frac, torch.float64)
        scaled = bias.detach().to(torch.float64) * scale
        return round_exact(scaled, Rounding.RND).clamp(-(2**31), 2**31 - 1), scale

    def forward(self, xs: tuple[Tensor, ...], ins: tuple[ActivationPoint, ...], out: ActivationPoint) -> Tensor:
        weight, bias = self.folded(xs)
        if self.mode is Mode.QAT:
            weight, bias = self.quantised(weight, bias, ins[0].fmt.frac, out.fmt.frac)
        return self.finish(self.linear_map(xs, weight) + bias.view(1, -1, 1, 1), out)

    def fit(self, method: str) -> None:
        """Choose the weights' binary points from the folded weights."""
        self.point.fit(self.folded()[0].detach(), Rounding.RND, method)

    @torch.no_grad()
    def freeze(self, ins: tuple[FixedFormat, ...], out: FixedFormat) -> None:
        super().freeze(ins, out)
        weight, bias = self.folded()
        frac = self.point.frac(*self.frac_limits(bias, ins[0].frac, out.frac))
        codes = self.point.codes(weight, frac, Rounding.RND).to(torch.int64).cpu().numpy()
        bias_codes = self._bias_codes(bias, ins[0].frac, frac)[0].to(torch.int64).cpu().numpy()
        shift = (frac + ins[0].frac - out.frac).cpu().numpy()
        dtype = exact_dtype(codes, bias_codes, ins[0])
        self.integers = Integers(weight=codes, bias=bias_codes, shift=shift, dtype=dtype)

    def codes(self, *xs: Tensor) -> Tensor:
        fixed = self._frozen()
        acc = self.accumulate(xs, torch.from_numpy(fixed.weight), fixed.dtype)
        bias, shift = torch.from_numpy(fixed.bias), torch.from_numpy(fixed.shift)
        return requantise_codes(acc, bias, shift, self.rounding, self.low, self.out.max_code)

    def requant(self) -> ops.Requant:
        """The requantisation record of the frozen layer."""
        fixed = self._frozen()
        return ops.Requant(bias=fixed.bias.copy(), multiplier=np.ones_like(fixed.bias), shift=fixed.shift.copy(),
                           rounding=self.rounding, lo=self.low, hi=self.out.max_code)

    def _frozen(self) -> Integers:
        if self.integers is None:
            raise ValueError("the layer must be frozen before its integers are used: call freeze() on the model")
        return self.integers


class QuantConv2d(QuantLayer):
    """K x K convolution over all channels, 1 x 1 included."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d | None = None, **options: Any) -> None:
        super().__init__(conv.weight, conv.bias, norm, **options)
        self.stride, self.padding = int(conv.stride[0]), int(conv.padding[0])

    def linear_map(self, xs: tuple[Tensor, ...], weight: Tensor) -> Tensor:
        return F.conv2d(xs[0], weight, stride=self.stride, padding=self.padding)

    def accumulate(self, xs: tuple[Tensor, ...], weight: Tensor, dtype: torch.dtype) -> Tensor:
        return conv_codes(xs[0], weight, self.stride, self.padding, dtype)

    def operation(self, shapes: tuple[tuple[int, int, int], ...]) -> ops.Conv2d:
        weight = self._frozen().weight.copy()
        return ops.Conv2d(weight=weight, requant=self.requant(), stride=self.stride, padding=self.padding)


class QuantDepthwiseConv2d(QuantLayer):
    """3 x 3 convolution with one filter per channel."""

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d | None = None, **options: Any) -> None:
        super().__init__(conv.weight, conv.bias, norm, **options)
        self.stride, self.padding = int(conv.stride[0]), int(conv.padding[0])

    def linear_map(self, xs: tuple[Tensor, ...], weight: Tensor) -> Tensor:
        return F.conv2d(xs[0], weight, stride=self.stride, padding=self.padding, groups=weight.shape[0])

    def accumulate(self, xs: tuple[Tensor, ...], weight: Tensor, dtype: torch.dtype) -> Tensor:
        return depthwise_codes(xs[0], weight, self.stride, self.padding, dtype)

    def operation(self, shapes: tuple[tuple[int, int, int], ...]) -> ops.DepthwiseConv2d:
        weight = self._frozen().weight[:, 0].copy()
        return ops.DepthwiseConv2d(weight=weight, requant=self.requant(), stride=self.stride, padding=self.padding)


class QuantDeformDepthwise(QuantLayer):
    """Square deformable 3 x 3 depthwise convolution; inputs are x and the offsets, whose format has no fraction bits.

    While training, offsets are rounded straight-through and sampled bilinearly, so that they learn.
    """

    def __init__(self, deform: SquareDeform, norm: nn.BatchNorm2d | None = None, **options: Any) -> None:
        super().__init__(deform.weight, deform.bias, norm, **options)
        self.stride = deform.stride

    def linear_map(self, xs: tuple[Tensor, ...], weight: Tensor) -> Tensor:
        return square_deform(xs[0], xs[1], weight, self.stride)

    def accumulate(self, xs: tuple[Tensor, ...], weight: Tensor, dtype: torch.dtype) -> Tensor:
        return deform_codes(xs[0], xs[1], weight, self.stride, dtype)

    def operation(self, shapes: tuple[tuple[int, int, int], ...]) -> ops.DeformDepthwiseConv2d:
        weight = self._frozen().weight[:, 0].copy()
        return ops.DeformDepthwiseConv2d(weight=weight, requant=self.requant(), stride=self.stride)


class QuantLinear(QuantLayer):
    """Fully connected layer. On (N, C, H, W) larger than 1 x 1 it is a convolution whose window is the image."""

    def __init__(self, linear: nn.Linear, norm: None = None, **options: Any) -> None:
        super().__init__(linear.weight, linear.bias, norm, **options)

    def linear_map(self, xs: tuple[Tensor, ...], weight: Tensor) -> Tensor:
        return F.linear(xs[0].flatten(1), weight)[:, :, None, None]

    def accumulate(self, xs: tuple[Tensor, ...], weight: Tensor, dtype: torch.dtype) -> Tensor:
        return conv_codes(xs[0], weight.view(-1, *xs[0].shape[1:]), 1, 0, dtype)

    def operation(self, shapes: tuple[tuple[int, int, int], ...]) -> ops.Linear | ops.Conv2d:
        weight = self._frozen().weight.copy()
        if shapes[0][1:] == (1, 1):
            return ops.Linear(weight=weight, requant=self.requant())
        return ops.Conv2d(weight=weight.reshape(-1, *shapes[0]), requant=self.requant())
