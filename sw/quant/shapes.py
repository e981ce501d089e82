"""Quantised steps without weights: pooling, split and shuffle, residual sum, upsampling, and the model's input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hw.spec import ops
from hw.spec.fixed import Rounding
from sw.quant.emulate import requantise_codes
from sw.quant.layers import QuantOp
from sw.quant.points import ActivationPoint

__all__ = ["QuantAdd", "QuantAvgPool2d", "QuantIdentity", "QuantMaxPool2d", "QuantShuffleJoin", "QuantSplit",
           "QuantUpsample2x"]

Shapes = tuple[tuple[int, int, int], ...]


class QuantIdentity(QuantOp):
    """The model's input: values to its format. Not an operation of the graph, whose inputs are codes."""

    def forward(self, xs: tuple[Tensor, ...], ins: tuple[ActivationPoint, ...], out: ActivationPoint) -> Tensor:
        return self.finish(xs[0], out)


class _Passing(QuantOp):
    """A step that keeps the format: its outputs are on the grid because its inputs are."""

    shares_format = True

    def move(self, *xs: Tensor) -> Tensor:
        """The step itself, on values as on codes."""
        raise NotImplementedError

    def forward(self, xs: tuple[Tensor, ...], ins: tuple[ActivationPoint, ...], out: ActivationPoint) -> Tensor:
        return self.move(*xs)

    def codes(self, *xs: Tensor) -> Tensor:
        return self.move(*xs)


class QuantMaxPool2d(_Passing):
    """Largest value of a window; padding never wins."""

    def __init__(self, kernel: int, stride: int, padding: int = 0) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding

    def move(self, *xs: Tensor) -> Tensor:
        return F.max_pool2d(xs[0], self.kernel, self.stride, self.padding)

    def operation(self, shapes: Shapes) -> ops.MaxPool2d:
        return ops.MaxPool2d(kernel=self.kernel, stride=self.stride, padding=self.padding)


class QuantSplit(_Passing):
    """One half of the channels: 0 the first, 1 the second."""

    def __init__(self, half: int) -> None:
        super().__init__()
        self.side = half

    def move(self, *xs: Tensor) -> Tensor:
        return xs[0].chunk(2, 1)[self.side]

    def operation(self, shapes: Shapes) -> ops.Split:
        return ops.Split(half=self.side)


class QuantShuffleJoin(_Passing):
    """Concatenate and shuffle in two groups; both inputs and the output share one format."""

    def move(self, *xs: Tensor) -> Tensor:
        return torch.stack(xs, dim=2).flatten(1, 2)

    def operation(self, shapes: Shapes) -> ops.ShuffleJoin:
        return ops.ShuffleJoin()


class QuantUpsample2x(_Passing):
    """Nearest-neighbour upsampling by two."""

    def move(self, *xs: Tensor) -> Tensor:
        return xs[0].repeat_interleave(2, 2).repeat_interleave(2, 3)

    def operation(self, shapes: Shapes) -> ops.Upsample2x:
        return ops.Upsample2x()


class QuantAdd(QuantOp):
    """Residual sum, saturated; both inputs and the output share one format."""

    shares_format = True

    def __init__(self, *, relu: bool = False) -> None:
        super().__init__()
        self.relu = relu

    def forward(self, xs: tuple[Tensor, ...], ins: tuple[ActivationPoint, ...], out: ActivationPoint) -> Tensor:
        return self.finish(xs[0] + xs[1], out)

    def codes(self, *xs: Tensor) -> Tensor:
        return (xs[0] + xs[1]).clamp(self.low, self.out.max_code)

    def operation(self, shapes: Shapes) -> ops.Add:
        return ops.Add(lo=self.low, hi=self.out.max_code)


class QuantAvgPool2d(QuantOp):
    """Mean of a window by the reciprocal of `hw.spec.ops.mean_requant`; ``kernel`` None is the whole image."""

    def __init__(
        self, kernel: tuple[int, int] | None, *, stride: int = 1, padding: int = 0,
        rounding: Rounding = Rounding.RND, relu: bool = False,
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.rounding, self.relu = rounding, relu

    def _window(self, height: int, width: int) -> tuple[int, int]:
        return (height, width) if self.kernel is None else self.kernel

    def _requant(self, channels: int, window: tuple[int, int]) -> ops.Requant:
        extra = self.ins[0].frac - self.out.frac
        return ops.mean_requant(channels, window[0] * window[1], extra, self.rounding, self.low, self.out.max_code)

    def _sums(self, x: Tensor, window: tuple[int, int]) -> Tensor:
        return F.avg_pool2d(x, window, self.stride, self.padding, divisor_override=1)

    def forward(self, xs: tuple[Tensor, ...], ins: tuple[ActivationPoint, ...], out: ActivationPoint) -> Tensor:
        window = self._window(*xs[0].shape[2:])
        record = ops.mean_requant(1, window[0] * window[1], 0, self.rounding, 0, 0)
        reciprocal = float(record.multiplier[0]) * 2.0 ** -int(record.shift[0])
        return self.finish(self._sums(xs[0], window) * reciprocal, out)

    def codes(self, *xs: Tensor) -> Tensor:
        window = self._window(*xs[0].shape[2:])
        record = self._requant(xs[0].shape[1], window)
        bias, shift = torch.from_numpy(record.bias), torch.from_numpy(record.shift)
        return requantise_codes(self._sums(xs[0].to(torch.float64), window), bias, shift, self.rounding, self.low,
                                self.out.max_code, int(record.multiplier[0]))

    def operation(self, shapes: Shapes) -> Any:
        channels, height, width = shapes[0]
        window = self._window(height, width)
        return ops.AvgPool2d(kernel=window, requant=self._requant(channels, window), stride=self.stride,
                             padding=self.padding)
