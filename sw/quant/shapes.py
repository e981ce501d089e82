"""Quantised steps without weights: pooling, channels in another order, residual sum, upsampling, and the model's input."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hw.spec import ops
from hw.spec.fixed import Rounding
from sw.quant.base import UNBOUNDED, Bounds, QuantOp, Shapes
from sw.quant.emulate import requantise_codes
from sw.quant.points import ActivationPoint
from sw.quant.spans import Chunk, Slice

__all__ = ["QuantAdd", "QuantAvgPool2d", "QuantConcat", "QuantIdentity", "QuantMaxPool2d", "QuantShuffle",
           "QuantShuffleJoin", "QuantSlice", "QuantUpsample2x"]


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
    """Largest value of a window; padding never wins. ``kernel`` None is the whole image, which must be square."""

    def __init__(self, kernel: int | None, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding

    def _window(self, height: int, width: int) -> int:
        if self.kernel is None and height != width:
            raise ValueError(f"global max pooling needs a square image, not {height} x {width}: use nn.MaxPool2d twice")
        return height if self.kernel is None else self.kernel

    def move(self, *xs: Tensor) -> Tensor:
        return F.max_pool2d(xs[0], self._window(*xs[0].shape[2:]), self.stride, self.padding)

    def operation(self, shapes: Shapes) -> ops.MaxPool2d:
        return ops.MaxPool2d(kernel=self._window(*shapes[0][1:]), stride=self.stride, padding=self.padding)


class QuantSlice(_Passing):
    """Some neighbouring channels."""

    def __init__(self, span: Slice | Chunk) -> None:
        super().__init__()
        self.span = span

    def move(self, *xs: Tensor) -> Tensor:
        start, stop = self.span.resolve(xs[0].shape[1])
        return xs[0][:, start:stop]

    def operation(self, shapes: Shapes) -> ops.Slice:
        start, stop = self.span.resolve(shapes[0][0])
        return ops.Slice(start=start, stop=stop)


class QuantConcat(_Passing):
    """Channels of several tensors behind each other; all inputs and the output share one format."""

    def move(self, *xs: Tensor) -> Tensor:
        return torch.cat(xs, 1)

    def operation(self, shapes: Shapes) -> ops.Concat:
        return ops.Concat()


class QuantShuffle(_Passing):
    """Channel shuffle in groups: as `torch.nn.ChannelShuffle`."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def move(self, *xs: Tensor) -> Tensor:
        return xs[0].unflatten(1, (self.groups, -1)).transpose(1, 2).flatten(1, 2)

    def operation(self, shapes: Shapes) -> ops.Shuffle:
        return ops.Shuffle(groups=self.groups)


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

    def __init__(self, *, rounding: Rounding = Rounding.RND, bounds: Bounds = UNBOUNDED) -> None:
        super().__init__(bounds=bounds)
        self.rounding = rounding

    def forward(self, xs: tuple[Tensor, ...], ins: tuple[ActivationPoint, ...], out: ActivationPoint) -> Tensor:
        return self.finish(xs[0], out, addend=xs[1])

    def codes(self, *xs: Tensor) -> Tensor:
        return (xs[0] + xs[1]).clamp(self.low, self.high)

    def operation(self, shapes: Shapes) -> ops.Add:
        return ops.Add(lo=self.low, hi=self.high)


@torch.compiler.assume_constant_result  # type: ignore[no-untyped-call,untyped-decorator]
def _reciprocal(count: int) -> float:
    """One over ``count`` as every average pool has it; a constant of a compiled graph."""
    record = ops.mean_requant(1, count, 0, Rounding.TRN, 0, 0)
    return float(record.multiplier[0]) * 2.0 ** -int(record.shift[0])


class QuantAvgPool2d(QuantOp):
    """Mean of a window by the reciprocal of `hw.spec.ops.mean_requant`.

    Without ``kernel`` the image, ``square`` or not, is cut into ``cells`` (rows, columns) of one size: (1, 1) is the
    global mean.
    """

    def __init__(
        self, kernel: tuple[int, int] | None, *, stride: int = 1, padding: int = 0, cells: tuple[int, int] = (1, 1),
        square: bool = False, rounding: Rounding = Rounding.RND, bounds: Bounds = UNBOUNDED,
    ) -> None:
        super().__init__(bounds=bounds)
        self.kernel, self.stride, self.padding = kernel, stride, padding
        self.cells, self.square, self.rounding = cells, square, rounding

    def _window(self, height: int, width: int) -> tuple[tuple[int, int], int]:
        """The window and its stride."""
        if self.kernel is not None:
            return self.kernel, self.stride
        if self.square and height != width:
            raise ValueError(f"a pool whose window is one side of the image needs a square image, not {height} x {width}")
        size, rests = (height // self.cells[0], width // self.cells[1]), (height % self.cells[0], width % self.cells[1])
        if rests != (0, 0) or (self.cells != (1, 1) and size[0] != size[1]):
            raise ValueError(f"adaptive average pooling to {self.cells} needs an image that divides into as many squares, "
                             f"not {height} x {width}")
        return size, 1 if self.cells == (1, 1) else size[0]

    def _requant(self, channels: int, window: tuple[int, int]) -> ops.Requant:
        extra = self.ins[0].frac - self.out.frac
        return ops.mean_requant(channels, window[0] * window[1], extra, self.rounding, self.low, self.high)

    def _sums(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        window, stride = self._window(*x.shape[2:])
        return F.avg_pool2d(x, window, stride, self.padding, divisor_override=1), window

    def forward(self, xs: tuple[Tensor, ...], ins: tuple[ActivationPoint, ...], out: ActivationPoint) -> Tensor:
        sums, window = self._sums(xs[0])
        return self.finish(sums * _reciprocal(window[0] * window[1]), out)

    def codes(self, *xs: Tensor) -> Tensor:
        sums, window = self._sums(xs[0].to(torch.float64))
        record = self._requant(xs[0].shape[1], window)
        bias, shift = torch.from_numpy(record.bias), torch.from_numpy(record.shift)
        return requantise_codes(sums, bias, shift, self.rounding, self.low, self.high, int(record.multiplier[0]))

    def operation(self, shapes: Shapes) -> Any:
        channels, height, width = shapes[0]
        window, stride = self._window(height, width)
        return ops.AvgPool2d(kernel=window, requant=self._requant(channels, window), stride=stride, padding=self.padding)
