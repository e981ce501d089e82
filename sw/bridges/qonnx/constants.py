"""Constants of a model: quantised ones with their codes, and the few operations that exporters leave on constants.

The arithmetic is float32, in the order that QONNX defines (divide by the scale, add the zero point, limit, round), so that a weight
has the code that executing the model would give it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from hw.spec.fixed import Rounding
from sw.bridges.qonnx.model import MAX_ELEMENTS, Attributes
from sw.bridges.qonnx.values import Const, Quantiser
from sw.tracing.problems import RefusedError

__all__ = ["FOLDS", "activation_quantiser", "on_grid", "per_channel", "quantised"]

_TRUE_ROUNDINGS = {"ROUND": Rounding.RND_CONV, "HALF_EVEN": Rounding.RND_CONV, "FLOOR": Rounding.TRN}
_MOST_WEIGHT_BITS, _MOST_BIAS_BITS = 8, 32


def _half_up(x: np.ndarray) -> np.ndarray:
    whole = np.trunc(x)
    return np.asarray(whole + np.where(np.abs(x - whole) >= 0.5, np.sign(x), 0))


def _half_down(x: np.ndarray) -> np.ndarray:
    whole = np.trunc(x)
    return np.asarray(whole + np.where(np.abs(x - whole) > 0.5, np.sign(x), 0))


_CONSTANT_ROUNDINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "ROUND": np.rint, "HALF_EVEN": np.rint, "FLOOR": np.floor, "CEIL": np.ceil, "DOWN": np.trunc, "ROUND_TO_ZERO": np.trunc,
    "UP": lambda x: np.asarray(np.sign(x) * np.ceil(np.abs(x))), "HALF_UP": _half_up, "HALF_DOWN": _half_down,
}  # fmt: skip
"""Names are sign-magnitude: UP is away from zero."""


# -- quantisers ---------------------------------------------------------------------------------------------------------


def activation_quantiser(attributes: Attributes, parameters: list[Const]) -> Quantiser:
    """The grid of a ``Quant`` node on an activation. Raises RefusedError for what no tensor of a graph has."""
    scale, zero, bits = (_single(name, const) for name, const in zip(("scale", "zero point", "bit width"), parameters, strict=True))
    rounding = attributes.text("rounding_mode", "ROUND").upper()
    if rounding not in _TRUE_ROUNDINGS:
        raise RefusedError(f"rounds by {rounding}", "use ROUND or FLOOR: a core rounds half to even, or down")
    signed, narrow = (attributes.integer(name, default) != 0 for name, default in (("signed", 1), ("narrow", 0)))
    width = _width(bits, 9 if signed else 8)
    _check_zero(zero)
    if signed and width == 1:
        raise RefusedError("has signed codes of one bit, which QONNX reads as -1 and 1", "use two bits")
    low, high = _extent(signed, narrow, width)
    return Quantiser(scale=_scale(np.float32(scale)), low=low, high=high, signed=signed, width=width,
                     rounding=_TRUE_ROUNDINGS[rounding])


def _single(name: str, const: Const) -> float:
    if const.value.size != 1:
        raise RefusedError(f"has {const.value.size} {name}s (per channel or per group)", f"quantise with one {name} per tensor")
    return float(const.value.reshape(()))


def _width(bits: float, most: int) -> int:
    if not math.isfinite(bits) or bits != int(bits) or not 1 <= bits <= most:
        raise RefusedError(f"has a bit width of {bits:g}", f"use a whole number of 1..{most} bits")
    return int(bits)


def _check_zero(zero: float) -> None:
    if zero != 0:
        raise RefusedError(f"has the zero point {zero:g}", "use a symmetric quantiser: the core's zero point is 0")


def _scale(scale: np.float32) -> Fraction:
    if not np.isfinite(scale) or not 2.0**-100 <= scale <= 2.0**100:
        raise RefusedError(f"has the scale {float(scale):g}", "use a positive scale of an ordinary size: train or calibrate it")
    return Fraction(float(scale))


def _extent(signed: bool, narrow: bool, width: int) -> tuple[int, int]:
    if signed:
        return -(1 << (width - 1)) + narrow, (1 << (width - 1)) - 1
    return 0, (1 << width) - 1 - narrow


def quantised(attributes: Attributes, value: Const, parameters: list[Const]) -> Const:
    """A ``Quant`` node on a constant: codes, scales of the same shape, and the values that they stand for."""
    scale, zero = (p.value.astype(np.float32) for p in parameters[:2])
    if zero.any():
        _check_zero(float(zero.reshape(-1)[np.flatnonzero(zero)[0]]))
    width = _width(_single("bit width", parameters[2]), _MOST_BIAS_BITS)
    for each in np.unique(scale):
        _scale(each)
    shape = np.broadcast_shapes(value.value.shape, scale.shape)
    if shape != value.value.shape or not np.isfinite(value.value).all():
        raise RefusedError(f"quantises values of shape {value.value.shape}, or not finite, by scales of shape {scale.shape}",
                           "give finite weights, and scales per tensor or per channel")
    name = attributes.text("rounding_mode", "ROUND").upper()
    if name not in _CONSTANT_ROUNDINGS:
        raise RefusedError(f"rounds by {name}", f"use one of {', '.join(_CONSTANT_ROUNDINGS)}")
    signed, narrow = (attributes.integer(flag, default) != 0 for flag, default in (("signed", 1), ("narrow", 0)))
    if signed and width == 1:
        raise RefusedError("has signed codes of one bit, which QONNX reads as -1 and 1", "use two bits")
    scaled = np.clip((value.value.astype(np.float32) / scale).astype(np.float64), *_extent(signed, narrow, width))
    codes = _CONSTANT_ROUNDINGS[name](scaled)
    return Const(value=(codes.astype(np.float32) * scale).astype(np.float32), codes=codes.astype(np.int64),
                 scale=np.broadcast_to(scale, shape))


def on_grid(value: Const) -> tuple[np.ndarray, list[Fraction]]:
    """Weight codes (OC, ...) of a constant and each output channel's scale: of its ``Quant`` node, or the coarsest power of two.

    Raises RefusedError for codes of more than 8 bits and for scales that differ within a channel.
    """
    if value.codes is None or value.scale is None:
        codes, scales = _powers_of_two(value.value)
    else:
        rows = value.scale.reshape(value.scale.shape[0], -1)
        if (rows != rows[:, :1]).any():
            raise RefusedError("has weight scales that differ within an output channel", "use one scale per tensor or output channel")
        codes, scales = value.codes, [Fraction(float(s)) for s in rows[:, 0]]
    if codes.size and (codes.min() < -128 or codes.max() > 127):
        raise RefusedError(f"has weight codes {codes.min()}..{codes.max()}", f"use signed weights of {_MOST_WEIGHT_BITS} bits or fewer")
    return codes, scales


def _powers_of_two(values: np.ndarray) -> tuple[np.ndarray, list[Fraction]]:
    """Values that lie on a grid of powers of two without a quantiser of their own, as constant folding leaves them."""
    rows = values.astype(np.float64).reshape(values.shape[0], -1)
    advice = "give its weights a Quant node of at most 8 bits"
    if not np.isfinite(rows).all():
        raise RefusedError("has weights that are not finite", advice)
    found, codes = [], np.zeros(rows.shape, np.int64)
    for row, line in enumerate(rows):
        peak = np.abs(line).max(initial=0)
        frac = 6 - math.frexp(peak)[1] if peak else 0
        while frac <= 100 and (peak == 0 or np.abs(scaled := np.ldexp(line, frac)).max() <= 128):
            if peak == 0 or (scaled == np.rint(scaled)).all():
                break
            frac += 1
        else:
            raise RefusedError("has float weights that are no 8-bit codes of a power of two", advice)
        codes[row] = np.rint(np.ldexp(line, frac))
        shared = int(np.bitwise_or.reduce(np.abs(codes[row])))
        down = (shared & -shared).bit_length() - 1 if shared else 0
        codes[row] >>= down
        found.append(Fraction(2) ** (down - frac))
    return codes.reshape(values.shape), found


def per_channel(value: np.ndarray, shape: tuple[int, ...]) -> list[Fraction]:
    """A constant that is added to or multiplied with a value of ``shape`` (without batch), one number per channel."""
    sizes = (1, *shape)
    dims = (1,) * (len(sizes) - value.ndim) + value.shape
    if len(dims) != len(sizes) or any(d not in (1, n) for d, n in zip(dims, sizes, strict=True)):
        raise RefusedError(f"combines a value of shape {shape} with a constant of shape {value.shape}", "use one number per channel")
    array = value.astype(np.float64).reshape(dims)
    if not np.isfinite(array).all():
        raise RefusedError("has a constant that is not finite", "train or calibrate it")
    rows = array.reshape(dims[1], -1)
    if (rows != rows[:, :1]).any():
        raise RefusedError("has a constant that differs between pixels", "use one number per channel")
    numbers = [Fraction(float(v)) for v in rows[:, 0]]
    return numbers * shape[0] if len(numbers) == 1 else numbers


# -- operations on constants --------------------------------------------------------------------------------------------


def _arithmetic(function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Callable[..., Const]:
    def fold(attributes: Attributes, a: Const, b: Const) -> Const:
        if math.prod(np.broadcast_shapes(a.value.shape, b.value.shape)) > MAX_ELEMENTS:
            raise RefusedError("makes a constant that is too large", "use smaller tensors")
        with np.errstate(all="ignore"):
            return Const(value=np.asarray(function(a.value, b.value)))
    return fold


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if a.dtype.kind == "f":
        return np.asarray(a / b)
    if not np.all(b):
        raise RefusedError("divides integers by zero", "repair the model")
    return np.asarray(np.trunc(a / b).astype(a.dtype))


def _constant(attributes: Attributes) -> Const:
    value = attributes.tensor("value")
    for name, read in (("value_float", lambda: np.float32(attributes.number("value_float", 0))),
                       ("value_int", lambda: np.int64(attributes.integer("value_int", 0))),
                       ("value_floats", lambda: np.array(attributes.numbers("value_floats", []), np.float32)),
                       ("value_ints", lambda: np.array(attributes.integers("value_ints", []), np.int64))):
        if value is None and attributes.has(name):
            value = np.asarray(read())
    if value is None:
        raise RefusedError("is a constant without numbers", "store its value as a tensor")
    return Const(value=value)


def _transpose(attributes: Attributes, a: Const) -> Const:
    order = attributes.integers("perm", list(range(a.value.ndim))[::-1])
    return a.map(lambda array: array.transpose(order))


def _reshape(attributes: Attributes, a: Const, shape: Const) -> Const:
    wanted = [int(n) for n in shape.value.reshape(-1)]
    if not attributes.integer("allowzero", 0):
        wanted = [a.value.shape[i] if n == 0 and i < a.value.ndim else n for i, n in enumerate(wanted)]
    return a.map(lambda array: array.reshape(wanted))


def _unsqueeze(attributes: Attributes, a: Const, axes: Const | None = None) -> Const:
    places = attributes.integers("axes", []) if axes is None else [int(n) for n in axes.value.reshape(-1)]
    return a.map(lambda array: np.expand_dims(array, tuple(places)))


def _squeeze(attributes: Attributes, a: Const, axes: Const | None = None) -> Const:
    places = attributes.integers("axes", []) if axes is None else [int(n) for n in axes.value.reshape(-1)]
    return a.map(lambda array: np.squeeze(array, tuple(places) if places else None))


FOLDS: dict[str, Callable[..., Const]] = {
    "Constant": _constant, "Identity": lambda attributes, a: a, "Transpose": _transpose, "Reshape": _reshape,
    "Unsqueeze": _unsqueeze, "Squeeze": _squeeze, "Add": _arithmetic(np.add), "Sub": _arithmetic(np.subtract),
    "Mul": _arithmetic(np.multiply), "Div": _arithmetic(_divide), "Neg": lambda attributes, a: Const(value=-a.value),
    "Sqrt": lambda attributes, a: Const(value=np.sqrt(a.value)),
}  # fmt: skip
"""Operation to what it makes of constants; float32 stays float32. Sizes grow by no more than broadcasting, which is bounded."""
