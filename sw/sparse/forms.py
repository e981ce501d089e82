"""Functions and methods of a model's forward as the layers of torch.nn that compute the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["FlatMean", "module_form"]


class FlatMean(nn.AdaptiveAvgPool2d):
    """The mean over rows and columns, returned as (N, C)."""

    def __init__(self) -> None:
        super().__init__(1)


def module_form(target: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> nn.Module | None:
    """The layer that a function is, given its arguments but the first; None if there is none.

    TypeError where the arguments are none of the function's.
    """
    made = _FORMS.get(target)
    return None if made is None else made(*arguments, **options)


def _relu(inplace: bool = False) -> nn.Module:
    return nn.ReLU()


def _mean(dim: Any = None, keepdim: bool = False) -> nn.Module | None:
    axes = sorted(d % 4 for d in dim) if isinstance(dim, (tuple, list)) and all(isinstance(d, int) for d in dim) else None
    if axes != [2, 3]:
        return None
    return nn.AdaptiveAvgPool2d(1) if keepdim else FlatMean()


def _max_pool(
    kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False, return_indices: bool = False
) -> nn.Module:  # fmt: skip
    return nn.MaxPool2d(kernel_size, stride or None, padding, dilation, return_indices, ceil_mode)


def _avg_pool(kernel_size: Any, stride: Any = None, *arguments: Any, **options: Any) -> nn.Module:
    return nn.AvgPool2d(kernel_size, stride or None, *arguments, **options)


def _flatten(start_dim: int = 0, end_dim: int = -1) -> nn.Module:
    return nn.Flatten(start_dim, end_dim)


def _dropout(p: float = 0.5, training: bool = True, inplace: bool = False) -> nn.Module:
    """The core trains, so that what the function does while the model is traced says nothing: p alone decides."""
    return nn.Dropout(p)


def _identity() -> nn.Module:
    return nn.Identity()


def _named(name: str) -> list[Any]:
    """A function under all its names: of torch, of torch.nn.functional, and the method by name."""
    return [*(getattr(owner, name) for owner in (torch, F) if hasattr(owner, name)), name]


_MADE: dict[Callable[..., nn.Module | None], tuple[str, ...]] = {
    _relu: ("relu", "relu_"), _mean: ("mean",), _max_pool: ("max_pool2d",), _avg_pool: ("avg_pool2d",), _flatten: ("flatten",),
    nn.AdaptiveAvgPool2d: ("adaptive_avg_pool2d",), _dropout: ("dropout", "dropout2d"), _identity: ("contiguous",),
}  # fmt: skip
_FORMS = {target: make for make, names in _MADE.items() for name in names for target in _named(name)}
