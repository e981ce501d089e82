"""Floating point of the training core: formats, roundings, and what each scalar unit returns.

FP16 is IEEE binary16, FP32 is IEEE binary32. Tensors never hold infinity or NaN, and every function here raises ValueError
where an input does. Rounding is to nearest, ties to even, once per operation; subnormals are kept on the way in and out
(gradual underflow); zeros have the sign that IEEE gives them (``x + -x`` is +0). A result beyond the format saturates: it is the
largest finite number of its sign, and counts as a *saturation event*, which the `saturates_*` functions tell.

So an operation is the IEEE operation, which is what numpy computes on float32, followed by infinity -> largest finite number.
The floating-point unit must be in its default state: round to nearest even, denormals not flushed to zero.

**The domain of the multiply-accumulate.** A product of two FP16 has at most 22 significant bits and is 0 or 2**-48 .. 65504**2 < 2**32
in magnitude, always a multiple of 2**-48: it is exact in FP32. An accumulator that began at +0 is then a multiple of 2**-48 too:
rounding moves a sum to a multiple of a power of two above 2**-48 or, below 2**-24, not at all. Nor does it exceed 2**56, however long
the sum: from there on half a unit in the last place is 2**32, above every product, and the nearest number is the accumulator as it
was. So the accumulator of `fp16_dot` is 0 or 2**-48 .. 2**56 in magnitude, never subnormal, never saturated. The hardware's adder
(`hw.rtl.arith.float_mac`) needs no logic for either; it is specified for multiples of 2**-48 below 2**80.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "FP16_MAX", "FP32_MAX", "INTEGER_BITS", "fp16_dot", "fp32_add", "fp32_div", "fp32_from_int", "fp32_mul", "fp32_sqrt",
    "saturates_add", "saturates_div", "saturates_fp16", "saturates_from_int", "saturates_mul", "to_fp16", "to_fp32",
]  # fmt: skip

F16 = npt.NDArray[np.float16]
F32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

FP16_MAX = np.float16(65504)
"""The largest finite FP16: (2 - 2**-10) * 2**15."""

FP32_MAX = np.finfo(np.float32).max
"""The largest finite FP32: (2 - 2**-23) * 2**127."""

INTEGER_BITS = 128
"""Width of the signed integers that `fp32_from_int` takes."""

_LOWEST = -149
"""Exponent of the smallest subnormal of FP32."""


def to_fp16(x: npt.ArrayLike) -> F16:
    """FP32 to the nearest FP16, saturating at +-65504; float32 of any shape to float16 of the same shape."""
    wide = _fp32(x, "x")
    return np.clip(_to_half(wide), -FP16_MAX, FP16_MAX)


def saturates_fp16(x: npt.ArrayLike) -> Mask:
    """Where `to_fp16` saturates: from 65520 on, in magnitude; below that 65504 is the nearest number."""
    return np.isinf(_to_half(_fp32(x, "x")))


def to_fp32(x: npt.ArrayLike) -> F32:
    """FP16 as FP32, exactly; float16 of any shape to float32 of the same shape."""
    return np.asarray(_fp16(x, "x").astype(np.float32))


def fp32_add(a: npt.ArrayLike, b: npt.ArrayLike) -> F32:
    """``a + b`` of float32 arrays that broadcast, rounded once, saturating."""
    return _finite(_raw(np.add, a, b))


def fp32_mul(a: npt.ArrayLike, b: npt.ArrayLike) -> F32:
    """``a * b`` of float32 arrays that broadcast, rounded once, saturating."""
    return _finite(_raw(np.multiply, a, b))


def fp32_div(a: npt.ArrayLike, b: npt.ArrayLike) -> F32:
    """``a / b`` of float32 arrays that broadcast, rounded once, saturating.

    A zero divisor is outside of what the core asks for. Defined all the same: the largest number with the quotient's sign, an
    event; 0 / 0 is +0 and none.
    """
    return _finite(_raw(np.divide, a, b))


def fp32_sqrt(a: npt.ArrayLike) -> F32:
    """The square root of a float32 array, rounded once; -0 for -0. It never saturates.

    Negative numbers are outside of what the core asks for. Defined all the same: +0.
    """
    with np.errstate(invalid="ignore"):
        return _finite(np.sqrt(_fp32(a, "a")))


def saturates_add(a: npt.ArrayLike, b: npt.ArrayLike) -> Mask:
    """Where `fp32_add` saturates."""
    return np.isinf(_raw(np.add, a, b))


def saturates_mul(a: npt.ArrayLike, b: npt.ArrayLike) -> Mask:
    """Where `fp32_mul` saturates."""
    return np.isinf(_raw(np.multiply, a, b))


def saturates_div(a: npt.ArrayLike, b: npt.ArrayLike) -> Mask:
    """Where `fp32_div` saturates, division of a non-zero number by zero included."""
    return np.isinf(_raw(np.divide, a, b))


def fp16_dot(x: npt.ArrayLike, w: npt.ArrayLike) -> F32:
    """The dot product over the last axis in the order that defines the core's arithmetic.

    ``acc = +0; for k ascending: acc = RNE32(acc + x[k] * w[k])``; products are exact.

    x, w : float16 (..., K), leading axes broadcast
    Returns float32 (...). Raises ValueError for other dtypes, infinity or NaN, no axis, or different K.
    """
    left, right = _fp16(x, "x"), _fp16(w, "w")
    if not left.ndim or not right.ndim or left.shape[-1] != right.shape[-1]:
        raise ValueError(f"x and w must have the same last axis, not shapes {left.shape} and {right.shape}")
    acc = np.zeros(np.broadcast_shapes(left.shape[:-1], right.shape[:-1]), np.float32)
    for k in range(left.shape[-1]):
        acc = acc + left[..., k].astype(np.float32) * right[..., k].astype(np.float32)
    return np.asarray(acc)


def fp32_from_int(value: Any, exponent: Any) -> F32:
    """``value * 2**exponent``, rounded once, saturating; +0 for 0.

    value : Python integers of `INTEGER_BITS` bits (signed), alone or in an object array, or an array of integers
    exponent : integers, broadcast against ``value``
    Returns float32 of the broadcast shape. Raises ValueError for values outside 128 bits, TypeError for what is no integer.
    """
    return np.asarray(np.frompyfunc(lambda v, e: _from_int(v, e)[0], 2, 1)(*_integers(value, exponent)), dtype=np.float32)


def saturates_from_int(value: Any, exponent: Any) -> Mask:
    """Where `fp32_from_int` saturates."""
    return np.asarray(np.frompyfunc(lambda v, e: _from_int(v, e)[1], 2, 1)(*_integers(value, exponent)), dtype=np.bool_)


def _fp32(values: npt.ArrayLike, name: str) -> F32:
    return _checked(np.asarray(values), np.float32, name)


def _fp16(values: npt.ArrayLike, name: str) -> F16:
    return _checked(np.asarray(values), np.float16, name)


def _checked(array: npt.NDArray[Any], dtype: Any, name: str) -> npt.NDArray[Any]:
    if array.dtype != dtype:
        raise ValueError(f"{name} must be {np.dtype(dtype)}, not {array.dtype}: convert it first, where the rounding can be seen")
    if not (finite := np.isfinite(array)).all():
        where = tuple(int(index) for index in np.unravel_index(int(np.argmin(finite)), array.shape))
        raise ValueError(f"{name} must be finite, not {array[where]} at index {where}: the core stores neither infinity nor NaN")
    return array


def _to_half(wide: F32) -> F16:
    with np.errstate(over="ignore"):
        return np.asarray(wide.astype(np.float16))


def _raw(operation: Callable[..., Any], a: npt.ArrayLike, b: npt.ArrayLike) -> F32:
    """The IEEE operation, whose result may be infinite or NaN."""
    with np.errstate(all="ignore"):
        return np.asarray(operation(_fp32(a, "a"), _fp32(b, "b")))


def _finite(raw: F32) -> F32:
    """The largest number for infinity, +0 for NaN."""
    return np.where(np.isnan(raw), np.float32(0), np.clip(raw, -FP32_MAX, FP32_MAX))


def _integers(value: Any, exponent: Any) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.object_]]:
    """Both as arrays of Python integers."""
    values, exponents = np.asarray(value), np.asarray(exponent)
    for name, array in (("value", values), ("exponent", exponents)):
        if array.dtype.kind not in "iuO" or not all(isinstance(item, (int, np.integer)) for item in array.flat):
            raise TypeError(f"{name} must be integers, not {array.dtype}")
    values = np.frompyfunc(int, 1, 1)(values)
    limit = 1 << (INTEGER_BITS - 1)
    for item in np.asarray(values, dtype=object).flat:
        if not -limit <= item < limit:
            raise ValueError(f"value must fit {INTEGER_BITS} bits signed, not {item}")
    return np.asarray(values, dtype=object), np.asarray(np.frompyfunc(int, 1, 1)(exponents), dtype=object)


def _from_int(value: int, exponent: int) -> tuple[np.float32, bool]:
    """The rounded number, and whether it saturated. ``unit`` is the exponent of the result's last place."""
    magnitude = abs(value)
    unit = max(exponent + magnitude.bit_length() - 24, _LOWEST)
    shift = unit - exponent
    if magnitude == 0 or shift > INTEGER_BITS + 1:
        return np.float32(-0.0 if value < 0 else 0.0), False
    if shift <= 0:
        rounded = magnitude << -shift
    else:
        rounded, rest, half = magnitude >> shift, magnitude & ((1 << shift) - 1), 1 << (shift - 1)
        rounded += rest > half or (rest == half and rounded & 1)
    saturated = rounded.bit_length() + unit > 128
    result = FP32_MAX if saturated else np.float32(math.ldexp(rounded, unit))
    return np.float32(-result if value < 0 else result), saturated
