"""One function per kind of layer: the value that it makes of the values that it reads.

Convolutions, linear layers and average pools become accumulators (`Sums`), which the next quantiser stores; a BatchNorm
between them changes their unit and offset. Max pools, and a ReLU on codes, are nodes of their own.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import nn

from hw.spec import ops
from sw.quant.brevitas.facts import Quantiser, quantiser_of, weights_of
from sw.quant.brevitas.values import Codes, Make, Shape, Sums, Total, Value, codes_in, scaled
from sw.quant.brevitas.writer import GraphWriter
from sw.tracing.problems import RefusedError

__all__ = ["add", "check_alone", "layer_value", "relu"]

_PASSED_OVER = (nn.Identity, nn.Dropout, nn.Dropout2d)
_WEIGHTED = ("QuantConv2d", "QuantLinear")


def layer_value(writer: GraphWriter, layer: Any, place: str, values: list[Value], shape: Shape) -> Value:
    """What a layer makes of ``values``; ``shape`` (C, H, W) is that of its output. Raises RefusedError."""
    value, kind = values[0], type(layer).__name__
    if isinstance(layer, _PASSED_OVER) or (isinstance(layer, nn.Flatten) and layer.start_dim == 1):
        return value
    if kind in ("QuantIdentity", "QuantReLU"):
        return _activation(writer, layer, place, value, with_relu=kind == "QuantReLU")
    if kind in _WEIGHTED:
        sums = _weighted(layer, place, _quantised(writer, place, "input_quant", layer.input_quant, value), shape)
        return _quantised(writer, place, "output_quant", layer.output_quant, sums)
    if kind == "QuantEltwiseAdd":
        left, right = (_quantised(writer, f"{place}.{side}", "input_quant", layer.input_quant, v)
                       for side, v in zip("ab", values, strict=True))
        return _quantised(writer, place, "output_quant", layer.output_quant, add(place, left, right, shape))
    return _plain_layer(writer, layer, place, value, shape)


def _plain_layer(writer: GraphWriter, layer: Any, place: str, value: Value, shape: Shape) -> Value:
    """What a layer of torch.nn makes of a value."""
    if isinstance(layer, nn.BatchNorm2d):
        return _batch_norm(layer, value)
    if isinstance(layer, nn.ReLU):
        return relu(writer, place, value)
    if isinstance(layer, nn.MaxPool2d):
        return _max_pool(writer, layer, place, value, shape)
    if isinstance(layer, (nn.AvgPool2d, nn.AdaptiveAvgPool2d)):
        return _avg_pool(layer, place, value, shape)
    raise RefusedError("has no integer operation", "replace it by a supported layer")


def check_alone(layer: Any) -> None:
    """Refuse what is wrong with a layer whatever its input is, which itself was refused."""
    for name in ("input_quant", "act_quant", "output_quant"):
        proxy = getattr(layer, name, None)
        if proxy is not None and proxy.is_quant_enabled:
            quantiser_of(proxy, relu=False)
    if type(layer).__name__ in _WEIGHTED:
        _operation(layer, weights_of(layer, Fraction(1)).codes, (1, 1, 1))


# -- quantisers and activations -----------------------------------------------------------------------------------


def _activation(writer: GraphWriter, layer: Any, place: str, value: Value, *, with_relu: bool) -> Value:
    if layer.input_quant.is_quant_enabled:
        raise RefusedError("has an input quantiser of its own", "leave input_quant out")
    if not layer.act_quant.is_quant_enabled:
        return relu(writer, place, value) if with_relu else value
    return writer.quantise(place, value, quantiser_of(layer.act_quant, relu=with_relu))


def _quantised(writer: GraphWriter, place: str, name: str, proxy: Any, value: Value) -> Value:
    """The value behind a layer's own input or output quantiser, if that is enabled."""
    return writer.quantise(f"{place}.{name}", value, quantiser_of(proxy, relu=False)) if proxy.is_quant_enabled else value


def relu(writer: GraphWriter, place: str, value: Value) -> Value:
    """A ReLU: of what awaits a quantiser a limit to its codes, of codes a Clip, of codes that are never negative nothing."""
    if isinstance(value, (Sums, Total)):
        return replace(value, relu=True)
    source = codes_in(value)
    if source.quantiser.low >= 0:
        return source
    operation = ops.Clip(lo=0, hi=source.quantiser.high)
    return writer.append(place, source.shape, operation, (source.name,), replace(source.quantiser, low=0))


def add(place: str, left: Value, right: Value, shape: Shape) -> Total:
    """The sum of two tensors of one scale, or RefusedError."""
    a, b = codes_in(left), codes_in(right)
    if a.quantiser.scale != b.quantiser.scale:
        raise RefusedError(f"adds tensors of scales {float(a.quantiser.scale):.6g} and {float(b.quantiser.scale):.6g}",
                           "share one quantiser between both sides")
    return Total(place=place, shape=shape, inputs=(a.name, b.name), scale=a.quantiser.scale)


# -- convolutions and linear layers -------------------------------------------------------------------------------


def _weighted(layer: Any, place: str, value: Value, shape: Shape) -> Sums:
    source = codes_in(value)
    weights = weights_of(layer, source.quantiser.scale)
    make, codes = _operation(layer, weights.codes, source.shape)
    least, most = _reach(codes, source.quantiser)
    return Sums(place=place, shape=shape, inputs=(source.name,), make=make, offset=weights.biases,
                unit=[scale * source.quantiser.scale for scale in weights.scales], least=least, most=most)


def _reach(weight: np.ndarray, source: Quantiser) -> tuple[list[int], list[int]]:
    """The smallest and the largest accumulator of each output channel."""
    flat = weight.reshape(weight.shape[0], -1)
    positive, negative = np.maximum(flat, 0).sum(1), np.minimum(flat, 0).sum(1)
    low, high = min(source.low, 0), max(source.high, 0)  # padding is 0
    return [int(v) for v in positive * low + negative * high], [int(v) for v in positive * high + negative * low]


def _operation(layer: Any, weight: np.ndarray, shape: Shape) -> tuple[Make, np.ndarray]:
    """How to make a layer's operation on a tensor (C, H, W), and its weight codes as the operation lays them out."""
    return _linear(weight, shape) if weight.ndim == 2 else _conv(layer, weight)


def _linear(weight: np.ndarray, shape: Shape) -> tuple[Make, np.ndarray]:
    """A linear layer; one that reads a flattened image is a convolution with a window as large as the image."""
    if shape[1:] == (1, 1):
        return lambda signs, requant: ops.Linear(weight=weight * signs[:, None], requant=requant), weight
    window = weight.reshape(-1, *shape)
    return lambda signs, requant: ops.Conv2d(weight=window * signs[:, None, None, None], requant=requant), window


def _conv(layer: Any, weight: np.ndarray) -> tuple[Make, np.ndarray]:
    if _one("dilation", layer.dilation) != 1 or layer.padding_mode != "zeros":
        raise RefusedError(f"has dilation {layer.dilation} or pads with {layer.padding_mode}", "use dilation 1 and zeros")
    stride, padding = _one("stride", layer.stride), _one("padding", layer.padding)
    if layer.groups == weight.shape[0] == layer.in_channels and weight.shape[1:] == (1, 3, 3):
        return lambda signs, requant: ops.DepthwiseConv2d(weight=weight[:, 0] * signs[:, None, None], requant=requant,
                                                          stride=stride, padding=padding), weight
    return lambda signs, requant: ops.Conv2d(weight=weight * signs[:, None, None, None], requant=requant, stride=stride,
                                             padding=padding, groups=int(layer.groups)), weight


def _batch_norm(norm: nn.BatchNorm2d, value: Value) -> Sums:
    """A BatchNorm merged into the accumulators before it."""
    if not isinstance(value, Sums) or value.relu:
        raise RefusedError("does not follow a convolution straight", "merge it into the convolution before it")
    if norm.running_mean is None or norm.running_var is None:
        raise RefusedError("keeps no running statistics", "set track_running_stats=True")
    ones, zeros = torch.ones_like(norm.running_mean), torch.zeros_like(norm.running_mean)
    gamma, beta = (ones if norm.weight is None else norm.weight), (zeros if norm.bias is None else norm.bias)
    factor = gamma.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    shift = beta.double() - norm.running_mean.double() * factor
    return scaled(value, [Fraction(float(v)) for v in factor], [Fraction(float(v)) for v in shift])


# -- pools --------------------------------------------------------------------------------------------------------


def _max_pool(writer: GraphWriter, pool: nn.MaxPool2d, place: str, value: Value, shape: Shape) -> Codes:
    source = codes_in(value)
    if pool.ceil_mode or pool.return_indices or _one("dilation", pool.dilation) != 1:
        raise RefusedError("uses ceil_mode, indices or dilation", "use the plain form")
    kernel = _one("window", pool.kernel_size)
    stride = kernel if pool.stride is None else _one("stride", pool.stride)
    operation = ops.MaxPool2d(kernel=kernel, stride=stride, padding=_one("padding", pool.padding))
    return writer.append(place, shape, operation, (source.name,), source.quantiser)


def _avg_pool(pool: Any, place: str, value: Value, shape: Shape) -> Sums:
    """The sum over the window, in a unit that divides by its size."""
    source = codes_in(value)
    if type(pool).__module__.startswith("brevitas."):
        raise RefusedError("truncates the mean to a bit width", "use the pool of torch.nn and a QuantIdentity behind it")
    window, stride, padding = _window(pool, source.shape)
    count, channels, grid = window[0] * window[1], shape[0], source.quantiser
    return Sums(place=place, shape=shape, inputs=(source.name,), unit=[grid.scale / count] * channels,
                make=lambda signs, requant: ops.AvgPool2d(kernel=window, requant=requant, stride=stride, padding=padding),
                offset=[Fraction(0)] * channels, least=[min(grid.low, 0) * count] * channels,
                most=[grid.high * count] * channels)


def _window(pool: Any, shape: Shape) -> tuple[tuple[int, int], int, int]:
    """Window, stride and padding of an average pool on a tensor (C, H, W)."""
    if isinstance(pool, nn.AdaptiveAvgPool2d):
        if pool.output_size not in (1, (1, 1)):
            raise RefusedError(f"has output size {pool.output_size}", "use output size 1, or AvgPool2d with a fixed window")
        return (shape[1], shape[2]), 1, 0
    padding = _one("padding", pool.padding)
    if pool.ceil_mode or pool.divisor_override is not None or (padding and not pool.count_include_pad):
        raise RefusedError("uses ceil_mode, divisor_override or count_include_pad=False", "use the plain form")
    size = pool.kernel_size
    window = (int(size[0]), int(size[1])) if isinstance(size, (tuple, list)) else (int(size), int(size))
    return window, _one("stride", size if pool.stride is None else pool.stride), padding


def _one(name: str, value: Any) -> int:
    """A number that is the same for rows and columns, or RefusedError."""
    if isinstance(value, (tuple, list)):
        if len(set(value)) != 1:
            raise RefusedError(f"has {name} {tuple(value)}", "use the same for rows and columns")
        value = value[0]
    if isinstance(value, str):
        raise RefusedError(f"has {name} {value!r}", "give a number")
    return int(value)
