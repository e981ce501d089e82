"""MobileNetV2, and a network like it for small images: inverted residuals with expansion, depthwise 3 x 3 and ReLU6."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

__all__ = ["InvertedResidual", "MobileNetV2", "SmallMobileNet"]

Activation = Callable[[], nn.Module]


def _conv(inputs: int, outputs: int, kernel: int, activation: Activation | None, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([] if activation is None else [activation()]))


class InvertedResidual(nn.Module):
    """1 x 1 to ``expansion`` times the channels (none for 1), depthwise, 1 x 1 without activation; a residual sum where shapes allow.

    (N, inputs, H, W) to (N, outputs, H / stride, W / stride).
    """

    def __init__(
        self, inputs: int, outputs: int, *, stride: int = 1, expansion: int = 4, activation: Activation = nn.ReLU6
    ) -> None:
        super().__init__()
        inner = inputs * expansion
        expand = [_conv(inputs, inner, 1, activation)] if expansion > 1 else []
        self.body = nn.Sequential(
            *expand, _conv(inner, inner, 3, activation, stride=stride, groups=inner), _conv(inner, outputs, 1, None))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class SmallMobileNet(nn.Module):
    """(N, 3, 32, 32) to class scores (N, classes), by default with ReLU6; ``activation`` may be nn.SiLU or nn.Hardswish.

    =========  ===========================================  ================
    layer      what                                         output, width 16
    =========  ===========================================  ================
    stem       3 x 3 convolution                            16 x 32 x 32
    blocks     inverted residuals, strides 1, 2, 1, 2, 1    64 x 8 x 8
    last       1 x 1 convolution                            128 x 8 x 8
    head       global mean, dropout, linear                 classes
    =========  ===========================================  ================
    """

    def __init__(self, width: int = 16, classes: int = 10, expansion: int = 4, activation: Activation = nn.ReLU6) -> None:
        super().__init__()
        self.stem = _conv(3, width, 3, activation)
        plan = [(width, 1), (2 * width, 2), (2 * width, 1), (4 * width, 2), (4 * width, 1)]
        blocks, inputs = [], width
        for outputs, stride in plan:
            blocks.append(InvertedResidual(inputs, outputs, stride=stride, expansion=expansion, activation=activation))
            inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.last = _conv(inputs, 8 * width, 1, activation)
        self.dropout, self.head = nn.Dropout(0.1), nn.Linear(8 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.blocks(self.stem(x)))
        return self.head(self.dropout(x.mean([2, 3])))


MOBILENET_V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, blocks and stride of the first block of each stage: "MobileNetV2: Inverted Residuals and Linear Bottlenecks"
(arXiv 1801.04381), table 2."""


class MobileNetV2(nn.Module):
    """(N, 3, H, W), H and W multiples of 32, to class scores (N, classes); 300 million multiply-accumulates at 224 x 224."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.stem = _conv(3, 32, 3, nn.ReLU6, stride=2)
        blocks, inputs = [], 32
        for expansion, outputs, count, stride in MOBILENET_V2:
            for number in range(count):
                blocks.append(InvertedResidual(inputs, outputs, stride=1 if number else stride, expansion=expansion))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.last = _conv(inputs, 1280, 1, nn.ReLU6)
        self.dropout, self.head = nn.Dropout(0.2), nn.Linear(1280, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.blocks(self.stem(x)))
        return self.head(self.dropout(x.mean([2, 3])))
