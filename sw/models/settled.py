"""Networks with random weights whose tensors are alive, for comparisons that need every code and no training.

Equal zeros prove little. Here BatchNorms know the images that come, their coefficients have both signs, and offsets of square
deformable convolutions take all their values, saturated ones included.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sw.models.blocks import SquareDeformConv

__all__ = ["settle", "smooth_images"]

OFFSET_MEAN, OFFSET_DEVIATION = 0.5, 5.0
"""Of -7..8, the middle, and so wide that about a tenth saturates on each side."""


def smooth_images(count: int, side: int, seed: int) -> Tensor:
    """Random images (count, 3, side, side) of mean 0 in which neighbouring pixels are alike, as in photographs."""
    cells = max(side // 8, 3)
    noise = torch.randn(count, 3, cells, cells, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(noise, size=(side, side), mode="bilinear") * 1.5


@torch.no_grad()
def settle(net: nn.Module, images: Tensor, seed: int = 5) -> nn.Module:
    """The network itself, in evaluation mode: statistics of ``images`` (N, 3, H, W), random BatchNorm coefficients, wide offsets."""
    random = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            signs = torch.randint(0, 2, module.weight.shape, generator=random) * 2 - 1
            module.weight.copy_((0.5 + torch.rand(module.weight.shape, generator=random)) * signs)
            module.bias.copy_(torch.randn(module.bias.shape, generator=random) * 0.3)
    for deform in [module for module in net.modules() if isinstance(module, SquareDeformConv)]:
        _widen(net, deform, images)
    net.train()(images)
    return net.eval()


def _widen(net: nn.Module, deform: SquareDeformConv, images: Tensor) -> None:
    """Give the offsets their mean and deviation, with everything before them as it is."""
    found: list[Tensor] = []
    handle = deform.offset.register_forward_hook(lambda module, given, result: found.append(result))
    net.train()(images)
    handle.remove()
    scale = OFFSET_DEVIATION / float(found[0].std())
    assert deform.offset.bias is not None
    deform.offset.weight.mul_(scale)
    deform.offset.bias.sub_(float(found[0].mean())).mul_(scale).add_(OFFSET_MEAN)
