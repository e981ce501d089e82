"""Functions and methods of a model's forward as the layers of torch.nn that compute the same."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from sw.quant.base import Bounds
from sw.quant.spans import Size
from sw.tracing.forms import COMMON, Form, avg_pool, forms

__all__ = ["FORMS", "SquareMean", "bounds_of"]


def bounds_of(module: nn.Module) -> Bounds | None:
    """The limits of an activation that only limits; None for other layers. ValueError where they are crossed."""
    if isinstance(module, nn.ReLU):
        return Bounds(low=0.0)
    if isinstance(module, nn.Hardtanh):  # ReLU6 too
        ends = (float(module.min_val), float(module.max_val))
        low, high = (None if math.isinf(end) else end for end in ends)
        return Bounds(low=low, high=high)
    return None


class Limits(nn.Hardtanh):
    """`torch.clamp` as a layer: other than nn.Hardtanh it takes any limits, which `bounds_of` checks."""

    def __init__(self, low: float, high: float) -> None:
        nn.Module.__init__(self)
        self.min_val, self.max_val, self.inplace = low, high, False


class SquareMean(nn.AdaptiveAvgPool2d):
    """The mean of a window as large as one side of an image, which must be square for it to be the global mean."""

    def __init__(self) -> None:
        super().__init__(1)


def _clamp(min: Any = None, max: Any = None) -> nn.Module | None:
    if not all(end is None or isinstance(end, (int, float)) for end in (min, max)):
        return None
    return Limits(-math.inf if min is None else float(min), math.inf if max is None else float(max))


def _interpolate(
    size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: Any = None, *_: Any, **__: Any
) -> nn.Module:
    return nn.Upsample(size=size, scale_factor=scale_factor, mode=mode, align_corners=align_corners)


def _gelu(*, approximate: str = "none") -> nn.Module:
    return nn.GELU(approximate)


def _without_inplace(layer: type[nn.Module]) -> Form:
    """A layer whose function has the same arguments; some take ``inplace``, and some do not as a layer."""
    def make(*arguments: Any, inplace: bool = False, **options: Any) -> nn.Module:
        return layer(*arguments, **options)

    return make


def _plain(layer: type[nn.Module]) -> Form:
    """A layer without parameters, of a function whose only argument may be ``inplace``."""
    def make(inplace: bool = False) -> nn.Module:
        return layer()

    return make


def _avg_pool(kernel_size: Any, stride: Any = None, *arguments: Any, **options: Any) -> nn.Module | None:
    sizes = kernel_size if isinstance(kernel_size, (tuple, list)) else (kernel_size,)
    if not any(isinstance(size, Size) for size in sizes):
        return avg_pool(kernel_size, stride, *arguments, **options)
    if tuple(sizes) == (Size(2), Size(3)):
        return nn.AdaptiveAvgPool2d(1)
    return SquareMean() if sizes in ((Size(2),), (Size(3),)) else None


_PLAIN: dict[type[nn.Module], tuple[str, ...]] = {
    nn.ReLU6: ("relu6",), nn.Sigmoid: ("sigmoid", "sigmoid_"), nn.Tanh: ("tanh", "tanh_"), nn.SiLU: ("silu",),
    nn.Hardswish: ("hardswish",), nn.Hardsigmoid: ("hardsigmoid",), nn.Mish: ("mish",), nn.Softsign: ("softsign",),
    nn.LogSigmoid: ("logsigmoid",), nn.SELU: ("selu", "selu_"),
}
_SAME: dict[type[nn.Module], tuple[str, ...]] = {
    nn.LeakyReLU: ("leaky_relu", "leaky_relu_"), nn.ELU: ("elu", "elu_"), nn.CELU: ("celu", "celu_"),
    nn.Softplus: ("softplus",), nn.Hardtanh: ("hardtanh", "hardtanh_"), nn.AdaptiveMaxPool2d: ("adaptive_max_pool2d",),
    nn.ChannelShuffle: ("channel_shuffle", "native_channel_shuffle"),
}
_MADE: dict[Form, tuple[str, ...]] = {
    _clamp: ("clamp", "clamp_", "clip", "clip_"), _interpolate: ("interpolate", "upsample"), _gelu: ("gelu",),
    _avg_pool: ("avg_pool2d",),
}
FORMS = (
    forms(COMMON) | forms({_plain(layer): names for layer, names in _PLAIN.items()})
    | forms({_without_inplace(layer): names for layer, names in _SAME.items()}) | forms(_MADE)
)
"""The maker of every function's layer."""
