"""C++ of operations with weights: convolutions of every kind, linear layers, per-channel scales."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hw.spec.ops import Conv2d, DepthwiseConv2d, Linear, Scale
from sw.bridges.hls.cpp import Constant, bits, fixed, loop, position
from sw.bridges.hls.function import Function, inputs_at_once, pixels
from sw.bridges.hls.plan import Layer
from sw.bridges.hls.settle import Settling, settling

__all__ = ["Reduction", "channel_of", "convolution", "reduction"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Reduction:
    """A convolution's sum of products in output channel c.

    Parameters
    ----------
    settling : how the sum starts and ends
    weight : (OC, IC / groups, KH, KW)
    at_once : input channels whose products are made in one cycle
    """

    settling: Settling
    weight: np.ndarray
    at_once: int

    @property
    def whole(self) -> bool:
        """Whether the products of all input channels are made at once."""
        return self.at_once == self.weight.shape[1]

    @property
    def name(self) -> str:
        return f"{self.settling.name}_weight"

    def tap(self, axis: int) -> str:
        """The variable of a kernel's axis, or 0 where it has one tap."""
        return ("ky", "kx")[axis] if self.weight.shape[2 + axis] > 1 else "0"

    def products(self, read: str, *inner: str) -> list[str]:
        """Loops over input channels i and taps (ky, kx) that add the products of ``read``; ``inner`` are pragmas of the innermost."""
        _, inputs, rows, cols = self.weight.shape
        channel = "i" if inputs > 1 else "0"
        weight = f"{self.name}[c][{channel}][{self.tap(0)}][{self.tap(1)}]"
        lines = [f"sum += {read} * from_code<{self.name}_t>({weight});"]
        for label, variable, count in (("kernel_columns", "kx", cols), ("kernel_rows", "ky", rows)):
            if count > 1:
                lines, inner = loop(label, variable, count, lines, *inner), ()
        if inputs == 1:
            return lines
        unroll = [f"UNROLL factor={self.at_once}"] if self.at_once > 1 else []
        return loop("inputs", "i", inputs, lines, *([] if self.whole else ["PIPELINE II=1", *unroll]))

    def typedefs(self) -> tuple[str, ...]:
        width = bits(self.weight.min(), self.weight.max())
        return *self.settling.typedefs(), f"typedef {fixed(width, self.settling.weight_frac)} {self.name}_t;"

    def constants(self) -> tuple[Constant, ...]:
        return Constant(name=self.name, values=self.weight), *self.settling.constants()

    def pragmas(self) -> tuple[str, ...]:
        """Banks of the weights: what is read at once."""
        banks = (1, *self.banks())
        return tuple(partition(self.name, axis + 1, count, self.weight.shape[axis]) for axis, count in enumerate(banks) if count > 1)

    def banks(self) -> tuple[int, int, int]:
        """Input channels and taps that are read at once."""
        return self.at_once, int(self.weight.shape[2]), int(self.weight.shape[3])


def partition(array: str, dimension: int, banks: int, size: int) -> str:
    """A pragma's text: an array's dimension in so many banks."""
    kind = "type=complete" if banks >= size else f"type=cyclic factor={banks}"
    return f"ARRAY_PARTITION variable={array} {kind} dim={dimension}"


def reduction(layer: Layer, weight: np.ndarray, parallel: int) -> Reduction:
    _, inputs, rows, cols = weight.shape
    return Reduction(settling=settling(layer), weight=weight, at_once=inputs_at_once(inputs, rows * cols, parallel))


def channel_of(weight: np.ndarray, groups: int) -> str:
    """The input channel that output channel c takes its i-th product from."""
    outputs, inputs = weight.shape[0] // groups, weight.shape[1]
    if groups == 1:
        return "i" if inputs > 1 else "0"
    group = "c" if outputs == 1 else f"c / {outputs}"
    return group if inputs == 1 else f"{group} * {inputs} + i"


def convolution(layer: Layer, parallel: int) -> Function:
    """Rows, columns, output channels; inside, the sum over input channels and taps."""
    weight, stride, padding, groups = _geometry(layer.operation)
    work = reduction(layer, weight, parallel)
    row, column = position("y", stride, work.tap(0), padding), position("x", stride, work.tap(1), padding)
    channel = channel_of(weight, groups)
    read = f"pixel(in, {channel}, {row}, {column})" if padding else f"in[{channel}][{row}][{column}]"
    body = [work.settling.start(), *work.products(read), *work.settling.end()]
    return Function(
        layer=layer, body=tuple(pixels(layer, body, *(["PIPELINE II=1"] if work.whole else []), channels_first=False)),
        typedefs=work.typedefs(), constants=work.constants(), pragmas=work.pragmas(), reads={0: work.banks()},
        rounding=layer.operation.requant.rounding,
    )


def _geometry(operation: Any) -> tuple[np.ndarray, int, int, int]:
    """Weight (OC, IC / groups, KH, KW), stride, padding and groups of any of these operations."""
    weight = operation.weight
    if isinstance(operation, Conv2d):
        return weight, operation.stride, operation.padding, operation.groups
    if isinstance(operation, DepthwiseConv2d):
        return weight[:, None], operation.stride, operation.padding, len(weight)
    if isinstance(operation, Linear):
        return weight[:, :, None, None], 1, 0, 1
    assert isinstance(operation, Scale)
    return weight[:, None, None, None], 1, 0, len(weight)
