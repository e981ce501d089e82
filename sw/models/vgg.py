"""VGG19 with BatchNorm for 32 x 32 images."""

from __future__ import annotations

from torch import Tensor, nn

from sw.models.blocks import conv_norm

__all__ = ["VGG19"]

_STAGES = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
"""Channels and 3 x 3 convolutions of each stage; a max pool follows each."""


class VGG19(nn.Module):
    """(N, 3, 32, 32) to class scores (N, classes): sixteen 3 x 3 convolutions and one linear layer, the CIFAR form.

    The publication's three large linear layers belong to 224 x 224 images: after five pools 1 x 1 x 512 is left here.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for outputs, count in _STAGES:
            for _ in range(count):
                layers.append(conv_norm(inputs, outputs, 3))
                inputs = outputs
            layers.append(nn.MaxPool2d(2))
        self.features, self.flatten = nn.Sequential(*layers), nn.Flatten()
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.flatten(self.features(x)))
