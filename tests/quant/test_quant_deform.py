"""The float square deformable convolution against a direct definition, its gradients, and integers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hw.spec.ops import DeformDepthwiseConv2d, identity_requant
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
