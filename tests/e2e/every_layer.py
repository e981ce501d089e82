"""A network with every layer type that the core runs, each in a place where nothing absorbs it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sw.quant import ChannelSplit, DeformConv2d, ShuffleJoin, SquareDeform

LAYERS = frozenset({
    "conv2d", "linear", "depthwise_conv2d", "deform_depthwise_conv2d", "deform_conv2d", "max_pool2d", "avg_pool2d", "slice",
    "shuffle_join", "add", "upsample2x", "scale", "table", "clip", "concat", "shuffle",
})  # fmt: skip
"""Operations of the integer graph that the network must have."""


class EveryLayer(nn.Module):
    """(N, 3, 12, 12) to 10 scores."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24), nn.ReLU6())
        self.grouped = nn.Sequential(nn.Conv2d(24, 24, 3, padding=1, groups=3), nn.LeakyReLU(0.1))
        self.depthwise = nn.Sequential(nn.Conv2d(24, 24, 3, padding=1, groups=24, bias=False), nn.BatchNorm2d(24), nn.Hardswish())
        self.twice = nn.Sequential(nn.Conv2d(24, 48, 3, padding=1, groups=24), nn.Tanh(), nn.Conv2d(48, 24, 1))
        self.norm, self.relu = nn.BatchNorm2d(24), nn.ReLU()  # after the sum: a layer of its own
        self.offset, self.deform = nn.Conv2d(24, 1, 3, padding=1), SquareDeform(24)
        self.bend, self.bent = nn.Conv2d(24, 18, 3, padding=1), DeformConv2d(24, 24, 3, padding=1, groups=2)
        self.bend.weight.data *= 4  # samples up to two pixels away
        self.left, self.right = nn.Conv2d(24, 20, 1), nn.Conv2d(24, 12, 1)
        self.split, self.join = ChannelSplit(), ShuffleJoin()
        self.side = nn.Sequential(nn.Conv2d(16, 16, 1), nn.Sigmoid())
        self.max, self.mean, self.up = nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2), nn.Upsample(scale_factor=2)
        self.last = nn.Sequential(nn.Conv2d(43, 40, 1), nn.SiLU())
        self.head = nn.Linear(40, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.grouped(self.stem(x))
        x = self.relu(self.norm(x + self.twice(self.depthwise(x))))
        x = self.deform(x, self.offset(x))
        x = self.bent(x, self.bend(x))
        x = torch.cat([self.left(x), F.relu(self.right(x))], dim=1)
        left, right = self.split(F.channel_shuffle(x, 4))
        x = self.join(left, self.side(right))
        first, _, last = torch.split(self.max(x), [11, 5, 16], dim=1)
        x = torch.cat([self.mean(self.up(first)), self.max(x)[:, :16], torch.clamp(last, -0.5, 1.5)], dim=1)
        return self.head(self.last(x).mean((2, 3)))
