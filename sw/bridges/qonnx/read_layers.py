"""Layers with weights, and what changes the scale of a sum: convolutions, products, biases, normalisations."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from hw.spec import ops
from sw.bridges.qonnx.constants import on_grid, per_channel
from sw.bridges.qonnx.values import Codes, Const, Limited, Lookup, Make, Offsets, Padded, Sums, Total, Value, passing
from sw.bridges.qonnx.visit import Visit, window, windows_shape
from sw.tracing.problems import RefusedError

__all__ = ["LAYERS"]


def _signed(signs: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return np.asarray(weight * signs.reshape(-1, *(1,) * (weight.ndim - 1)))


def _layer(visit: Visit, source: Codes, shape: tuple[int, ...], weight: Const, codes: np.ndarray, make: Make, bias: int,
           others: tuple[str, ...] = ()) -> Sums:
    """Accumulators of weight ``codes`` (OC, ...) on ``source``; ``bias`` is the number of its bias among the inputs."""
    _, scales = on_grid(weight)
    flat, grid = codes.reshape(codes.shape[0], -1), source.quantiser
    low, high = min(grid.low, 0), max(grid.high, 0)  # padding is 0
    positive, negative = np.maximum(flat, 0).sum(1), np.minimum(flat, 0).sum(1)
    offset = [Fraction(0)] * len(scales)
    if visit.value(bias) is not None:
        offset = per_channel(visit.const(bias, "biases").value.reshape(1, -1), (len(scales),))
    return Sums(place=visit.place, shape=shape, inputs=(source.name, *others), make=make, offset=tuple(offset),
                unit=tuple(scale * grid.scale for scale in scales), least=tuple((positive * low + negative * high).tolist()),
                most=tuple((positive * high + negative * low).tolist()))


# -- convolutions -------------------------------------------------------------------------------------------------------


def _convolution(visit: Visit) -> Value:
    padded = visit.value(0)
    source = padded.source if isinstance(padded, Padded) else visit.image()
    weight = visit.const(1, "weights")
    codes, groups, stride, padding = _form(visit, source, weight)
    if visit.attributes.integers("dilations", [1, 1]) != [1, 1]:
        raise RefusedError("has a dilation", "use dilation 1")
    padding += padded.padding if isinstance(padded, Padded) else 0
    shape = windows_shape(source.shape, codes.shape[0], codes.shape[2:], stride, padding)
    return _layer(visit, source, shape, weight, codes, _maker(visit.hint, codes, groups, stride, padding), 2)


def _form(visit: Visit, source: Codes, weight: Const) -> tuple[np.ndarray, int, int, int]:
    """Weight codes (OC, IC / groups, KH, KW), groups, stride and padding; refused where they do not fit the image."""
    if weight.value.ndim != 4:
        raise RefusedError(f"has weights of shape {weight.value.shape}", "use convolutions of images, with weights (OC, IC, KH, KW)")
    codes, _ = on_grid(weight)
    groups, kernel = visit.attributes.integer("group", 1), list(codes.shape[2:])
    if groups < 1 or codes.shape[0] % groups or codes.shape[1] * groups != source.shape[0]:
        raise RefusedError(f"has weights of shape {codes.shape} in {groups} groups for {source.shape[0]} channels",
                           "export the model again")
    if visit.attributes.integers("kernel_shape", kernel) != kernel:
        raise RefusedError("has a kernel_shape that is not its weights'", "export the model again")
    return codes, groups, *window(visit, kernel)


def _maker(hint: str, codes: np.ndarray, groups: int, stride: int, padding: int) -> Make:
    """The operation of a convolution: depthwise where it is one, unless the hint names an equal operation."""
    single = groups == codes.shape[0] and codes.shape[1] == 1
    if single and hint == ops.AvgPool2d.op and (codes == 1).all():
        kernel = codes.shape[2:]
        return lambda signs, requant: ops.AvgPool2d(kernel=kernel, requant=_positive(signs, requant), stride=stride, padding=padding)
    if single and codes.shape[2:] == (3, 3) and hint != ops.Conv2d.op:
        return lambda signs, requant: ops.DepthwiseConv2d(weight=_signed(signs, codes[:, 0]), requant=requant, stride=stride,
                                                          padding=padding)
    return lambda signs, requant: ops.Conv2d(weight=_signed(signs, codes), requant=requant, stride=stride, padding=padding,
                                             groups=groups)


def _positive(signs: np.ndarray, requant: ops.Requant) -> ops.Requant:
    if (signs != 1).any():
        raise ValueError("a mean cannot be negated or multiplied by 0")
    return requant


def _deformable(visit: Visit) -> Value:
    source, weight, offsets = visit.image(), visit.const(1, "weights"), visit.value(2)
    codes, groups, stride, padding = _form(visit, source, weight)
    dilations = visit.attributes.integers("dilations", [1, 1])
    if visit.attributes.integer("offset_group", 1) != 1 or visit.value(4) is not None or len(set(dilations)) != 1:
        raise RefusedError("has offset groups, a mask, or two dilations", "use one offset group and no mask")
    reach = [dilations[0] * (side - 1) + 1 for side in codes.shape[2:]]
    shape = windows_shape(source.shape, codes.shape[0], reach, stride, padding)
    if isinstance(offsets, Offsets):
        return _square(visit, source, weight, codes, offsets, (groups, stride, padding, dilations[0]))
    moves = visit.image(2)
    if moves.quantiser.scale != 1 or moves.shape != (2 * codes.shape[2] * codes.shape[3], *shape[1:]):
        raise RefusedError(f"has offsets of shape {moves.shape} in steps of {float(moves.quantiser.scale):g} pixels",
                           "use whole pixels: a core rounds samples between pixels to codes")
    make: Make = lambda signs, requant: ops.DeformConv2d(  # noqa: E731
        weight=_signed(signs, codes), requant=requant, offset_frac=0, stride=stride, padding=padding, dilation=dilations[0],
        groups=groups)
    return _layer(visit, source, shape, weight, codes, make, 3, (moves.name,))


def _square(visit: Visit, source: Codes, weight: Const, codes: np.ndarray, offsets: Offsets, form: tuple[int, ...]) -> Sums:
    groups, stride, padding, dilation = form
    if not offsets.taps or codes.shape[1:] != (1, 3, 3) or (groups, padding, dilation) != (codes.shape[0], 1, 1):
        raise RefusedError("has square offsets without a depthwise 3 x 3 window padded by 1", "use that window, or offsets per tap")
    shape = windows_shape(source.shape, groups, (3, 3), stride, 1)
    if offsets.source.shape != (1, *shape[1:]):
        raise RefusedError(f"has offsets of shape {offsets.source.shape} for an image of {shape}", "give one offset a pixel")
    make: Make = lambda signs, requant: ops.DeformDepthwiseConv2d(  # noqa: E731
        weight=_signed(signs, codes[:, 0]), requant=requant, stride=stride)
    return _layer(visit, source, shape, weight, codes, make, 3, (offsets.source.name,))


# -- products of vectors ------------------------------------------------------------------------------------------------


def _gemm(visit: Visit) -> Value:
    attributes = visit.attributes
    if attributes.number("alpha", 1) != 1 or attributes.number("beta", 1) != 1 or attributes.integer("transA", 0):
        raise RefusedError("has alpha, beta or transA", "leave them at 1, 1 and 0")
    weight = visit.const(1, "weights")
    if not attributes.integer("transB", 0):
        weight = _matrix(weight).map(np.transpose)
    return _linear(visit, weight, 2)


def _matmul(visit: Visit) -> Value:
    return _linear(visit, _matrix(visit.const(1, "weights")).map(np.transpose), 9)


def _matrix(weight: Const) -> Const:
    if weight.value.ndim != 2:
        raise RefusedError(f"has weights of shape {weight.value.shape}", "use a matrix of two axes")
    return weight


def _linear(visit: Visit, weight: Const, bias: int) -> Sums:
    """Weights (OC, K) on a flat tensor; one that was an image is a convolution with a window as large."""
    source = visit.building.codes(visit.value(0))
    codes, _ = on_grid(_matrix(weight))
    if source.shape != codes.shape[1:]:
        raise RefusedError(f"has weights for {codes.shape[1]} inputs and a tensor of shape {source.shape}",
                           "flatten the image before it")
    if source.order is not None:
        codes = codes[:, np.argsort(source.order)]
    image = visit.building.tensors[source.name].shape
    if image[1:] == (1, 1):
        make: Make = lambda signs, requant: ops.Linear(weight=_signed(signs, codes), requant=requant)  # noqa: E731
    else:
        make = lambda signs, requant: ops.Conv2d(  # noqa: E731
            weight=_signed(signs, codes).reshape(-1, *image), requant=requant)
    return _layer(visit, source, codes.shape[:1], weight, codes, make, bias)


# -- arithmetic with constants ------------------------------------------------------------------------------------------


def _add(visit: Visit) -> Value:
    a, b = visit.value(0), visit.value(1)
    if isinstance(a, Const):
        a, b = b, a
    if isinstance(b, Const):
        return _moved(visit, a, b, 1)
    left, right = visit.image(0), visit.image(1)
    if left.shape != right.shape:
        raise RefusedError(f"adds tensors of the shapes {left.shape} and {right.shape}", "add tensors of one shape")
    if left.quantiser.scale != right.quantiser.scale:
        raise RefusedError(f"adds tensors of the scales {float(left.quantiser.scale):.6g} and {float(right.quantiser.scale):.6g}",
                           "share one quantiser between both sides")
    return Total(place=visit.place, inputs=(left, right))


def _subtract(visit: Visit) -> Value:
    value = visit.value(0)
    if isinstance(value, Limited) and isinstance(visit.value(1), Const):
        if (offsets := _offsets(visit, value)) is not None:
            return offsets
    return _moved(visit, value, visit.const(1, "its second operand"), -1)


def _offsets(visit: Visit, value: Limited) -> Offsets | None:
    """The start of a square deformable convolution's offsets: limited to the sampler's range, less one."""
    source, one = value.source, visit.const(1, "its second operand").value
    whole = source.quantiser.scale == 1 and value.low == ops.OFFSET_MIN and value.high == ops.OFFSET_MAX
    return Offsets(source=visit.building.image(source), taps=False) if whole and one.size == 1 and float(one.reshape(())) == 1 else None


def _sums(visit: Visit, value: Any) -> Sums:
    """Accumulators, or codes as accumulators of their own."""
    return value if isinstance(value, Sums) else passing(visit.place, visit.building.image(value))


def _moved(visit: Visit, value: Any, const: Const, sign: int) -> Sums:
    sums = _sums(visit, value)
    shifts = [sign * v for v in per_channel(const.value, sums.shape)]
    return sums.scaled([Fraction(1)] * len(shifts), shifts)


def _multiply(visit: Visit) -> Value:
    a, b = visit.value(0), visit.value(1)
    if isinstance(a, Const):
        a, b = b, a
    if not isinstance(b, Const):
        raise RefusedError("multiplies two tensors", "put a constant into the weights: products of tensors have no operation")
    if isinstance(a, Offsets):
        return _taps(a, b)
    if isinstance(a, (Codes, Limited)) and b.codes is not None:
        return _weighted(visit, visit.building.image(a), b)
    sums = _sums(visit, a)
    return sums.scaled(per_channel(b.value, sums.shape), [Fraction(0)] * len(sums.unit))


def _taps(offsets: Offsets, const: Const) -> Offsets:
    wanted = [step for i in (-1, 0, 1) for j in (-1, 0, 1) for step in (i, j)]
    if offsets.taps or const.value.shape != (1, 18, 1, 1) or const.value.reshape(-1).tolist() != wanted:
        raise RefusedError("multiplies offsets by another constant than a square's taps", "use offsets per tap")
    return replace(offsets, taps=True)


def _weighted(visit: Visit, source: Codes, const: Const) -> Sums:
    """Codes times quantised weights of their channels: a Scale."""
    channels = source.shape[0]
    per_channel(const.value, source.shape)
    assert const.codes is not None and const.scale is not None
    size = channels // max(const.codes.size, 1)
    codes, scales = on_grid(const.map(lambda array: np.tile(array.reshape(-1, 1), (size, 1))))
    return passing(visit.place, source, codes[:, 0], [scale * source.quantiser.scale for scale in scales])


def _divide(visit: Visit) -> Value:
    sums = _sums(visit, visit.value(0))
    factors = per_channel(visit.const(1, "its divisor").value, sums.shape)
    if not all(factors):
        raise RefusedError("divides by zero", "repair the model")
    return sums.scaled([1 / f for f in factors], [Fraction(0)] * len(factors))


def _batch_norm(visit: Visit) -> Value:
    """A normalisation goes into the sums before it; of codes it makes a Scale. Its factors are float32, as executing it has them."""
    value = visit.value(0)
    if isinstance(value, Lookup):
        raise RefusedError("normalises values of a table", "quantise them first")
    sums = _sums(visit, value)
    names = ("gamma", "beta", "mean", "variance")
    arrays = [visit.const(i + 1, name).value.astype(np.float32).reshape(-1) for i, name in enumerate(names)]
    if any(array.shape != (len(sums.unit),) for array in arrays) or visit.attributes.integer("training_mode", 0):
        raise RefusedError("does not have one number per channel, or still trains", "export it in evaluation mode")
    gamma, beta, mean, variance = arrays
    spread = variance + np.float32(visit.attributes.number("epsilon", 1e-5))
    if not all(np.isfinite(array).all() for array in arrays) or (spread <= 0).any():
        raise RefusedError("has numbers that are not finite, or a variance below 0", "train or calibrate it")
    factor = gamma / np.sqrt(spread)
    shift = beta - mean * factor
    return sums.scaled([Fraction(float(f)) for f in factor], [Fraction(float(s)) for s in shift])


LAYERS = {
    "Conv": _convolution, "DeformConv": _deformable, "Gemm": _gemm, "MatMul": _matmul, "Add": _add, "Sub": _subtract,
    "Mul": _multiply, "Div": _divide, "BatchNormalization": _batch_norm,
}  # fmt: skip
