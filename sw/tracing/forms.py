"""Functions and methods of a model's forward as the layers of torch.nn that compute the same: those that every export knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["COMMON", "FlatMean", "Form", "avg_pool", "forms"]

Form = Callable[..., nn.Module | None]
"""Makes a layer of a function's arguments but the first; None if no layer computes that. TypeError where they are none of its."""


class FlatMean(nn.AdaptiveAvgPool2d):
    """The mean over rows and columns, returned as (N, C)."""

    def __init__(self) -> None:
        super().__init__(1)


def forms(made: Mapping[Form, tuple[str, ...]]) -> dict[Any, Form]:
    """The maker of every function: of torch, of torch.nn.functional, and the method by name."""
    owners = (torch, F)
    return {target: make for make, names in made.items() for name in names
            for target in (*(getattr(owner, name) for owner in owners if hasattr(owner, name)), name)}


def mean(dim: Any = None, keepdim: bool = False) -> nn.Module | None:
    axes = sorted(d % 4 for d in dim) if isinstance(dim, (tuple, list)) and all(isinstance(d, int) for d in dim) else None
    if axes != [2, 3]:
        return None
    return nn.AdaptiveAvgPool2d(1) if keepdim else FlatMean()


def max_pool(
    kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False, return_indices: bool = False
) -> nn.Module:
    return nn.MaxPool2d(kernel_size, stride or None, padding, dilation, return_indices, ceil_mode)


def avg_pool(kernel_size: Any, stride: Any = None, *arguments: Any, **options: Any) -> nn.Module:
    return nn.AvgPool2d(kernel_size, stride or None, *arguments, **options)


def flatten(start_dim: int = 0, end_dim: int = -1) -> nn.Module:
    return nn.Flatten(start_dim, end_dim)


def relu(inplace: bool = False) -> nn.Module:
    return nn.ReLU()


COMMON: Mapping[Form, tuple[str, ...]] = {
    relu: ("relu", "relu_"), mean: ("mean",), max_pool: ("max_pool2d",), avg_pool: ("avg_pool2d",), flatten: ("flatten",),
    nn.AdaptiveAvgPool2d: ("adaptive_avg_pool2d",),
}  # fmt: skip
