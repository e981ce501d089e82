"""A small BatchNorm network for 8 x 8 digits, every kind of layer that the training core has in it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sw.models.blocks import conv_norm

__all__ = ["SparseDigitsNet"]


class SparseDigitsNet(nn.Module):
    """(N, 1, 8, 8) to class scores (N, classes).

    3 x 3 stem, a residual block of two 3 x 3 convolutions, a 3 x 3 convolution of stride 2 beside a 1 x 1 shortcut, a maximum pool,
    a linear layer. ``width`` channels, twice as many behind the stride.
    """

    def __init__(self, classes: int = 10, width: int = 16) -> None:
        super().__init__()
        self.stem = conv_norm(1, width, 3)
        self.first = conv_norm(width, width, 3)
        self.second = conv_norm(width, width, 3, relu=False)
        self.down = conv_norm(width, 2 * width, 3, stride=2, relu=False)
        self.shortcut = conv_norm(width, 2 * width, 1, stride=2, relu=False)
        self.relu = nn.ReLU()
        self.pool, self.mean, self.flatten = nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.relu(torch.add(self.second(self.first(x)), x))
        x = self.relu(torch.add(self.down(x), self.shortcut(x)))
        return self.head(self.flatten(self.mean(self.pool(x))))
