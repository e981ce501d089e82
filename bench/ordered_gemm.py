"""Speed of the ordered FP16/FP32 sums, on one thread, beside numpy's float32 product of the same size.

    python bench/ordered_gemm.py [--turns 9] [--json FILE]

In units of 10**9 multiply-accumulates per second of CPU time, medians of turns in which both sides alternate. numpy's side
has an order of its own and is given ready matrices: for a convolution the gathering of windows is not in its time, but in
ours. Checks of operands are in ours too. Holes of a strided backward pass do not count. If OPENBLAS_CORETYPE is set, numpy is held to
that processor's kernels: unset it for a fair ratio. The definition in numpy is timed once, on a sixteenth of the first product.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

for _variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")  # read when numpy is loaded

import numpy as np  # noqa: E402

from sw.kernels import ordered_numpy as definition  # noqa: E402
from sw.kernels.build import library  # noqa: E402
from sw.kernels.ordered import (  # noqa: E402
    ordered_input_pass,
    ordered_matmul,
    ordered_matmul_tn,
    ordered_output_pass,
    ordered_weight_pass,
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A product of (rows, depth) by (depth, columns), and our way to it."""

    name: str
    size: tuple[int, int, int]
    ours: Callable[[], np.ndarray]


def halves(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float16)


def matrices(rows: int, depth: int, columns: int) -> list[Case]:
    a, b = halves(rows, depth), halves(depth, columns)
    columns_first, size = np.ascontiguousarray(a.T), (rows, depth, columns)
    name = f"{rows} x {depth} x {columns}"
    return [Case(name=name, size=size, ours=lambda: ordered_matmul(a, b)),
            Case(name=f"{name}, a transposed", size=size, ours=lambda: ordered_matmul_tn(columns_first, b))]


def layer(images: int, side: int, kernel: int, ins: int, outs: int, stride: int = 1) -> list[Case]:
    """The three passes of a convolution that keeps the size, or divides it by its stride."""
    out, pad, taps = side // stride, kernel // 2, kernel * kernel
    x, w, dy = halves(images, side, side, ins), halves(kernel, kernel, ins, outs), halves(images, out, out, outs)
    options, pixels = {"stride": stride, "padding": pad}, images * out * out
    name = f"{kernel}x{kernel}{f'/{stride}' if stride > 1 else ''} {ins}->{outs}, {side}x{side}, batch {images}"
    return [
        Case(name=f"{name}: FF", size=(pixels, taps * ins, outs), ours=lambda: ordered_output_pass(x, w, **options)),
        Case(name=f"{name}: BP", size=(pixels, taps * outs, ins), ours=lambda: ordered_input_pass(dy, w, (side, side), **options)),
        Case(name=f"{name}: WU", size=(taps * ins, pixels, outs), ours=lambda: ordered_weight_pass(x, dy, (kernel, kernel), **options)),
    ]


def seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def measure(case: Case, turns: int) -> dict[str, object]:
    """Both sides' rates, and the median of their ratios within a turn."""
    rows, depth, columns = case.size
    a, b = (np.random.default_rng(0).standard_normal(shape).astype(np.float32) for shape in ((rows, depth), (depth, columns)))
    pairs = [(seconds(case.ours), seconds(lambda: a @ b)) for _ in range(turns + 1)][1:]
    macs, middle = rows * depth * columns, turns // 2
    ours, numpys, ratio = (sorted(values)[middle] for values in (*zip(*pairs, strict=True), [n / o for o, n in pairs]))
    return {"case": case.name, "macs": macs, "gmacs": macs / ours / 1e9, "numpy_gmacs": macs / numpys / 1e9, "ratio": ratio}


def definition_rate(rows: int, depth: int, columns: int) -> float:
    a, b, sums = halves(rows, depth), halves(depth, columns), np.zeros((rows, columns), np.float32)
    return rows * depth * columns / seconds(lambda: definition.matmul(a, b, sums)) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if library("ordered") is None:
        raise SystemExit("the kernel is switched off or does not compile: there is nothing to measure")
    cases = [*matrices(1024, 2304, 256), *layer(32, 32, 3, 64, 64), *layer(32, 32, 3, 64, 128, 2), *layer(32, 16, 1, 256, 256),
             *layer(32, 32, 3, 3, 64)]
    print(f"{'10**9 MAC/s on one thread':44} {'ordered':>8} {'numpy @':>8} {'ratio':>6}")
    rows = []
    for case in cases:
        rows.append(measure(case, args.turns))
        print(f"{case.name:44} {rows[-1]['gmacs']:8.1f} {rows[-1]['numpy_gmacs']:8.1f} {rows[-1]['ratio']:6.2f}", flush=True)
    slow = definition_rate(1024, 144, 256)
    print(f"{'the definition in numpy':44} {slow:8.1f}")
    if args.json is not None:
        args.json.write_text(json.dumps({"rows": rows, "definition_gmacs": slow}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
