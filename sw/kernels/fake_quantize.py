"""Fake quantisation on the CPU in one pass over memory: about the cost of a ReLU, forward and backward.

With ``v = values + addend`` (through a ReLU if asked), ``F = width - round(bits)`` (the bits limited so that F lies in
``limits``) and ``c = clip(R(v * 2**F), low, high)``, which is `hw.spec.fixed.quantize` exactly,

- `forward` gives ``c * 2**-F``
- `backward` gives the straight-through gradient of v, ``grad`` where the rounded value lies in low..high and else 0 (0 too
  where the ReLU is off), and that of the bits, ln 2 times the sum of ``grad * (c * 2**-F - v)`` over values in range and of
  ``grad * c * 2**-F`` over the others; 0 where the limits hold the bits. Products are rounded to the values' type and added
  in double, in an order that does not depend on threads or processor.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hw.spec.fixed import Rounding
from sw.kernels.build import library

__all__ = ["MODES", "SUFFIX", "UNLIMITED", "Cast", "address", "backward", "forward", "function", "usable"]

SUFFIX = {torch.float32: "f32", torch.float64: "f64"}
MODES = {mode: index for index, mode in enumerate((
    Rounding.TRN, Rounding.TRN_ZERO, Rounding.RND, Rounding.RND_ZERO, Rounding.RND_MIN_INF, Rounding.RND_INF,
    Rounding.RND_CONV))}  # fmt: skip
UNLIMITED = (-math.inf, math.inf)
_NOT_A_NUMBER, _FAR_POINT = 1, 2


@dataclass(frozen=True, kw_only=True)
class Cast:
    """What does not change from step to step.

    Parameters
    ----------
    width : bits of a code, at most 24 in float32 and 53 in float64
    low, high : smallest and largest code
    rounding : any of the seven
    axis : axis of binary points per channel; None is one point for all values
    relu : whether a ReLU comes first
    limits : smallest and largest number of fraction bits
    """

    width: int
    low: int
    high: int
    rounding: Rounding
    axis: int | None = None
    relu: bool = False
    limits: tuple[float, float] = UNLIMITED


def usable(values: Tensor) -> bool:
    """Whether the kernel takes this tensor: a CPU float32 or float64, and a kernel that compiles."""
    return values.device.type == "cpu" and values.dtype in SUFFIX and _ready()


@torch.compiler.assume_constant_result  # type: ignore[no-untyped-call,untyped-decorator]
def _ready() -> bool:
    return library("fake_quantize") is not None


def forward(values: Tensor, bits: Tensor, cast: Cast, addend: Tensor | None = None) -> Tensor:
    """Quantised values in the shape of ``values``; ``bits`` float64, one or one per channel.

    Raises ValueError for NaN among the values, and for a binary point that is NaN or outside -100..100.
    """
    values, addend = values.detach().contiguous(), None if addend is None else addend.detach().contiguous()
    out = torch.empty_like(values)
    fault = function("forward", values.dtype)(
        address(values), address(addend), address(out), *_point(bits, cast), *_layout(values, bits, cast), *_options(cast))
    if fault == _NOT_A_NUMBER:
        raise ValueError("values must be numbers, not NaN: the training diverged or the input is damaged")
    if fault == _FAR_POINT:
        raise ValueError("binary points must be in -100..100, not those of integer bits "
                         f"{float(bits.min())}..{float(bits.max())} and width {cast.width}")
    return out


def backward(
    grad: Tensor, values: Tensor, bits: Tensor, cast: Cast, addend: Tensor | None = None, *, values_grad: bool = True,
    bits_grad: bool = True,
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of the sum (shape of ``values``) and of the bits (their shape, float64)."""
    values, grad = values.detach().contiguous(), grad.contiguous()
    addend = None if addend is None else addend.detach().contiguous()
    out = torch.empty_like(values) if values_grad else None
    slopes = torch.empty_like(bits) if bits_grad else None
    function("backward", values.dtype)(
        address(values), address(addend), address(grad), address(out), address(slopes), *_point(bits, cast),
        *_layout(values, bits, cast), *_options(cast))
    return out, slopes


def function(name: str, dtype: torch.dtype) -> Callable[..., int]:
    """The compiled function of a name for a float type."""
    loaded = library("fake_quantize")
    assert loaded is not None
    found: Callable[..., int] = getattr(loaded, f"{name}_{SUFFIX[dtype]}")
    return found


def address(tensor: Tensor | None) -> ctypes.c_void_p:
    """Where a contiguous tensor lies; null for None."""
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def _point(bits: Tensor, cast: Cast) -> tuple[Any, ...]:
    return address(bits), ctypes.c_int64(cast.width), *(ctypes.c_double(limit) for limit in cast.limits)


def _layout(values: Tensor, bits: Tensor, cast: Cast) -> tuple[Any, ...]:
    """Rows of one binary point each, their length, channels: row r has the point of channel r modulo channels."""
    if bits.ndim == 0 or cast.axis is None:
        rows, channels = 1, 1
    else:
        shape = values.shape[: cast.axis % values.ndim + 1]
        rows, channels = shape.numel(), shape[-1]
    return tuple(ctypes.c_int64(n) for n in (rows, values.numel() // max(1, rows), channels))


def _options(cast: Cast) -> tuple[Any, ...]:
    return ctypes.c_double(cast.low), ctypes.c_double(cast.high), MODES[cast.rounding], int(cast.relu), torch.get_num_threads()
