"""Float building blocks of ShuffleNetV2 and CoDeNet; `sw.quant.quantize_model` knows every layer in them."""

from __future__ import annotations

from torch import Tensor, nn

from sw.quant.primitives import ChannelSplit, ShuffleJoin, SquareDeform

__all__ = ["OFFSET_DEVIATION", "ShuffleDownUnit", "ShuffleUnit", "SquareDeformConv", "conv_norm", "depthwise_norm", "pointwise_norm"]

OFFSET_DEVIATION = 0.02
"""Of the weights that give offsets when training starts, times the root of their number."""


def conv_norm(inputs: int, outputs: int, kernel: int, *, stride: int = 1, relu: bool = True) -> nn.Sequential:
    """Convolution with "same" padding, BatchNorm and, unless ``relu`` is False, ReLU."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([nn.ReLU()] if relu else []))


def pointwise_norm(inputs: int, outputs: int) -> nn.Sequential:
    """1 x 1 convolution, BatchNorm, ReLU."""
    return conv_norm(inputs, outputs, 1)


def depthwise_norm(channels: int, *, stride: int = 1) -> nn.Sequential:
    """3 x 3 depthwise convolution and BatchNorm, no ReLU."""
    conv = nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels))


class ShuffleUnit(nn.Module):
    """ShuffleNetV2 unit of stride 1: (N, C, H, W) to the same shape.

    The first half of the channels passes, the second goes through 1 x 1, depthwise 3 x 3, 1 x 1; then shuffle. C is even.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels % 2:
            raise ValueError(f"a shuffle unit needs an even number of channels, not {channels}")
        half = channels // 2
        self.split, self.join = ChannelSplit(), ShuffleJoin()
        self.branch = nn.Sequential(pointwise_norm(half, half), depthwise_norm(half), pointwise_norm(half, half))

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.split(x)
        return self.join(left, self.branch(right))


class ShuffleDownUnit(nn.Module):
    """ShuffleNetV2 unit of stride 2: (N, C, H, W) to (N, outputs, H/2, W/2); both branches read all channels."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        if outputs % 2:
            raise ValueError(f"a shuffle unit needs an even number of channels, not {outputs}")
        half = outputs // 2
        self.join = ShuffleJoin()
        self.left = nn.Sequential(depthwise_norm(inputs, stride=2), pointwise_norm(inputs, half))
        self.right = nn.Sequential(pointwise_norm(inputs, half), depthwise_norm(half, stride=2), pointwise_norm(half, half))

    def forward(self, x: Tensor) -> Tensor:
        return self.join(self.left(x), self.right(x))


class SquareDeformConv(nn.Module):
    """CoDeNet's operator: offsets by a 1 x 1 convolution, square deformable depthwise 3 x 3, then 1 x 1, BatchNorm, ReLU.

    Offsets start next to 1, where the deformable convolution is an ordinary 3 x 3: with larger ones detectors end up worse than
    with ordinary convolutions (docs/codenet.md). ``deviation`` as `OFFSET_DEVIATION`,
    ``whole`` as of `SquareDeform`. (N, C, H, W) to (N, outputs, H, W).
    """

    def __init__(self, inputs: int, outputs: int, *, deviation: float = OFFSET_DEVIATION, whole: bool = False) -> None:
        super().__init__()
        self.offset = nn.Conv2d(inputs, 1, 1)
        self.deform = SquareDeform(inputs, whole=whole)
        self.pointwise = pointwise_norm(inputs, outputs)
        assert self.offset.bias is not None
        nn.init.normal_(self.offset.weight, std=deviation / inputs**0.5)
        nn.init.ones_(self.offset.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.deform(x, self.offset(x)))
