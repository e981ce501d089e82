"""What each golden operation is in ONNX: one function per operation, written into an `Export`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto

from hw.spec import ops
from hw.spec.fixed import Rounding
from sw.bridges.qonnx.dialects import Target
from sw.bridges.qonnx.proofs import check_exponents, check_mean, check_sums
from sw.bridges.qonnx.roundings import offsets
from sw.graph import Node, TensorSpec
from sw.tracing.problems import RefusedError

if TYPE_CHECKING:
    from sw.bridges.qonnx.export import Export

__all__ = ["WRITE"]


def _geometry(kernel: tuple[int, ...], stride: int, padding: int) -> dict[str, Any]:
    return {"kernel_shape": list(kernel), "strides": [stride] * 2, "pads": [padding] * 4}


def _conv(run: Export, node: Node, op: ops.Conv2d, out: TensorSpec) -> None:
    run.weighted(node, "Conv", op.weight, group=op.groups, dilations=[1, 1], **_geometry(op.weight.shape[2:], op.stride, op.padding))


def _depthwise(run: Export, node: Node, op: ops.DepthwiseConv2d, out: TensorSpec) -> None:
    run.weighted(node, "Conv", op.weight[:, None], group=op.weight.shape[0], dilations=[1, 1],
                 **_geometry((3, 3), op.stride, op.padding))


def _linear(run: Export, node: Node, op: ops.Linear, out: TensorSpec) -> None:
    source, spec, _ = run.source(node)
    flat = run.writer.node("Flatten", [source], spec.shape[:1], name=f"{node.name}:flatten", axis=1)
    run.weighted(node, "Gemm", op.weight, values=[flat], shape=out.shape[:1], transB=1)


def _scale(run: Export, node: Node, op: ops.Scale, out: TensorSpec) -> None:
    run.weighted(node, "Mul", op.weight.reshape(1, -1, 1, 1), axis=1)


def _whole_pixels(run: Export, node: Node, frac: int) -> str:
    """The offsets of a deformable convolution, which ONNX reads as pixels."""
    value, spec, _ = run.source(node, 1)
    if frac:
        raise RefusedError(f"samples between pixels ({frac} fraction bits) and rounds each sample to a code, which DeformConv does not",
                           "use offsets without fraction bits")
    if spec.fmt.frac:
        raise RefusedError(f"reads offsets of the format {spec.fmt} as whole pixels", "give the offsets a format without fraction bits")
    return value


def _deform_conv(run: Export, node: Node, op: ops.DeformConv2d, out: TensorSpec) -> None:
    offsets, attributes = _whole_pixels(run, node, op.offset_frac), _geometry(op.weight.shape[2:], op.stride, op.padding)
    run.weighted(node, "DeformConv", op.weight, values=[run.source(node)[0], offsets], group=op.groups,
                 dilations=[op.dilation] * 2, **attributes)


def _deform_square(run: Export, node: Node, op: ops.DeformDepthwiseConv2d, out: TensorSpec) -> None:
    """One offset s a pixel: tap (i, j) of a 3 x 3 window padded by 1 moves by (i - 1, j - 1) * (s - 1)."""
    writer, value, grid = run.writer, _whole_pixels(run, node, op.offset_frac), out.shape[1:]
    ends = [writer.floats(f"{node.name}:{what}", end) for what, end in (("least", ops.OFFSET_MIN), ("most", ops.OFFSET_MAX))]
    value = writer.node("Clip", [value, *ends], (1, *grid), name=f"{node.name}:limit")
    value = writer.node("Sub", [value, writer.floats(f"{node.name}:one", 1)], (1, *grid), name=f"{node.name}:less")
    taps = [step for i in (-1, 0, 1) for j in (-1, 0, 1) for step in (i, j)]
    value = writer.node("Mul", [value, writer.floats(f"{node.name}:taps", np.reshape(taps, (1, 18, 1, 1)))], (18, *grid),
                        name=f"{node.name}:offsets")
    run.weighted(node, "DeformConv", op.weight[:, None], values=[run.source(node)[0], value], group=op.weight.shape[0],
                 **_geometry((3, 3), op.stride, 1))


def _max_pool(run: Export, node: Node, op: ops.MaxPool2d, out: TensorSpec) -> None:
    value, _ = run.moved(node)
    run.writer.node("MaxPool", [value], out.shape, name=node.name, output=node.output,
                    **_geometry((op.kernel,) * 2, op.stride, op.padding))


def _avg_pool(run: Export, node: Node, op: ops.AvgPool2d, out: TensorSpec) -> None:
    """AveragePool where a division gives the graph's codes; else a convolution of ones and the graph's own reciprocal."""
    (value, spec, (low, high)), requant = run.source(node), op.requant
    geometry, power = _geometry(op.kernel, op.stride, op.padding), spec.fmt.frac - out.fmt.frac
    run.dialect.check(Target(fmt=out.fmt, low=requant.lo, high=requant.hi, rounding=requant.rounding))
    try:
        offset = _division(op, power, min(low, 0), max(high, 0), run.dialect.native(requant.rounding))
    except RefusedError:
        ones = np.ones((out.shape[0], 1, *op.kernel), np.int64)
        run.weighted(node, "Conv", ones, group=out.shape[0], **geometry)
        return
    value = run.writer.node("AveragePool", [value], out.shape, name=node.name, count_include_pad=1, **geometry)
    value = run.added(node, value, offset / (op.kernel[0] * op.kernel[1]) * 2.0**-spec.fmt.frac)
    run.quantise(node, value, requant.lo, requant.hi, requant.rounding)


def _division(op: ops.AvgPool2d, power: int, low: int, high: int, native: Rounding) -> np.ndarray:
    """How far sums move behind an AveragePool (C,). Refuses a pool that it does not equal.

    Codes are ``low``..``high``, fraction bits fall by ``power``, and the quantiser rounds by ``native``.
    """
    count, requant = op.kernel[0] * op.kernel[1], op.requant
    if requant.bias.any() or op.padding >= min(op.kernel):
        raise RefusedError("has a bias, or pads as far as its window reaches", "leave them out")
    least, most = (np.full(requant.channels, code * count) for code in (low, high))
    exact = count & (count - 1) == 0
    offset = offsets(requant, least, most, native) if exact else np.zeros(requant.channels)
    check_sums(requant, least, most, offset)
    check_exponents(power)
    check_mean(requant, count, power, least, most, offset, native)
    return offset


def _add(run: Export, node: Node, op: ops.Add, out: TensorSpec) -> None:
    (a, left, _), (b, right, _) = run.source(node), run.source(node, 1)
    if not left.fmt.frac == right.fmt.frac == out.fmt.frac:
        raise RefusedError(f"adds tensors of the formats {left.fmt} and {right.fmt} to {out.fmt}", "give them one binary point")
    value = run.writer.node("Add", [a, b], out.shape, name=node.name)
    run.quantise(node, value, op.lo, op.hi)


def _clip(run: Export, node: Node, op: ops.Clip, out: TensorSpec) -> None:
    value, spec, _ = run.source(node)
    if spec.fmt.frac != out.fmt.frac:
        raise RefusedError(f"clips a tensor of the format {spec.fmt} to {out.fmt}", "give them one binary point")
    target = Target(fmt=out.fmt, low=op.lo, high=op.hi)
    ends = [run.writer.floats(f"{node.name}:{what}", target.value(code)) for what, code in (("least", op.lo), ("most", op.hi))]
    value = run.writer.node("Clip", [value, *ends], out.shape, name=node.name)
    run.quantise(node, value, op.lo, op.hi)


def _table(run: Export, node: Node, op: ops.Table, out: TensorSpec) -> None:
    """A look-up of the code, as an integer: a negative one counts from the end, as the low byte does."""
    writer, (value, spec, _) = run.writer, run.source(node)
    if spec.fmt.width > 8:
        raise RefusedError(f"reads codes of the format {spec.fmt}, more than a byte", "use at most 8 bits")
    target = Target(fmt=out.fmt, low=int(op.values.min()), high=int(op.values.max()))
    unit = writer.floats(f"{node.name}:unit", np.ldexp(1.0, spec.fmt.frac))
    value = writer.node("Mul", [value, unit], spec.shape, name=f"{node.name}:code")
    index = writer.node("Cast", [value], spec.shape, name=f"{node.name}:index", dtype=TensorProto.INT64, to=TensorProto.INT64)
    values = writer.floats(f"{node.name}:table", [target.value(code) for code in op.values.tolist()])
    value = writer.node("Gather", [values, index], out.shape, name=node.name, axis=0)
    run.quantise(node, value, out.fmt.min_code, out.fmt.max_code)
    run.ranges[node.output] = target.low, target.high


def _slice(run: Export, node: Node, op: ops.Slice, out: TensorSpec) -> None:
    value, _ = run.moved(node)
    ends = [run.writer.constant(f"{node.name}:{what}", np.array([number], np.int64)) for what, number in
            (("start", op.start), ("stop", op.stop), ("axis", 1))]
    run.writer.node("Slice", [value, *ends], out.shape, name=node.name, output=node.output, hint=op.op)


def _concat(run: Export, node: Node, op: ops.Concat, out: TensorSpec) -> None:
    run.moved(node)
    run.writer.node("Concat", [run.values[name] for name in node.inputs], out.shape, name=node.name, output=node.output, axis=1)


def _reshape(run: Export, node: Node, value: str, sizes: tuple[int, ...], what: str, **last: Any) -> str:
    shape = run.writer.constant(f"{node.name}:{what}", np.array([0, *sizes], np.int64))
    return run.writer.node("Reshape", [value, shape], sizes, name=last.pop("name", f"{node.name}:{what}"), **last)


def _shuffle(run: Export, node: Node, op: ops.Shuffle, out: TensorSpec) -> None:
    value, (channels, height, width) = run.moved(node)[0], out.shape
    parts = (op.groups, channels // op.groups, height, width)
    value = _reshape(run, node, value, parts, "groups")
    value = run.writer.node("Transpose", [value], (parts[1], parts[0], height, width), name=f"{node.name}:swap", perm=[0, 2, 1, 3, 4])
    _reshape(run, node, value, out.shape, "channels", name=node.name, output=node.output, hint=f"{op.op}:{op.groups}")


def _shuffle_join(run: Export, node: Node, op: ops.ShuffleJoin, out: TensorSpec) -> None:
    """Both tensors behind each other on an axis of their own, which is then merged into the channels."""
    run.moved(node)
    channels, *grid = run.graph.tensors[node.inputs[0]].shape
    axis = run.writer.constant(f"{node.name}:axis", np.array([2], np.int64))
    sides = [run.writer.node("Unsqueeze", [run.values[name], axis], (channels, 1, *grid), name=f"{node.name}:{side}")
             for side, name in zip(("left", "right"), node.inputs, strict=True)]
    value = run.writer.node("Concat", sides, (channels, 2, *grid), name=f"{node.name}:pair", axis=2)
    _reshape(run, node, value, out.shape, "channels", name=node.name, output=node.output, hint=op.op)


def _upsample(run: Export, node: Node, op: ops.Upsample2x, out: TensorSpec) -> None:
    value, _ = run.moved(node)
    scales = run.writer.floats(f"{node.name}:scales", [1, 1, 2, 2])
    run.writer.node("Resize", [value, "", scales], out.shape, name=node.name, output=node.output, mode="nearest",
                    coordinate_transformation_mode="asymmetric", nearest_mode="floor")


WRITE: dict[type, Callable[..., None]] = {
    ops.Conv2d: _conv, ops.Linear: _linear, ops.DepthwiseConv2d: _depthwise, ops.Scale: _scale,
    ops.DeformConv2d: _deform_conv, ops.DeformDepthwiseConv2d: _deform_square, ops.MaxPool2d: _max_pool, ops.AvgPool2d: _avg_pool,
    ops.Add: _add, ops.Clip: _clip, ops.Table: _table, ops.Slice: _slice, ops.Concat: _concat, ops.Shuffle: _shuffle,
    ops.ShuffleJoin: _shuffle_join, ops.Upsample2x: _upsample,
}  # fmt: skip
"""Operation to the function that writes it."""
