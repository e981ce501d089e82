"""A MobileNetV2-like network for small images: inverted residuals with expansion, depthwise 3 x 3 and ReLU6."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

__all__ = ["InvertedResidual", "SmallMobileNet"]

Activation = Callable[[], nn.Module]


def _conv(inputs: int, outputs: int, kernel: int, activation: Activation | None, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([] if activation is None else [activation()]))


class InvertedResidual(nn.Module):
    """1 x 1 to ``expansion`` times the channels, depthwise, 1 x 1 without activation; a residual sum where shapes allow.

    (N, inputs, H, W) to (N, outputs, H / stride, W / stride).
    """

    def __init__(
        self, inputs: int, outputs: int, *, stride: int = 1, expansion: int = 4, activation: Activation = nn.ReLU6
    ) -> None:
        super().__init__()
        inner = inputs * expansion
        self.body = nn.Sequential(
            _conv(inputs, inner, 1, activation), _conv(inner, inner, 3, activation, stride=stride, groups=inner),
            _conv(inner, outputs, 1, None))
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
