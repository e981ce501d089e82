"""C++ of operations without weights: pools, sums, limits, tables, and those that only move codes."""

from __future__ import annotations

from hw.spec.fixed import Rounding
from sw.bridges.hls.cpp import Constant, fixed, loop, position
from sw.bridges.hls.function import Function, pixels
from sw.bridges.hls.plan import Layer
from sw.bridges.hls.settle import limited, settling

__all__ = ["add", "average", "clip", "concat", "join", "maximum", "shuffle", "slice_channels", "table", "upsample"]

_PIPELINE = "PIPELINE II=1"


def average(layer: Layer, parallel: int) -> Function:
    """The sum of a window, pads counted as zeros; the reciprocal is a fixed-point constant."""
    operation, work = layer.operation, settling(layer)
    lines, pipelined = _window(layer, operation.kernel, "sum += {};", parallel)
    return Function(
        layer=layer, body=tuple(pixels(layer, [work.start(), *lines, *work.end()], *pipelined)),
        typedefs=tuple(work.typedefs()), constants=tuple(work.constants()), reads={0: _window_banks(operation.kernel, parallel)},
        rounding=operation.requant.rounding,
    )


def maximum(layer: Layer, parallel: int) -> Function:
    """The largest code of a window; what lies outside the image does not count."""
    kernel, source = (layer.operation.kernel,) * 2, layer.inputs[0]
    row, column = _position(layer, kernel, 0), _position(layer, kernel, 1)
    inside = f"{row} >= 0 && {row} < {source.shape[1]} && {column} >= 0 && {column} < {source.shape[2]} && "
    value = f"in[c][{row}][{column}]"
    step = f"if ({inside if layer.operation.padding else ''}{value} > most) most = {value};"
    lines, pipelined = _taps(kernel, [step], parallel)
    start = f"{source.type} most = from_code<{source.type}>({_lowest(layer)});"
    body = [start, *lines, _move(layer, "most")]
    return Function(layer=layer, body=tuple(pixels(layer, body, *pipelined)), reads={0: _window_banks(kernel, parallel)})


def _lowest(layer: Layer) -> str:
    fmt = layer.inputs[0].fmt
    return f"ap_int<{fmt.width}>(1) << {fmt.width - 1}" if fmt.signed else "0"


def _window(layer: Layer, kernel: tuple[int, int], take: str, parallel: int) -> tuple[list[str], list[str]]:
    """Loops over a window's codes; ``take`` is a line with a place for one."""
    row, column = _position(layer, kernel, 0), _position(layer, kernel, 1)
    read = f"pixel(in, c, {row}, {column})" if layer.operation.padding else f"in[c][{row}][{column}]"
    return _taps(kernel, [take.format(read)], parallel)


def _position(layer: Layer, kernel: tuple[int, int], axis: int) -> str:
    tap = ("ky", "kx")[axis] if kernel[axis] > 1 else "0"
    return position("yx"[axis], layer.operation.stride, tap, layer.operation.padding)


def _taps(kernel: tuple[int, int], lines: list[str], parallel: int) -> tuple[list[str], list[str]]:
    """Loops over a window's taps, pipelined where not all are taken at once; and the pragmas of the loop around them."""
    at_once = kernel[0] * kernel[1] <= parallel
    inner = [] if at_once else [_PIPELINE]
    for label, variable, count in (("kernel_columns", "kx", kernel[1]), ("kernel_rows", "ky", kernel[0])):
        if count > 1:
            lines, inner = loop(label, variable, count, lines, *inner), []
    return lines, [_PIPELINE] if at_once else []


def _window_banks(kernel: tuple[int, int], parallel: int) -> tuple[int, int, int]:
    return (1, *kernel) if kernel[0] * kernel[1] <= parallel else (1, 1, 1)


def _read(layer: Layer, number: int, index: str) -> str:
    """An input's value at the output's binary point: the same code, whose value differs where the tensors' points do."""
    array = "in" if len(layer.inputs) == 1 else f"in{number}"
    return _same_code(layer, number, f"{array}[{index.replace(', ', '][')}]")


def _same_code(layer: Layer, number: int, value: str) -> str:
    fmt, frac = layer.inputs[number].fmt, layer.output.fmt.frac
    if fmt.frac == frac:
        return value
    return f"from_code<{fixed(fmt.width, frac, signed=fmt.signed)} >(code_of({value}))"


def _move(layer: Layer, value: str) -> str:
    return f"out[c][y][x] = {_same_code(layer, 0, value)};"


def _copy(layer: Layer, index: str) -> Function:
    """Output codes that are input codes at another place."""
    body = pixels(layer, [f"out[c][y][x] = {_read(layer, 0, index)};"], _PIPELINE)
    return Function(layer=layer, body=tuple(body))


def add(layer: Layer, parallel: int) -> Function:
    """The sum of two codes, exact, then limited."""
    total = f"{_read(layer, 0, 'c, y, x')} + {_read(layer, 1, 'c, y, x')}"
    line = f"out[c][y][x] = {limited(layer, total, layer.operation.lo, layer.operation.hi)};"
    return Function(layer=layer, body=tuple(pixels(layer, [line], _PIPELINE)), rounding=Rounding.TRN)


def clip(layer: Layer, parallel: int) -> Function:
    line = f"out[c][y][x] = {limited(layer, _read(layer, 0, 'c, y, x'), layer.operation.lo, layer.operation.hi)};"
    return Function(layer=layer, body=tuple(pixels(layer, [line], _PIPELINE)), rounding=Rounding.TRN)


def table(layer: Layer, parallel: int) -> Function:
    """A function of a code: the table's value at the code's low byte."""
    name = f"{layer.output.identifier}_table"
    lines = ["const ap_uint<8> index = code_of(in[c][y][x]);",
             f"out[c][y][x] = from_code<{layer.output.type}>({name}[index]);"]
    constants = (Constant(name=name, values=layer.operation.values),)
    return Function(layer=layer, body=tuple(pixels(layer, lines, _PIPELINE)), constants=constants)


def upsample(layer: Layer, parallel: int) -> Function:
    return _copy(layer, "c, y / 2, x / 2")


def slice_channels(layer: Layer, parallel: int) -> Function:
    start = layer.operation.start
    return _copy(layer, f"c + {start}, y, x" if start else "c, y, x")


def shuffle(layer: Layer, parallel: int) -> Function:
    groups, channels = layer.operation.groups, layer.output.shape[0]
    kept = groups in (1, channels)
    return _copy(layer, "c, y, x" if kept else f"c % {groups} * {channels // groups} + c / {groups}, y, x")


def join(layer: Layer, parallel: int) -> Function:
    """Left and right channels by turns."""
    left, right = (_read(layer, number, "c / 2, y, x") for number in (0, 1))
    lines = [f"if (c % 2 == 0) out[c][y][x] = {left};", f"else out[c][y][x] = {right};"]
    return Function(layer=layer, body=tuple(pixels(layer, lines, _PIPELINE)))


def concat(layer: Layer, parallel: int) -> Function:
    """One part behind the other, each with its own loops."""
    lines: list[str] = []
    start = 0
    for number, source in enumerate(layer.inputs):
        channels, rows, cols = source.shape
        place = f"c + {start}" if start else "c"
        copy = [f"out[{place}][y][x] = {_read(layer, number, 'c, y, x')};"]
        inner = loop(f"rows{number}", "y", rows, loop(f"columns{number}", "x", cols, copy, _PIPELINE))
        lines += loop(f"channels{number}", "c", channels, inner)
        start += channels
    return Function(layer=layer, body=tuple(lines))
