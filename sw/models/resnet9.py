"""ResNet9, the small fast residual network for CIFAR."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sw.models.blocks import conv_norm

__all__ = ["ResNet9"]


class _Residual(nn.Module):
    """(N, C, H, W) to the same: x plus two 3 x 3 convolutions of it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_norm(channels, channels, 3), conv_norm(channels, channels, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.add(x, self.body(x))


class ResNet9(nn.Module):
    """(N, 3, 32, 32) to class scores (N, classes): eight convolutions and a linear layer.

    =======  ==========================================  ==================
    layer    what                                        output, width 64
    =======  ==========================================  ==================
    stem     3 x 3 convolution                           64 x 32 x 32
    wide     3 x 3, max pool                             128 x 16 x 16
    first    residual of two 3 x 3                       128 x 16 x 16
    down     3 x 3, max pool; 3 x 3, max pool            512 x 4 x 4
    second   residual of two 3 x 3                       512 x 4 x 4
    head     max pool 4 x 4, linear                      classes
    =======  ==========================================  ==================
    """

    def __init__(self, classes: int = 10, width: int = 64) -> None:
        super().__init__()
        self.stem = conv_norm(3, width, 3)
        self.wide = nn.Sequential(conv_norm(width, 2 * width, 3), nn.MaxPool2d(2))
        self.first = _Residual(2 * width)
        self.down = nn.Sequential(conv_norm(2 * width, 4 * width, 3), nn.MaxPool2d(2),
                                  conv_norm(4 * width, 8 * width, 3), nn.MaxPool2d(2))
        self.second = _Residual(8 * width)
        self.pool, self.flatten = nn.MaxPool2d(4), nn.Flatten()
        self.head = nn.Linear(8 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.down(self.first(self.wide(self.stem(x)))))
        return self.head(self.flatten(self.pool(x)))
