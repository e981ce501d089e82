"""ResNet18 and ResNet50 as in "Deep Residual Learning", table 1, with the stem for large images or for small ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sw.models.blocks import conv_norm

__all__ = ["STEMS", "ResNet", "resnet18", "resnet50"]

STEMS = ("imagenet", "cifar")


class _Basic(nn.Module):
    """Two 3 x 3 convolutions: (N, C, H, W) to (N, width, H / stride, W / stride)."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_norm(inputs, width, 3, stride=stride), conv_norm(width, width, 3, relu=False))
        self.shortcut = _shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


class _Bottleneck(nn.Module):
    """1 x 1, 3 x 3 (which has the stride), 1 x 1 to four times the width."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_norm(inputs, width, 1), conv_norm(width, width, 3, stride=stride),
                                  conv_norm(width, 4 * width, 1, relu=False))
        self.shortcut = _shortcut(inputs, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.shortcut(x))


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    same = stride == 1 and inputs == outputs
    return nn.Identity() if same else conv_norm(inputs, outputs, 1, stride=stride, relu=False)


class ResNet(nn.Module):
    """(N, 3, H, W) to class scores (N, classes): four stages of widths 64, 128, 256, 512, strides 1, 2, 2, 2.

    ``stem`` "imagenet": 7 x 7 of stride 2 and a max pool of stride 2; "cifar": 3 x 3 of stride 1.
    """

    def __init__(self, block: type[_Basic] | type[_Bottleneck], blocks: tuple[int, ...], classes: int, stem: str) -> None:
        super().__init__()
        if stem not in STEMS:
            raise ValueError(f"stem must be one of {', '.join(STEMS)}, not {stem!r}")
        large = stem == "imagenet"
        self.stem = nn.Sequential(conv_norm(3, 64, 7, stride=2), nn.MaxPool2d(3, 2, 1)) if large else conv_norm(3, 64, 3)
        stages: list[nn.Module] = []
        inputs = 64
        for index, count in enumerate(blocks):
            for place in range(count):
                stages.append(block(inputs, 64 << index, 2 if index and not place else 1))
                inputs = (64 << index) * block.expansion
        self.stages = nn.Sequential(*stages)
        self.pool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.flatten(self.pool(self.stages(self.stem(x)))))


def resnet18(classes: int = 1000, stem: str = "imagenet") -> ResNet:
    """Two basic blocks a stage."""
    return ResNet(_Basic, (2, 2, 2, 2), classes, stem)


def resnet50(classes: int = 1000, stem: str = "imagenet") -> ResNet:
    """3, 4, 6, 3 bottleneck blocks."""
    return ResNet(_Bottleneck, (3, 4, 6, 3), classes, stem)
