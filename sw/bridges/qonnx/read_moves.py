"""Nodes that move elements and compute nothing: shapes, transposes, shuffles, slices, concatenations, padding, upsampling."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from hw.spec import ops
from sw.bridges.qonnx.model import MAX_ELEMENTS
from sw.bridges.qonnx.values import Codes, Padded, Pair, Sums, Value
from sw.bridges.qonnx.visit import Visit
from sw.tracing.problems import RefusedError

__all__ = ["MOVES", "reshaped"]


# -- shapes -------------------------------------------------------------------------------------------------------------


def _reshape(visit: Visit) -> Value:
    sizes = visit.whole_numbers(1, "shape")
    value = visit.value(0)
    if isinstance(value, Pair):
        return _join(visit, value, sizes)
    source = _shaped(visit, value)
    return reshaped(visit, source, _wanted(visit, sizes, source.shape))


def _shaped(visit: Visit, value: Any) -> Codes | Sums:
    """Codes, or sums of single pixels, whose shape can change."""
    if isinstance(value, Sums):
        if math.prod(value.shape) != value.shape[0]:
            raise RefusedError("reshapes an image of sums before it is quantised", "quantise it first")
        return value
    return visit.building.codes(value)


def _wanted(visit: Visit, sizes: list[int], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The new shape without batch; 0 keeps a size, one -1 is what is left."""
    elements = math.prod(shape)
    keeps = not visit.attributes.integer("allowzero", 0)
    sizes = [(1, *shape)[i] if n == 0 and keeps and i <= len(shape) else n for i, n in enumerate(sizes)]
    batches, rest = sizes[:1], sizes[1:]
    if rest.count(-1) == 1 and batches != [-1]:
        known = math.prod(n for n in rest if n != -1)
        rest = [elements // known if n == -1 and known else n for n in rest]
    same = batches in ([-1], [1]) or (visit.batch is not None and batches == [visit.batch])
    if not same or not 1 <= len(rest) <= 6 or min(rest) < 1 or math.prod(rest) != elements:
        raise RefusedError(f"reshapes (N, {', '.join(map(str, shape))}) to {sizes}", "keep the batch in front, and all elements")
    return tuple(rest)


def reshaped(visit: Visit, value: Codes | Sums, shape: tuple[int, ...]) -> Value:
    """A value in another shape of as many elements; codes in a new order of channels become a shuffle."""
    if isinstance(value, Sums):
        if shape[0] != len(value.unit) or math.prod(shape) != shape[0]:
            raise RefusedError(f"reshapes sums of shape {value.shape} to {shape}", "quantise them first")
        return replace(value, shape=shape)
    return _settled(visit, replace(value, shape=shape, order=None if value.order is None else value.order.reshape(shape)))


def _settled(visit: Visit, value: Codes) -> Codes:
    """A view whose pixels are all in place again and whose channels are shuffled, as a tensor of its own."""
    image = visit.building.tensors[value.name].shape
    groups = _hinted(visit.hint)
    if value.shape != image or (value.order is None and groups is None):
        return value
    channels, pixels = image[0], image[1] * image[2]
    order = np.arange(channels) if value.order is None else _channel_order(value.order, channels, pixels)
    candidates = [*([groups] if groups else []), *(range(2, channels) if value.order is not None else ())]
    for count in candidates:
        if order is not None and channels % count == 0 and np.array_equal(ops.Shuffle(groups=count).order(channels), order):
            return visit.building.append(visit.place, visit.output, image, ops.Shuffle(groups=count), (value.name,), value.quantiser)
    return value


def _hinted(hint: str) -> int | None:
    kind, _, count = hint.partition(":")
    return int(count) if kind == ops.Shuffle.op and count.isdecimal() and len(count) < 6 and int(count) else None


def _channel_order(order: np.ndarray, channels: int, pixels: int) -> np.ndarray | None:
    """The channel that each channel of a view is, or None where pixels were moved."""
    rows = order.reshape(channels, pixels)
    first = rows[:, 0]
    whole = not (first % pixels).any() and np.array_equal(rows - first[:, None], np.broadcast_to(np.arange(pixels), rows.shape))
    return first // pixels if whole else None


def _transpose(visit: Visit) -> Value:
    source = visit.building.codes(visit.value(0))
    rank = len(source.shape) + 1
    axes = visit.attributes.integers("perm", list(range(rank))[::-1])
    if sorted(axes) != list(range(rank)) or axes[0] != 0:
        raise RefusedError(f"transposes by {axes}", "keep the batch in front")
    size = math.prod(source.shape)
    visit.moved(size)
    order = np.arange(size, dtype=np.int32).reshape(source.shape) if source.order is None else source.order
    turned = np.ascontiguousarray(order.transpose([a - 1 for a in axes[1:]]))
    same = np.array_equal(turned.reshape(-1), np.arange(size, dtype=np.int32))
    return _settled(visit, replace(source, shape=turned.shape, order=None if same else turned))


def _flatten(visit: Visit) -> Value:
    source = _shaped(visit, visit.value(0))
    if visit.attributes.integer("axis", 1) != 1:
        raise RefusedError(f"flattens from axis {visit.attributes.integer('axis', 1)}", "flatten from axis 1")
    return reshaped(visit, source, (math.prod(source.shape),))


def _squeeze(visit: Visit) -> Value:
    source = _shaped(visit, visit.value(0))
    rank = len(source.shape) + 1
    axes = {axis % rank for axis in visit.whole_numbers(1, "axes", [i for i, n in enumerate((0, *source.shape)) if n == 1])}
    if 0 in axes or any(source.shape[axis - 1] != 1 for axis in axes) or len(axes) >= len(source.shape):
        raise RefusedError(f"squeezes axes {sorted(axes)} of {source.shape}", "squeeze axes of size 1, but for the batch and channels")
    return reshaped(visit, source, tuple(n for i, n in enumerate(source.shape, 1) if i not in axes))


def _unsqueeze(visit: Visit) -> Value:
    source = _shaped(visit, visit.value(0))
    axes = visit.whole_numbers(1, "axes")
    rank = len(source.shape) + 1 + len(axes)
    if rank > 7 or any(not -rank <= axis < rank for axis in axes) or len({axis % rank for axis in axes}) != len(axes):
        raise RefusedError(f"unsqueezes axes {axes} of {source.shape}", "give each axis once")
    places, sizes = {axis % rank for axis in axes}, iter((1, *source.shape))
    shape = tuple(1 if i in places else next(sizes) for i in range(rank))
    if 0 in places:
        raise RefusedError("puts an axis in front of the batch", "keep the batch in front")
    return reshaped(visit, source, shape[1:])


# -- channels -----------------------------------------------------------------------------------------------------------


def _cut(visit: Visit, place: str, name: str, start: int, stop: int) -> Codes:
    source = visit.image()
    if not 0 <= start < stop <= source.shape[0]:
        raise RefusedError(f"cuts channels {start}..{stop - 1} of {source.shape[0]}", "cut at least one channel that is there")
    if (start, stop) == (0, source.shape[0]) and visit.hint != ops.Slice.op:
        return source
    shape = stop - start, *source.shape[1:]
    return visit.building.append(place, name, shape, ops.Slice(start=start, stop=stop), (source.name,), source.quantiser)


def _slice(visit: Visit) -> Value:
    starts, ends = visit.whole_numbers(1, "starts"), visit.whole_numbers(2, "ends")
    axes, steps = visit.whole_numbers(3, "axes", list(range(len(starts)))), visit.whole_numbers(4, "steps", [1] * len(starts))
    source = visit.image()
    if len(starts) != 1 or len(ends) != 1 or axes not in ([1], [-3]) or steps != [1]:
        raise RefusedError(f"slices axes {axes} by steps {steps}", "slice channels only, without gaps")
    channels = source.shape[0]
    start, stop = (min(max(n + channels if n < 0 else n, 0), channels) for n in (starts[0], ends[0]))
    return _cut(visit, visit.place, visit.output, start, stop)


def _split(visit: Visit) -> list[Value]:
    source, names = visit.image(), list(visit.node.output)
    if visit.attributes.integer("axis", 0) not in (1, -3):
        raise RefusedError("splits another axis than the channels", "split channels only")
    even = -(-source.shape[0] // len(names))
    sizes = visit.whole_numbers(1, "split", [even] * (len(names) - 1) + [source.shape[0] - even * (len(names) - 1)])
    if sum(sizes) != source.shape[0] or len(sizes) != len(names) or min(sizes) < 1:
        raise RefusedError(f"splits {source.shape[0]} channels into {sizes}", "let the parts be all channels")
    ends = np.cumsum([0, *sizes]).tolist()
    return [_cut(visit, f"{visit.place}.{i}", name, ends[i], ends[i + 1]) for i, name in enumerate(names)]


def _concat(visit: Visit) -> Value:
    axis = visit.attributes.integer("axis", 0)
    parts = [visit.building.codes(value) for value in visit.values]
    if axis == 2 and len(parts) == 2 and all(len(p.shape) == 4 and p.shape[1] == 1 and p.order is None for p in parts):
        return _pair(visit, parts)
    images = [visit.image(i) for i in range(len(parts))]
    if axis not in (1, -3) or len(images) < 2 or len({image.shape[1:] for image in images}) != 1:
        raise RefusedError(f"concatenates {[p.shape for p in parts]} along axis {axis}",
                           "concatenate channels of two or more images of one size")
    grid = _common(images)
    shape = sum(image.shape[0] for image in images), *images[0].shape[1:]
    return visit.building.append(visit.place, visit.output, shape, ops.Concat(), tuple(i.name for i in images), grid)


def _common(images: list[Codes]) -> Any:
    """The one quantiser of several tensors, with the range of all."""
    grids = [image.quantiser for image in images]
    if len({(grid.fmt, grid.scale) for grid in grids}) != 1:
        raise RefusedError(f"joins tensors of the formats {', '.join(f'{g.fmt} of scale {float(g.scale):.6g}' for g in grids)}",
                           "share one quantiser between all parts")
    return replace(grids[0], low=min(g.low for g in grids), high=max(g.high for g in grids))


def _pair(visit: Visit, parts: list[Codes]) -> Pair:
    left, right = (visit.building.image(replace(p, shape=(p.shape[0], *p.shape[2:]))) for p in parts)
    if left.shape != right.shape:
        raise RefusedError(f"pairs images of the shapes {left.shape} and {right.shape}", "pair images of one shape")
    _common([left, right])
    return Pair(sides=(left, right))


def _join(visit: Visit, pair: Pair, sizes: list[int]) -> Codes:
    left, right = pair.sides
    channels, height, width = left.shape
    shape = _wanted(visit, sizes, (channels, 2, height, width))
    if shape != (2 * channels, height, width):
        raise RefusedError(f"reshapes a pair of images to {shape}", "merge the pair into the channels")
    return visit.building.append(visit.place, visit.output, shape, ops.ShuffleJoin(), (left.name, right.name), _common([left, right]))


# -- pixels -------------------------------------------------------------------------------------------------------------


def _pad(visit: Visit) -> Value:
    pads = visit.whole_numbers(1, "pads")
    value = visit.const(2, "its value").value if visit.value(2) is not None else np.float32(visit.attributes.number("value", 0))
    if visit.attributes.text("mode", "constant") != "constant" or np.any(value) or visit.value(3) is not None:
        raise RefusedError("pads with something else than zeros, or some axes only", "pad with zeros")
    source = visit.image()
    if len(pads) != 8 or pads[0:2] != [0, 0] or pads[4:6] != [0, 0] or len({*pads[2:4], *pads[6:8]}) != 1 or pads[2] < 0:
        raise RefusedError(f"pads by {pads}", "pad rows and columns by the same on all sides")
    return Padded(source=source, padding=pads[2]) if pads[2] else source


def _resize(visit: Visit) -> Value:
    source, attributes = visit.image(), visit.attributes
    scales = _scales(visit, source.shape)
    place, nearest = (attributes.text(name, default) for name, default in
                      (("coordinate_transformation_mode", "half_pixel"), ("nearest_mode", "round_prefer_floor")))
    exact = (place, nearest) in (("asymmetric", "floor"), ("half_pixel", "round_prefer_floor"), ("half_pixel", "round_prefer_ceil"))
    if attributes.text("mode", "nearest") != "nearest" or scales != [1, 1, 2, 2] or (visit.node.op_type == "Resize" and not exact):
        raise RefusedError(f"resizes by {scales} ({attributes.text('mode', 'nearest')}, {place}, {nearest})",
                           "upsample by two, nearest")
    if 4 * math.prod(source.shape) > MAX_ELEMENTS:
        raise RefusedError("makes an image that is too large", "use smaller images")
    shape = source.shape[0], 2 * source.shape[1], 2 * source.shape[2]
    return visit.building.append(visit.place, visit.output, shape, ops.Upsample2x(), (source.name,), source.quantiser)


def _scales(visit: Visit, shape: tuple[int, ...]) -> list[float]:
    """How much each axis grows: given as scales (an attribute, or an input of either place), or as sizes."""
    index = 1 if visit.node.op_type == "Upsample" or len(visit.values) == 2 else 2
    if visit.value(3) is not None:
        sizes = visit.whole_numbers(3, "sizes")
        return [1.0, *(float(n) / old for n, old in zip(sizes[1:], shape, strict=False))]
    if visit.value(index) is None:
        return visit.attributes.numbers("scales", [])
    return [float(n) for n in visit.const(index, "scales").value.reshape(-1)[:8]]


MOVES = {
    "Reshape": _reshape, "Transpose": _transpose, "Flatten": _flatten, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze, "Slice": _slice,
    "Split": _split, "Concat": _concat, "Pad": _pad, "Resize": _resize, "Upsample": _resize,
}  # fmt: skip
