"""Which layers the training core has operations for, and what is said of the others; each layer looked at alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from sw.sparse.layers import SparseConv2d, SparseLayer, SparseLinear
from sw.tracing.problems import Problem

__all__ = ["ALIASES", "CONVOLUTIONS", "DROPOUTS", "LARGEST_KERNEL", "LINEARS", "check_module", "padding_of"]

LARGEST_KERNEL = 8
"""Rows and columns of a kernel that the core's addressing reaches."""

CONVOLUTIONS = (nn.Conv2d, SparseConv2d)
LINEARS = (nn.Linear, SparseLinear)
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout)
ALIASES = (nn.Identity, *DROPOUTS)
"""Layers that change no value; dropouts with p = 0 alone."""

Faults = list[tuple[str, str]]


def check_module(place: str, module: nn.Module) -> list[Problem]:
    """Everything that is wrong with one layer. Types are exact: a subclass may compute something else."""
    kind = type(module).__name__
    check = _CHECKS.get(type(module))
    if check is None:
        advice = _ADVICE.get(kind, "replace it by convolutions, BatchNorm2d, ReLU, pooling or Linear")
        return [Problem(place=place, kind=kind, reason="has no operation in the training core", advice=advice)]
    faults = check(module) + _check_hooks(module) + _check_parameters(module)
    return [Problem(place=place, kind=kind, reason=why, advice=do) for why, do in faults]


def padding_of(conv: nn.Conv2d) -> int | None:
    """The padding of a convolution, the same on all four sides; None if it is not."""
    if conv.padding == "valid":
        return 0
    if conv.padding == "same":
        odd = conv.kernel_size[0] == conv.kernel_size[1] and conv.kernel_size[0] % 2 == 1
        return conv.kernel_size[0] // 2 if odd else None
    rows, columns = _pair(conv.padding)
    return int(rows) if rows == columns else None


_ADVICE = {
    "ReLU6": "use nn.ReLU", "LeakyReLU": "use nn.ReLU", "GELU": "use nn.ReLU", "SiLU": "use nn.ReLU", "PReLU": "use nn.ReLU",
    "Softmax": "return the logits: the loss contains the softmax", "LogSoftmax": "return the logits: the loss contains the softmax",
    "GroupNorm": "use BatchNorm2d", "LayerNorm": "use BatchNorm2d", "InstanceNorm2d": "use BatchNorm2d",
    "BatchNorm1d": "put BatchNorm2d in front of the flattening", "SyncBatchNorm": "use BatchNorm2d: the core has its whole batch",
    "AdaptiveMaxPool2d": "use MaxPool2d with a window that divides the image",
    "Conv1d": "use Conv2d on images of one row", "ConvTranspose2d": "use convolutions that keep the size or shrink it",
}  # fmt: skip


def _check_conv(conv: Any) -> Faults:
    faults: Faults = []
    if conv.padding_mode != "zeros":
        faults.append((f"pads with {conv.padding_mode!r}", "use padding_mode='zeros'"))
    if conv.groups != 1:
        faults.append((f"has {conv.groups} groups", "use groups=1"))
    if set(conv.dilation) != {1}:
        faults.append((f"has dilation {conv.dilation}", "use dilation=1"))
    if len(set(conv.stride)) > 1:
        faults.append((f"has stride {conv.stride}", "use the same stride for rows and columns"))
    if max(conv.kernel_size) > LARGEST_KERNEL:
        faults.append((f"has a kernel of {conv.kernel_size}", f"use at most {LARGEST_KERNEL} rows and columns"))
    padding = padding_of(conv)
    if padding is not None and padding >= min(conv.kernel_size):
        faults.append((f"pads by {padding} around a kernel of {conv.kernel_size}", "use less padding than the kernel's sides"))
    if padding is None:
        faults.append((f"pads {conv.padding!r} around a kernel of {conv.kernel_size}", "use one number for all four sides"))
    return faults + _check_rule(conv)


def _check_rule(layer: Any) -> Faults:
    """What the core's selector does not do for a sparse layer."""
    if not isinstance(layer, SparseLayer):
        return []
    rule, faults = layer.rule, []
    if rule.method not in ("bdwp", "sdwp", "dense"):
        faults.append((f"is trained by {rule.method}, whose backward pass needs masks that the core's selector does not make: "
                       f"{_MASKS[rule.method]}", "use bdwp or sdwp on the core, or train this method in torch"))
    if rule.wu is not None:
        faults.append((f"prunes gradients {rule.wu[0]}:{rule.wu[1]} at random for the weight gradient, and the core has no random "
                       "numbers", "leave wu out"))
    if rule.decay and rule.method != "srste":
        faults.append(("decays what its mask removes, and the core's update knows no masks", "use decay=0"))
    return faults


_MASKS = {
    "srste": "the forward mask again, in the update (its decay term) and for dX along the other axis",
    "sdgp": "one of the gradients themselves, rescaled by sums over the batch",
}


def _check_norm(norm: Any) -> Faults:
    faults: Faults = []
    if not norm.affine:
        faults.append(("has neither scale nor bias", "use affine=True"))
    if norm.running_mean is None or not norm.track_running_stats:
        faults.append(("keeps no running statistics", "use track_running_stats=True"))
    if norm.momentum is None:
        faults.append(("averages its statistics over all batches", "give it a momentum, such as 0.1"))
    elif not 0 <= norm.momentum <= 1:
        faults.append((f"has momentum {norm.momentum}", "use a momentum in 0..1"))
    if not 2.0**-126 <= norm.eps <= 2.0**126:
        faults.append((f"has eps {norm.eps}", "use an eps that is a normal FP32 above 0"))
    return faults


def _check_pool(pool: Any) -> Faults:
    faults: Faults = []
    if isinstance(pool, nn.AvgPool2d) and _pair(pool.stride) != _pair(pool.kernel_size):
        faults.append((f"has windows of {pool.kernel_size} at a stride of {pool.stride}", "use windows that do not overlap"))
    if isinstance(pool, nn.AvgPool2d) and _pair(pool.padding) != (0, 0):
        faults.append((f"pads by {pool.padding}", "use padding=0"))
    if pool.ceil_mode:
        faults.append(("uses ceil_mode", "use windows that divide the image"))
    if getattr(pool, "return_indices", False) or _pair(getattr(pool, "dilation", 1)) != (1, 1):
        faults.append(("uses indices or dilation", "use the plain form"))
    if getattr(pool, "divisor_override", None) is not None:
        faults.append(("uses divisor_override", "use the plain form"))
    return faults


def _check_adaptive(pool: Any) -> Faults:
    if all(isinstance(size, int) and size > 0 for size in _pair(pool.output_size)):
        return []
    return [(f"has output size {pool.output_size}", "use positive integers for rows and columns")]


def _check_dropout(layer: Any) -> Faults:
    return [(f"drops values at random (p = {layer.p})", "use p=0 or leave it out: the core has no random numbers")] if layer.p else []


def _check_flatten(layer: Any) -> Faults:
    if (layer.start_dim, layer.end_dim) in ((1, -1), (1, 3)):
        return []
    return [(f"flattens axes {layer.start_dim}..{layer.end_dim}", "flatten all axes but the batch: (1, -1)")]


def _check_hooks(module: nn.Module) -> Faults:
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return [("has hooks, whose effect is not seen", "remove them before the export")] if any(hooks) else []


def _check_parameters(module: nn.Module) -> Faults:
    faults: Faults = []
    for name, values in module.named_parameters(recurse=False):
        if values.dtype != torch.float32:
            faults.append((f"has a {name} of {values.dtype}", "keep the masters in float32: model.float()"))
        elif wrong := int((~torch.isfinite(values)).sum()):
            faults.append((f"has {wrong} of {values.numel()} values in its {name} that are NaN or infinite",
                           "look for a training that diverged or a damaged checkpoint"))
        if not values.requires_grad:
            faults.append((f"has a frozen {name}", "the core trains every parameter: unfreeze it"))
    return faults


def _pair(value: Any) -> tuple[Any, Any]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)  # type: ignore[return-value]


def _nothing(module: Any) -> Faults:
    return []


_CHECKS: dict[type[nn.Module], Callable[[Any], Faults]] = {
    **dict.fromkeys(CONVOLUTIONS, _check_conv), **dict.fromkeys(LINEARS, _check_rule), **dict.fromkeys(DROPOUTS, _check_dropout),
    nn.BatchNorm2d: _check_norm, nn.MaxPool2d: _check_pool, nn.AvgPool2d: _check_pool, nn.AdaptiveAvgPool2d: _check_adaptive,
    nn.Flatten: _check_flatten, nn.ReLU: _nothing, nn.Identity: _nothing,
}  # fmt: skip
