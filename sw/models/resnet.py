"""Residual networks for 32 x 32 images: the CIFAR form, and the one with BatchNorm in front of each convolution."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sw.models.blocks import conv_norm

__all__ = ["CifarResNet", "PreActResNet", "resnet20"]


class _Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut: (N, C, H, W) to (N, outputs, H / stride, W / stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = conv_norm(inputs, outputs, 3, stride=stride)
        self.second = conv_norm(outputs, outputs, 3, relu=False)
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else conv_norm(inputs, outputs, 1, stride=stride, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(self.first(x)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """(N, 3, 32, 32) to class scores (N, classes): ``6 * blocks + 2`` layers, as in "Deep Residual Learning", 4.2.

    Where a stage halves the image the shortcut is a 1 x 1 convolution (their option B). ``width`` is that of the first
    stage, 16 in the publication.
    """

    def __init__(self, blocks: int = 3, width: int = 16, classes: int = 10) -> None:
        super().__init__()
        self.stem = conv_norm(3, width, 3)
        self.stages = nn.Sequential(*(_stage(_Block, width, i, blocks) for i in range(3)))
        self.pool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.head = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.flatten(self.pool(self.stages(self.stem(x)))))


def resnet20(classes: int = 10, width: int = 16) -> CifarResNet:
    """ResNet-20: three blocks a stage, 0.27 million parameters at width 16."""
    return CifarResNet(3, width, classes)


class _PreActBlock(nn.Module):
    """BatchNorm, ReLU, convolution, twice, and a shortcut that nothing normalises."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        same = stride == 1 and inputs == outputs
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = torch.relu(self.norm1(x))
        short = x if self.shortcut is None else self.shortcut(active)
        return self.conv2(torch.relu(self.norm2(self.conv1(active)))) + short


class PreActResNet(nn.Module):
    """(N, 3, 32, 32) to class scores (N, classes); as `CifarResNet`, with "Identity Mappings" blocks.

    Half of its BatchNorms read residual sums, which no weights can take: they become layers of their own in fixed point.
    """

    def __init__(self, blocks: int = 3, width: int = 16, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.stages = nn.Sequential(*(_stage(_PreActBlock, width, i, blocks) for i in range(3)))
        self.norm = nn.BatchNorm2d(4 * width)
        self.head = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stages(self.stem(x))))
        return self.head(x.mean((2, 3)))


def _stage(block: type[nn.Module], width: int, index: int, blocks: int) -> nn.Sequential:
    outputs = width << index
    inputs = outputs if index == 0 else outputs // 2
    return nn.Sequential(block(inputs, outputs, 1 if index == 0 else 2), *(block(outputs, outputs, 1) for _ in range(blocks - 1)))
