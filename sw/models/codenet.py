"""CoDeNet: a CenterNet detector with a ShuffleNetV2 backbone and square deformable convolutions; configurations a to e and ablations.

From "CoDeNet: Efficient Deployment of Input-Adaptive Object Detection on Embedded FPGAs" (FPGA'21). The five configurations differ in
the image's size, the backbone's width and the first layer; `Operator` is the convolution of the decoder, whose simplifications its
ablation adds one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sw.models.blocks import (
    OFFSET_DEVIATION,
    ShuffleDownUnit,
    ShuffleUnit,
    SquareDeformConv,
    conv_norm,
    depthwise_norm,
    pointwise_norm,
)
from sw.quant.deform import DeformConv2d

__all__ = ["CONFIGURATIONS", "CodeNet", "Configuration", "Detection", "Operator", "codenet"]

HEAT_BIAS = -2.19
"""The heat map begins at a probability of a tenth."""

UNITS = (3, 7, 3)
"""Units of stride 1 in each stage, behind one of stride 2."""

DECODER = (256, 128, 64)
WIDTHS = {1: (24, 116, 232, 464, 1024), 2: (24, 244, 488, 976, 2153)}
"""Channels of first layer, stages and last 1 x 1 convolution of ShuffleNetV2 x1 and x2."""


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """``size`` of the square image, ``width`` of the backbone (1 or 2), ``pool``: the first layer has stride 2 and a max pool behind
    it, otherwise stride 4."""

    size: int
    width: int
    pool: bool


CONFIGURATIONS = {
    "a": Configuration(size=256, width=1, pool=False),
    "b": Configuration(size=256, width=1, pool=True),
    "c": Configuration(size=512, width=1, pool=False),
    "d": Configuration(size=512, width=2, pool=False),
    "e": Configuration(size=512, width=2, pool=True),
}


class Operator(Enum):
    """The decoder's 3 x 3 operator, always followed by BatchNorm and ReLU.

    ``PLAIN`` a convolution; ``DEFORMABLE`` a deformable one with 18 offsets a pixel; ``BOUNDED`` with offsets limited to -7..8;
    ``SQUARE`` with one bounded offset a pixel that scales the square of taps; ``DEPTHWISE`` a plain depthwise convolution and a 1 x 1;
    ``SQUARE_DEPTHWISE`` a square deformable depthwise one and a 1 x 1: CoDeNet's, the only one that the rest of this module calls by
    default; ``ROUNDED`` the same with whole offsets in float already. In fixed point the recipe rounds the offsets of both to whole
    pixels, unless it gives them a format with fraction bits.
    """

    PLAIN = "plain"
    DEFORMABLE = "deformable"
    BOUNDED = "bounded"
    SQUARE = "square"
    DEPTHWISE = "depthwise"
    SQUARE_DEPTHWISE = "square_depthwise"
    ROUNDED = "rounded"


class Detection(NamedTuple):
    """Heads at a quarter of the image: ``heat`` (N, classes, H/4, W/4) logits, ``size`` and ``shift`` (N, 2, H/4, W/4), in cells of
    four pixels: width and height of a box, and x and y of its centre from the cell's corner."""

    heat: Tensor
    size: Tensor
    shift: Tensor


class OffsetDeform(nn.Module):
    """Deformable 3 x 3 convolution with offsets from a 1 x 1 convolution, BatchNorm, ReLU: (N, inputs, H, W) to (N, outputs, H, W).

    ``limits``: smallest and largest offset; ``square``: one offset a pixel instead of 18, from which each tap gets its pair.
    """

    def __init__(self, inputs: int, outputs: int, *, limits: tuple[float, float] | None = None, square: bool = False) -> None:
        super().__init__()
        self.limits, self.square = limits, square
        self.offset = nn.Conv2d(inputs, 1 if square else 18, 1)
        self.deform = DeformConv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm, self.relu = nn.BatchNorm2d(outputs), nn.ReLU()
        assert self.offset.bias is not None
        nn.init.normal_(self.offset.weight, std=OFFSET_DEVIATION / inputs**0.5)
        nn.init.constant_(self.offset.bias, 1.0 if square else 0.0)
        place = torch.tensor([(i - 1, j - 1) for i in range(3) for j in range(3)], dtype=torch.float32)
        self.register_buffer("place", place.reshape(1, 18, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        offset = self.offset(x)
        if self.limits is not None:
            offset = offset.clamp(*self.limits)
        if self.square:
            offset = (offset - 1) * self.place
        return self.relu(self.norm(self.deform(x, offset)))


BOUNDS = (-7.0, 8.0)

_OPERATORS: dict[Operator, Callable[[int, int], nn.Module]] = {
    Operator.PLAIN: lambda inputs, outputs: conv_norm(inputs, outputs, 3),
    Operator.DEFORMABLE: OffsetDeform,
    Operator.BOUNDED: lambda inputs, outputs: OffsetDeform(inputs, outputs, limits=BOUNDS),
    Operator.SQUARE: lambda inputs, outputs: OffsetDeform(inputs, outputs, limits=BOUNDS, square=True),
    Operator.DEPTHWISE: lambda inputs, outputs: nn.Sequential(depthwise_norm(inputs), pointwise_norm(inputs, outputs)),
    Operator.SQUARE_DEPTHWISE: SquareDeformConv,
    Operator.ROUNDED: lambda inputs, outputs: SquareDeformConv(inputs, outputs, whole=True),
}


class CodeNet(nn.Module):
    """The detector: images (N, 3, H, W), H and W multiples of 32, to the three tensors of a `Detection`.

    ``widths``: channels as in `WIDTHS`, ``pool`` as in `Configuration`, ``units``: of stride 1 in each stage.

    ===========  ==========================================  ====================
    layer        what                                        output, width 1
    ===========  ==========================================  ====================
    first        3 x 3 convolution, perhaps a max pool       24 x H/4
    stages       shuffle units, three times half the size    464 x H/32
    last         1 x 1 convolution                           1024 x H/32
    decoder      operator, twice the size; three times       64 x H/4
    heads        1 x 1, depthwise 3 x 3, 1 x 1 with bias     classes, 2, 2 x H/4
    ===========  ==========================================  ====================
    """

    def __init__(
        self,
        classes: int,
        widths: tuple[int, ...] = WIDTHS[1],
        *,
        pool: bool = False,
        units: tuple[int, ...] = UNITS,
        decoder: tuple[int, ...] = DECODER,
        operator: Operator = Operator.SQUARE_DEPTHWISE,
    ) -> None:
        super().__init__()
        first, *stages, last = widths
        self.first = conv_norm(3, first, 3, stride=2 if pool else 4)
        self.pool: nn.Module = nn.MaxPool2d(3, 2, 1) if pool else nn.Identity()
        self.stages = nn.Sequential()
        for inputs, outputs, count in zip((first, *stages), stages, units, strict=False):
            self.stages.append(nn.Sequential(ShuffleDownUnit(inputs, outputs), *(ShuffleUnit(outputs) for _ in range(count))))
        self.last = pointwise_norm(stages[-1], last)
        self.decoder = nn.Sequential()
        for inputs, outputs in zip((last, *decoder), decoder, strict=False):
            self.decoder.append(nn.Sequential(_OPERATORS[operator](inputs, outputs), nn.Upsample(scale_factor=2)))
        self.heat, self.size, self.shift = (_head(decoder[-1], outputs) for outputs in (classes, 2, 2))
        nn.init.constant_(self.heat[-1].bias, HEAT_BIAS)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.last(self.stages(self.pool(self.first(x))))
        x = self.decoder(x)
        return self.heat(x), self.size(x), self.shift(x)


def _head(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(pointwise_norm(inputs, inputs), *depthwise_norm(inputs), nn.ReLU(), nn.Conv2d(inputs, outputs, 1))


def codenet(name: str, classes: int = 20, operator: Operator = Operator.SQUARE_DEPTHWISE) -> CodeNet:
    """The network of a configuration, ``a`` to ``e``. ValueError for another name."""
    if name not in CONFIGURATIONS:
        raise ValueError(f"configuration must be one of {', '.join(CONFIGURATIONS)}, not {name!r}")
    configuration = CONFIGURATIONS[name]
    return CodeNet(classes, WIDTHS[configuration.width], pool=configuration.pool, operator=operator)
