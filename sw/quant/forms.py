"""Functions and methods of a model's forward as the layers of torch.nn that compute the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from sw.quant.base import Bounds
from sw.quant.spans import Size

__all__ = ["FlatMean", "SquareMean", "bounds_of", "module_form"]


def module_form(target: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> nn.Module | None:
    """The layer that a function is, given its arguments but the first; None if there is none.

    TypeError where the arguments are none of the function's.
    """
    made = _FORMS.get(target)
    return None if made is None else made(*arguments, **options)


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


class FlatMean(nn.AdaptiveAvgPool2d):
    """The mean over rows and columns, returned as (N, C)."""

    def __init__(self) -> None:
        super().__init__(1)


class SquareMean(nn.AdaptiveAvgPool2d):
    """The mean of a window as large as one side of an image, which must be square for it to be the global mean."""

    def __init__(self) -> None:
        super().__init__(1)


def _clamp(min: Any = None, max: Any = None) -> nn.Module | None:
    if not all(end is None or isinstance(end, (int, float)) for end in (min, max)):
        return None
    return Limits(-math.inf if min is None else float(min), math.inf if max is None else float(max))


def _mean(dim: Any = None, keepdim: bool = False, **_: Any) -> nn.Module | None:
    axes = sorted(d % 4 for d in dim) if isinstance(dim, (tuple, list)) and all(isinstance(d, int) for d in dim) else None
    if axes != [2, 3]:
        return None
    return nn.AdaptiveAvgPool2d(1) if keepdim else FlatMean()


def _interpolate(
    size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: Any = None, *_: Any, **__: Any
) -> nn.Module:
    return nn.Upsample(size=size, scale_factor=scale_factor, mode=mode, align_corners=align_corners)


def _gelu(*, approximate: str = "none") -> nn.Module:
    return nn.GELU(approximate)


def _without_inplace(layer: type[nn.Module]) -> Callable[..., nn.Module]:
    """A layer whose function has the same arguments; some take ``inplace``, and some do not as a layer."""
    def make(*arguments: Any, inplace: bool = False, **options: Any) -> nn.Module:
        return layer(*arguments, **options)

    return make


def _plain(layer: type[nn.Module]) -> Callable[..., nn.Module]:
    """A layer without parameters, of a function whose only argument may be ``inplace``."""
    def make(inplace: bool = False) -> nn.Module:
        return layer()

    return make


def _max_pool(
    kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> nn.Module:
    return nn.MaxPool2d(kernel_size, stride or None, padding, dilation, return_indices, ceil_mode)


def _avg_pool(kernel_size: Any, stride: Any = None, *arguments: Any, **options: Any) -> nn.Module | None:
    sizes = kernel_size if isinstance(kernel_size, (tuple, list)) else (kernel_size,)
    if not any(isinstance(size, Size) for size in sizes):
        return nn.AvgPool2d(kernel_size, stride or None, *arguments, **options)
    if tuple(sizes) == (Size(2), Size(3)):
        return nn.AdaptiveAvgPool2d(1)
    return SquareMean() if sizes in ((Size(2),), (Size(3),)) else None


def _flatten(start_dim: int = 0, end_dim: int = -1) -> nn.Module:
    return nn.Flatten(start_dim, end_dim)


def _named(*names: str, owners: tuple[Any, ...] = (torch, F)) -> list[Any]:
    """A function under all its names: of torch, of torch.nn.functional, and methods by name."""
    found = [getattr(owner, name) for name in names for owner in owners if hasattr(owner, name)]
    return [*found, *names]


def _forms() -> dict[Any, Callable[..., nn.Module | None]]:
    table: dict[Any, Callable[..., nn.Module | None]] = {}
    for layer, names in _PLAIN.items():
        table.update(dict.fromkeys(_named(*names), _plain(layer)))
    for layer, names in _SAME.items():
        table.update(dict.fromkeys(_named(*names), _without_inplace(layer)))
    for make, names in _MADE.items():
        table.update(dict.fromkeys(_named(*names), make))
    return table


_PLAIN: dict[type[nn.Module], tuple[str, ...]] = {
    nn.ReLU: ("relu", "relu_"), nn.ReLU6: ("relu6",), nn.Sigmoid: ("sigmoid", "sigmoid_"), nn.Tanh: ("tanh", "tanh_"),
    nn.SiLU: ("silu",), nn.Hardswish: ("hardswish",), nn.Hardsigmoid: ("hardsigmoid",), nn.Mish: ("mish",),
    nn.Softsign: ("softsign",), nn.LogSigmoid: ("logsigmoid",), nn.SELU: ("selu", "selu_"),
}
_SAME: dict[type[nn.Module], tuple[str, ...]] = {
    nn.LeakyReLU: ("leaky_relu", "leaky_relu_"), nn.ELU: ("elu", "elu_"), nn.CELU: ("celu", "celu_"),
    nn.Softplus: ("softplus",), nn.Hardtanh: ("hardtanh", "hardtanh_"),
    nn.AdaptiveAvgPool2d: ("adaptive_avg_pool2d",), nn.AdaptiveMaxPool2d: ("adaptive_max_pool2d",),
    nn.ChannelShuffle: ("channel_shuffle", "native_channel_shuffle"),
}
_MADE: dict[Callable[..., nn.Module | None], tuple[str, ...]] = {
    _clamp: ("clamp", "clamp_", "clip", "clip_"), _mean: ("mean",), _interpolate: ("interpolate", "upsample"),
    _gelu: ("gelu",), _max_pool: ("max_pool2d",), _avg_pool: ("avg_pool2d",), _flatten: ("flatten",),
}
_FORMS = _forms()
