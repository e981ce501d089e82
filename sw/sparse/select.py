"""N:M selection by magnitude of torch tensors, equal to `hw.spec.sparsity.nm_mask`; a compiled kernel on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from sw.kernels import nm_select

__all__ = ["NonFiniteError", "finite_select", "select", "select_definition"]

_WORDS = {torch.float64: torch.int64, torch.float32: torch.int32, torch.float16: torch.int16, torch.bfloat16: torch.int16}


class NonFiniteError(ValueError):
    """Weights with NaN or infinities, which have no order of magnitude; the message names the layer."""


def select(values: Tensor, n: int, m: int, axis: int) -> Tensor:
    """``values`` where they are among the N largest magnitudes of their group of M along the axis, +0 elsewhere.

    Ties go to the lowest index; NaN counts as larger than infinity, so that damage stays visible. M divides the axis. Shape
    and type of ``values``; no gradient.
    """
    return _dispatch(values.detach(), n, m, axis % values.ndim)[0]


def finite_select(values: Tensor, n: int, m: int, axis: int, layer: str) -> Tensor:
    """`select` of a layer's weights, in their memory format; raises NonFiniteError that names the layer."""
    last = values.ndim == 4 and not values.is_contiguous() and values.is_contiguous(memory_format=torch.channels_last)
    ordered = values.detach().permute(0, 2, 3, 1) if last else values.detach()
    place = {0: 0, 1: 3}[axis] if last else axis
    found, finite = _dispatch(ordered, n, m, place)
    if not finite:
        refuse_non_finite(values, layer)
    return found.permute(0, 3, 1, 2) if last else found


def refuse_non_finite(values: Tensor, layer: str) -> None:
    """Raise NonFiniteError where there are NaN or infinities among a layer's weights."""
    if wrong := int((~torch.isfinite(values)).sum()):
        raise NonFiniteError(
            f"{layer}.weight must be finite, and {wrong} of {values.numel()} values are NaN or infinite: look for a training "
            "that diverged (lower the learning rate) or a damaged checkpoint")


def _dispatch(values: Tensor, n: int, m: int, axis: int) -> tuple[Tensor, bool]:
    if nm_select.usable(values):
        return nm_select.select(values, n, m, axis)
    if values.device.type == "cpu" and values.dtype in (torch.float16, torch.bfloat16):
        # Every half-precision value is a float32, so the order and, cast back, the values are the same.
        found, finite = _dispatch(values.float(), n, m, axis)
        return found.to(values.dtype), finite
    return select_definition(values, n, m, axis), bool(torch.isfinite(values).all())


def select_definition(values: Tensor, n: int, m: int, axis: int) -> Tensor:
    """`select` in torch operations of any device; the kernel is equal to it on every value."""
    moved = values.detach().movedim(axis, -1)
    grouped = moved.reshape(*moved.shape[:-1], -1, m).contiguous()
    word = _WORDS[values.dtype]
    magnitude = grouped.view(word) & torch.iinfo(word).max
    order = torch.sort(magnitude, dim=-1, descending=True, stable=True).indices[..., :n]
    mask = torch.zeros_like(grouped, dtype=torch.bool).scatter_(-1, order, True)
    return torch.where(mask, grouped, 0).reshape(moved.shape).movedim(-1, axis).contiguous()
