"""Golden operations against the ONNX reference evaluator (layers) and exact fractions (requantise)."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import floor

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from hw.spec import ops
from hw.spec.fixed import Rounding

ROUNDINGS = (Rounding.TRN, Rounding.RND, Rounding.RND_CONV)


def wide_requant(channels: int) -> ops.Requant:
    """Passes small accumulators through unchanged, so that the layer itself is compared."""
    return ops.identity_requant(channels, -256, 255)


INDEX_INPUTS = {"Reshape": (1,), "Slice": (1, 2, 3), "Gather": (1,)}
"""Inputs of ONNX nodes that are integers, not data."""


def onnx_run(op: str, *arrays: np.ndarray, **attributes: object) -> np.ndarray:
    """One ONNX node in the reference evaluator, in float64 (exact on integers)."""
    names = [f"i{k}" for k in range(len(arrays))]
    node = helper.make_node(op, names, ["o"], **attributes)
    index = INDEX_INPUTS.get(op, ())
    arrays = tuple(a.astype(np.int64 if k in index else np.float64) for k, a in enumerate(arrays))
    kinds = [TensorProto.INT64 if k in index else TensorProto.DOUBLE for k in range(len(arrays))]
    inputs = [helper.make_tensor_value_info(n, kind, a.shape) for n, kind, a in zip(names, kinds, arrays, strict=True)]
    output = helper.make_tensor_value_info("o", TensorProto.DOUBLE, None)
    model = helper.make_model(helper.make_graph([node], "g", inputs, [output]), opset_imports=[helper.make_opsetid("", 19)])
    result = ReferenceEvaluator(model).run(None, dict(zip(names, arrays, strict=True)))[0]
    assert np.array_equal(result, np.round(result))
    return result.astype(np.int64)


def assert_equal(got: np.ndarray, want: np.ndarray) -> None:
    assert got.shape == want.shape
    assert got.size > 0
    assert np.abs(want).max() > 0, "a comparison of zeros proves nothing"
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("ic", "oc", "h", "w", "k", "stride", "padding"),
    [(3, 5, 7, 6, 3, 1, 1), (4, 2, 8, 8, 3, 2, 1), (6, 7, 5, 9, 1, 1, 0), (2, 3, 9, 7, 5, 2, 2), (1, 16, 8, 8, 3, 1, 0)],
)
def test_conv2d_is_onnx_conv(ic: int, oc: int, h: int, w: int, k: int, stride: int, padding: int) -> None:
    rng = np.random.default_rng(ic * oc)
    x, weight = rng.integers(-3, 4, (2, ic, h, w)), rng.integers(-2, 3, (oc, ic, k, k))
    want = onnx_run("Conv", x, weight, strides=[stride] * 2, pads=[padding] * 4)
    assert_equal(
        ops.Conv2d(weight=weight, requant=wide_requant(oc), stride=stride, padding=padding)(x), np.clip(want, -256, 255)
    )


@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_is_onnx_grouped_conv(stride: int) -> None:
    rng = np.random.default_rng(stride)
    x, weight = rng.integers(-5, 6, (2, 6, 7, 9)), rng.integers(-5, 6, (6, 3, 3))
    want = onnx_run("Conv", x, weight[:, None], strides=[stride] * 2, pads=[1] * 4, group=6)
    got = ops.DepthwiseConv2d(weight=weight, requant=wide_requant(6), stride=stride)(x)
    assert_equal(got, np.clip(want, -256, 255))


@pytest.mark.parametrize("stride", [1, 2])
def test_deform_is_onnx_deform_conv(stride: int) -> None:
    rng = np.random.default_rng(7 + stride)
    n, c, h, w = 2, 4, 11, 9
    oh, ow = -(-h // stride), -(-w // stride)
    x, weight = rng.integers(-5, 6, (n, c, h, w)), rng.integers(-5, 6, (c, 3, 3))
    s = rng.integers(-12, 13, (n, 1, oh, ow))
    s.reshape(-1)[:16] = np.arange(-7, 9)
    clipped = np.clip(s[:, 0], ops.OFFSET_MIN, ops.OFFSET_MAX)
    # Tap (i, j) of the plain kernel stands at (i-1, j-1); the square offset moves it to s times that.
    offset = np.zeros((n, 18, oh, ow))
    for i in range(3):
        for j in range(3):
            offset[:, 2 * (3 * i + j)] = (clipped - 1) * (i - 1)
            offset[:, 2 * (3 * i + j) + 1] = (clipped - 1) * (j - 1)
    want = onnx_run("DeformConv", x, weight[:, None], offset, group=c, pads=[1] * 4, strides=[stride] * 2, kernel_shape=[3, 3])
    got = ops.DeformDepthwiseConv2d(weight=weight, requant=wide_requant(c), stride=stride)(x, s)
    assert_equal(got, np.clip(want, -256, 255))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("frac", [1, 2, 3])
def test_square_deform_samples_by_the_definition(frac: int, stride: int) -> None:
    """Each sample is the real bilinear value of the codes, rounded half up; rational numbers, one pixel at a time."""
    rng = np.random.default_rng(10 * frac + stride)
    x, weight = rng.integers(-128, 128, (1, 2, 23, 21)), rng.integers(-7, 8, (2, 3, 3))
    size = -(-23 // stride), -(-21 // stride)
    s = rng.integers(-128, 128, (1, 1, *size))
    middle = s[0, 0, size[0] // 2 - 2 : size[0] // 2 + 2, size[1] // 2]  # where taps that far lie within the image
    middle[:] = -7 << frac, 8 << frac, (-7 << frac) - 1, (8 << frac) + 1
    got = ops.DeformDepthwiseConv2d(weight=weight, requant=wide_requant(2), stride=stride, offset_frac=frac)(x, s)
    want, halves = np.zeros(got.shape, np.int64), 0
    for c, y, col in np.ndindex(2, *size):
        step = min(max(Fraction(int(s[0, 0, y, col]), 1 << frac), Fraction(-7)), Fraction(8))
        for i, j in np.ndindex(3, 3):
            value = interpolated(x[0, c], y * stride + step * (i - 1), col * stride + step * (j - 1))
            halves += value.denominator == 2
            want[0, c, y, col] += int(weight[c, i, j]) * floor(value + Fraction(1, 2))
    assert halves > 0 and want.std() > 50
    assert_equal(got, np.clip(want, -256, 255))


def interpolated(image: np.ndarray, row: Fraction, col: Fraction) -> Fraction:
    """Bilinear between the four pixels around; those outside count 0."""
    total = Fraction(0)
    for y in (floor(row), floor(row) + 1):
        for x in (floor(col), floor(col) + 1):
            if 0 <= y < image.shape[0] and 0 <= x < image.shape[1]:
                total += (1 - abs(row - y)) * (1 - abs(col - x)) * int(image[y, x])
    return total


def test_fraction_bits_that_the_sampler_does_not_hold() -> None:
    with pytest.raises(ValueError, match=r"offset_frac must be in 0\.\.3, not 4"):
        ops.DeformDepthwiseConv2d(weight=np.ones((2, 3, 3), int), requant=wide_requant(2), offset_frac=4)


@pytest.mark.parametrize(
    ("ic", "groups", "oc", "k", "stride", "padding"),
    [(6, 3, 6, 3, 1, 1), (8, 2, 6, 1, 1, 0), (5, 5, 10, 3, 2, 1), (4, 4, 4, 5, 1, 2), (12, 4, 4, 2, 2, 0)],
)
def test_grouped_conv2d_is_onnx_conv(ic: int, groups: int, oc: int, k: int, stride: int, padding: int) -> None:
    rng = np.random.default_rng(ic * oc)
    x, weight = rng.integers(-3, 4, (2, ic, 7, 9)), rng.integers(-2, 3, (oc, ic // groups, k, k))
    want = onnx_run("Conv", x, weight, strides=[stride] * 2, pads=[padding] * 4, group=groups)
    conv = ops.Conv2d(weight=weight, requant=wide_requant(oc), stride=stride, padding=padding, groups=groups)
    assert conv.in_channels == ic
    assert_equal(conv(x), np.clip(want, -256, 255))


def test_linear_is_matmul() -> None:
    rng = np.random.default_rng(3)
    x, weight = rng.integers(-9, 9, (5, 12, 1, 1)), rng.integers(-2, 3, (7, 12))
    want = onnx_run("Gemm", x[:, :, 0, 0], weight, transB=1)
    assert_equal(ops.Linear(weight=weight, requant=wide_requant(7))(x)[:, :, 0, 0], np.clip(want, -256, 255))


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (3, 1, 1), (5, 3, 2)])
def test_max_pool_is_onnx(kernel: int, stride: int, padding: int) -> None:
    x = np.random.default_rng(kernel).integers(-128, 0, (2, 3, 11, 10))
    want = onnx_run("MaxPool", x, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[padding] * 4)
    assert_equal(ops.MaxPool2d(kernel=kernel, stride=stride, padding=padding)(x), want)


def test_upsample_is_onnx_nearest() -> None:
    x = np.random.default_rng(1).integers(-128, 128, (2, 3, 4, 5))
    node = helper.make_node(
        "Resize", ["x", "", "s"], ["y"], mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric"
    )
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, None)],
        initializer=[onnx.numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "s")],
    )
    want = ReferenceEvaluator(helper.make_model(graph)).run(None, {"x": x.astype(np.float64)})[0]
    assert_equal(ops.Upsample2x()(x), want.astype(np.int64))


def test_shuffle_join_is_concat_reshape_transpose() -> None:
    """Channel shuffle as ShuffleNet states it: (groups, C) to (C, groups)."""
    rng = np.random.default_rng(5)
    left, right = rng.integers(-99, 99, (2, 2, 16, 3, 4))
    joined = onnx_run("Concat", left, right, axis=1)
    want = joined.reshape(2, 2, 16, 3, 4).transpose(0, 2, 1, 3, 4).reshape(2, 32, 3, 4)
    assert_equal(ops.ShuffleJoin()(left, right), want)
    assert_equal(ops.Slice(start=16, stop=32)(joined), right)
    assert_equal(ops.Slice(start=0, stop=16)(joined), left)


@pytest.mark.parametrize(("channels", "groups"), [(12, 1), (12, 2), (12, 3), (12, 12), (10, 5)])
def test_shuffle_is_reshape_transpose_reshape(channels: int, groups: int) -> None:
    """Channel shuffle as ONNX exporters write it, with three nodes."""
    x = np.random.default_rng(groups).integers(-99, 99, (2, channels, 3, 4))
    apart = onnx_run("Reshape", x, np.array([2, groups, channels // groups, 3, 4]))
    want = onnx_run("Reshape", onnx_run("Transpose", apart, perm=[0, 2, 1, 3, 4]), np.array(x.shape))
    assert_equal(ops.Shuffle(groups=groups)(x), want)
    assert_equal(ops.Shuffle(groups=channels // groups)(want), x)


def test_shuffle_of_a_concatenation_is_a_shuffle_join() -> None:
    left, right = np.random.default_rng(8).integers(-99, 99, (2, 2, 5, 3, 4))
    assert_equal(ops.Shuffle(groups=2)(ops.Concat()(left, right)), ops.ShuffleJoin()(left, right))


@pytest.mark.parametrize("channels", [(3, 5), (1, 1, 1), (4, 2, 7, 1)])
def test_concat_is_onnx(channels: tuple[int, ...]) -> None:
    rng = np.random.default_rng(len(channels))
    parts = [rng.integers(-128, 128, (2, c, 3, 5)) for c in channels]
    got = ops.Concat()(*parts)
    assert_equal(got, onnx_run("Concat", *parts, axis=1))
    borders = np.cumsum([0, *channels])
    for part, start, stop in zip(parts, borders[:-1], borders[1:], strict=True):
        assert_equal(ops.Slice(start=int(start), stop=int(stop))(got), part)


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (3, 7), (0, 9), (8, 9)])
def test_slice_is_onnx(start: int, stop: int) -> None:
    x = np.random.default_rng(stop).integers(-128, 128, (2, 9, 3, 4))
    want = onnx_run("Slice", x, np.array([start]), np.array([stop]), np.array([1]))
    assert_equal(ops.Slice(start=start, stop=stop)(x), want)


@pytest.mark.parametrize(("lo", "hi"), [(0, 6), (-128, 5), (17, 17), (-256, 255)])
def test_clip_is_onnx(lo: int, hi: int) -> None:
    x = np.random.default_rng(hi).integers(-128, 128, (2, 9, 3, 4))
    assert_equal(ops.Clip(lo=lo, hi=hi)(x), onnx_run("Clip", x, np.array(lo), np.array(hi)))


def test_scale_is_onnx_multiplication_per_channel() -> None:
    rng = np.random.default_rng(12)
    x, weight, bias = rng.integers(-9, 9, (2, 11, 4, 3)), rng.integers(-9, 9, 11), rng.integers(-99, 99, 11)
    product = onnx_run("Mul", x, weight[:, None, None])
    requant = replace(wide_requant(11), bias=bias)
    assert_equal(ops.Scale(weight=weight, requant=requant)(x), np.clip(product + bias[:, None, None], -256, 255))
    single = ops.DepthwiseConv2d(weight=np.pad(weight[:, None, None], ((0, 0), (1, 1), (1, 1))), requant=requant)
    assert_equal(ops.Scale(weight=weight, requant=requant)(x), single(x))


def test_table_is_onnx_gather() -> None:
    """Unsigned codes index the table as they are, signed ones from its end where they are negative: as ONNX counts too."""
    rng = np.random.default_rng(13)
    values = rng.permutation(256) - 100
    for codes in (np.arange(256), np.arange(-128, 128)):
        x = rng.permutation(codes).reshape(1, 4, 8, 8)
        got = ops.Table(values=values)(x)
        assert_equal(got, onnx_run("Gather", values, x))
        assert np.unique(got).size == 256


def test_add_is_onnx() -> None:
    a, b = np.random.default_rng(14).integers(-60, 60, (2, 2, 5, 3, 3))
    assert_equal(ops.Add(lo=-256, hi=255)(a, b), onnx_run("Add", a, b))


def test_add_saturates() -> None:
    a, b = np.full((1, 1, 1, 3), 100), np.array([27, 28, -100]).reshape(1, 1, 1, 3)
    assert_equal(ops.Add(lo=-128, hi=127)(a, b), np.array([127, 127, 0]).reshape(1, 1, 1, 3))
    assert_equal(ops.Add(lo=0, hi=127)(-a, a + b), np.array([27, 28, 0]).reshape(1, 1, 1, 3))


def exact_round(value: Fraction, rounding: Rounding) -> int:
    """The written definition: floor, half up, half to even."""
    floor = value.numerator // value.denominator
    rest = value - floor
    if rounding is Rounding.TRN:
        return floor
    if rounding is Rounding.RND:
        return floor + (rest >= Fraction(1, 2))
    return floor + (rest > Fraction(1, 2) or (rest == Fraction(1, 2) and floor % 2 == 1))


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_requant_is_its_definition(rounding: Rounding) -> None:
    rng = np.random.default_rng(11)
    channels = 1000
    shift = rng.integers(-32, 32, channels)
    bias = rng.integers(-(2**31), 2**31, channels)
    multiplier = np.where(rng.random(channels) < 0.5, 1, rng.integers(1, 65536, channels))
    acc = rng.integers(-(2**31), 2**31, (1, channels, 1, 8))
    acc[..., :4] = -bias[None, :, None, None] + rng.integers(-3, 4, (1, channels, 1, 4))  # near zero: left shifts stay in range
    half = (1 << np.maximum(shift, 1)) >> 1
    acc[0, :, 0, 4] = -bias + rng.integers(-64, 64, channels) * half  # ties where the multiplier is 1
    requant = ops.Requant(bias=bias, multiplier=multiplier, shift=shift, rounding=rounding, lo=-128, hi=127)
    got, compared, inside = requant(acc), 0, 0
    for c in range(channels):
        for k in range(8):
            exact = Fraction((int(acc[0, c, 0, k]) + int(bias[c])) * int(multiplier[c])) / Fraction(2) ** int(shift[c])
            want = min(max(exact_round(exact, rounding), -128), 127)
            assert got[0, c, 0, k] == want, (c, k, exact)
            compared, inside = compared + 1, inside + (-128 < want < 127)
    assert compared == 8000
    assert inside > 1000


@pytest.mark.parametrize("count", [1, 4, 9, 16, 49, 64, 100, 255 * 3])
def test_mean_is_within_rounding_of_the_true_mean(count: int) -> None:
    requant = ops.mean_requant(1, count, 0, Rounding.RND, -256, 255)
    sums = np.arange(-128 * count, 128 * count, max(1, count // 7))
    got = requant(sums.reshape(1, 1, 1, -1)).reshape(-1)
    wrong = [
        int(s)
        for s, g in zip(sums, got, strict=True)
        if abs(Fraction(int(s), count) - int(g)) > Fraction(1, 2) + Fraction(1, 200)
    ]
    assert sums.size > 100
    assert not wrong


def test_avg_pool_counts_padding_as_zero() -> None:
    x = np.full((1, 1, 2, 2), 9)
    requant = ops.mean_requant(1, 9, 0, Rounding.RND, -128, 127)
    assert_equal(ops.AvgPool2d(kernel=(3, 3), requant=requant, padding=1)(x), np.full((1, 1, 2, 2), 4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ops.Conv2d(weight=np.full((1, 1, 1, 1), 200), requant=wide_requant(1)), "must be in -128..127"),
        (lambda: ops.Conv2d(weight=np.zeros((1, 1)), requant=wide_requant(1)), "must have 4 axes"),
        (lambda: ops.Conv2d(weight=np.zeros((1, 1, 1, 1)), requant=wide_requant(1), stride=0), "stride >= 1"),
        (lambda: ops.DepthwiseConv2d(weight=np.zeros((1, 5, 5)), requant=wide_requant(1)), r"must be \(C, 3, 3\)"),
        (lambda: ops.Slice(start=2, stop=2), "must have 0 <= start < stop"),
        (lambda: ops.Slice(start=-1, stop=2), "must have 0 <= start < stop"),
        (lambda: ops.Slice(start=2, stop=5)(np.zeros((1, 4, 1, 1))), "slice of channels 2..4 needs 5 channels, not 4"),
        (lambda: ops.Conv2d(weight=np.zeros((4, 1, 1, 1)), requant=wide_requant(4), groups=3), "must divide the 4 output"),
        (lambda: ops.Conv2d(weight=np.zeros((4, 1, 1, 1)), requant=wide_requant(4), groups=0), "must divide the 4 output"),
        (
            lambda: ops.Conv2d(weight=np.zeros((4, 3, 1, 1)), requant=wide_requant(4), groups=2)(np.zeros((1, 5, 1, 1))),
            "expects 6 input channels, not 5",
        ),
        (lambda: ops.Scale(weight=np.full(2, 128), requant=wide_requant(2)), "must be in -128..127"),
        (lambda: ops.Scale(weight=np.ones(2), requant=wide_requant(2))(np.zeros((1, 3, 1, 1))), "expects 2 channels, not 3"),
        (lambda: ops.Table(values=np.zeros(255)), "must be 256, one per byte"),
        (lambda: ops.Table(values=np.full(256, 256)), "must be in -128..255, not 256..256"),
        (lambda: ops.Table(values=np.zeros(256))(np.full((1, 1, 1, 1), 256)), "codes of at most 8 bits"),
        (lambda: ops.Clip(lo=3, hi=2), "must lie in -256..255, not 3..2"),
        (lambda: ops.Add(lo=-257, hi=2), "must lie in -256..255, not -257..2"),
        (lambda: ops.Add(lo=0, hi=2)(np.zeros((1, 1, 1, 1)), np.zeros((1, 2, 1, 1))), "two tensors of one shape"),
        (lambda: ops.Concat()(np.zeros((1, 1, 1, 1))), "two or more tensors"),
        (lambda: ops.Concat()(np.zeros((1, 1, 1, 1)), np.zeros((1, 1, 1, 2))), "of one height and width"),
        (lambda: ops.Shuffle(groups=0), "must be at least 1, not 0"),
        (lambda: ops.Shuffle(groups=3)(np.zeros((1, 4, 1, 1))), "3 groups does not divide 4 channels"),
        (lambda: ops.MaxPool2d(kernel=2, stride=2, padding=2), "at most half"),
        (lambda: ops.identity_requant(1, 5, 4), "must lie in -256..255"),
        (lambda: ops.mean_requant(1, 0, 0, Rounding.RND, 0, 1), "at least 1 element"),
        (
            lambda: ops.Requant(bias=np.zeros(1), multiplier=np.zeros(1), shift=np.zeros(1), rounding=Rounding.RND, lo=0, hi=1),
            "multiplier must be in 1..65535",
        ),
        (
            lambda: ops.Requant(bias=np.zeros(1), multiplier=np.ones(2), shift=np.zeros(1), rounding=Rounding.RND, lo=0, hi=1),
            "one value per channel",
        ),
        (
            lambda: ops.Requant(
                bias=np.zeros(1), multiplier=np.ones(1), shift=np.zeros(1), rounding=Rounding.RND_INF, lo=0, hi=1
            ),
            "must be TRN, RND or RND_CONV",
        ),
    ],
)
def test_bad_parameters_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
