"""A layer's weights and bias for one training step, on the CPU in one call: BatchNorm folded in, then put on their grids.

Per output channel, ``scale = gamma / sqrt(variance + epsilon)`` and

- weights: ``weight * scale`` on the grid of the channel's binary point, whose fraction bits are limited so that the
  requantise shift lies in ``shift_limits`` and the bias' code in ``bias_bits`` bits
- bias: ``beta + (bias - mean) * scale`` at the accumulator's binary point, a code of 32 bits, rounded half up

which are `sw.quant.weighted.QuantLayer.folded` and `quantised`, equal on every value. The gradients are those of
`sw.kernels.fake_quantize` for the weights and straight-through for the bias; mean and variance are constants.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sw.kernels.fake_quantize import address, function

__all__ = ["Fold", "Norm", "fold_quantize"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Norm:
    """A BatchNorm's statistics (C,) and its epsilon."""

    mean: Tensor
    variance: Tensor
    epsilon: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Fold:
    """What does not learn: the weights' width and codes, both tensors' fraction bits, the core's limits, the statistics."""

    width: int
    low: int
    high: int
    in_frac: int
    out_frac: int
    bias_bits: int
    shift_limits: tuple[int, int]
    norm: Norm | None


class _Layer(ctypes.Structure):
    """`Layer` of fake_quantize.cpp; tensors that it points to must outlive it."""

    _fields_ = [*((name, ctypes.c_void_p) for name in ("weight", "bias", "gamma", "beta", "mean", "variance")),
                ("epsilon", ctypes.c_double), ("bits", ctypes.c_void_p),
                *((name, ctypes.c_int64) for name in ("channels", "length", "width", "in_frac", "out_frac"))]


def fold_quantize(
    weight: Tensor, bias: Tensor, gamma: Tensor | None, beta: Tensor | None, integer_bits: Tensor, fold: Fold
) -> tuple[Tensor, Tensor]:
    """Weights (C, ...) and bias (C,) on their grids; gamma and beta (C,) or None, integer bits (C,).

    All of one float type and on the CPU. Raises ValueError for NaN, and for a binary point outside -100..100.
    """
    found: tuple[Tensor, Tensor] = _FoldQuantize.apply(weight, bias, gamma, beta, integer_bits, fold)  # type: ignore[no-untyped-call]
    return found


def _layer(weight: Tensor, bias: Tensor, gamma: Tensor | None, beta: Tensor | None, bits: Tensor, fold: Fold) -> _Layer:
    norm, channels = fold.norm, weight.shape[0]
    return _Layer(
        weight.data_ptr(), bias.data_ptr(), None if gamma is None else gamma.data_ptr(),
        None if beta is None else beta.data_ptr(), None if norm is None else norm.mean.data_ptr(),
        None if norm is None else norm.variance.data_ptr(), 0.0 if norm is None else norm.epsilon, bits.data_ptr(),
        channels, weight.numel() // max(1, channels), fold.width, fold.in_frac, fold.out_frac)


class _FoldQuantize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, bias: Tensor, gamma: Tensor | None, beta: Tensor | None, integer_bits: Tensor, fold: Fold
    ) -> tuple[Tensor, Tensor]:
        weight, bits = weight.detach().contiguous(), integer_bits.detach().to(torch.float64)
        layer = _layer(weight, bias, gamma, beta, bits, fold)
        on_grid, on_bias, fracs = torch.empty_like(weight), torch.empty_like(bias), torch.empty_like(bits)
        fault = function("fold_forward", weight.dtype)(
            ctypes.byref(layer), ctypes.c_double(fold.low), ctypes.c_double(fold.high),
            *(ctypes.c_int64(n) for n in (fold.bias_bits, *fold.shift_limits)), address(on_grid), address(on_bias),
            address(fracs))
        if fault:
            raise ValueError("weights, bias and binary points must be numbers, and binary points in -100..100: the training "
                             "diverged or a parameter is damaged")
        ctx.save_for_backward(weight, bias, gamma, beta, bits, fracs)
        ctx.fold, ctx.dtype = fold, integer_bits.dtype
        return on_grid, on_bias

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        weight, bias, gamma, beta, bits, fracs = ctx.saved_tensors
        layer, fold = _layer(weight, bias, gamma, beta, bits, ctx.fold), ctx.fold
        weight_grad, bias_grad = grads[0].contiguous(), grads[1].contiguous()
        of_weight, of_bias, of_bits = torch.empty_like(weight), torch.empty_like(bias), torch.empty_like(bits)
        of_gamma = None if gamma is None else torch.empty_like(gamma)
        of_beta = None if beta is None else torch.empty_like(beta)
        function("fold_backward", weight.dtype)(
            ctypes.byref(layer), ctypes.c_double(fold.low), ctypes.c_double(fold.high), address(fracs), address(weight_grad),
            address(bias_grad), address(of_weight), address(of_bias), address(of_gamma), address(of_beta), address(of_bits))
        return of_weight, of_bias, of_gamma, of_beta, of_bits.to(ctx.dtype), None
