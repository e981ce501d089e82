"""Small Brevitas models with random weights, trained for a few steps so that their quantisers are past the statistics."""

from __future__ import annotations

from typing import Any

import brevitas.nn as qnn
import torch
from brevitas.quant import Int8ActPerTensorFloat, Int32Bias, Uint8ActPerTensorFloat
from brevitas.quant.fixed_point import (
    Int8ActPerTensorFixedPoint,
    Int8WeightPerChannelFixedPoint,
    Uint8ActPerTensorFixedPoint,
)
from brevitas.quant.scaled_int import Int8WeightPerChannelFloat
from torch import Tensor, nn

STEPS = 2
"""Training steps in which an activation's quantiser collects statistics."""


def identity(quant: Any = Int8ActPerTensorFixedPoint, **options: Any) -> nn.Module:
    return qnn.QuantIdentity(act_quant=quant, return_quant_tensor=True, collect_stats_steps=STEPS, **options)


def relu(quant: Any = Uint8ActPerTensorFixedPoint, **options: Any) -> nn.Module:
    return qnn.QuantReLU(act_quant=quant, return_quant_tensor=True, collect_stats_steps=STEPS, **options)


def trained(model: nn.Module, shape: tuple[int, ...], seed: int = 0) -> nn.Module:
    """The model in evaluation mode, after as many forward passes as its quantisers need."""
    random = torch.Generator().manual_seed(seed)
    model.train()
    with torch.no_grad():
        for _ in range(STEPS + 2):
            model(torch.randn(16, *shape, generator=random))
    return model.eval()


class FixedPointNet(nn.Module):
    """(N, 3, 16, 16) to (N, 10): all scales powers of two, a residual sum in one format, both pools, a depthwise layer."""

    def __init__(self) -> None:
        super().__init__()

        def conv(ins: int, outs: int, kernel: int, **options: Any) -> nn.Module:
            return qnn.QuantConv2d(ins, outs, kernel, weight_quant=Int8WeightPerChannelFixedPoint, bias_quant=Int32Bias,
                                   **options)

        self.quant = identity()
        self.stem, self.stem_relu = conv(3, 16, 3, padding=1), relu()
        self.depth, self.depth_relu = conv(16, 16, 3, padding=1, groups=16, weight_bit_width=4), relu()
        self.shared = identity()
        self.left, self.right = conv(16, 16, 1, weight_bit_width=4), conv(16, 16, 1, bias=False)
        self.join_relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.down, self.down_relu = conv(16, 32, 3, stride=2, padding=1, weight_bit_width=4), relu()
        self.mean, self.mean_quant = nn.AvgPool2d(4), identity(Uint8ActPerTensorFixedPoint)
        self.head = qnn.QuantLinear(32, 10, bias=True, weight_quant=Int8WeightPerChannelFixedPoint, bias_quant=Int32Bias,
                                    output_quant=Int8ActPerTensorFixedPoint, output_collect_stats_steps=STEPS,
                                    return_quant_tensor=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depth_relu(self.depth(self.stem_relu(self.stem(self.quant(x)))))
        x = self.shared(self.shared(self.left(x)) + self.shared(self.right(x)))
        x = self.down_relu(self.down(self.pool(self.join_relu(x))))
        return self.head(torch.flatten(self.mean_quant(self.mean(x)), 1))


class FloatScaleNet(nn.Module):
    """(N, 3, 10, 10) to (N, 6): 4-bit codes, arbitrary scales, per channel for the weights.

    With ``norm`` there are a BatchNorm and float biases, which no accumulator holds exactly.
    """

    def __init__(self, norm: bool = False, bits: int = 4) -> None:
        super().__init__()
        options = dict(weight_quant=Int8WeightPerChannelFloat, weight_bit_width=bits, bias_quant=None if norm else Int32Bias)
        self.quant = identity(Int8ActPerTensorFloat, bit_width=bits)
        self.first = qnn.QuantConv2d(3, 16, 3, padding=1, bias=not norm, **options)
        self.first_norm = nn.BatchNorm2d(16) if norm else nn.Identity()
        self.first_relu = relu(Uint8ActPerTensorFloat, bit_width=bits)
        self.second, self.second_relu = qnn.QuantConv2d(16, 16, 3, stride=2, **options), relu(Uint8ActPerTensorFloat,
                                                                                             bit_width=bits)
        self.mean, self.mean_quant = nn.AdaptiveAvgPool2d(1), identity(Uint8ActPerTensorFloat, bit_width=bits)
        self.head, self.head_quant = qnn.QuantLinear(16, 6, bias=True, **options), identity(Int8ActPerTensorFloat,
                                                                                            bit_width=bits)
        if norm:  # channels of either sign
            self.first_norm.weight.data.normal_()
            self.first_norm.bias.data.normal_()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first_relu(self.first_norm(self.first(self.quant(x))))
        x = self.mean_quant(self.mean(self.second_relu(self.second(x))))
        return self.head_quant(self.head(torch.flatten(x, 1)))
