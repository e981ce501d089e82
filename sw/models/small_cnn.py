"""Two small networks for the accuracy tables: a plain one for 8 x 8 digits and a residual one for 32 x 32 images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sw.models.blocks import conv_norm

__all__ = ["PlainNet", "Residual", "ResidualNet"]


class PlainNet(nn.Module):
    """(N, 1, 8, 8) to class scores (N, 10): three 3 x 3 convolutions with BatchNorm, mean, linear; 24,058 parameters."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(conv_norm(1, 16, 3), conv_norm(16, 32, 3, stride=2), conv_norm(32, 64, 3))
        self.mean, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.head = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.flatten(self.mean(self.features(x))))


class Residual(nn.Module):
    """ResNet's basic block: (N, C, H, W) to the same shape, two 3 x 3 convolutions, sum, ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(conv_norm(channels, channels, 3), conv_norm(channels, channels, 3, relu=False))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(torch.add(x, self.branch(x)))


class ResidualNet(nn.Module):
    """(N, 3, 32, 32) to class scores (N, 10): stem and two more convolutions of stride 2, a residual block after each of the
    first two. ``width`` is the stem's channels, which double at each further stride; with the default of 16 there are 84,570
    parameters and about 3 million multiply-accumulates an image."""

    def __init__(self, classes: int = 10, width: int = 16) -> None:
        super().__init__()
        self.stem = conv_norm(3, width, 3, stride=2)
        self.block1 = Residual(width)
        self.down1 = conv_norm(width, 2 * width, 3, stride=2)
        self.block2 = Residual(2 * width)
        self.down2 = conv_norm(2 * width, 4 * width, 3, stride=2)
        self.mix = conv_norm(4 * width, 4 * width, 3)
        self.mean, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.head = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down1(self.block1(self.stem(x)))
        x = self.mix(self.down2(self.block2(x)))
        return self.head(self.flatten(self.mean(x)))
