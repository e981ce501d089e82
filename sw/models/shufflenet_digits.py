"""DigitsNet: a small network for 8 x 8 digits that has every layer type of the inference core."""

from __future__ import annotations

from torch import Tensor, nn

from sw.models.blocks import ShuffleDownUnit, ShuffleUnit, SquareDeformConv, conv_norm, pointwise_norm

__all__ = ["DigitsNet"]


class DigitsNet(nn.Module):
    """(N, 1, 8, 8) to class scores (N, 10); about 0.32 million multiply-accumulates an image.

    ============  ==================================  =============
    layer         what                                output
    ============  ==================================  =============
    stem          3 x 3 convolution                   32 x 8 x 8
    stage1        shuffle unit, halves of 16          32 x 8 x 8
    stage2        shuffle unit of stride 2, then one  64 x 4 x 4
                  of stride 1, halves of 32
    deform        offsets, square deformable, 1 x 1   64 x 4 x 4
    pool          max pool 2 x 2                      64 x 2 x 2
    mix           1 x 1 convolution                   128 x 2 x 2
    mean, head    global average, linear              10
    ============  ==================================  =============
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = conv_norm(1, 32, 3)
        self.stage1 = ShuffleUnit(32)
        self.stage2 = nn.Sequential(ShuffleDownUnit(32, 64), ShuffleUnit(64))
        self.deform = SquareDeformConv(64, 64, deviation=1.5)  # offsets of many sizes: the demo is to show them
        self.pool = nn.MaxPool2d(2)
        self.mix = pointwise_norm(64, 128)
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(128, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.deform(self.stage2(self.stage1(self.stem(x))))
        return self.head(self.flatten(self.mean(self.mix(self.pool(x)))))
