"""Ordered FP16/FP32 sums against loops over single products, exact fractions, and the definition in numpy; equal bits."""

from __future__ import annotations

import ctypes
import ctypes.util
import hashlib
import os
import platform
import struct
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from sw.kernels import build, ordered
from sw.kernels.ordered import (
    narrow,
    ordered_input_pass,
    ordered_matmul,
    ordered_matmul_tn,
    ordered_output_pass,
    ordered_weight_pass,
    widen,
)

ROOT = Path(__file__).parents[2]
KINDS = ("normal", "any", "subnormal", "large", "zeros")
LAYERS = [  # kernel, stride, padding, (H, W), (CI, CO)
    ((3, 3), 1, 1, (7, 9), (5, 6)), ((3, 3), 2, 1, (8, 7), (4, 9)), ((1, 1), 1, 0, (5, 4), (17, 3)),
    ((1, 1), 2, 0, (7, 6), (6, 5)), ((7, 7), 2, 3, (9, 10), (3, 4)), ((3, 2), (2, 1), (0, 2), (9, 5), (2, 3)),
    ((2, 2), 3, 0, (8, 9), (3, 3)), ((1, 1), 1, 0, (1, 1), (40, 10)),
]  # fmt: skip


def halves(rng: np.random.Generator, *shape: int, kind: str = "normal") -> np.ndarray:
    """Finite float16 of any exponent, of the subnormals, near the largest number, or mostly zeros of both signs."""
    bits = rng.integers(0, 1 << 16, shape, np.uint16)
    if kind == "normal":
        return rng.standard_normal(shape).astype(np.float16)
    if kind == "any":
        bits = np.where(bits & 0x7C00 == 0x7C00, bits & 0xBFFF, bits)
    elif kind == "subnormal":
        bits &= 0x83FF
    elif kind == "large":
        bits = bits & 0x8007 | 0x7BF8
    else:
        bits = np.where(rng.random(shape) < 0.7, bits & 0x8000, bits & 0xBFFF)
    return bits.astype(np.uint16).view(np.float16)


def assert_same_bits(got: np.ndarray, expected: np.ndarray) -> int:
    """Returns how many floats were compared, at least one."""
    assert got.dtype == expected.dtype == np.float32 and got.shape == expected.shape and got.size
    wrong = got.view(np.uint32) != expected.view(np.uint32)
    assert not wrong.any(), f"{wrong.sum()} of {got.size} differ, first at {np.argwhere(wrong)[0]}"
    return got.size


def chain(pairs, start: float = 0.0) -> np.float32:
    """The definition, product by product: one float32 multiplication, one float32 addition."""
    acc = np.float32(start)
    for a, b in pairs:
        acc = np.float32(acc + np.float32(a) * np.float32(b))
    return acc


def chains(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`ordered_matmul` by numpy's running sums, which are ordered by nature."""
    products = a.astype(np.float32)[:, :, None] * b.astype(np.float32)[None]
    return np.add.accumulate(np.concatenate([np.zeros_like(products[:, :1]), products], 1), 1, np.float32)[:, -1]


@pytest.fixture
def by_definition(monkeypatch: pytest.MonkeyPatch) -> Callable[..., np.ndarray]:
    """Calls a function with the kernels switched off."""

    def call(function: Callable[..., np.ndarray], *args: object, **options: object) -> np.ndarray:
        with monkeypatch.context() as patch:
            patch.setattr(build, "ENABLED", False)
            return function(*args, **options)

    return call


def test_the_kernel_is_used_here():
    """Much below would pass without it: it must compile where g++ is."""
    assert build.library("ordered") is not None


# --- matrices


@pytest.mark.parametrize("kind", KINDS)
def test_a_product_is_its_chains(by_definition, kind):
    """One element to several blocks and tiles of any instruction set, none a multiple of them."""
    rng, compared = np.random.default_rng(1), 0
    for rows, depth, columns in ((1, 1, 1), (3, 7, 5), (8, 256, 32), (9, 257, 33), (70, 300, 65), (129, 40, 270), (1100, 3, 2)):
        a, b = halves(rng, rows, depth, kind=kind), halves(rng, depth, columns, kind=kind)
        expected = chains(a, b)
        compared += assert_same_bits(by_definition(ordered_matmul, a, b), expected)
        for threads in (1, 3):
            compared += assert_same_bits(ordered_matmul(a, b, threads=threads), expected)
            compared += assert_same_bits(ordered_matmul_tn(np.ascontiguousarray(a.T), b, threads=threads), expected)
        compared += assert_same_bits(by_definition(ordered_matmul_tn, a.T, b), expected)
        single = chain(zip(a[-1], b[:, -1], strict=True))
        assert single.view(np.uint32) == expected[-1, -1].view(np.uint32)
    assert compared > 200_000


def test_the_order_shows_in_these_numbers():
    """Else a kernel of another order would pass: most results of the reversed order differ."""
    rng = np.random.default_rng(2)
    a, b = halves(rng, 30, 300), halves(rng, 300, 40)
    assert (ordered_matmul(a, b) != ordered_matmul(a[:, ::-1], b[::-1])).mean() > 0.7
    x, dy, w = halves(rng, 2, 8, 8, 16), halves(rng, 2, 8, 8, 16), halves(rng, 3, 3, 16, 16)
    assert (ordered_output_pass(x, w, padding=1) != ordered_output_pass(x[..., ::-1], w[:, :, ::-1], padding=1)).mean() > 0.5
    assert (ordered_input_pass(dy, w, (8, 8), padding=1)
            != ordered_input_pass(dy[..., ::-1], w[..., ::-1], (8, 8), padding=1)).mean() > 0.5
    assert (ordered_weight_pass(x, dy, (3, 3), padding=1)
            != ordered_weight_pass(x[::-1], dy[::-1], (3, 3), padding=1)).mean() > 0.3


def round_to_float32(value: Fraction) -> Fraction:
    """To nearest, ties to even, in the range where float32 is normal or zero; by integers alone."""
    if value == 0:
        return value
    exponent = abs(value.numerator).bit_length() - value.denominator.bit_length()
    exponent -= abs(value) < Fraction(2) ** exponent
    unit = Fraction(2) ** (exponent - 23)
    return round(value / unit) * unit


def test_sums_are_those_of_exact_fractions():
    rng, compared = np.random.default_rng(3), 0
    for kind in KINDS:
        a, b = halves(rng, 9, 37, kind=kind), halves(rng, 37, 11, kind=kind)
        got = ordered_matmul(a, b)
        for i, j in np.ndindex(*got.shape):
            acc = Fraction(0)
            for k in range(37):
                acc = round_to_float32(acc + Fraction(float(a[i, k])) * Fraction(float(b[k, j])))
            assert Fraction(float(got[i, j])) == acc and not (acc == 0 and np.signbit(got[i, j]))
            compared += 1
    assert compared == 495


def test_a_long_sum_is_the_running_sum():
    """A weight gradient over many pixels."""
    rng = np.random.default_rng(4)
    a, b = halves(rng, 150_001, 3), halves(rng, 150_001, 4)
    got, compared = ordered_matmul_tn(a, b, threads=2), 0
    for i, j in np.ndindex(3, 4):
        assert got[i, j] == np.add.accumulate(a[:, i].astype(np.float32) * b[:, j].astype(np.float32), dtype=np.float32)[-1]
        compared += 1
    assert compared == 12


@pytest.mark.parametrize("kind", KINDS)
def test_a_sum_in_parts_is_the_whole(by_definition, kind):
    rng, compared = np.random.default_rng(5), 0
    a, b = halves(rng, 21, 530, kind=kind), halves(rng, 530, 35, kind=kind)
    whole, columns = ordered_matmul(a, b), np.ascontiguousarray(a.T)
    for cut in (1, 16, 255, 256, 300, 529):
        first = ordered_matmul(a[:, :cut], b[:cut])
        kept = first.copy()
        compared += assert_same_bits(ordered_matmul(a[:, cut:], b[cut:], first), whole)
        compared += assert_same_bits(ordered_matmul_tn(columns[cut:], b[cut:], first), whole)
        assert_same_bits(first, kept)
    compared += assert_same_bits(by_definition(ordered_matmul, a[:, cut:], b[cut:], first), whole)
    assert compared > 9_000


@pytest.mark.parametrize(("n", "m"), [(2, 4), (2, 8), (1, 16)])
def test_masked_weights_are_those_that_are_skipped(n, m):
    """The sparse core visits kept weights only; the removed ones, zeros of either sign, change nothing."""
    rng, compared = np.random.default_rng(6), 0
    a, b = halves(rng, 10, 64, kind="any"), halves(rng, 64, 12, kind="any")
    order = np.argsort(np.abs(b.reshape(64 // m, m, 12)), 1, kind="stable")
    mask = (np.argsort(order, 1) >= m - n).reshape(64, 12)
    assert mask.sum() == 64 * 12 * n // m
    signed = np.where(mask, b, np.copysign(np.float16(0), b))
    got = ordered_matmul(a, signed)
    assert_same_bits(ordered_matmul(a, np.where(mask, b, np.float16(0))), got)
    for i, j in np.ndindex(10, 12):
        kept = np.flatnonzero(mask[:, j])
        assert chain(zip(a[i, kept], b[kept, j], strict=True)).view(np.uint32) == got[i, j].view(np.uint32)
        compared += 1
    assert compared == 120


# --- the passes of a convolution


def single_products(layer: tuple, x: np.ndarray, w: np.ndarray, dy: np.ndarray) -> tuple[np.ndarray, ...]:
    """All three passes from the index formulas, product by product, padding and holes left out."""
    (high, wide), stride, padding = layer[0], np.broadcast_to(layer[1], 2), np.broadcast_to(layer[2], 2)
    (images, rows, columns, ins), (_, down, across, outs) = x.shape, dy.shape

    def source(oh: int, ow: int, kh: int, kw: int) -> tuple[int, int] | None:
        h, v = oh * stride[0] + kh - padding[0], ow * stride[1] + kw - padding[1]
        return (h, v) if 0 <= h < rows and 0 <= v < columns else None

    y, dx, dw = np.zeros_like(dy, np.float32), np.zeros_like(x, np.float32), np.zeros_like(w, np.float32)
    taps, pixels = list(np.ndindex(high, wide)), list(np.ndindex(down, across))
    reads = {(p, t): source(*p, *t) for p in pixels for t in taps}
    writes = {(reads[p, t], t): p for p in pixels for t in taps}
    for n, oh, ow, co in np.ndindex(*y.shape):
        seen = [(reads[(oh, ow), t], t) for t in taps if reads[(oh, ow), t]]
        y[n, oh, ow, co] = chain((x[n][at][ci], w[t][ci, co]) for at, t in seen for ci in range(ins))
    for n, h, v, ci in np.ndindex(*dx.shape):
        seen = [(writes[(h, v), t], t) for t in reversed(taps) if ((h, v), t) in writes]
        dx[n, h, v, ci] = chain((dy[n][at][co], w[t][ci, co]) for at, t in seen for co in range(outs))
    for kh, kw, ci, co in np.ndindex(*dw.shape):
        seen = [(n, reads[p, (kh, kw)], p) for n in range(images) for p in pixels if reads[p, (kh, kw)]]
        dw[kh, kw, ci, co] = chain((x[n][at][ci], dy[n][p][co]) for n, at, p in seen)
    return y, dx, dw


def operands(layer: tuple, seed: int, images: int = 2, kind: str = "normal") -> tuple[np.ndarray, ...]:
    rng, (kernel, stride, padding, size, (ins, outs)) = np.random.default_rng(seed), layer
    out = [(n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, kernel, *(np.broadcast_to(v, 2) for v in (stride, padding)),
                                                        strict=True)]
    return tuple(halves(rng, *shape, kind=kind) for shape in ((images, *size, ins), (*kernel, ins, outs), (images, *out, outs)))


def passes(layer: tuple, x: np.ndarray, w: np.ndarray, dy: np.ndarray, **more: object) -> tuple[np.ndarray, ...]:
    options = {"stride": layer[1], "padding": layer[2], **more}
    return (ordered_output_pass(x, w, **options), ordered_input_pass(dy, w, layer[3], **options),
            ordered_weight_pass(x, dy, layer[0], **options))


@pytest.mark.parametrize("layer", LAYERS)
def test_the_passes_are_their_single_products(by_definition, layer):
    """The oracle leaves out padding and holes, the definition adds them as zeros, the kernel does some of each."""
    compared = 0
    for kind in ("normal", "any"):
        x, w, dy = operands(layer, 7, images=1, kind=kind)
        expected = single_products(layer, x, w, dy)
        for results in (passes(layer, x, w, dy), passes(layer, x, w, dy, threads=2), by_definition(passes, layer, x, w, dy)):
            compared += sum(assert_same_bits(got, right) for got, right in zip(results, expected, strict=True))
    assert compared > 300


@pytest.mark.parametrize(("kernel", "stride", "padding"), [((3, 3), 1, 1), ((3, 3), 2, 1), ((1, 1), 2, 0), ((7, 7), 2, 3)])
@pytest.mark.parametrize("kind", ("normal", "zeros"))
def test_the_passes_are_their_definition(by_definition, kernel, stride, padding, kind):
    """Layers of several blocks and tiles."""
    layer = (kernel, stride, padding, (13, 14), (37, 43) if kernel != (7, 7) else (3, 70))
    found = operands(layer, 8, images=3, kind=kind)
    pairs = zip(passes(layer, *found, threads=2), by_definition(passes, layer, *found), strict=True)
    assert sum(assert_same_bits(got, right) for got, right in pairs) > 12_000


def test_a_batch_in_parts_is_the_whole():
    """Weight gradients add up over chunks of the batch through `init`; images do not meet in the other passes."""
    layer = LAYERS[1]
    x, w, dy = operands(layer, 9, images=5)
    options = {"stride": layer[1], "padding": layer[2]}
    y, dx, dw = passes(layer, x, w, dy)
    first = ordered_weight_pass(x[:2], dy[:2], layer[0], **options)
    compared = assert_same_bits(ordered_weight_pass(x[2:], dy[2:], layer[0], **options, init=first), dw)
    for part in (slice(0, 2), slice(2, 5)):
        compared += assert_same_bits(ordered_output_pass(x[part], w, **options), y[part])
        compared += assert_same_bits(ordered_input_pass(dy[part], w, layer[3], **options), dx[part])
    assert compared > 2_000


def test_init_goes_on_in_every_pass(by_definition):
    for layer in LAYERS[:4]:
        x, w, dy = operands(layer, 10)
        rng = np.random.default_rng(11)
        for function, args in ((ordered_output_pass, (x, w)), (ordered_input_pass, (dy, w, layer[3])),
                               (ordered_weight_pass, (x, dy, layer[0]))):
            options = {"stride": layer[1], "padding": layer[2]}
            init = rng.standard_normal(function(*args, **options).shape).astype(np.float32)
            got = function(*args, **options, init=init)
            assert_same_bits(got, by_definition(function, *args, **options, init=init))


def test_a_linear_layer_is_a_one_by_one_convolution():
    layer = LAYERS[-1]
    x, w, dy = operands(layer, 12, images=19)
    y, dx, dw = passes(layer, x, w, dy)
    flat = x.reshape(19, 40)
    assert_same_bits(y.reshape(19, 10), ordered_matmul(flat, w[0, 0]))
    assert_same_bits(dx.reshape(19, 40), ordered_matmul(dy.reshape(19, 10), np.ascontiguousarray(w[0, 0].T)))
    assert_same_bits(dw[0, 0], ordered_matmul_tn(flat, dy.reshape(19, 10)))


# --- surroundings

def digest() -> str:
    """All functions on operands of all kinds, as one hash."""
    found = hashlib.sha256()
    for kind in KINDS:
        rng = np.random.default_rng(13)
        a, b = halves(rng, 45, 300, kind=kind), halves(rng, 300, 39, kind=kind)
        results = [ordered_matmul(a, b), ordered_matmul_tn(np.ascontiguousarray(a.T), b), widen(a), narrow(ordered_matmul(a, b))]
        results.append(ordered_matmul(a[:, :1], b[:1], np.full((45, 39), 3e-42, np.float32)))  # a subnormal comes along
        for layer in LAYERS[:6]:
            results += passes(layer, *operands(layer, 14, kind=kind))
        for result in results:
            found.update(result.tobytes())
    return found.hexdigest()


SCRIPT = """
import hashlib, sys
import numpy as np
from sw.kernels.build import library
from sw.kernels.ordered import *
rng, found = np.random.default_rng(15), hashlib.sha256()
def halves(*shape): return rng.standard_normal(shape).astype(np.float16)
a, b, x, w, dy = halves(45, 300), halves(300, 39), halves(2, 9, 8, 5), halves(3, 3, 5, 6), halves(2, 5, 4, 6)
options = dict(stride=2, padding=1)
results = [ordered_matmul(a, b), ordered_matmul_tn(b, a.T), ordered_output_pass(x, w, **options), widen(a), narrow(widen(a) * 7e4),
           ordered_input_pass(dy, w, (9, 8), **options), ordered_weight_pass(x, dy, (3, 3), **options)]
for result in results: found.update(result.tobytes())
print(library("ordered") is None, "torch" in sys.modules, found.hexdigest())
"""


def test_results_are_equal_with_kernels_off_and_need_no_torch():
    lines = []
    for switch in ("on", "off"):
        environment = {**os.environ, build.SWITCH: switch, "PYTHONPATH": str(ROOT)}
        ran = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
        lines.append(ran.stdout.split())
    assert [line[:2] for line in lines] == [["False", "False"], ["True", "False"]]
    assert lines[0][2] == lines[1][2]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names of x86 instruction sets")
@pytest.mark.parametrize("processor", ["x86-64", "x86-64-v3"])
def test_results_do_not_depend_on_the_instruction_set(monkeypatch, tmp_path, processor):
    """SSE2 without fused operations and FP16 conversions, and AVX2, beside whatever this machine has."""
    if processor == "x86-64-v3" and not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        pytest.skip("this machine has no AVX2")
    expected = digest()
    flags = ["-march=" + processor if flag == "-march=native" else flag for flag in build._FLAGS]
    target = tmp_path / "ordered.so"
    subprocess.run(["g++", *flags, "-o", str(target), str(ROOT / "sw" / "kernels" / "ordered.cpp")], check=True)
    other = ctypes.CDLL(str(target))
    monkeypatch.setattr(ordered, "library", lambda name: other)
    assert digest() == expected


@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86 rounding modes")
def test_a_callers_floating_point_mode_does_not_matter():
    """The kernel sets its own, in its threads too, and leaves the caller's as it was."""
    expected, toward_zero = digest(), 0xC00
    library = ctypes.CDLL(ctypes.util.find_library("m"))
    rng = np.random.default_rng(16)
    a, b, init = halves(rng, 40, 60), halves(rng, 60, 40), np.full((40, 40), 3e-42, np.float32)
    plain, zeros = ordered_matmul(a, b), np.zeros((40, 1), np.float16)
    assert torch.set_flush_denormal(True) and library.fesetround(toward_zero) == 0
    try:
        changed, threaded = ordered_matmul(a, b), ordered_matmul(a, b, threads=3)
        kept, numpys = ordered_matmul(zeros, zeros[:, :1].T, init[:, :40]), a.astype(np.float32) * np.float32(0.1)
        mode = library.fegetround()
    finally:
        torch.set_flush_denormal(False)
        library.fesetround(0)
    assert mode == toward_zero and (numpys != a.astype(np.float32) * np.float32(0.1)).any()
    assert_same_bits(changed, plain)
    assert_same_bits(threaded, plain)
    assert_same_bits(kept, init)
    assert digest() == expected


def test_operands_need_not_lie_in_order():
    """Views with steps and byte-identical copies give the same; operands are not written to."""
    rng = np.random.default_rng(17)
    a, b = halves(rng, 20, 60), halves(rng, 60, 50)
    before = a.copy(), b.copy()
    got = ordered_matmul(a[::2, ::3], b[::3, ::-1])
    assert_same_bits(got, chains(a[::2, ::3], b[::3, ::-1]))
    init = np.asfortranarray(got)
    assert_same_bits(ordered_matmul(a[::2, ::3], np.zeros((20, 50), np.float16), init), got)
    assert all((old.view(np.uint16) == new.view(np.uint16)).all() for old, new in zip(before, (a, b), strict=True))


# --- number formats


def all_halves() -> np.ndarray:
    bits = np.arange(1 << 16, dtype=np.uint16)
    return bits[bits & 0x7C00 != 0x7C00].view(np.float16)


def packed(value: float) -> bytes:
    """By Python's own FP16, which raises where it would round to infinity."""
    try:
        return struct.pack("<e", value)
    except OverflowError:
        return struct.pack("<e", np.copysign(65504.0, value))


def test_narrow_rounds_to_even_and_saturates(by_definition):
    """Every half, every tie between two, their neighbours, and values of any exponent."""
    exact = np.sort(all_halves().astype(np.float32))
    ties = np.concatenate([(exact[1:] + exact[:-1]) / 2, np.float32([65520, -65520])])
    points = np.concatenate([exact, ties])
    rng = np.random.default_rng(18)
    others = rng.integers(0, 1 << 32, 20_000, np.uint32).view(np.float32)
    values = np.concatenate([points, np.nextafter(points, np.float32(np.inf)), np.nextafter(points, np.float32(-np.inf)),
                             others[np.isfinite(others)], np.float32([0.0, -0.0, 65519.996, -65519.996, 3.4e38, -3.4e38, 1e-45])])
    expected = np.frombuffer(b"".join(packed(v) for v in values.tolist()), np.uint16)
    assert np.isin([0x7BFF, 0xFBFF, 0x0001, 0x8000], expected).all()
    for got in (narrow(values), by_definition(narrow, values)):
        assert got.dtype == np.float16
        np.testing.assert_array_equal(got.view(np.uint16), expected)
    assert len(values) > 390_000


def test_widen_is_exact(by_definition):
    values = all_halves()
    expected = np.array([struct.unpack("<e", v.tobytes())[0] for v in values], np.float32)
    assert assert_same_bits(widen(values), expected) == assert_same_bits(by_definition(widen, values), expected) == 63_488
    for count in (0, 1, 15, 17):
        assert np.array_equal(narrow(widen(values[:count])).view(np.uint16), values[:count].view(np.uint16))
    assert widen(values[:6].reshape(2, 3)).shape == (2, 3)
    assert widen(np.array(2.5, np.float16)).shape == narrow(np.array(2.5, np.float32)).shape == ()


# --- bad operands


def test_bad_operands_are_refused(by_definition):
    rng = np.random.default_rng(19)
    a, b, x, w, dy = (halves(rng, *s) for s in ((3, 4), (4, 5), (2, 6, 6, 3), (3, 3, 3, 2), (2, 6, 6, 2)))
    nan, infinite = a.copy(), x.copy()
    nan[2, 3], infinite[1, 5, 5, 2] = np.nan, -np.inf
    sums, minus = np.zeros((3, 5), np.float32), np.full((3, 5), -0.0, np.float32)
    cases: list[tuple[str, Callable[[], object]]] = [
        (r"a \(I, K\) must be a numpy array of float16, not float32 of shape", lambda: ordered_matmul(a.astype(np.float32), b)),
        (r"b \(K, J\) must be a numpy array of float16, not builtins.list", lambda: ordered_matmul(a, [[1.0]])),
        (r"a \(I, K\) must have 2 axes of at least 1, not shape \(4,\)", lambda: ordered_matmul(a[0], b)),
        (r"must have 2 axes of at least 1, not shape \(3, 0\)", lambda: ordered_matmul(a[:, :0], b[:0])),
        (r"K of a .* must be equal, not 4 and 3", lambda: ordered_matmul(a, b[:3])),
        (r"K of a \(K, I\) .* must be equal, not 3 and 4", lambda: ordered_matmul_tn(a, b)),
        (r"a \(I, K\) must be finite", lambda: ordered_matmul(nan, b)),
        (r"x \(N, H, W, CI\) must be finite", lambda: ordered_output_pass(infinite, w)),
        (r"x \(N, H, W, CI\) must be finite", lambda: ordered_weight_pass(infinite, dy, (3, 3), padding=1)),
        (r"init must be a numpy array of float32 and shape \(3, 5\)", lambda: ordered_matmul(a, b, sums[:, :4])),
        (r"init must be a numpy array of float32 .* not float64", lambda: ordered_matmul(a, b, sums.astype(np.float64))),
        (r"init must be a partial sum .* never -0", lambda: ordered_matmul(a, b, minus)),
        (r"init must be a partial sum", lambda: ordered_matmul(a, b, sums + np.float32(np.inf))),
        (r"threads must be an integer in 1\.\.1024, not 0", lambda: ordered_matmul(a, b, threads=0)),
        (r"CI of x .* must be equal, not 3 and 2", lambda: ordered_output_pass(x, w[:, :, :2])),
        (r"CO of dy .* must be equal, not 1 and 2", lambda: ordered_input_pass(dy[..., :1], w, (6, 6), padding=1)),
        (r"N of x .* must be equal, not 2 and 1", lambda: ordered_weight_pass(x, dy[:1], (3, 3), padding=1)),
        (r"\(OH, OW\) of dy .* not \(6, 6\) and \(4, 4\)", lambda: ordered_weight_pass(x, dy, (3, 3))),
        (r"\(OH, OW\) of dy .* not \(6, 6\) and \(3, 3\)", lambda: ordered_input_pass(dy, w, (6, 6), stride=2, padding=1)),
        (r"a kernel of \(3, 3\) must fit into an input of \(2, 6\)", lambda: ordered_output_pass(x[:, :2], w)),
        (r"stride must be one or two integers of at least 1, not 0", lambda: ordered_output_pass(x, w, stride=0)),
        (r"padding must be one or two integers of at least 0", lambda: ordered_output_pass(x, w, padding=(1, -1))),
        (r"kernel must be one or two integers", lambda: ordered_weight_pass(x, dy, (3.0, 3))),
        (r"values must be a numpy array of float32, not float16", lambda: narrow(a)),
        (r"values must be a numpy array of float16, not numpy.float16", lambda: widen(a[0, 0])),
        (r"values must be finite", lambda: narrow(np.float32([1, np.nan]))),
        (r"values must be finite", lambda: narrow(np.float32([np.inf]))),
        (r"values must be finite", lambda: widen(nan)),
    ]
    for words, call in cases:
        for run in (lambda f: f(), by_definition):
            with pytest.raises(ValueError, match=words):
                run(call)
