"""Each method's three products against an independent slow implementation in float64, layer by layer."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sw.sparse import SparseConv2d, SparseLinear, sparsify
from tests.sparse import reference

METHODS = ("bdwp", "srste", "sdgp", "sdwp")
DECAY = {"bdwp": 0.0, "srste": 2e-4, "sdgp": 0.0, "sdwp": 0.0}
GEOMETRIES = [
    {"stride": 1, "padding": 1, "dilation": 1}, {"stride": 2, "padding": 1, "dilation": 1},
    {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 2)},
]


def only(layer: nn.Module) -> nn.Module:
    return nn.Sequential(layer)


def compare(found: dict[str, Tensor], expected: dict[str, Tensor]) -> int:
    """Every value to 1e-12 of the largest: float64 sums in another order."""
    count = 0
    for name, values in expected.items():
        assert found[name].shape == values.shape
        worst = (found[name] - values).abs().max()
        assert worst <= 1e-12 * values.abs().max(), f"{name}: {worst}"
        count += values.numel()
    return count


def gradients(model: nn.Module, x: Tensor, dy: Tensor | None = None, seed: int = 5) -> tuple[dict[str, Tensor], Tensor]:
    layer: Any = model[0]  # type: ignore[index]
    x = x.clone().requires_grad_()
    y = model(x)
    if dy is None:
        dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed), dtype=y.dtype)
    y.backward(dy)
    bias = layer.bias.reshape(-1, *[1] * (y.ndim - 2)) if y.ndim == 4 else layer.bias
    return {"y": (y - bias).detach(), "dx": x.grad, "dw": layer.weight.grad, "db": layer.bias.grad}, dy  # type: ignore[dict-item]


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize(("n", "m"), [(2, 4), (2, 8), (1, 3), (4, 4)])
@pytest.mark.parametrize("method", METHODS)
def test_convolutions(method: str, n: int, m: int, geometry: dict[str, Any]) -> None:
    torch.manual_seed(n * 100 + m)
    conv = nn.Conv2d(2 * m, m if m > 3 else 2 * m, 3, **geometry).double()
    model = sparsify(only(conv), n, m, method, include=["0"])
    assert isinstance(model[0], SparseConv2d)  # type: ignore[index]
    found, dy = gradients(model, torch.randn(2, 2 * m, 7, 8).double())
    torch.manual_seed(n * 100 + m)
    nn.Conv2d(2 * m, m if m > 3 else 2 * m, 3, **geometry)
    x = torch.randn(2, 2 * m, 7, 8).double()
    expected = reference.conv(x, conv.weight.detach(), dy, method, n, m, DECAY[method], geometry)
    assert compare(found, expected) > 500


@pytest.mark.parametrize(("n", "m"), [(2, 4), (2, 8), (2, 16), (3, 5), (5, 5)])
@pytest.mark.parametrize("method", METHODS)
def test_linear_layers(method: str, n: int, m: int) -> None:
    torch.manual_seed(n * 100 + m)
    linear, x = nn.Linear(3 * m, 2 * m).double(), torch.randn(6, 3 * m).double()
    model = sparsify(only(linear), n, m, method, include=["0"])
    assert isinstance(model[0], SparseLinear)  # type: ignore[index]
    found, dy = gradients(model, x)
    expected = reference.linear(x, linear.weight.detach(), dy, method, n, m, DECAY[method])
    assert compare(found, expected) > 100


def test_tokens_are_rows() -> None:
    torch.manual_seed(3)
    model = sparsify(only(nn.Linear(16, 8).double()), 2, 4, include=["0"])
    x = torch.randn(3, 5, 16).double()
    found, dy = gradients(model, x)
    flat, _ = gradients(copy.deepcopy(_cleared(model)), x.reshape(15, 16), dy.reshape(15, 8))
    assert torch.equal(found["dw"], flat["dw"]) and torch.equal(found["dx"].reshape(15, 16), flat["dx"])


def _cleared(model: nn.Module) -> nn.Module:
    for parameter in model.parameters():
        parameter.grad = None
    return model


@pytest.mark.parametrize("method", ["bdwp", "srste"])
def test_the_decay_term_is_an_option(method: str) -> None:
    torch.manual_seed(4)
    linear, x = nn.Linear(16, 16).double(), torch.randn(4, 16).double()
    found, dy = gradients(sparsify(only(linear), 2, 8, method, include=["0"], decay=0.5), x)
    expected = reference.linear(x, linear.weight.detach(), dy, method, 2, 8, 0.5)
    assert compare(found, expected) > 300
    plain, _ = gradients(sparsify(only(linear), 2, 8, method, include=["0"], decay=0), x, dy)
    mask = torch.from_numpy(reference.slow_mask(linear.weight.detach().numpy(), 2, 8, 1))
    change = found["dw"] - plain["dw"]
    assert not change[mask].any() and bool(change[~mask].all()) and int((~mask).sum()) == 192


def test_n_equal_m_is_the_dense_layer() -> None:
    torch.manual_seed(5)
    conv, x = nn.Conv2d(8, 8, 3, padding=1), torch.randn(2, 8, 6, 6)
    found, dy = gradients(sparsify(only(conv), 8, 8, include=["0"]), x)
    expected, _ = gradients(only(conv), x, dy)
    assert all(torch.equal(found[name], values) for name, values in expected.items())


@pytest.mark.parametrize("options", [
    {"padding": "same"}, {"padding": "same", "kernel_size": 4}, {"padding": "valid"}, {"padding": 1, "padding_mode": "reflect"},
    {"padding": "same", "padding_mode": "circular"}])
def test_paddings_are_those_of_the_dense_layer(options: dict[str, Any]) -> None:
    """N = M, so every value equals the dense layer's."""
    torch.manual_seed(6)
    conv, x = nn.Conv2d(8, 8, **{"kernel_size": 3, **options}), torch.randn(2, 8, 6, 6)
    found, dy = gradients(sparsify(only(conv), 8, 8, include=["0"]), x)
    expected, _ = gradients(only(conv), x, dy)
    for name, values in expected.items():
        assert torch.equal(found[name], values), name
    assert sparsify(only(conv), 2, 8, include=["0"])(x[0]).shape == expected["y"].shape[1:]


def test_sdgp_without_any_gradient_is_zero() -> None:
    conv = nn.Conv2d(8, 8, 3, padding=1).double()
    found, _ = gradients(sparsify(only(conv), 2, 8, "sdgp", include=["0"]), torch.randn(1, 8, 5, 5).double(),
                         torch.zeros(1, 8, 5, 5).double())
    assert not found["dx"].any() and not found["dw"].any()


def test_a_second_derivative_is_refused() -> None:
    model = sparsify(only(nn.Linear(8, 8)), 2, 4, include=["0"])
    x = torch.randn(2, 8, requires_grad=True)
    (slope,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()
