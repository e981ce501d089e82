"""Ordered sums of FP16 products in FP32: the arithmetic of the training core, on the CPU at the speed of a matrix product.

Each output is one float32 chain over its reduction index k, in ascending order and never reassociated:

    acc = init (default +0);  for k ascending: acc = RNE32(acc + a_k * b_k)

Operands are finite float16, subnormals included. Their product is exact in float32 (22 bits of significand, exponents
far inside), so fused and separate multiply and add agree. Chains are vectorised beside each other, never within, so results do
not depend on the processor, the number of threads, or a caller's rounding mode. A chain that began at +0 is never -0 and
lies on multiples of 2**-48, so it is never subnormal, and zeros that are added or left out do not change it: the padding,
the holes of a strided backward pass (which the kernel skips), and weights that an N:M mask removed. `init` is a partial
sum of the same definition (an accumulator that is reloaded); -0 is refused, since it could tell added zeros from none.

The passes of a convolution, NHWC, with y[n, oh, ow] looking at x[n, oh*s + kh - p, ow*s + kw - p]:

- `ordered_output_pass` (FF): y, over (kh, kw, ci)
- `ordered_input_pass` (BP): dx, over (kh', kw', co), where kh' stands for tap KH-1-kh' and kw' for KW-1-kw'
- `ordered_weight_pass` (WU): dw, over (n, oh, ow)

A linear layer is the 1x1 case on (N, 1, 1, C). `sw.kernels.ordered_numpy` is the definition and stands in where the
kernels are off. All raise ValueError for operands of another type or shape, and for NaN and infinities among them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sw.kernels import ordered_numpy as definition
from sw.kernels.build import library
from sw.kernels.ordered_numpy import Halves, Singles

__all__ = ["narrow", "ordered_input_pass", "ordered_matmul", "ordered_matmul_tn", "ordered_output_pass", "ordered_weight_pass",
           "widen"]

Pair = int | tuple[int, int]


class _Windows(ctypes.Structure):
    """`Windows` of ordered.cpp."""

    _fields_ = [*((name, ctypes.c_int64) for name in ("images", "height", "width", "channels", "rows", "columns", "stride_rows",
                                                      "stride_columns", "taps")),
                ("offsets", ctypes.c_void_p), *((name, ctypes.c_int64) for name in ("to_image", "to_row", "to_column"))]


# --- matrices


def ordered_matmul(a: Halves, b: Halves, init: Singles | None = None, *, threads: int = 1) -> Singles:
    """a (I, K) by b (K, J), float16, K at least 1: float32 (I, J)."""
    a, b = _halves("a (I, K)", a, 2), _halves("b (K, J)", b, 2)
    _agree("K of a (I, K) and b (K, J)", a.shape[1], b.shape[0])
    sums, threads = _sums(init, (a.shape[0], b.shape[1])), _threads(threads)
    if (kernel := library("ordered")) is None:
        definition.matmul(a, b, sums)
    else:
        kernel.ordered_matmul(_at(a), _at(b), _at(sums), *_sizes(a.shape[0], *b.shape), threads)
    return sums


def ordered_matmul_tn(a: Halves, b: Halves, init: Singles | None = None, *, threads: int = 1) -> Singles:
    """a (K, I), transposed, by b (K, J), float16, K at least 1: float32 (I, J). The form of a weight gradient; K may be long."""
    a, b = _halves("a (K, I)", a, 2), _halves("b (K, J)", b, 2)
    _agree("K of a (K, I) and b (K, J)", a.shape[0], b.shape[0])
    sums, threads = _sums(init, (a.shape[1], b.shape[1])), _threads(threads)
    if (kernel := library("ordered")) is None:
        definition.matmul(a.T, b, sums)
    else:
        kernel.ordered_matmul_tn(_at(a), _at(b), _at(sums), *_sizes(a.shape[1], *b.shape), threads)
    return sums


# --- the passes of a convolution


def ordered_output_pass(
    x: Halves, w: Halves, *, stride: Pair = 1, padding: Pair = 0, init: Singles | None = None, threads: int = 1
) -> Singles:
    """x (N, H, W, CI), w (KH, KW, CI, CO), float16: y (N, OH, OW, CO), float32; OH = (H + 2p - KH) // s + 1."""
    x, w = _halves("x (N, H, W, CI)", x, 4), _halves("w (KH, KW, CI, CO)", w, 4)
    _agree("CI of x (N, H, W, CI) and w (KH, KW, CI, CO)", x.shape[3], w.shape[2])
    stride, padding = _pair("stride", stride, 1), _pair("padding", padding, 0)
    rows, columns = _outputs(x.shape[1:3], w.shape[:2], stride, padding)
    sums, threads = _sums(init, (len(x), rows, columns, w.shape[3])), _threads(threads)
    if (kernel := library("ordered")) is None:
        definition.output_pass(x, w, sums, stride, padding)
    else:
        windows, _keep = _windows(x, sums, stride, _taps(w.shape[:2], padding))
        kernel.ordered_windows(_at(x), _at(w), _at(sums), ctypes.byref(windows), *_sizes(w.shape[3]), threads)
    return sums


def ordered_input_pass(
    dy: Halves, w: Halves, size: tuple[int, int], *, stride: Pair = 1, padding: Pair = 0, init: Singles | None = None,
    threads: int = 1,
) -> Singles:
    """dy (N, OH, OW, CO), w (KH, KW, CI, CO), float16, and (H, W) of the layer's input: dx (N, H, W, CI), float32."""
    dy, w = _halves("dy (N, OH, OW, CO)", dy, 4), _halves("w (KH, KW, CI, CO)", w, 4)
    _agree("CO of dy (N, OH, OW, CO) and w (KH, KW, CI, CO)", dy.shape[3], w.shape[3])
    size, stride, padding = _pair("size", size, 1), _pair("stride", stride, 1), _pair("padding", padding, 0)
    _agree("(OH, OW) of dy and of the layer", dy.shape[1:3], _outputs(size, w.shape[:2], stride, padding))
    sums, threads = _sums(init, (len(dy), *size, w.shape[2])), _threads(threads)
    if (kernel := library("ordered")) is None:
        definition.input_pass(dy, w, sums, stride, padding)
        return sums
    for part, taps, offsets in _phases(sums, w, stride, padding):
        windows, _keep = _windows(dy, part, (1, 1), offsets)
        kernel.ordered_windows(_at(dy), _at(taps), _at(part), ctypes.byref(windows), *_sizes(w.shape[2]), threads)
    return sums


def ordered_weight_pass(
    x: Halves, dy: Halves, kernel: tuple[int, int], *, stride: Pair = 1, padding: Pair = 0, init: Singles | None = None,
    threads: int = 1,
) -> Singles:
    """x (N, H, W, CI), dy (N, OH, OW, CO), float16, and (KH, KW): dw (KH, KW, CI, CO), float32."""
    x, dy = _halves("x (N, H, W, CI)", x, 4), _halves("dy (N, OH, OW, CO)", dy, 4)
    kernel, stride, padding = _pair("kernel", kernel, 1), _pair("stride", stride, 1), _pair("padding", padding, 0)
    _agree("N of x (N, H, W, CI) and dy (N, OH, OW, CO)", len(x), len(dy))
    _agree("(OH, OW) of dy and of the layer", dy.shape[1:3], _outputs(x.shape[1:3], kernel, stride, padding))
    sums, threads = _sums(init, (*kernel, x.shape[3], dy.shape[3])), _threads(threads)
    if (compiled := library("ordered")) is None:
        definition.weight_pass(x, dy, sums, stride, padding)
    else:
        windows, _keep = _windows(x, dy, stride, _taps(kernel, padding))
        compiled.ordered_windows_tn(_at(x), _at(dy), _at(sums), ctypes.byref(windows), *_sizes(dy.shape[3]), threads)
    return sums


def _taps(kernel: tuple[int, ...], padding: tuple[int, int]) -> NDArray[np.int64]:
    """Where the taps of output pixel 0, 0 lie (taps, 2)."""
    return np.array([(kh - padding[0], kw - padding[1]) for kh, kw in np.ndindex(*kernel)], np.int64)


def _phases(
    sums: Singles, w: Halves, stride: tuple[int, int], padding: tuple[int, int]
) -> Iterator[tuple[Singles, Halves, NDArray[np.int64]]]:
    """A strided backward pass without its holes: stride**2 passes of stride 1, each over the taps that meet pixels of dy.

    Yields the pixels of dx that differ by multiples of the stride, their weights (taps, CO, CI) and where those taps lie.
    """
    for row, column in np.ndindex(*stride):
        part = sums[:, row :: stride[0], column :: stride[1]]
        taps = [(kh, kw) for kh, kw in np.ndindex(*w.shape[:2])
                if (row + padding[0] - kh) % stride[0] == 0 and (column + padding[1] - kw) % stride[1] == 0][::-1]
        if part.size and taps:
            offsets = [((row + padding[0] - kh) // stride[0], (column + padding[1] - kw) // stride[1]) for kh, kw in taps]
            yield part, np.ascontiguousarray(np.stack([w[tap].T for tap in taps])), np.array(offsets, np.int64)


def _windows(
    x: Halves, out: NDArray[Any], stride: tuple[int, int], offsets: NDArray[np.int64]
) -> tuple[_Windows, NDArray[np.int64]]:
    """The windows on x whose results lie as the pixels of ``out`` (N, rows, columns, channels), and what must outlive them."""
    distances = (step // out.itemsize for step in out.strides[:3])
    return _Windows(*x.shape, *out.shape[1:3], *stride, len(offsets), offsets.ctypes.data, *distances), offsets


# --- number formats


def widen(values: Halves) -> Singles:
    """float16 to float32, exact, any shape; finite values."""
    values = _halves("values", values, None)
    if (kernel := library("ordered")) is None:
        return values.astype(np.float32)
    out = np.empty(values.shape, np.float32)
    kernel.ordered_widen(_at(values), _at(out), *_sizes(values.size))
    return out


def narrow(values: Singles) -> Halves:
    """float32 to float16, any shape: to nearest even, subnormals kept, at most 65504 in magnitude; finite values."""
    if not isinstance(values, np.ndarray) or values.dtype != np.float32:
        raise ValueError(f"values must be a numpy array of float32, not {_kind(values)}")
    if not np.isfinite(values).all():
        raise ValueError("values must be finite, not NaN or infinite: the training diverged or the input is damaged")
    values = np.ascontiguousarray(values).reshape(values.shape)
    if (kernel := library("ordered")) is None:
        return definition.narrow(values)
    out = np.empty(values.shape, np.float16)
    kernel.ordered_narrow(_at(values), _at(out), *_sizes(values.size))
    return out


# --- operands


def _halves(name: str, array: Halves, axes: int | None) -> Halves:
    """The operand, contiguous; with ``axes`` its number of axes is checked, and that none is empty."""
    if not isinstance(array, np.ndarray) or array.dtype != np.float16:
        raise ValueError(f"{name} must be a numpy array of float16, not {_kind(array)}")
    if axes is not None and (array.ndim != axes or 0 in array.shape):
        raise ValueError(f"{name} must have {axes} axes of at least 1, not shape {array.shape}")
    found = np.ascontiguousarray(array).reshape(array.shape)
    kernel = library("ordered")
    finite = bool(kernel.ordered_finite(_at(found), *_sizes(found.size))) if kernel else bool(np.isfinite(found).all())
    if not finite:
        raise ValueError(f"{name} must be finite, not NaN or infinite: the core stores neither, so the training diverged or the "
                         "conversion to float16 did not saturate (use narrow)")
    return found


def _sums(init: Singles | None, shape: tuple[int, ...]) -> Singles:
    """Where the chains begin, in an array of their own."""
    if init is None:
        return np.zeros(shape, np.float32)
    if not isinstance(init, np.ndarray) or init.dtype != np.float32 or init.shape != shape:
        raise ValueError(f"init must be a numpy array of float32 and shape {shape}, not {_kind(init)}")
    if not np.isfinite(init).all() or bool((init.view(np.uint32) == 0x80000000).any()):
        raise ValueError("init must be a partial sum of an earlier call, so finite and never -0; add anything else afterwards")
    return np.array(init, order="C")


def _pair(name: str, value: Pair, least: int) -> tuple[int, int]:
    """Rows and columns from one number or two."""
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or not all(isinstance(v, (int, np.integer)) and v >= least for v in pair):
        raise ValueError(f"{name} must be one or two integers of at least {least}, not {value!r}")
    return int(pair[0]), int(pair[1])


def _outputs(
    size: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, int], padding: tuple[int, int]
) -> tuple[int, int]:
    rows, columns = ((n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, kernel, stride, padding, strict=True))
    if rows < 1 or columns < 1:
        raise ValueError(f"a kernel of {kernel} must fit into an input of {size} with padding {padding}")
    return rows, columns


def _agree(what: str, first: Any, second: Any) -> None:
    if first != second:
        raise ValueError(f"{what} must be equal, not {first} and {second}")


def _threads(count: int) -> int:
    if not isinstance(count, (int, np.integer)) or not 1 <= count <= 1024:
        raise ValueError(f"threads must be an integer in 1..1024, not {count!r}")
    return int(count)


def _kind(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    return f"{type(value).__module__}.{type(value).__name__}"


def _at(array: NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _sizes(*values: int) -> tuple[ctypes.c_int64, ...]:
    return tuple(ctypes.c_int64(value) for value in values)
