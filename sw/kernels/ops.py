"""The kernels as operators of torch, opaque to `torch.compile`: a compiled model calls them between its fused loops."""

from __future__ import annotations

import torch
from torch import Tensor

from hw.spec.fixed import Rounding
from sw.kernels import fake_quantize as kernel

__all__ = ["fake_quantize", "fake_quantize_backward"]


def _cast(width: int, low: int, high: int, rounding: str, axis: int, relu: bool, least: float, most: float) -> kernel.Cast:
    return kernel.Cast(width=width, low=low, high=high, rounding=Rounding[rounding], axis=None if axis < 0 else axis,
                       relu=relu, limits=(least, most))


def _plain(cast: kernel.Cast, values: Tensor) -> tuple[int, int, int, str, int, bool, float, float]:
    """The same as arguments of an operator."""
    axis = -1 if cast.axis is None else cast.axis % values.ndim
    return cast.width, cast.low, cast.high, cast.rounding.name, axis, cast.relu, *cast.limits


@torch.library.custom_op("bitloom::fake_quantize", mutates_args=())
def _forward(
    values: Tensor, bits: Tensor, addend: Tensor | None, width: int, low: int, high: int, rounding: str, axis: int,
    relu: bool, least: float, most: float,
) -> Tensor:
    return kernel.forward(values, bits, _cast(width, low, high, rounding, axis, relu, least, most), addend)


@_forward.register_fake
def _forward_shape(values: Tensor, bits: Tensor, addend: Tensor | None, *cast: object) -> Tensor:
    return torch.empty_like(values, memory_format=torch.contiguous_format)


@torch.library.custom_op("bitloom::fake_quantize_backward", mutates_args=())
def _backward(
    grad: Tensor, values: Tensor, bits: Tensor, addend: Tensor | None, width: int, low: int, high: int, rounding: str,
    axis: int, relu: bool, least: float, most: float,
) -> tuple[Tensor, Tensor]:
    cast = _cast(width, low, high, rounding, axis, relu, least, most)
    of_values, of_bits = kernel.backward(grad, values, bits, cast, addend)
    assert of_values is not None and of_bits is not None
    return of_values, of_bits


@_backward.register_fake
def _backward_shape(
    grad: Tensor, values: Tensor, bits: Tensor, addend: Tensor | None, *cast: object
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(values, memory_format=torch.contiguous_format), torch.empty_like(bits)


def fake_quantize(values: Tensor, bits: Tensor, cast: kernel.Cast, addend: Tensor | None = None) -> Tensor:
    """`sw.kernels.fake_quantize.forward` as one operator of a compiled graph."""
    return _forward(values, bits, addend, *_plain(cast, values))


def fake_quantize_backward(
    grad: Tensor, values: Tensor, bits: Tensor, cast: kernel.Cast, addend: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`sw.kernels.fake_quantize.backward` as one operator of a compiled graph; always both gradients."""
    return _backward(grad, values, bits, addend, *_plain(cast, values))
