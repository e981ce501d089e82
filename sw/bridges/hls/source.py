"""The generated C++ of a network: header with types, header with constants, source with one top function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from sw.bridges.hls.cpp import loop, of_format
from sw.bridges.hls.deform import deformable, square_deformable
from sw.bridges.hls.function import Function, written
from sw.bridges.hls.names import comment
from sw.bridges.hls.plan import Layer, Network, Tensor
from sw.bridges.hls.pointwise import add, average, clip, concat, join, maximum, shuffle, slice_channels, table, upsample
from sw.bridges.hls.weighted import convolution, partition

__all__ = ["functions", "header", "source", "weights"]

_MAKERS: dict[str, Callable[[Layer, int], Function]] = {
    "conv2d": convolution,
    "linear": convolution,
    "depthwise_conv2d": convolution,
    "scale": convolution,
    "deform_depthwise_conv2d": square_deformable,
    "deform_conv2d": deformable,
    "max_pool2d": maximum,
    "avg_pool2d": average,
    "add": add,
    "clip": clip,
    "table": table,
    "slice": slice_channels,
    "concat": concat,
    "shuffle": shuffle,
    "shuffle_join": join,
    "upsample2x": upsample,
}
"""An operation's name to what makes its function."""


def functions(network: Network, parallel: int) -> list[Function]:
    return [_MAKERS[layer.operation.op](layer, parallel) for layer in network.layers]


def header(network: Network, made: Sequence[Function], name: str) -> str:
    """Types of all tensors and the top function's declaration."""
    rounding = {function.layer.output.name: function.rounding for function in made}
    types = [f"typedef {of_format(t.fmt, rounding.get(t.name))} {t.type};  // {comment(t.name)}, {'x'.join(map(str, t.shape))}"
             for t in network.tensors]
    guard = f"BITLOOM_{name.upper()}_H"
    return _text([
        f"// {name}: types of its tensors and its top function. Each tensor is an array [channels][rows][columns].",
        f"#ifndef {guard}", f"#define {guard}", "", '#include "ap_fixed.h"', '#include "ap_int.h"', "", *types, "",
        f"{_signature(network, name)};", "", "#endif",
    ])


def weights(made: Sequence[Function], name: str) -> str:
    """All constants, as integer codes; the source gives them their binary points."""
    guard = f"BITLOOM_{name.upper()}_WEIGHTS_H"
    lines = [f"// {name}: constants of its layers, as integer codes.", f"#ifndef {guard}", f"#define {guard}"]
    for function in made:
        if function.constants:
            lines += ["", f"// {function.layer.title}"]
            lines += [line for constant in function.constants for line in constant.lines()]
    return _text([*lines, "", "#endif"])


def source(network: Network, made: Sequence[Function], name: str) -> str:
    """Helpers, a function for each layer and the top function."""
    lines = [f"// {name}: one function for each layer, called one after the other by the top function.",
             f'#include "{name}.h"', f'#include "{name}_weights.h"', "", *HELPERS.strip().split("\n")]
    for function in made:
        lines += ["", *function.typedefs, *written(function)]
    return _text([*lines, "", *_top(network, made, name)])


HELPERS = r"""
// The value of type T whose bits are those of an integer code.
template <class T, class C> static T from_code(const C &code) {
#pragma HLS INLINE
  const ap_int<T::width> bits = code;
  T value;
  value.range(T::width - 1, 0) = bits.range(T::width - 1, 0);
  return value;
}

// The bits of a value as an integer code.
template <int W, int I, ap_q_mode Q, ap_o_mode O, int N> static ap_int<W> code_of(const ap_fixed<W, I, Q, O, N> &value) {
#pragma HLS INLINE
  ap_int<W> code;
  code.range(W - 1, 0) = value.range(W - 1, 0);
  return code;
}
template <int W, int I, ap_q_mode Q, ap_o_mode O, int N> static ap_uint<W> code_of(const ap_ufixed<W, I, Q, O, N> &value) {
#pragma HLS INLINE
  ap_uint<W> code;
  code.range(W - 1, 0) = value.range(W - 1, 0);
  return code;
}

// A value limited to the codes LOW to HIGH of its type.
template <int LOW, int HIGH, class T> static T limit(const T &value) {
#pragma HLS INLINE
  const T low = from_code<T>(LOW), high = from_code<T>(HIGH);
  return value < low ? low : (value > high ? high : value);
}

// The value of a channel at (row, column), 0 outside the image.
template <class T, int H, int W> static T pixel(const T in[][H][W], int channel, int row, int column) {
#pragma HLS INLINE
  if (row < 0 || row >= H || column < 0 || column >= W) return T(0);
  return in[channel][row][column];
}

// The value at (row, column) shifted by codes of F fraction bits: of the four around, rounded as S says.
template <int F, class S, class T, int H, int W>
static S bilinear(const T in[][H][W], int channel, int row, int column, int down, int right) {
#pragma HLS INLINE
  typedef ap_ufixed<F + 1, 1> part_t;
  const int top = row + (down >> F), left = column + (right >> F);
  const part_t below = from_code<part_t>(down & ((1 << F) - 1)), after = from_code<part_t>(right & ((1 << F) - 1));
  const part_t above = part_t(1) - below, before = part_t(1) - after;
  return S(above * before * pixel(in, channel, top, left) + above * after * pixel(in, channel, top, left + 1) +
           below * before * pixel(in, channel, top + 1, left) + below * after * pixel(in, channel, top + 1, left + 1));
}
"""
"""Functions that layers call; the names are reserved in ``names.RESERVED``."""


def _signature(network: Network, name: str) -> str:
    arguments = [f"const {t.type} {_port(t, 'in')}[{t.size}]" for t in network.inputs]
    arguments += [f"{t.type} {_port(t, 'out')}[{t.size}]" for t in network.outputs]
    return f"void {name}({', '.join(arguments)})"


def _port(tensor: Tensor, direction: str) -> str:
    return f"{tensor.identifier}_{direction}"


def _top(network: Network, made: Sequence[Function], name: str) -> list[str]:
    """Inputs are copied into memories on the chip, the layers run, outputs are copied out."""
    ports = [(t, "in") for t in network.inputs] + [(t, "out") for t in network.outputs]
    interface = [f"#pragma HLS INTERFACE mode=m_axi port={_port(t, way)} offset=slave bundle={_port(t, way)} depth={t.size}"
                 for t, way in ports]
    body = [*interface, "#pragma HLS INTERFACE mode=s_axilite port=return"]
    for tensor in network.tensors:
        body += [f"  static {tensor.type} {tensor.identifier}{tensor.dimensions};", *_banks(tensor, made)]
    for tensor in network.inputs:
        body += _indented(_transfer(tensor, f"{tensor.identifier}[c][y][x] = {_port(tensor, 'in')}[{_flat(tensor)}];", "load"))
    for function in made:
        arguments = ", ".join(t.identifier for t in (*function.layer.inputs, function.layer.output))
        body.append(f"  {function.name}({arguments});")
    for tensor in network.outputs:
        body += _indented(_transfer(tensor, f"{_port(tensor, 'out')}[{_flat(tensor)}] = {tensor.identifier}[c][y][x];", "store"))
    return [f"{_signature(network, name)} {{", *body, "}"]


def _banks(tensor: Tensor, made: Sequence[Function]) -> list[str]:
    """Pragmas that let each reader have in one cycle what it takes in one."""
    wanted = [function.reads[number] for function in made for number in function.reads
              if function.layer.inputs[number].name == tensor.name]
    most = [max(counts) for counts in zip(*wanted, strict=True)]
    return [f"#pragma HLS {partition(tensor.identifier, axis + 1, count, size)}"
            for axis, (count, size) in enumerate(zip(most, tensor.shape, strict=False)) if count > 1 and size > 1]


def _flat(tensor: Tensor) -> str:
    _, rows, cols = tensor.shape
    return f"(c * {rows} + y) * {cols} + x"


def _transfer(tensor: Tensor, line: str, what: str) -> list[str]:
    channels, rows, cols = tensor.shape
    label = f"{what}_{tensor.identifier}"
    columns = loop(f"{label}_columns", "x", cols, [line], "PIPELINE II=1")
    return loop(f"{label}_channels", "c", channels, loop(f"{label}_rows", "y", rows, columns))


def _indented(lines: Iterable[str]) -> list[str]:
    return [line if line.startswith("#") else f"  {line}" for line in lines]


def _text(lines: Iterable[str]) -> str:
    return "\n".join([*lines, ""])
