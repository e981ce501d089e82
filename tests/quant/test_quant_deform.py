"""The float square deformable convolution against a direct definition, its gradients, and integers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hw.spec.ops import DeformDepthwiseConv2d, identity_requant
from sw.quant import deform_conv2d
from sw.quant.primitives import SquareDeform, square_deform


def corner(image: np.ndarray, y: int, x: int) -> float:
    return float(image[y, x]) if 0 <= y < image.shape[0] and 0 <= x < image.shape[1] else 0.0


def bilinear(image: np.ndarray, y: float, x: float) -> float:
    top, left = math.floor(y), math.floor(x)
    return sum(corner(image, top + i, left + j) * (1 - abs(y - top - i)) * (1 - abs(x - left - j))
               for i in (0, 1) for j in (0, 1))


@pytest.mark.parametrize("stride", [1, 2])
def test_against_the_definition(stride: int) -> None:
    random = np.random.default_rng(stride)
    x, weight = random.normal(size=(2, 3, 7, 6)), random.normal(size=(3, 1, 3, 3))
    offset = random.uniform(-9, 10, (2, 1, -(-7 // stride), -(-6 // stride)))
    ours = square_deform(*(torch.from_numpy(a) for a in (x, offset, weight)), stride).numpy()
    expected = np.zeros_like(ours)
    for n, c, y, col in np.ndindex(*ours.shape):
        s = min(max(offset[n, 0, y, col], -7), 8)
        expected[n, c, y, col] = sum(
            weight[c, 0, i, j] * bilinear(x[n, c], y * stride + s * (i - 1), col * stride + s * (j - 1))
            for i in range(3) for j in range(3))
    assert expected.std() > 0.1 and np.allclose(ours, expected, rtol=1e-9, atol=1e-9)  # float sums in another order


def test_integer_offsets_give_the_golden_operation() -> None:
    random = np.random.default_rng(5)
    x, weight = random.integers(-128, 128, (2, 4, 9, 9)), random.integers(-7, 8, (4, 3, 3))
    s = random.integers(-9, 11, (2, 1, 9, 9))
    golden = DeformDepthwiseConv2d(weight=weight, requant=identity_requant(4, -256, 255))(x, s)
    ours = square_deform(torch.from_numpy(x).double(), torch.from_numpy(s).double(),
                         torch.from_numpy(weight[:, None]).double(), 1)
    assert golden.size == 648 and np.array_equal(ours.clamp(-256, 255).numpy(), golden)


def test_gradients_against_finite_differences() -> None:
    torch.manual_seed(2)
    x = torch.randn(1, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    # Away from integers, where the bilinear sample has a kink.
    offset = (torch.randint(-2, 3, (1, 1, 5, 5)) + torch.rand(1, 1, 5, 5) * 0.6 + 0.2).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b, c: square_deform(a, b, c, 1), (x, offset, weight))


def test_offset_one_is_an_ordinary_convolution() -> None:
    torch.manual_seed(3)
    layer = SquareDeform(4, bias=True)
    x = torch.randn(2, 4, 6, 6)
    plain = torch.nn.functional.conv2d(x, layer.weight, layer.bias, padding=1, groups=4)
    assert torch.allclose(layer(x, torch.ones(2, 1, 6, 6)), plain, atol=1e-5)


GENERAL = [  # stride, padding, dilation, groups, offset groups, masked
    (1, 1, 1, 1, 1, False), (2, 1, 1, 1, 2, True), (1, 0, 2, 2, 1, True), ((2, 1), (0, 2), (1, 2), 4, 4, True)]


@pytest.mark.parametrize(("stride", "padding", "dilation", "groups", "offset_groups", "masked"), GENERAL)
def test_general_operator_against_onnx(stride, padding, dilation, groups, offset_groups, masked) -> None:
    helper = pytest.importorskip("onnx.helper")
    evaluator = pytest.importorskip("onnx.reference").ReferenceEvaluator
    pair = lambda v: v if isinstance(v, tuple) else (v, v)  # noqa: E731
    (sh, sw), (ph, pw), (dh, dw) = pair(stride), pair(padding), pair(dilation)
    size = ((9 + 2 * ph - 2 * dh - 1) // sh + 1, (8 + 2 * pw - dw - 1) // sw + 1)
    random = np.random.default_rng(7)
    arrays = {
        "x": random.normal(size=(2, 4, 9, 8)), "w": random.normal(size=(8, 4 // groups, 3, 2)),
        "o": random.normal(size=(2, 12 * offset_groups, *size)) * 2, "b": random.normal(size=8),
        "m": random.uniform(size=(2, 6 * offset_groups, *size))}
    arrays = {k: v.astype(np.float32) for k, v in arrays.items() if k != "m" or masked}
    node = helper.make_node(
        "DeformConv", ["x", "w", "o", "b", *(["m"] if masked else [])], ["y"], kernel_shape=[3, 2], strides=[sh, sw],
        pads=[ph, pw, ph, pw], dilations=[dh, dw], group=groups, offset_group=offset_groups)
    expected = evaluator(node).run(None, arrays)[0]
    t = {k: torch.from_numpy(v) for k, v in arrays.items()}
    ours = deform_conv2d(t["x"], t["o"], t["w"], t["b"], stride, padding, dilation, t.get("m")).numpy()
    assert ours.shape == expected.shape and expected.std() > 0.1
    assert np.allclose(ours, expected, rtol=1e-4, atol=1e-4)  # float32 sums in another order


def test_general_operator_contains_the_square_one() -> None:
    torch.manual_seed(8)
    x, weight, s = torch.randn(2, 5, 6, 7), torch.randn(5, 1, 3, 3), torch.rand(2, 1, 6, 7) * 12 - 5
    signs = torch.tensor([[i - 1, j - 1] for i in range(3) for j in range(3)], dtype=torch.float32).view(1, 18, 1, 1)
    general = deform_conv2d(x, (s - 1) * signs, weight, padding=1)
    assert torch.allclose(general, square_deform(x, s, weight, 1), atol=1e-4)


def test_general_operator_refuses_shapes() -> None:
    x, w = torch.ones(1, 4, 5, 5), torch.ones(2, 4, 3, 3)
    with pytest.raises(ValueError, match="2 x 9 channels"):
        deform_conv2d(x, torch.ones(1, 17, 3, 3), w)
    with pytest.raises(ValueError, match="one value per output pixel"):
        deform_conv2d(x, torch.ones(1, 18, 4, 4), w)
    with pytest.raises(ValueError, match="mask must have"):
        deform_conv2d(x, torch.ones(1, 18, 3, 3), w, mask=torch.ones(1, 9, 2, 3))
