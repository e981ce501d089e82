"""The guard of exact emulation: a back end that rounds inside a product is caught before its numbers are used."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sw.quant import export, guard, quantize_model
from sw.quant.emulate import Geometry, conv_codes
from sw.quant.guard import InexactBackendError, exact_product


@pytest.fixture(autouse=True)
def unprobed() -> Iterator[None]:
    """Nothing is believed from other tests, nor left to them."""
    before = set(guard._probed)
    guard._probed.clear()
    yield
    guard._probed.clear()
    guard._probed.update(before)


def operands(dtype: torch.dtype = torch.float32, depth: int = 144) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    return (torch.randint(-7, 8, (1, 16, depth), generator=random).to(dtype),
            torch.randint(0, 256, (2, 1, depth, 49), generator=random).to(dtype))


def rounding_to(bits: int) -> Callable[[Tensor, Tensor], Tensor]:
    """A product whose results have so many significant bits: what a transform or a narrow accumulator does to some."""
    def product(weight: Tensor, columns: Tensor) -> Tensor:
        exact = weight @ columns
        step = torch.exp2(torch.floor(torch.log2(exact.abs().clamp_min(1))) + 1 - bits)
        return torch.round(exact / step) * step

    return product


@pytest.mark.parametrize("bits", [8, 11, 16])
def test_a_product_that_rounds_is_refused_in_words(monkeypatch: pytest.MonkeyPatch, bits: int) -> None:
    monkeypatch.setattr(guard, "backend_product", rounding_to(bits))
    with pytest.raises(InexactBackendError, match=r"torch.float32 product of .* on cpu must equal integers, but [0-9]+ of "):
        exact_product(*operands())


def test_one_wrong_result_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    def product(weight: Tensor, columns: Tensor) -> Tensor:
        made = weight @ columns
        made[-1, 0, 3, -1] += 1
        return made

    monkeypatch.setattr(guard, "backend_product", product)
    with pytest.raises(InexactBackendError, match="but 1 of 1568 results differ"):
        exact_product(*operands())


def test_narrow_operands_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16 holds 8 significant bits: codes of 8 bits with a sign do not survive."""
    monkeypatch.setattr(guard, "backend_product", lambda w, c: (w.bfloat16() @ c.bfloat16()).to(c.dtype))
    with pytest.raises(InexactBackendError):
        exact_product(*operands())


def test_each_shape_type_and_precision_is_probed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, ...]] = []

    def product(weight: Tensor, columns: Tensor) -> Tensor:
        calls.append((weight.shape, columns.dtype))
        return weight @ columns

    monkeypatch.setattr(guard, "backend_product", product)
    weight, columns = operands()
    for _ in range(3):
        exact_product(weight, columns)
    assert len(calls) == 4  # one probe, three products
    exact_product(*operands(torch.float64))
    exact_product(weight[:, :8], columns)
    assert len(calls) == 8


@pytest.mark.parametrize("depth", [1, 9, 576, 4608, 70_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_probe_stays_within_exact_sums(dtype: torch.dtype, depth: int) -> None:
    """What the probe multiplies is as large as it may be, and never larger: it must not refuse a back end that is exact."""
    weight, columns = torch.zeros(1, 3, depth, dtype=dtype), torch.zeros(1, 1, depth, 2, dtype=dtype)
    codes, values = guard._operands(weight, columns)
    limit = 2**24 if dtype is torch.float32 else 2**53
    bound = int(codes.abs().max()) * int(values.abs().max()) * depth
    assert codes.abs().max() >= 1 and values.abs().max() >= 100 and bound <= limit
    assert exact_product(weight, columns).shape == (1, 1, 3, 2)


def test_the_frozen_model_is_guarded(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    model = quantize_model(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2)))
    x = torch.randn(4, 3, 8, 8)
    model.calibrate([x])
    model.freeze()
    monkeypatch.setattr(guard, "backend_product", rounding_to(11))
    with pytest.raises(InexactBackendError):
        model(x)
    with pytest.raises(InexactBackendError):
        export(model, x)


def test_convolutions_of_codes_against_int64_sums() -> None:
    """Grouped, strided, dilated convolutions of codes against int64 sums of shifted images."""
    random = np.random.default_rng(3)
    compared = 0
    for groups, stride, padding, dilation in ((1, 1, 1, 1), (2, 2, 0, 1), (4, 1, 2, 2), (8, 2, 1, 1)):
        x, w = random.integers(-128, 256, (2, 8, 9, 7)), random.integers(-127, 128, (16, 8 // groups, 3, 3))
        made = conv_codes(torch.from_numpy(x), torch.from_numpy(w),
                          Geometry(stride=stride, padding=padding, dilation=dilation, groups=groups), torch.float64).numpy()
        padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
        expected = np.zeros(made.shape, np.int64)
        for o in range(16):
            for c in range(8 // groups):
                plane = padded[:, o // (16 // groups) * (8 // groups) + c]
                for i in range(3):
                    for j in range(3):
                        rows = slice(i * dilation, i * dilation + (made.shape[2] - 1) * stride + 1, stride)
                        cols = slice(j * dilation, j * dilation + (made.shape[3] - 1) * stride + 1, stride)
                        expected[:, o] += w[o, c, i, j] * plane[:, rows, cols]
        assert np.array_equal(made, expected)
        compared += expected.size
    assert compared > 2000
