"""Quantisers, limits, tables and pools of a model."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import onnx

from hw.spec import ops
from hw.spec.fixed import Rounding
from sw.bridges.qonnx.constants import activation_quantiser, quantised
from sw.bridges.qonnx.values import Codes, Const, Limited, Lookup, Padded, Sums, Total, Value, limited
from sw.bridges.qonnx.visit import Visit, window, windows_shape
from sw.tracing.problems import RefusedError

__all__ = ["POINTS", "QUANT_DOMAINS", "quant"]

QUANT_DOMAINS = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")
"""Domains in which ``Quant`` has been published."""


def quant(visit: Visit) -> Value:
    """A ``Quant`` node, of a constant or of an activation."""
    if len(visit.values) != 4:
        raise RefusedError(f"has {len(visit.values)} inputs", "give the value, scale, zero point and bit width")
    parameters = [visit.const(i, name) for i, name in ((1, "scales"), (2, "zero points"), (3, "bit widths"))]
    value = visit.value(0)
    if isinstance(value, Const):
        return quantised(visit.attributes, value, parameters)
    quantiser = activation_quantiser(visit.attributes, parameters)
    hinted = Rounding.RND if visit.hint == Rounding.RND.name else None
    return visit.building.quantise(visit.place, visit.output, value, replace(quantiser, hinted=hinted))


# -- limits -------------------------------------------------------------------------------------------------------------


def _relu(visit: Visit) -> Value:
    return _limit(visit, Fraction(0), None)


def _clip(visit: Visit) -> Value:
    ends = []
    for index, name in ((1, "min"), (2, "max")):
        number: float | None = None
        if visit.value(index) is not None:
            array = visit.const(index, "limits").value
            number = float(array.reshape(())) if array.size == 1 else math.nan
        elif visit.attributes.has(name):
            number = visit.attributes.number(name, 0)
        if number is not None and math.isnan(number):
            raise RefusedError("has limits that are no numbers", "give one number per limit")
        ends.append(None if number is None or math.isinf(number) else Fraction(number))
    return _limit(visit, *ends, always=True)


def _limit(visit: Visit, low: Fraction | None, high: Fraction | None, *, always: bool = False) -> Value:
    value: Any = visit.value(0)
    if isinstance(value, (Sums, Total, Limited)):
        return limited(value, low, high)  # type: ignore[no-any-return]
    source = visit.image()
    if not always and low is not None and source.quantiser.low >= source.quantiser.code(low):
        return source
    return limited(Limited(place=visit.place, name=visit.output, source=source), low, high)  # type: ignore[no-any-return]


# -- tables -------------------------------------------------------------------------------------------------------------


def _cast(visit: Visit) -> Value:
    """To integers: the codes themselves, where one code is one. Float types change nothing."""
    kind, value = visit.attributes.integer("to", onnx.TensorProto.FLOAT), visit.value(0)
    if kind in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE):
        return value if not isinstance(value, Const) else value.map(lambda a: a.astype(np.float32))
    if isinstance(value, Const) and kind in (onnx.TensorProto.INT64, onnx.TensorProto.INT32):
        return Const(value=value.value.astype(np.int64))
    source = value.plain if isinstance(value, Sums) else visit.image()
    unit = value.unit if isinstance(value, Sums) else (source.quantiser.scale,) if source else ()
    moved = isinstance(value, Sums) and (any(value.offset) or value.low is not None or value.high is not None)
    if source is None or set(unit) != {Fraction(1)} or moved or kind not in (onnx.TensorProto.INT64, onnx.TensorProto.INT32):
        raise RefusedError("casts values that are no codes to integers", "cast codes, as indices of a table")
    return Lookup(place=visit.place, source=source)


def _gather(visit: Visit) -> Value:
    data, index = visit.const(0, "values"), visit.value(1)
    if not isinstance(index, Lookup) or index.values is not None or data.value.ndim != 1 or visit.attributes.integer("axis", 0):
        raise RefusedError("gathers something else than a table's values by codes", "use a table of one axis, read by codes")
    if not np.isfinite(data.value).all() or data.value.dtype.kind != "f":
        raise RefusedError("has a table of values that are no finite floats", "give finite values")
    return Lookup(place=visit.place, source=index.source, values=data.value)


# -- pools --------------------------------------------------------------------------------------------------------------


def _plain(visit: Visit) -> list[int]:
    """The window of a pool without ceil mode, dilation or indices."""
    attributes = visit.attributes
    odd = attributes.integer("ceil_mode", 0) or attributes.integers("dilations", [1, 1]) != [1, 1] or len(visit.node.output) > 1
    if odd or attributes.integer("storage_order", 0):
        raise RefusedError("uses ceil_mode, a dilation, or indices", "use the plain form")
    return attributes.integers("kernel_shape", [])


def _max_pool(visit: Visit) -> Value:
    source, kernel = visit.image(), _plain(visit)
    stride, padding = window(visit, kernel)
    if len(set(kernel)) != 1:
        raise RefusedError(f"has the window {kernel}", "use a square window")
    shape = windows_shape(source.shape, source.shape[0], kernel, stride, padding)
    operation = ops.MaxPool2d(kernel=kernel[0], stride=stride, padding=padding)
    return visit.building.append(visit.place, visit.output, shape, operation, (source.name,), source.quantiser)


def _avg_pool(visit: Visit) -> Value:
    padded, kernel = visit.value(0), _plain(visit)
    source = padded.source if isinstance(padded, Padded) else visit.image()
    stride, padding = window(visit, kernel)
    if padding and not visit.attributes.integer("count_include_pad", 0):
        raise RefusedError("leaves padding out of its means", "set count_include_pad, or do not pad")
    return _mean(visit, source, (kernel[0], kernel[1]), stride, padding + (padded.padding if isinstance(padded, Padded) else 0))


def _mean(visit: Visit, source: Codes, kernel: tuple[int, int], stride: int, padding: int) -> Sums:
    """The sum over a window, in a unit that divides by its size."""
    shape = windows_shape(source.shape, source.shape[0], kernel, stride, padding)
    count, channels, grid = kernel[0] * kernel[1], shape[0], source.quantiser

    def make(signs: np.ndarray, requant: ops.Requant) -> ops.AvgPool2d:
        if (signs != 1).any():
            raise ValueError("a mean cannot be negated or multiplied by 0")
        return ops.AvgPool2d(kernel=kernel, requant=requant, stride=stride, padding=padding)

    return Sums(place=visit.place, shape=shape, inputs=(source.name,), make=make, unit=(grid.scale / count,) * channels,
                offset=(Fraction(0),) * channels, mean=count, least=(min(grid.low, 0) * count,) * channels,
                most=(max(grid.high, 0) * count,) * channels)


def _global_pool(visit: Visit) -> Value:
    source = visit.image()
    return _mean(visit, source, (source.shape[1], source.shape[2]), 1, 0)


def _reduce_mean(visit: Visit) -> Value:
    source = visit.image()
    axes = sorted(axis % 4 for axis in visit.whole_numbers(1, "axes", []))
    if axes != [2, 3]:
        raise RefusedError(f"takes the mean over axes {axes}", "take it over rows and columns")
    sums = _mean(visit, source, (source.shape[1], source.shape[2]), 1, 0)
    return sums if visit.attributes.integer("keepdims", 1) else replace(sums, shape=sums.shape[:1])


def _same(visit: Visit) -> Value:
    if len(visit.node.output) > 1 and any(visit.node.output[1:]):
        raise RefusedError("has a second output", "export it in evaluation mode")
    return visit.value(0)  # type: ignore[no-any-return]


POINTS = {
    "Relu": _relu, "Clip": _clip, "Cast": _cast, "Gather": _gather, "MaxPool": _max_pool, "AveragePool": _avg_pool,
    "GlobalAveragePool": _global_pool, "ReduceMean": _reduce_mean, "Identity": _same, "Dropout": _same,
}  # fmt: skip
