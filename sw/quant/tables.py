"""Activations: any function of one code as a table of 256 entries, and clipping where no layer before can take it."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

from hw.spec import ops
from hw.spec.fixed import FixedFormat, Overflow, Rounding, quantize
from sw.quant.base import UNBOUNDED, Bounds, QuantOp, Shapes
from sw.quant.points import ActivationPoint

__all__ = ["TABLE_FUNCTIONS", "QuantClip", "QuantTable", "is_non_negative"]

TABLE_FUNCTIONS: tuple[type[nn.Module], ...] = (
    nn.Sigmoid, nn.Tanh, nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.LeakyReLU, nn.GELU, nn.ELU, nn.SELU, nn.CELU,
    nn.Softplus, nn.Softsign, nn.Mish, nn.LogSigmoid,
)
"""Activations without learned parameters that are functions of one value."""

_NON_NEGATIVE = (nn.Sigmoid, nn.Hardsigmoid, nn.Softplus)


def is_non_negative(function: nn.Module) -> bool:
    """Whether an activation's values are never negative."""
    return isinstance(function, _NON_NEGATIVE)


class QuantTable(QuantOp):
    """A function of one code: its input and its output have formats of their own.

    In training it is the float function, differentiable, whose result is quantised; frozen it is a table of what
    `hw.spec.fixed.quantize` gives for the function's float64 value of every code.
    """

    def __init__(self, function: nn.Module, *, rounding: Rounding = Rounding.RND, bounds: Bounds = UNBOUNDED) -> None:
        super().__init__(bounds=bounds)
        self.function, self.rounding = copy.copy(function), rounding
        if hasattr(self.function, "inplace"):
            self.function.inplace = False  # type: ignore[assignment]  # its input is another layer's output
        self.table: np.ndarray | None = None

    def forward(self, xs: tuple[Tensor, ...], ins: tuple[ActivationPoint, ...], out: ActivationPoint) -> Tensor:
        return self.finish(self.function(xs[0]), out)

    @torch.no_grad()
    def freeze(self, ins: tuple[FixedFormat, ...], out: FixedFormat) -> None:
        super().freeze(ins, out)
        low_byte = np.arange(256)
        codes = np.where(ins[0].signed & (low_byte > 127), low_byte - 256, low_byte)
        values = self.function(torch.from_numpy(np.ldexp(codes.astype(np.float64), -ins[0].frac))).numpy()
        self.table = np.clip(quantize(values, out, self.rounding, Overflow.SAT), self.low, self.high)

    def codes(self, *xs: Tensor) -> Tensor:
        table = torch.from_numpy(self._frozen()).to(xs[0].device, xs[0].dtype)
        return table[xs[0].to(torch.int64) & 0xFF]

    def operation(self, shapes: Shapes) -> ops.Table:
        return ops.Table(values=self._frozen().copy())

    def _frozen(self) -> np.ndarray:
        if self.table is None:
            raise ValueError("the layer must be frozen before its table is used: call freeze() on the model")
        return self.table


class QuantClip(QuantOp):
    """An activation with limits, of a tensor that others read too; input and output share one format."""

    shares_format = True

    def __init__(self, *, rounding: Rounding = Rounding.RND, bounds: Bounds) -> None:
        super().__init__(bounds=bounds)
        self.rounding = rounding

    def forward(self, xs: tuple[Tensor, ...], ins: tuple[ActivationPoint, ...], out: ActivationPoint) -> Tensor:
        return self.finish(xs[0], out)

    def codes(self, *xs: Tensor) -> Tensor:
        return xs[0].clamp(self.low, self.high)

    def operation(self, shapes: Shapes) -> ops.Clip:
        return ops.Clip(lo=self.low, hi=self.high)
