"""Networks of the VGG form for small images: 3 x 3 convolutions with BatchNorm, maximum pooling, a linear layer over the last map."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from sw.models.blocks import conv_norm

__all__ = ["VGG19", "Vgg"]

_STAGES = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
"""Channels and 3 x 3 convolutions of each stage of VGG19."""


class Vgg(nn.Module):
    """(N, channels, size, size) to class scores (N, classes).

    ``stages`` are (outputs, convolutions) each, with a 2 x 2 pooling behind them, so that 2 ** stages divides ``size``. The linear
    layer reads the flattened map: size / 2 ** stages is 1 for the 5 stages of the publication and 32 x 32 images.
    """

    def __init__(
        self, stages: Sequence[tuple[int, int]], *, channels: int = 3, size: int = 32, classes: int = 10
    ) -> None:  # fmt: skip
        super().__init__()
        if size % 2 ** len(stages):
            raise ValueError(f"{len(stages)} poolings must divide images of {size}x{size}")
        layers: list[nn.Module] = []
        for outputs, count in stages:
            for _ in range(count):
                layers.append(conv_norm(channels, outputs, 3))
                channels = outputs
            layers.append(nn.MaxPool2d(2))
        self.features, self.flatten = nn.Sequential(*layers), nn.Flatten()
        self.head = nn.Linear(channels * (size >> len(stages)) ** 2, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.flatten(self.features(x)))


class VGG19(Vgg):
    """(N, 3, 32, 32) to class scores (N, classes): sixteen 3 x 3 convolutions and one linear layer, the CIFAR form.

    The publication's three large linear layers belong to 224 x 224 images: after five pools 1 x 1 x 512 is left here.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__(_STAGES, classes=classes)
