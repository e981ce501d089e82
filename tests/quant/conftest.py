"""Small float networks with random weights for the quantiser's tests; together they have every layer type."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sw.models.blocks import ShuffleDownUnit, ShuffleUnit, SquareDeformConv, conv_norm
from sw.quant import SquareDeform
from sw.quant.deform import DeformConv2d


class EveryLayer(nn.Module):
    """(N, 3, 12, 12) to (N, 5) and (N, 8): each layer type of networks of the shuffle kind."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_norm(3, 16, 3)
        self.down = ShuffleDownUnit(16, 32)
        self.unit = ShuffleUnit(32)
        self.square = SquareDeformConv(32, 16, deviation=1.5)
        self.offset2 = nn.Conv2d(16, 1, 1, stride=2)
        self.deform2 = SquareDeform(16, stride=2, bias=True)
        self.norm2 = nn.BatchNorm2d(16)
        self.up = nn.Upsample(scale_factor=2)
        self.side = conv_norm(16, 16, 3, relu=False)
        self.relu = nn.ReLU()
        self.max = nn.MaxPool2d(3, 2, 1)
        self.avg = nn.AvgPool2d(3, 2, 1)
        self.window = nn.Linear(16 * 2 * 2, 8)
        self.mix = nn.Conv2d(16, 12, 1)
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.1), nn.Linear(12, 5))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.square(self.unit(self.down(self.stem(x))))
        y = self.relu(self.norm2(self.deform2(x, self.offset2(x))))
        x = self.relu(self.up(y) + self.side(x))
        x = self.max(x)
        window = self.window(torch.flatten(self.avg(x), 1))
        return self.head(self.mean(self.mix(x))), window


class MoreLayers(nn.Module):
    """(N, 3, 12, 12) to (N, 8, 12, 12): the layer types that `EveryLayer` has not."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_norm(3, 16, 3, relu=False)
        self.pre = nn.BatchNorm2d(16)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.shuffle = nn.ChannelShuffle(4)
        self.offset3 = nn.Conv2d(20, 18, 3, padding=1)
        self.deform3 = DeformConv2d(20, 16, 3, padding=1, groups=2)
        self.mix = nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = F.silu(self.grouped(torch.relu(self.pre(x))))
        y = self.shuffle(torch.cat([y, x[:, 4:8]], 1))
        y = self.deform3(y, self.offset3(y))
        return self.mix(F.relu6(y) + y)


@pytest.fixture
def more_layers() -> Callable[[int], nn.Module]:
    """Makes a `MoreLayers` network with random weights from a seed, in evaluation mode."""

    def make(seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return randomise(MoreLayers(), seed)

    return make


@pytest.fixture
def every_layer() -> Callable[[int], nn.Module]:
    """Makes an `EveryLayer` network with random weights from a seed, in evaluation mode."""

    def make(seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return randomise(EveryLayer(), seed)

    return make


def randomise(model: nn.Module, seed: int) -> nn.Module:
    """Random affine parameters, statistics and offsets that fit the data, so that tensors are alive; evaluation mode."""
    random = torch.Generator().manual_seed(seed)
    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            module.weight.data.uniform_(0.5, 1.5, generator=random)
            module.bias.data.normal_(0, 0.3, generator=random)
        if name.split(".")[-1].startswith("offset"):
            hooks.append(module.register_forward_hook(_spread_offsets))
    with torch.no_grad():
        model.train()(torch.randn(64, 3, 12, 12, generator=random))
    for hook in hooks:
        hook.remove()
    return model.eval()


def _spread_offsets(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
    """Scale an offset convolution so that its outputs have mean 1 and deviation 4."""
    assert isinstance(module, nn.Conv2d) and module.bias is not None
    scale, mean = 4 / output.std(), output.mean()
    module.weight.data.mul_(scale)
    module.bias.data.sub_(mean).mul_(scale).add_(1)
    return (output - mean) * scale + 1


@pytest.fixture
def images() -> Callable[[int, int], Tensor]:
    """Makes random images (count, 3, 12, 12) of normal values from a count and a seed."""
    return lambda count, seed: torch.randn(count, 3, 12, 12, generator=torch.Generator().manual_seed(seed))
