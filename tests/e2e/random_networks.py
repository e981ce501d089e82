"""Random torch networks of every supported layer type, small enough to compile and run by the dozen.

A network is drawn block by block from the shape that the blocks before it leave. Weights come from a drawn seed, so that
hypothesis can replay and shrink it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from sw.quant import DeformConv2d, Recipe

Shape = tuple[int, int, int]
Draw = Callable[[st.SearchStrategy[Any]], Any]

CHANNELS = st.sampled_from([1, 3, 5, 8, 12, 16, 17, 24, 32, 40])
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "none": nn.Identity, "relu": nn.ReLU, "relu6": nn.ReLU6, "leaky": lambda: nn.LeakyReLU(0.1), "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "hard_swish": nn.Hardswish,
}  # fmt: skip


class Residual(nn.Module):
    """``x + body(x)``, and an activation after the sum."""

    def __init__(self, body: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.body, self.after = body, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(x + self.body(x))


class Fork(nn.Module):
    """Branches of one input, concatenated."""

    def __init__(self, branches: list[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class Deformed(nn.Module):
    """A deformable convolution with offsets from a convolution of the same input; ``reach``: pixels that they typically go."""

    def __init__(self, offset: nn.Conv2d, deform: DeformConv2d, reach: float) -> None:
        super().__init__()
        self.offset, self.deform = offset, deform
        offset.weight.data *= reach

    def forward(self, x: Tensor) -> Tensor:
        return self.deform(x, self.offset(x))


class ShuffleUnit(nn.Module):
    """Split at any channel, a branch on the right part, concatenation, channel shuffle."""

    def __init__(self, at: int, channels: int, body: nn.Module, groups: int) -> None:
        super().__init__()
        self.sizes, self.groups, self.body = [at, channels - at], groups, body

    def forward(self, x: Tensor) -> Tensor:
        left, right = torch.split(x, self.sizes, dim=1)
        return F.channel_shuffle(torch.cat([left, self.body(right)], dim=1), self.groups)


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """A network with its input's shape and its recipe."""

    network: nn.Module
    shape: Shape
    recipe: Recipe
    seed: int

    def images(self, count: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed + 1)
        return torch.randn(count, *self.shape, generator=generator)


def _activation(draw: Draw) -> nn.Module:
    return ACTIVATIONS[draw(st.sampled_from(sorted(ACTIVATIONS)))]()


def _conv(draw: Draw, shape: Shape, out: int | None = None, stride: int | None = None) -> tuple[nn.Module, Shape]:
    channels, height, width = shape
    kernel = draw(st.sampled_from([1, 3, 3, 5]))
    stride = draw(st.sampled_from([1, 1, 2])) if stride is None else stride
    out = draw(CHANNELS) if out is None else out
    groups = draw(st.sampled_from([g for g in range(1, channels + 1) if channels % g == 0 and out % g == 0]))
    norm = draw(st.booleans())
    conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=not norm)
    layers = [conv, *([nn.BatchNorm2d(out)] if norm else []), _activation(draw)]
    return nn.Sequential(*layers), (out, _halved(height, stride), _halved(width, stride))


def _halved(size: int, stride: int) -> int:
    return (size - 1) // stride + 1


def _depthwise(draw: Draw, shape: Shape) -> tuple[nn.Module, Shape]:
    channels, height, width = shape
    stride, kernel = draw(st.sampled_from([1, 2])), draw(st.sampled_from([3, 3, 5]))
    conv = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)
    layers = nn.Sequential(conv, nn.BatchNorm2d(channels), _activation(draw))
    return layers, (channels, _halved(height, stride), _halved(width, stride))


def _deformed(draw: Draw, shape: Shape) -> tuple[nn.Module, Shape]:
    channels, height, width = shape
    kernel, out = draw(st.sampled_from([(1, 1), (3, 3), (3, 1)])), draw(CHANNELS)
    groups = draw(st.sampled_from([g for g in range(1, channels + 1) if channels % g == 0 and out % g == 0]))
    stride, dilation = draw(st.sampled_from([1, 2])), draw(st.integers(1, 2)) if kernel == (3, 3) else 1
    padding = dilation * (kernel[1] // 2)
    size = tuple((side + 2 * padding - dilation * (k - 1) - 1) // stride + 1 for side, k in zip((height, width), kernel, strict=True))
    if min(size) < 1:
        return _conv(draw, shape)
    reach = dilation * (kernel[0] - 1) + 1, dilation * (kernel[1] - 1) + 1  # a convolution as large, without dilation
    offset = nn.Conv2d(channels, 2 * kernel[0] * kernel[1], reach, stride, padding)
    deform = DeformConv2d(channels, out, kernel, stride, padding, dilation, groups)
    return Deformed(offset, deform, draw(st.sampled_from([1.0, 5.0]))), (out, size[0], size[1])


def _residual(draw: Draw, shape: Shape) -> tuple[nn.Module, Shape]:
    first, middle = _conv(draw, shape, stride=1)
    second = nn.Conv2d(middle[0], shape[0], 1)
    after = draw(st.sampled_from([nn.Identity, nn.ReLU, nn.SiLU]))()
    return Residual(nn.Sequential(first, second), after), shape


def _fork(draw: Draw, shape: Shape) -> tuple[nn.Module, Shape]:
    made = [_conv(draw, shape, stride=1) for _ in range(draw(st.integers(2, 3)))]
    return Fork([branch for branch, _ in made]), (sum(s[0] for _, s in made), *shape[1:])


def _shuffle(draw: Draw, shape: Shape) -> tuple[nn.Module, Shape]:
    channels = shape[0]
    if channels < 2:
        return _conv(draw, shape)
    at = draw(st.integers(1, channels - 1))
    body, _ = _conv(draw, (channels - at, *shape[1:]), out=channels - at, stride=1)
    groups = draw(st.sampled_from([g for g in range(1, channels + 1) if channels % g == 0]))
    return ShuffleUnit(at, channels, body, groups), shape


def _norm_first(draw: Draw, shape: Shape) -> tuple[nn.Module, Shape]:
    body, after = _conv(draw, shape)
    return nn.Sequential(nn.BatchNorm2d(shape[0]), _activation(draw), body), after


def _pool(draw: Draw, shape: Shape) -> tuple[nn.Module, Shape]:
    channels, height, width = shape
    if min(height, width) < 3:
        return nn.Upsample(scale_factor=2), (channels, 2 * height, 2 * width)
    kind = draw(st.sampled_from([nn.MaxPool2d, nn.AvgPool2d]))
    kernel, stride, padding = draw(st.sampled_from([(2, 2, 0), (3, 2, 1), (3, 1, 1)]))
    size = tuple((side + 2 * padding - kernel) // stride + 1 for side in (height, width))
    return kind(kernel, stride, padding), (channels, *size)


def _upsample(draw: Draw, shape: Shape) -> tuple[nn.Module, Shape]:
    channels, height, width = shape
    if max(height, width) > 8:
        return _pool(draw, shape)
    return nn.Upsample(scale_factor=2, mode="nearest"), (channels, 2 * height, 2 * width)


BLOCKS = (_conv, _depthwise, _deformed, _residual, _fork, _shuffle, _norm_first, _pool, _upsample)


def _head(draw: Draw, shape: Shape) -> list[nn.Module]:
    if draw(st.booleans()):
        return []
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(shape[0], draw(st.integers(2, 10)))]


def _enliven(network: nn.Module) -> None:
    """Statistics and scales as after some training, signs mixed: BatchNorms that are the identity would test little."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            module.weight.data *= torch.randint(0, 2, module.weight.shape) * 2 - 1
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)


@st.composite
def networks(draw: Draw, most: int = 4) -> Drawn:
    """A network of a convolution and up to ``most`` further blocks."""
    seed = draw(st.integers(0, 2**20))
    shape = (draw(st.sampled_from([1, 3, 16])), draw(st.integers(4, 10)), draw(st.integers(4, 10)))
    recipe = Recipe(
        weight_bits=draw(st.sampled_from([3, 4, 8])),
        activation_bits=draw(st.sampled_from([4, 6, 8])),
        rounding=draw(st.sampled_from(["TRN", "RND", "RND_CONV"])),
        batch_norm=draw(st.sampled_from(["fold", "layer"])),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        block, now = _conv(draw, shape)
        blocks = [block]
        for _ in range(draw(st.integers(1, most))):
            block, now = draw(st.sampled_from(BLOCKS))(draw, now)
            blocks.append(block)
        network = nn.Sequential(*blocks, *_head(draw, now))
        _enliven(network)
    return Drawn(network=network.eval(), shape=shape, recipe=recipe, seed=seed)
