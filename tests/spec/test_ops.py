"""Golden operations against the ONNX reference evaluator (layers) and exact fractions (requantise)."""

from __future__ import annotations

from fractions import Fraction

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


def onnx_run(op: str, *arrays: np.ndarray, **attributes: object) -> np.ndarray:
    """One ONNX node in the reference evaluator, in float64 (exact on integers)."""
    names = [f"i{k}" for k in range(len(arrays))]
    node = helper.make_node(op, names, ["o"], **attributes)
    inputs = [helper.make_tensor_value_info(n, TensorProto.DOUBLE, a.shape) for n, a in zip(names, arrays, strict=True)]
    output = helper.make_tensor_value_info("o", TensorProto.DOUBLE, None)
    model = helper.make_model(helper.make_graph([node], "g", inputs, [output]), opset_imports=[helper.make_opsetid("", 19)])
    feed = {n: a.astype(np.float64) for n, a in zip(names, arrays, strict=True)}
    result = ReferenceEvaluator(model).run(None, feed)[0]
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
    assert_equal(ops.Split(half=1)(joined), right)
    assert_equal(ops.Split(half=0)(joined), left)


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
        (lambda: ops.Split(half=2), "must be 0 or 1"),
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
