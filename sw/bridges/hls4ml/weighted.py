"""Layers with sums: weights and biases at the binary point at which the assignment to the result shifts as the requantise step does.

A shift of a channel is a binary point of its own, which one type of weights cannot have: so all weights stand at the finest point of
the layer, and channels that are shifted less have their codes shifted left, which is exact. A multiplier that is no power of two is
a BatchNormalization behind the sums, which are then a tensor of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hw.spec.ops import AvgPool2d, Conv2d, DepthwiseConv2d, Linear, Requant, Scale
from sw.bridges.hls.plan import Layer
from sw.bridges.hls.ranges import Interval, accumulator, reach
from sw.bridges.hls4ml.formats import ApFixed, holding, limiting, spanning
from sw.bridges.hls4ml.layers import Layers, Value, channels_last
from sw.bridges.hls4ml.tables import clipped

__all__ = ["conv", "depthwise", "linear", "mean", "scale"]

_FREE = {"lo": -256, "hi": 255}
"""Limits of a requantise step that limit nothing which its own limits could not see."""


def conv(to: Layers, layer: Layer, x: Value) -> Value:
    """Groups become zeros of one kernel over all channels: hls4ml has no groups."""
    operation: Conv2d = layer.operation
    filters, depth, height, width = operation.weight.shape
    weight = np.zeros((filters, operation.in_channels, height, width), np.int64)
    for group, rows in enumerate(np.split(np.arange(filters), operation.groups)):
        weight[rows, group * depth : (group + 1) * depth] = operation.weight[rows]
    return _convolved(to, layer, x, "Conv2D", weight.transpose(2, 3, 1, 0), 3, operation.stride, operation.padding)


def depthwise(to: Layers, layer: Layer, x: Value) -> Value:
    operation: DepthwiseConv2d = layer.operation
    weight = operation.weight.transpose(1, 2, 0)[:, :, :, None]
    return _convolved(to, layer, x, "DepthwiseConv2D", weight, 2, operation.stride, operation.padding)


def mean(to: Layers, layer: Layer, x: Value) -> Value:
    """A depthwise convolution of ones: hls4ml's own average divides and cuts the quotient, where a graph rounds the sum times a
    reciprocal."""
    operation: AvgPool2d = layer.operation
    weight = np.ones((*operation.kernel, operation.requant.channels, 1), np.int64)
    return _convolved(to, layer, x, "DepthwiseConv2D", weight, 2, operation.stride, operation.padding)


def linear(to: Layers, layer: Layer, x: Value) -> Value:
    operation: Linear = layer.operation
    vector = to.reshaped(x, (operation.weight.shape[1],), f"{layer.output.identifier}_flat")
    sizes = {"n_in": operation.weight.shape[1], "n_out": operation.weight.shape[0]}
    return _summed(to, layer, vector, "Dense", operation.weight.T, 1, (operation.weight.shape[0],), **sizes)


def scale(to: Layers, layer: Layer, x: Value) -> Value:
    """One product for each element, so that the multiplier goes into it."""
    operation: Scale = layer.operation
    step = Step.of(layer)
    codes = operation.weight.astype(object) * step.multiplier * step.factor
    bias = operation.requant.bias.astype(object) * step.multiplier * step.factor
    result, exact = _result(layer)
    name = layer.output.identifier
    made = _normalised(to, name if exact else f"{name}_wide", x, result, (codes, step.frac - x.type.frac), (bias, step.frac))
    return made if exact else clipped(to, name, made, operation.requant.lo, operation.requant.hi)


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """A requantise step without powers of two in its multipliers: ``(sum + bias) * multiplier * factor`` at the binary point ``frac``.

    multiplier, factor : Python integers (C,); factors are powers of two, and that of the channel with the finest point is 1
    """

    multiplier: np.ndarray
    factor: np.ndarray
    frac: int

    @staticmethod
    def of(layer: Layer) -> Step:
        requant: Requant = layer.operation.requant
        twos = np.array([(int(m) & -int(m)).bit_length() - 1 for m in requant.multiplier], np.int64)
        shift = requant.shift - twos
        factor = np.array([1 << int(lead) for lead in shift.max() - shift], object)
        return Step(multiplier=(requant.multiplier >> twos).astype(object), factor=factor,
                    frac=layer.output.fmt.frac + int(shift.max()))


def _convolved(to: Layers, layer: Layer, x: Value, kind: str, weight: np.ndarray, axis: int, stride: int, padding: int) -> Value:
    """A convolution of a kernel (KH, KW, C, filters or 1) whose output channels lie on ``axis``."""
    shape = channels_last(layer.output.shape)
    image = to.reshaped(x, channels_last(layer.inputs[0].shape), f"{layer.output.identifier}_image")
    height, width = weight.shape[:2]
    sizes = {"in_height": image.shape[0], "in_width": image.shape[1], "n_chan": image.shape[2], "out_height": shape[0],
             "out_width": shape[1], "n_filt": shape[2], "filt_height": height, "filt_width": width, "data_format": "channels_last"}
    places = {"stride_height": stride, "stride_width": stride} | _pads(image.shape[:2], shape[:2], (height, width), stride, padding)
    return _summed(to, layer, image, kind, weight, axis, shape, **sizes, **places)


def _pads(image: tuple[int, ...], out: tuple[int, ...], kernel: tuple[int, int], stride: int, padding: int) -> dict[str, int]:
    """Pads, without rows and columns at the end that no window reaches."""
    used = [(count - 1) * stride + taps - size - padding for count, taps, size in zip(out, kernel, image, strict=True)]
    bottom, right = (max(pad, 0) for pad in used)
    return {"pad_top": padding, "pad_left": padding, "pad_bottom": bottom, "pad_right": right}


def _summed(to: Layers, layer: Layer, x: Value, kind: str, weight: np.ndarray, axis: int, shape: tuple[int, ...],
            **attributes: Any) -> Value:
    """A layer of sums, and what it needs behind it to give the step's codes."""
    requant: Requant = layer.operation.requant
    step, name = Step.of(layer), layer.output.identifier
    scaled = bool((step.multiplier != 1).any())
    factor = np.ones_like(step.factor) if scaled else step.factor
    frac = x.type.frac if scaled else step.frac
    codes = weight.astype(object) * factor.reshape([-1 if k == axis else 1 for k in range(weight.ndim)])
    bias = requant.bias.astype(object) * factor
    accum = spanning(*_partial_sums(layer, factor), frac)
    types = {"weight": holding(codes.flat, frac - x.type.frac), "bias": holding(bias, frac), "accum": accum}
    key = "depthwise_data" if kind == "DepthwiseConv2D" else "weight_data"
    attributes |= {key: _values(codes, frac - x.type.frac), "bias_data": _values(bias, frac)}
    result, exact = _result(layer)
    last = name if exact else f"{name}_wide"
    made = to.add(f"{name}_sums" if scaled else last, kind, (x,), shape, accum if scaled else result, types, **attributes)
    if scaled:
        made = _normalised(to, last, made, result, (step.multiplier * step.factor, step.frac - x.type.frac), (bias * 0, 0))
    return made if exact else clipped(to, name, made, requant.lo, requant.hi)


Codes = tuple[np.ndarray, int]
"""Python integers, and their binary point."""


def _normalised(to: Layers, name: str, x: Value, result: ApFixed, factor: Codes, bias: Codes) -> Value:
    """Each channel times a factor, plus a bias; both (C,)."""
    if (_values(*factor) == 1).all() and not bias[0].any():
        return to.cast(x, result, name)  # hls4ml leaves out a factor of 1, and the cast with it
    types = {"scale": holding(factor[0], factor[1]), "bias": holding(bias[0], bias[1])}
    return to.add(name, "BatchNormalization", (x,), x.shape, result, types, n_in=int(np.prod(x.shape)), n_filt=x.shape[-1],
                  scale_data=_values(*factor), bias_data=_values(*bias))


def _partial_sums(layer: Layer, factor: np.ndarray) -> Interval:
    """The range of everything that an accumulator holds on its way: products, sums of some of them, with the bias and without."""
    bias = layer.operation.requant.bias.astype(object) * factor
    low, high = (ends * factor for ends in accumulator(layer.operation, layer.inputs[0].reach))
    return min(min(low), min(low + bias), 0), max(max(high), max(high + bias), 0)


def _result(layer: Layer) -> tuple[ApFixed, bool]:
    """The type of a step's codes, and whether its saturation is the step's."""
    operation, requant = layer.operation, layer.operation.requant
    free = reach(replace(operation, requant=replace(requant, **_FREE)), [t.reach for t in layer.inputs])
    return limiting(free, requant.lo, requant.hi, layer.output.fmt.frac, requant.rounding)


def _values(codes: np.ndarray, frac: int) -> np.ndarray:
    """Codes as values; float64 holds them, as weights, multipliers and biases have at most 48 bits beside powers of two."""
    return np.ldexp(codes.astype(np.float64), -frac)
