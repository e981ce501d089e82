"""Which layers have an integer operation, and what is said of those that have none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from sw.quant.deform import DeformConv2d
from sw.quant.forms import bounds_of
from sw.quant.primitives import ChannelSplit, ShuffleJoin, SquareDeform
from sw.quant.tables import TABLE_FUNCTIONS
from sw.tracing.problems import Problem

__all__ = ["ALIASES", "check_module", "is_deform_conv"]

ALIASES = (nn.Flatten, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout)
"""Layers that change no value when the network runs."""

Faults = list[tuple[str, str]]


def is_deform_conv(module: nn.Module) -> bool:
    """Whether a layer is a deformable convolution: this package's, or torchvision's, which has the same attributes."""
    kind = type(module)
    return isinstance(module, DeformConv2d) or (kind.__name__ == "DeformConv2d" and kind.__module__.startswith("torchvision."))


def check_module(place: str, module: nn.Module) -> list[Problem]:
    """Everything that is wrong with one layer, looked at alone."""
    check = _check_deform if is_deform_conv(module) else next((c for k, c in _CHECKS.items() if isinstance(module, k)), None)
    if check is None and not isinstance(module, _ALWAYS):
        advice = _ADVICE.get(type(module).__name__, "replace it, or exclude it in the recipe if it only follows the network")
        return [Problem(place=place, kind=type(module).__name__, reason="has no integer operation", advice=advice)]
    faults = [] if check is None else check(module)
    return [Problem(place=place, kind=type(module).__name__, reason=why, advice=do) for why, do in faults]


_ALWAYS = (nn.ReLU, nn.Linear, nn.ChannelShuffle, ChannelSplit, ShuffleJoin, SquareDeform, *TABLE_FUNCTIONS, *ALIASES)
_ADVICE = {
    "PReLU": "use nn.LeakyReLU, whose slope is a constant",
    "RReLU": "use nn.LeakyReLU, whose slope is a constant",
    "Softmax": "exclude it in the recipe: the largest logit does not change",
    "LogSoftmax": "exclude it in the recipe: the largest logit does not change",
    "GroupNorm": "use BatchNorm2d, whose statistics are constants",
    "LayerNorm": "use BatchNorm2d, whose statistics are constants",
    "InstanceNorm2d": "use BatchNorm2d, whose statistics are constants",
    "ConvTranspose2d": "use nn.Upsample(scale_factor=2) and a convolution",
    "Conv1d": "use Conv2d on images of one row",
    "Hardshrink": "use a smooth activation such as SiLU", "Softshrink": "use a smooth activation such as SiLU",
}


def _equal(value: Any) -> bool:
    return not isinstance(value, (tuple, list)) or len(set(value)) == 1


def _check_conv(conv: Any) -> Faults:
    faults: Faults = []
    if conv.padding_mode != "zeros":
        faults.append((f"pads with {conv.padding_mode!r}", "use padding_mode='zeros'"))
    if isinstance(conv.padding, str):
        return faults + _check_padding_name(conv)
    return faults + _check_square(conv)


def _check_padding_name(conv: nn.Conv2d) -> Faults:
    odd = conv.padding == "valid" or (_equal(conv.kernel_size) and conv.kernel_size[0] % 2 == 1)
    faults = [] if odd else [(f"pads {conv.padding!r} around a {conv.kernel_size} window", "use a square window of odd size")]
    return faults + [f for f in _check_square(conv) if "padding" not in f[0]]


def _check_square(conv: Any) -> Faults:
    what = [name for name in ("stride", "padding", "dilation") if not _equal(getattr(conv, name))]
    return [(f"has {name} {getattr(conv, name)}", "use the same value for rows and columns") for name in what]


def _check_deform(layer: Any) -> Faults:
    return _check_square(layer)


def _check_max_pool(pool: Any) -> Faults:
    faults: Faults = []
    if pool.ceil_mode or pool.return_indices or pool.dilation not in (1, (1, 1)):
        faults.append(("uses ceil_mode, indices or dilation", "use the plain form"))
    if not all(_equal(v) for v in (pool.kernel_size, pool.stride, pool.padding)):
        faults.append(("has a window that is not square", "use the same size, stride and padding for rows and columns"))
    return faults


def _check_avg_pool(pool: Any) -> Faults:
    faults: Faults = []
    if pool.ceil_mode or pool.divisor_override is not None or (pool.padding not in (0, (0, 0)) and not pool.count_include_pad):
        faults.append(("uses ceil_mode, divisor_override or count_include_pad=False", "use the plain form"))
    if not _equal(pool.stride or pool.kernel_size) or not _equal(pool.padding):
        faults.append((f"has stride {pool.stride}, padding {pool.padding}", "use the same value for rows and columns"))
    return faults


def _check_adaptive_avg(pool: Any) -> Faults:
    size = pool.output_size if isinstance(pool.output_size, (tuple, list)) else (pool.output_size,)
    if all(isinstance(s, int) for s in size):
        return []
    return [(f"has output size {pool.output_size}", "use integers for rows and columns")]


def _check_adaptive_max(pool: Any) -> Faults:
    if pool.output_size in (1, (1, 1)) and not pool.return_indices:
        return []
    return [(f"has output size {pool.output_size}", "use output size 1 without indices, or MaxPool2d with a fixed window")]


def _check_upsample(layer: Any) -> Faults:
    scale = layer.scale_factor
    if layer.mode == "nearest" and scale is not None and _equal(scale) and (scale[0] if isinstance(scale, tuple) else scale) == 2:
        return []
    return [(f"has mode {layer.mode!r}, scale {scale}", "use nearest by scale_factor 2")]


def _check_limits(layer: nn.Module) -> Faults:
    try:
        bounds_of(layer)
    except ValueError as error:
        return [(f"has no usable limits ({error})", "give finite limits in order")]
    return []


def _check_norm(norm: Any) -> Faults:
    if norm.running_mean is None:
        return [("keeps no running statistics", "set track_running_stats=True")]
    return []


_CHECKS: dict[type[nn.Module], Callable[[Any], Faults]] = {
    nn.Conv2d: _check_conv,
    nn.MaxPool2d: _check_max_pool,
    nn.AvgPool2d: _check_avg_pool,
    nn.AdaptiveAvgPool2d: _check_adaptive_avg,
    nn.AdaptiveMaxPool2d: _check_adaptive_max,
    nn.Upsample: _check_upsample,
    nn.Hardtanh: _check_limits,
    nn.BatchNorm2d: _check_norm,
    nn.BatchNorm1d: _check_norm,
}
