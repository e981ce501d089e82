"""The common part of quantised layers with weights: formats of the weights, the folded BatchNorm, the frozen integers.

A layer holds float weights, an optional BatchNorm that is folded into them on every forward pass, and learned binary
points, one per output channel or one for all. Formats of activations belong to sharing groups and are passed in. All
tensors are (N, C, H, W).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from hw.spec import ops
from hw.spec.fixed import FixedFormat, Overflow, Rounding
from sw.kernels.fake_quantize import usable
from sw.kernels.fold_quantize import Fold, Norm, fold_quantize
from sw.quant.base import UNBOUNDED, Bounds, QuantOp
from sw.quant.emulate import exact_dtype, requantise_codes
from sw.quant.fake import exact_power_of_two, round_exact
from sw.quant.finite import refuse_non_finite
from sw.quant.norm import FoldedNorm
from sw.quant.points import ActivationPoint, BinaryPoint, Mode

__all__ = ["Integers", "QuantLayer"]

Frac = int | Tensor
"""Fraction bits of a tensor: a number, or a 0-dimensional tensor inside a compiled graph."""

SHIFT_MIN, SHIFT_MAX = -32, 31
_BIAS_BITS = 21
"""Bias codes stay within 2**21, so that a channel whose weights are almost zero leaves room in a packed accumulator."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Integers:
    """A frozen layer: weight codes in the layer's weight shape; bias and shift per output channel; all int64."""

    weight: np.ndarray
    bias: np.ndarray
    shift: np.ndarray
    dtype: torch.dtype


class QuantLayer(QuantOp):
    """A layer with weights (OC, ...), quantised per output channel or together."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm1d | nn.BatchNorm2d | None, *,
        point: BinaryPoint, rounding: Rounding = Rounding.RND, bounds: Bounds = UNBOUNDED,
    ) -> None:
        super().__init__(bounds=bounds)
        channels = weight.shape[0]
        self.weight = nn.Parameter(weight.detach().clone())
        self.bias = nn.Parameter(torch.zeros(channels) if bias is None else bias.detach().clone())
        # A bias in front of a BatchNorm, or one that the model does not have, has nothing to learn.
        self.bias.requires_grad_(bias is not None and norm is None)
        self.norm = None if norm is None else FoldedNorm(norm)
        self.point, self.rounding = point, rounding
        self.integers: Integers | None = None

    def linear_map(self, xs: tuple[Tensor, ...], weight: Tensor) -> Tensor:
        """Float sums of products (N, OC, OH, OW), differentiable, without bias."""
        raise NotImplementedError

    def affine_map(self, xs: tuple[Tensor, ...], weight: Tensor, bias: Tensor) -> Tensor:
        """`linear_map` plus the bias (OC,); a layer whose library adds it in the same pass overrides this."""
        return self.linear_map(xs, weight) + bias.view(1, -1, 1, 1)

    def accumulate(self, xs: tuple[Tensor, ...], weight: Tensor, dtype: torch.dtype) -> Tensor:
        """`linear_map` on codes, exactly."""
        raise NotImplementedError

    def folded(self, xs: tuple[Tensor, ...] | None = None) -> tuple[Tensor, Tensor]:
        """Weight and bias with the BatchNorm folded in; with batch statistics of ``xs`` while those are learned."""
        if self.norm is None:
            return self.weight, self.bias
        batch = None
        if xs is not None and self.training and not self.norm.frozen_statistics:
            batch = self.norm.observe(self.linear_map(xs, self.weight) + self.bias.view(1, -1, 1, 1))
        return self.norm.fold(self.weight, self.bias, batch)

    def frac_limits(self, bias: Tensor, in_frac: Frac, out_frac: Frac) -> tuple[Tensor, Tensor]:
        """Per channel, the weight fraction bits that keep the shift and the bias in the core's range."""
        between = out_frac - in_frac + torch.zeros_like(bias)
        part, exponent = torch.frexp(bias.detach().abs().clamp_min(2.0**-60))
        room = _BIAS_BITS - exponent + (part == 0.5) - in_frac  # floor(_BIAS_BITS - log2(|bias|)), exactly
        return between + SHIFT_MIN, torch.minimum(room.to(bias.dtype), between + SHIFT_MAX)

    def quantised(self, weight: Tensor, bias: Tensor, in_frac: Frac, out_frac: Frac) -> tuple[Tensor, Tensor]:
        """Weight and bias as fixed-point values with gradients."""
        limits = self.frac_limits(bias, in_frac, out_frac)
        code, scale = self._bias_codes(bias, in_frac, self.point.frac(*limits))
        on_grid = (code / scale).to(bias.dtype)
        return self.point.quantise(weight, Rounding.RND, *limits), on_grid + (bias - bias.detach())

    def parameters_on_grid(
        self, xs: tuple[Tensor, ...], ins: tuple[ActivationPoint, ...], out: ActivationPoint
    ) -> tuple[Tensor, Tensor]:
        """`folded` and `quantised`: in one call of a compiled kernel where it knows the case, with equal values."""
        if torch.compiler.is_compiling():  # reading a binary point as an integer would break the graph
            return self.quantised(*self.folded(xs), ins[0].frac(*ins[0].limits), out.frac(*out.limits))
        in_frac, out_frac = ins[0].fmt.frac, out.fmt.frac
        if not self._kernel_knows():
            return self.quantised(*self.folded(xs), in_frac, out_frac)
        norm, point = self.norm, self.point
        statistics = None if norm is None else Norm(mean=norm.running_mean, variance=norm.running_var, epsilon=norm.eps)
        gamma, beta = (None, None) if norm is None else (norm.weight, norm.bias)
        fold = Fold(width=point.width, low=-point.largest, high=point.largest, in_frac=in_frac, out_frac=out_frac,
                    bias_bits=_BIAS_BITS, shift_limits=(SHIFT_MIN, SHIFT_MAX), norm=statistics)
        return fold_quantize(self.weight, self.bias, gamma, beta, point.integer_bits, fold)

    def _kernel_knows(self) -> bool:
        point, norm = self.point, self.norm
        constant = norm is None or norm.frozen_statistics or not self.training
        learned = point.digits is None and point.fixed is None and point.axis == 0
        symmetric = point.signed and point.overflow is Overflow.SAT_SYM
        return constant and learned and symmetric and usable(self.weight)

    @staticmethod
    def _bias_codes(bias: Tensor, in_frac: Frac, frac: Tensor) -> tuple[Tensor, Tensor]:
        """Codes at the accumulator's binary point, in float64, and the scale 2**frac of that point."""
        scale = exact_power_of_two(frac + in_frac, torch.float64)
        scaled = bias.detach().to(torch.float64) * scale
        return round_exact(scaled, Rounding.RND).clamp(-(2**31), 2**31 - 1), scale

    def forward(self, xs: tuple[Tensor, ...], ins: tuple[ActivationPoint, ...], out: ActivationPoint) -> Tensor:
        weight, bias = self.parameters_on_grid(xs, ins, out) if self.mode is Mode.QAT else self.folded(xs)
        return self.finish(self.affine_map(xs, weight, bias), out)

    def fit(self, method: str) -> None:
        """Choose the weights' binary points from the folded weights."""
        self.point.fit(self.folded()[0].detach(), Rounding.RND, method)

    @torch.no_grad()
    def freeze(self, ins: tuple[FixedFormat, ...], out: FixedFormat) -> None:
        super().freeze(ins, out)
        weight, bias = self.folded()
        refuse_non_finite(weight, "weights, BatchNorm folded in,")
        refuse_non_finite(bias, "biases, BatchNorm folded in,")
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
        return requantise_codes(acc, bias, shift, self.rounding, self.low, self.high)

    def requant(self) -> ops.Requant:
        """The requantisation record of the frozen layer."""
        fixed = self._frozen()
        return ops.Requant(bias=fixed.bias.copy(), multiplier=np.ones_like(fixed.bias), shift=fixed.shift.copy(),
                           rounding=self.rounding, lo=self.low, hi=self.high)

    def _frozen(self) -> Integers:
        if self.integers is None:
            raise ValueError("the layer must be frozen before its integers are used: call freeze() on the model")
        return self.integers

