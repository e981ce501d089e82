"""Shapes of golden operations' results, known before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hw.spec.ops import (
    Add,
    AvgPool2d,
    Clip,
    Concat,
    Conv2d,
    DeformConv2d,
    DeformDepthwiseConv2d,
    DepthwiseConv2d,
    Linear,
    MaxPool2d,
    Scale,
    Shuffle,
    ShuffleJoin,
    Slice,
    Table,
    Upsample2x,
)

Shape = tuple[int, int, int]


def output_shape(operation: Any, inputs: Sequence[Shape]) -> Shape:
    """Shape (C, H, W) of an operation's result; ValueError says which input does not fit, or that the core has no such operation."""
    rule = _RULES.get(type(operation))
    if rule is None:
        raise ValueError(f"{operation.op} is not an operation of this core")
    arity = 2 if type(operation) in (DeformConv2d, DeformDepthwiseConv2d, ShuffleJoin, Add) else 1
    if type(operation) is not Concat and len(inputs) != arity:
        raise ValueError(f"{operation.op} needs {arity} input{'s' if arity > 1 else ''}, not {len(inputs)}")
    shape = rule(operation, *inputs)
    if min(shape) < 1:
        raise ValueError(f"{operation.op}: the window does not fit an input of {inputs[0][1]}x{inputs[0][2]}")
    requant = getattr(operation, "requant", None)
    if requant is not None and requant.channels != shape[0]:
        raise ValueError(f"{operation.op} has {shape[0]} output channels, its requantise step {requant.channels}")
    return shape


def _channels(operation: Any, expected: int, shape: Shape) -> None:
    if shape[0] != expected:
        raise ValueError(f"{operation.op} expects {expected} input channels, not {shape[0]}")


def _window(size: int, kernel: int, stride: int, padding: int) -> int:
    return (size + 2 * padding - kernel) // stride + 1


def _windows(shape: Shape, channels: int, kernel: tuple[int, int], operation: Any) -> Shape:
    rows = _window(shape[1], kernel[0], operation.stride, operation.padding)
    return channels, rows, _window(shape[2], kernel[1], operation.stride, operation.padding)


def _conv(operation: Conv2d, x: Shape) -> Shape:
    oc, _, kh, kw = operation.weight.shape
    _channels(operation, operation.in_channels, x)
    return _windows(x, oc, (kh, kw), operation)


def _linear(operation: Linear, x: Shape) -> Shape:
    _channels(operation, operation.weight.shape[1], x)
    if x[1:] != (1, 1):
        raise ValueError(f"linear expects a single pixel, not {x[1]}x{x[2]}")
    return operation.weight.shape[0], 1, 1


def _depthwise(operation: DepthwiseConv2d, x: Shape) -> Shape:
    _channels(operation, operation.weight.shape[0], x)
    return _windows(x, x[0], (3, 3), operation)


def _deform(operation: DeformDepthwiseConv2d, x: Shape, s: Shape) -> Shape:
    _channels(operation, operation.weight.shape[0], x)
    rows, cols = (-(-size // operation.stride) for size in x[1:])
    if s != (1, rows, cols):
        raise ValueError(f"{operation.op} expects offsets of shape {(1, rows, cols)}, not {s}")
    return x[0], rows, cols


def _deform_conv(operation: DeformConv2d, x: Shape, s: Shape) -> Shape:
    oc, per_group, kh, kw = operation.weight.shape
    _channels(operation, per_group * operation.groups, x)
    reach = tuple(operation.dilation * (side - 1) + 1 for side in (kh, kw))
    shape = _windows(x, oc, (reach[0], reach[1]), operation)
    if s != (2 * kh * kw, *shape[1:]):
        raise ValueError(f"{operation.op} expects offsets of shape {(2 * kh * kw, *shape[1:])}, not {s}")
    return shape


def _slice(operation: Slice, x: Shape) -> Shape:
    if operation.stop > x[0]:
        raise ValueError(f"slice of channels {operation.start}..{operation.stop - 1} needs {operation.stop} channels, not {x[0]}")
    return operation.stop - operation.start, x[1], x[2]


def _same(operation: Any, a: Shape, b: Shape) -> Shape:
    if a != b:
        raise ValueError(f"{operation.op} needs two tensors of one shape, not {a} and {b}")
    return a


def _join(operation: ShuffleJoin, a: Shape, b: Shape) -> Shape:
    channels, rows, cols = _same(operation, a, b)
    return 2 * channels, rows, cols


def _scale(operation: Scale, x: Shape) -> Shape:
    _channels(operation, operation.weight.shape[0], x)
    return x


def _concat(operation: Concat, *xs: Shape) -> Shape:
    if len(xs) < 2 or len({x[1:] for x in xs}) != 1:
        raise ValueError(f"concat needs two or more tensors of one height and width, not {list(xs)}")
    return sum(x[0] for x in xs), xs[0][1], xs[0][2]


def _shuffle(operation: Shuffle, x: Shape) -> Shape:
    operation.order(x[0])
    return x


_RULES: dict[type, Callable[..., Shape]] = {
    Conv2d: _conv,
    Linear: _linear,
    DepthwiseConv2d: _depthwise,
    DeformConv2d: _deform_conv,
    DeformDepthwiseConv2d: _deform,
    MaxPool2d: lambda op, x: _windows(x, x[0], (op.kernel, op.kernel), op),
    AvgPool2d: lambda op, x: _windows(x, x[0], op.kernel, op),
    Slice: _slice,
    ShuffleJoin: _join,
    Add: _same,
    Upsample2x: lambda op, x: (x[0], 2 * x[1], 2 * x[2]),
    Scale: _scale,
    Table: lambda op, x: x,
    Clip: lambda op, x: x,
    Concat: _concat,
    Shuffle: _shuffle,
}
