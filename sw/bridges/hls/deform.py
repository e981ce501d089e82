"""C++ of deformable convolutions: positions in integers, samples rounded by the type system."""

from __future__ import annotations

from hw.spec.fixed import FixedFormat, Rounding
from hw.spec.ops import OFFSET_MAX, OFFSET_MIN
from sw.bridges.hls.cpp import loop, of_format, position
from sw.bridges.hls.function import Function
from sw.bridges.hls.plan import Layer
from sw.bridges.hls.weighted import Reduction, channel_of, reduction

__all__ = ["deformable", "square_deformable"]


def square_deformable(layer: Layer, parallel: int) -> Function:
    """One offset a pixel, shared by all channels: for each channel, nine samples that lie so far apart."""
    operation = layer.operation
    frac, stride = operation.offset_frac, operation.stride
    work = reduction(layer, operation.weight[:, None], 1)
    start = ["c", position("y", stride, "0", 0), position("x", stride, "0", 0)]
    shifts = [f"offset * ({tap} - 1)" for tap in ("ky", "kx")]
    taps = work.products(_sample(layer, "in0", start, shifts, frac), "PIPELINE II=1")
    low, high = OFFSET_MIN << frac, OFFSET_MAX << frac
    offset = [
        "const int given = code_of(in1[0][y][x]).to_int();",
        f"const int offset = given < {low} ? {low} : (given > {high} ? {high} : given);",
    ]
    body = [work.settling.start(), *taps, *work.settling.end()]
    channels = loop("channels", "c", layer.output.shape[0], body)
    return _function(layer, work, frac, [*offset, *channels])


def deformable(layer: Layer, parallel: int) -> Function:
    """Two offsets a tap: all samples of a pixel first, then the sums over them."""
    operation = layer.operation
    frac, groups, weight = operation.offset_frac, operation.groups, operation.weight
    work = reduction(layer, weight, parallel)
    body = [work.settling.start(), *work.products(f"samples[{channel_of(weight, groups)}][{work.tap(0)}][{work.tap(1)}]"),
            *work.settling.end()]
    channels = loop("channels", "c", layer.output.shape[0], body, *(["PIPELINE II=1"] if work.whole else []))
    return _function(layer, work, frac, [*_sampling(layer, work), *channels])


def _sampling(layer: Layer, work: Reduction) -> list[str]:
    """The array ``samples`` [IC][KH][KW] of the pixel (y, x)."""
    operation, (channels, _, _) = layer.operation, layer.inputs[0].shape
    rows, cols = work.weight.shape[2:]
    row, column = (position(name, operation.stride, work.tap(axis), operation.padding, operation.dilation)
                   for axis, name in enumerate(("y", "x")))
    tap = {(False, False): "0", (False, True): "kx", (True, False): "ky", (True, True): f"ky * {cols} + kx"}[rows > 1, cols > 1]
    shifts = [f"const int {name} = code_of(in1[2 * ({tap}){more}][y][x]).to_int();" for name, more in (("down", ""), ("right", " + 1"))]
    sample = _sample(layer, "in0", ["i", row, column], ["down", "right"], operation.offset_frac)
    take = f"samples[i][{work.tap(0)}][{work.tap(1)}] = {sample};"
    lines = [*shifts, *loop("sampled", "i", channels, [take], "PIPELINE II=1")]
    for label, variable, count in (("sample_columns", "kx", cols), ("sample_rows", "ky", rows)):
        lines = loop(label, variable, count, lines) if count > 1 else lines
    return [f"{layer.output.identifier}_sample_t samples[{channels}][{rows}][{cols}];", *lines]


def _sample(layer: Layer, array: str, start: list[str], shifts: list[str], frac: int) -> str:
    """The input at a position plus a shift: a pixel, or rounded from the four around where shifts have fraction bits."""
    if frac:
        return f"bilinear<{frac}, {layer.output.identifier}_sample_t>({', '.join([array, *start, *shifts])})"
    channel, row, column = start
    return f"pixel({array}, {channel}, {row} + {shifts[0]}, {column} + {shifts[1]})"


def _function(layer: Layer, work: Reduction, frac: int, pixel: list[str]) -> Function:
    """The layer's function around what it does at each pixel."""
    _, rows, cols = layer.output.shape
    fmt: FixedFormat = layer.inputs[0].fmt
    sample = f"typedef {of_format(fmt, Rounding.RND)} {layer.output.identifier}_sample_t;"
    around = 2 if frac else 1  # four neighbours lie in four banks
    return Function(
        layer=layer, body=tuple(loop("rows", "y", rows, loop("columns", "x", cols, pixel))),
        typedefs=(*work.typedefs(), sample), constants=work.constants(), pragmas=work.pragmas(), reads={0: (1, around, around)},
        rounding=layer.operation.requant.rounding,
    )
