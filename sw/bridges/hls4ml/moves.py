"""Layers without weights: maxima, sums of two tensors, limits, tables, and channels and pixels that only move."""

from __future__ import annotations

import numpy as np

from hw.spec.fixed import Rounding
from sw.bridges.hls.plan import Layer, Tensor
from sw.bridges.hls4ml.formats import limiting, spanning
from sw.bridges.hls4ml.layers import Layers, Value, channels_last
from sw.bridges.hls4ml.tables import clipped, looked_up

__all__ = ["add", "clip", "concat", "most", "shuffle", "shuffle_join", "slice_", "table", "upsample"]


def most(to: Layers, layer: Layer, x: Value) -> Value:
    """A maximum of windows. hls4ml's pad is the code with only the top bit set, which is the largest of an unsigned type and not
    the smallest: there the image is padded by zeros first."""
    operation, name = layer.operation, layer.output.identifier
    image, shape, pad = _image(to, layer, 0, x), channels_last(layer.output.shape), operation.padding
    if pad and not x.type.signed:
        sizes = [size + 2 * pad for size in image.shape[:2]]
        padded = (*sizes, image.shape[2])
        image = to.add(f"{name}_padded", "ZeroPadding2D", (image,), padded, image.type, inherited=True, in_height=image.shape[0],
                       in_width=image.shape[1], out_height=sizes[0], out_width=sizes[1], n_chan=image.shape[2], pad_top=pad,
                       pad_bottom=pad, pad_left=pad, pad_right=pad, data_format="channels_last")
        pad = 0
    return to.add(name, "MaxPooling2D", (image,), shape, image.type, {"accum": image.type}, in_height=image.shape[0],
                  in_width=image.shape[1], out_height=shape[0], out_width=shape[1], n_filt=shape[2], pool_height=operation.kernel,
                  pool_width=operation.kernel, stride_height=operation.stride, stride_width=operation.stride, pad_top=pad,
                  pad_bottom=pad, pad_left=pad, pad_right=pad, data_format="channels_last")


def add(to: Layers, layer: Layer, a: Value, b: Value) -> Value:
    operation, name = layer.operation, layer.output.identifier
    ends = [t.reach for t in layer.inputs]
    free = sum(low for low, _ in ends), sum(high for _, high in ends)
    result, exact = limiting(free, operation.lo, operation.hi, a.type.frac, Rounding.TRN)
    sides = (_image(to, layer, 0, a), _image(to, layer, 1, b))
    made = to.add(name if exact else f"{name}_wide", "Merge", sides, sides[0].shape, result, op="add")
    return made if exact else clipped(to, name, made, operation.lo, operation.hi)


def clip(to: Layers, layer: Layer, x: Value) -> Value:
    """By a type's saturation where one has these limits, else by a table."""
    operation = layer.operation
    result, exact = limiting(layer.inputs[0].reach, operation.lo, operation.hi, x.type.frac, Rounding.TRN)
    if exact:
        return to.cast(x, result, layer.output.identifier)
    narrow = to.cast(x, result, f"{layer.output.identifier}_wide")
    return clipped(to, layer.output.identifier, narrow, operation.lo, operation.hi)


def table(to: Layers, layer: Layer, x: Value) -> Value:
    return looked_up(to, layer.output.identifier, x, layer.output.fmt.frac, lambda codes: layer.operation.values[codes & 0xFF])


def concat(to: Layers, layer: Layer, *xs: Value) -> Value:
    """hls4ml joins two at a time."""
    name = layer.output.identifier
    images = [_image(to, layer, k, x) for k, x in enumerate(xs)]
    made = images[0]
    for k, image in enumerate(images[1:], 2):
        made = _joined(to, name if k == len(images) else f"{name}_{k}", made, image)
    return made


def shuffle(to: Layers, layer: Layer, x: Value) -> Value:
    return _shuffled(to, layer, x, layer.operation.groups)


def shuffle_join(to: Layers, layer: Layer, left: Value, right: Value) -> Value:
    name = layer.output.identifier
    joined = _joined(to, f"{name}_joined", _image(to, layer, 0, left), _image(to, layer, 1, right))
    return _shuffled(to, layer, joined, 2)


def slice_(to: Layers, layer: Layer, x: Value) -> Value:
    """Channels cut out: as columns of an image that has a row for each pixel."""
    operation, name = layer.operation, layer.output.identifier
    channels, pixels = layer.inputs[0].shape[0], _pixels(layer.inputs[0])
    kept = operation.stop - operation.start
    cut = to.add(f"{name}_cut", "Cropping2D", (x,), (pixels, kept, 1), x.type, inherited=True, in_height=pixels, in_width=channels,
                 out_height=pixels, out_width=kept, n_chan=1, crop_top=0, crop_bottom=0, crop_left=operation.start,
                 crop_right=channels - operation.stop, data_format="channels_last")
    return to.reshaped(cut, channels_last(layer.output.shape), name)


def upsample(to: Layers, layer: Layer, x: Value) -> Value:
    image, shape = _image(to, layer, 0, x), channels_last(layer.output.shape)
    return to.add(layer.output.identifier, "Resize", (image,), shape, x.type, algorithm="nearest", in_height=image.shape[0],
                  in_width=image.shape[1], out_height=shape[0], out_width=shape[1], n_chan=shape[2], data_format="channels_last")


def _image(to: Layers, layer: Layer, which: int, x: Value) -> Value:
    """An input as (H, W, C), which a Dense layer's output is not."""
    return to.reshaped(x, channels_last(layer.inputs[which].shape), f"{layer.output.identifier}_image{which}")


def _joined(to: Layers, name: str, a: Value, b: Value) -> Value:
    """Channels behind each other, in a type that holds both."""
    result = spanning(min(a.type.low, b.type.low), max(a.type.high, b.type.high), a.type.frac)
    shape = (*a.shape[:2], a.shape[2] + b.shape[2])
    return to.add(name, "Concatenate", (a, b), shape, result, axis=-1, op="concatenate3d")


def _shuffled(to: Layers, layer: Layer, x: Value, groups: int) -> Value:
    """Pixels of ``groups`` times k channels, transposed."""
    name, channels, pixels = layer.output.identifier, layer.output.shape[0], _pixels(layer.output)
    apart = to.reshaped(x, (pixels, groups, channels // groups), f"{name}_apart")
    turned = to.add(f"{name}_turned", "Transpose", (apart,), (pixels, channels // groups, groups), x.type, perm=[0, 2, 1])
    return to.reshaped(turned, channels_last(layer.output.shape), name)


def _pixels(tensor: Tensor) -> int:
    return int(np.prod(tensor.shape[1:]))
