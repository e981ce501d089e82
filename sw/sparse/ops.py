"""The prunings as operators of torch, opaque to `torch.compile`: a compiled model calls them between its fused loops."""

from __future__ import annotations

import torch
from torch import Tensor

from sw.sparse import mvue as estimator
from sw.sparse import select as selection

__all__ = ["mvue", "select_gradient", "select_weight"]


@torch.library.custom_op("bitloom::nm_select_weight", mutates_args=())
def _select_weight(weight: Tensor, n: int, m: int, axis: int, layer: str) -> Tensor:
    return selection.finite_select(weight, n, m, axis, layer)


@_select_weight.register_fake
def _select_weight_shape(weight: Tensor, n: int, m: int, axis: int, layer: str) -> Tensor:
    return torch.empty_like(weight)


@torch.library.custom_op("bitloom::nm_select", mutates_args=())
def _select(values: Tensor, n: int, m: int, axis: int) -> Tensor:
    return selection.select(values, n, m, axis)


@_select.register_fake
def _select_shape(values: Tensor, n: int, m: int, axis: int) -> Tensor:
    return torch.empty_like(values, memory_format=torch.contiguous_format)


@torch.library.custom_op("bitloom::mvue", mutates_args=())
def _mvue(grad: Tensor, m: int, channel_axis: int, seed: int, step: Tensor, layer: int) -> Tensor:
    return estimator.mvue(grad, m, channel_axis, seed, step, layer)


@_mvue.register_fake
def _mvue_shape(grad: Tensor, m: int, channel_axis: int, seed: int, step: Tensor, layer: int) -> Tensor:
    return torch.empty_like(grad, memory_format=torch.contiguous_format)


def select_weight(weight: Tensor, n: int, m: int, axis: int, layer: str) -> Tensor:
    """`sw.sparse.select.finite_select`; one operator in a compiled graph."""
    if torch.compiler.is_compiling():
        return _select_weight(weight.detach(), n, m, axis, layer)
    return selection.finite_select(weight, n, m, axis, layer)


def select_gradient(grad: Tensor, n: int, m: int, axis: int) -> Tensor:
    """`sw.sparse.select.select`; one operator in a compiled graph."""
    return _select(grad, n, m, axis) if torch.compiler.is_compiling() else selection.select(grad, n, m, axis)


def mvue(grad: Tensor, m: int, channel_axis: int, seed: int, step: Tensor, layer: int) -> Tensor:
    """`sw.sparse.mvue.mvue`; one operator in a compiled graph."""
    if torch.compiler.is_compiling():
        return _mvue(grad, m, channel_axis, seed, step, layer)
    return estimator.mvue(grad, m, channel_axis, seed, step, layer)
