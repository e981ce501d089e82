"""Exact fake quantisation in torch, differentiable in the values and in the binary point.

The forward pass is `hw.spec.fixed.quantize` followed by `dequantize`, equal on every value: the scaled value is exact
(the scale is a power of two) and rounding never adds 0.5 first, which is itself rounded next to ties. The backward pass
is straight-through, with the gradient of the number of integer bits ``I`` where ``x_q = clip(R(x * 2**F)) * 2**-F`` and
``F = width - round(I)``:

- in range: ``dx_q/dx = 1`` and ``dx_q/dI = ln 2 * (x_q - x)``
- clipped:  ``dx_q/dx = 0`` and ``dx_q/dI = ln 2 * x_q``
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from hw.spec.fixed import FixedFormat, Overflow, Rounding
from sw.kernels import fake_quantize as kernel
from sw.kernels import ops as operators

__all__ = ["FRAC_LIMIT", "along", "backward_of", "check_values", "code_range", "exact_power_of_two", "fake_quantize", "prepared",
           "quantize_codes", "round_exact"]

FRAC_LIMIT = 100
"""Largest magnitude of a binary point that float32 emulates: codes of 24 bits stay within its exponents."""

_MANTISSA = {torch.float32: 24, torch.float64: 53}


def exact_power_of_two(exponent: Tensor, dtype: torch.dtype) -> Tensor:
    """``2**exponent`` exactly, for integer exponents in -126..127 (`torch.pow` and `torch.exp2` may be off)."""
    if dtype == torch.float64:
        return ((exponent.to(torch.int64) + 1023) << 52).view(torch.float64)
    return ((exponent.to(torch.int32) + 127) << 23).view(torch.float32)


def code_range(width: int, signed: bool, overflow: Overflow) -> tuple[int, int]:
    """Smallest and largest code that a format of this width and sign takes under SAT or SAT_SYM."""
    if overflow not in (Overflow.SAT, Overflow.SAT_SYM):
        raise ValueError(f"fake quantisation must saturate (SAT or SAT_SYM), not {overflow}: a wrapped value has no "
                         "useful gradient; train under SAT and check that nothing wraps")
    fmt = FixedFormat(width, 0, signed)
    symmetric = overflow is Overflow.SAT_SYM and signed
    return (fmt.min_code | 1 if symmetric else fmt.min_code), fmt.max_code


def round_exact(scaled: Tensor, rounding: Rounding) -> Tensor:
    """Round finite values to integers in the same float type, exactly."""
    return _round_consuming(scaled.clone(), rounding)


def _round_consuming(scaled: Tensor, rounding: Rounding) -> Tensor:
    """As `round_exact`, with ``scaled`` as working memory: time goes by memory traffic here."""
    if rounding is Rounding.TRN:
        return scaled.floor_()
    if rounding is Rounding.TRN_ZERO:
        return scaled.trunc_()
    nearest = torch.round(scaled)  # ties to even
    if rounding is Rounding.RND_CONV:
        return nearest
    negative = scaled < 0 if rounding in (Rounding.RND_INF, Rounding.RND_ZERO) else None
    # The distance to the nearest integer is exact, and +1/2 or -1/2 only at a tie that went down or up: then this is +-1.
    back = scaled.sub_(nearest).mul_(2).trunc_()
    if rounding is Rounding.RND:
        return nearest.add_(back.clamp_(min=0))
    if rounding is Rounding.RND_MIN_INF:
        return nearest.add_(back.clamp_(max=0))
    assert negative is not None
    wrong_way = negative == (back > 0) if rounding is Rounding.RND_INF else negative == (back < 0)
    return nearest.add_(back.masked_fill_(wrong_way, 0))


def _scaled_rounded(values: Tensor, scale: Tensor, rounding: Rounding, low: int, high: int) -> Tensor:
    """``values * scale`` rounded; what rounds outside low..high is some value outside it."""
    scaled = (values * scale).clamp_(low - 1, high + 1)
    if rounding is Rounding.TRN:  # a negative value that underflows to zero still lies below it
        lost = (values < 0) & (scaled == 0)
        return scaled.floor_().sub_(lost.to(scaled.dtype))
    return _round_consuming(scaled, rounding)


def along(values: Tensor, per_channel: Tensor, axis: int | None) -> Tensor:
    """``per_channel`` shaped to broadcast along ``axis`` of ``values``; a scalar is returned as it is."""
    if per_channel.ndim == 0:
        return per_channel
    if axis is None:
        raise ValueError("a binary point per channel needs the channel axis")
    if per_channel.ndim != 1 or per_channel.shape[0] != values.shape[axis]:
        raise ValueError(f"binary points must be one per channel ({values.shape[axis]}), not {tuple(per_channel.shape)}")
    shape = [1] * values.ndim
    shape[axis] = -1
    return per_channel.reshape(shape)


def check_kind(values: Tensor, width: int) -> None:
    """Raise where a float type does not hold codes of a width."""
    if values.dtype not in _MANTISSA:
        raise TypeError(f"values must be float32 or float64, not {values.dtype}")
    if width > _MANTISSA[values.dtype]:
        raise ValueError(f"width must be at most {_MANTISSA[values.dtype]} bits in {values.dtype}, not {width}")


def check_values(values: Tensor, frac: Tensor, width: int) -> None:
    """Raise where values, binary points or a width are not what the float type emulates exactly."""
    check_kind(values, width)
    if frac.numel() and int(frac.abs().max()) > FRAC_LIMIT:
        raise ValueError(f"binary points must be in -{FRAC_LIMIT}..{FRAC_LIMIT}, not {int(frac.min())}..{int(frac.max())}")
    if values.numel() and bool(torch.isnan(torch.aminmax(values.detach()).min)):  # one pass; NaN wins
        raise ValueError("values must be numbers, not NaN: the training diverged or the input is damaged")


def quantize_codes(
    values: Tensor,
    frac: Tensor,
    *,
    width: int,
    signed: bool = True,
    rounding: Rounding = Rounding.RND,
    overflow: Overflow = Overflow.SAT,
    axis: int | None = None,
) -> Tensor:
    """Codes of ``values`` as integers in the float type of ``values``; equal to `hw.spec.fixed.quantize`.

    Parameters
    ----------
    values : float32 (width up to 24) or float64 (width up to 53), any shape; NaN raises ValueError
    frac : integer tensor, a scalar or one binary point per channel of ``axis``, each in -100..100
    """
    check_values(values, frac, width)
    low, high = code_range(width, signed, overflow)
    scale = along(values, exact_power_of_two(frac, values.dtype), axis)
    return _scaled_rounded(values, scale, rounding, low, high).clamp_(low, high)


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, integer_bits: Tensor, width: int, low: int, high: int, rounding: Rounding,
        axis: int | None,
    ) -> Tensor:
        frac = width - torch.round(integer_bits).to(torch.int64)
        check_values(values, frac, width)
        scale = along(values, exact_power_of_two(frac, values.dtype), axis)
        rounded = _scaled_rounded(values, scale, rounding, low, high)
        codes = rounded.clamp(low, high)
        inside = rounded == codes
        quantised = codes.mul_(along(values, exact_power_of_two(-frac, values.dtype), axis))
        slope = None  # of the integer bits, over ln 2
        if ctx.needs_input_grad[1]:
            slope = torch.where(inside, quantised - values, quantised)
        ctx.save_for_backward(inside, slope)
        ctx.axis, ctx.points = axis, integer_bits
        return quantised

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return *backward_of(ctx, grads[0]), None, None, None, None, None


def backward_of(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of values and integer bits: ``ctx`` holds where values are in range, and the integer bits' slope over ln 2."""
    inside, slope = ctx.saved_tensors
    values_grad = grad * inside if ctx.needs_input_grad[0] else None
    learns = ctx.needs_input_grad[1]
    return values_grad, _sum_to(grad * slope, ctx.points, ctx.axis) * math.log(2) if learns else None


def _sum_to(full: Tensor, points: Tensor, axis: int | None) -> Tensor:
    if points.ndim == 0:
        return full.sum().to(points.dtype)
    assert axis is not None
    others = [i for i in range(full.ndim) if i != axis % full.ndim]
    return (full.sum(others) if others else full).to(points.dtype)


class _Fused(torch.autograd.Function):
    """The same by the compiled kernel: one pass over memory each way, and nothing is kept but the operands."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, addend: Tensor | None, integer_bits: Tensor, cast: kernel.Cast) -> Tensor:
        bits = integer_bits.detach().to(torch.float64)
        ctx.save_for_backward(values, addend, bits)
        ctx.cast, ctx.dtype = cast, integer_bits.dtype
        compute = operators.fake_quantize if torch.compiler.is_compiling() else kernel.forward
        return compute(values, bits, cast, addend)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        values, addend, bits = ctx.saved_tensors
        of_values: Tensor | None
        of_bits: Tensor | None
        if torch.compiler.is_compiling():
            of_values, of_bits = operators.fake_quantize_backward(grads[0], values, bits, ctx.cast, addend)
        else:
            needed = ctx.needs_input_grad
            of_values, of_bits = kernel.backward(grads[0], values, bits, ctx.cast, addend,
                                                 values_grad=needed[0] or needed[1], bits_grad=needed[2])
        return of_values, None if addend is None else of_values, None if of_bits is None else of_bits.to(ctx.dtype), None


def prepared(values: Tensor, addend: Tensor | None, relu: bool) -> Tensor:
    """``values`` plus the addend, if there is one, through a ReLU if asked."""
    values = values if addend is None else values + addend
    return torch.relu(values) if relu else values


def fake_quantize(
    values: Tensor,
    integer_bits: Tensor,
    *,
    width: int,
    signed: bool = True,
    rounding: Rounding = Rounding.RND,
    overflow: Overflow = Overflow.SAT,
    axis: int | None = None,
    addend: Tensor | None = None,
    relu: bool = False,
    limits: tuple[float, float] = kernel.UNLIMITED,
) -> Tensor:
    """``values`` on the grid of ``fixed<width, round(integer_bits)>``, as values; gradients as in the module's text.

    Parameters
    ----------
    values : float32 or float64, any shape; NaN raises ValueError, infinity saturates
    integer_bits : float tensor, a scalar or one per channel of ``axis``; the sign bit counts as an integer bit
    width : bits of a code, fixed
    rounding, overflow : any of the seven roundings; SAT or SAT_SYM
    addend : added to the values first, of their shape; None adds nothing
    relu : whether a ReLU comes between the sum and the grid
    limits : smallest and largest number of fraction bits; the integer bits count as limited to them, and where they are
        beyond have no gradient

    On the CPU a compiled kernel does all of it in one pass (`sw.kernels.fake_quantize`), with equal values.
    """
    low, high = code_range(width, signed, overflow)
    check_kind(values, width)
    along(values, integer_bits, axis)
    if kernel.usable(values) and (addend is None or addend.shape == values.shape):
        cast = kernel.Cast(width=width, low=low, high=high, rounding=rounding, axis=axis, relu=relu, limits=limits)
        fused: Tensor = _Fused.apply(values, addend, integer_bits, cast)  # type: ignore[no-untyped-call]
        return fused
    bits = integer_bits if limits == kernel.UNLIMITED else integer_bits.clamp(width - limits[1], width - limits[0])
    result: Tensor = _FakeQuantize.apply(  # type: ignore[no-untyped-call]
        prepared(values, addend, relu), bits, width, low, high, rounding, axis)
    return result
