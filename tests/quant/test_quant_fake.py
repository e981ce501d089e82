"""The fake quantiser: equal to hw.spec on every value, and the gradients of the published formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hw.spec.fixed import FixedFormat, Overflow, Rounding, dequantize, quantize
from sw.quant.fake import exact_power_of_two, fake_quantize, quantize_codes

SATURATING = (Overflow.SAT, Overflow.SAT_SYM)
FORMATS = [FixedFormat(w, f, s) for w, s in ((8, True), (8, False), (4, True), (1, True), (16, True))
           for f in (-9, 0, 4, 11)]


def hard_values(fmt: FixedFormat, dtype: type) -> np.ndarray:
    """Ties and their neighbours, the range's ends, denormals, infinities, and random values."""
    random = np.random.default_rng(fmt.width * 100 + fmt.frac)
    top = 2.0 ** min(fmt.width, 9)
    step = 2.0**-fmt.frac
    ties = (np.arange(-2 * top, 2 * top + 1) / 2 * step).astype(dtype)
    near = [np.nextafter(ties, dtype(side)) for side in (-np.inf, np.inf)]
    tiny = np.finfo(dtype).smallest_subnormal * np.array([1, -1, 5, -5], dtype)
    extreme = np.array([0, -0.0, np.inf, -np.inf, np.finfo(dtype).max, np.finfo(dtype).min], dtype)
    spread = (random.normal(size=2000) * step * 2.0 ** random.integers(-4, fmt.width + 2, 2000)).astype(dtype)
    return np.concatenate([ties, *near, tiny, extreme, spread])


@pytest.mark.parametrize("overflow", SATURATING)
@pytest.mark.parametrize("rounding", Rounding)
def test_equal_to_the_specification(rounding: Rounding, overflow: Overflow) -> None:
    compared = 0
    for fmt in FORMATS:
        for dtype in (np.float32, np.float64):
            values = hard_values(fmt, dtype)
            tensor = torch.from_numpy(values)
            codes = quantize_codes(tensor, torch.tensor(fmt.frac), width=fmt.width, signed=fmt.signed,
                                   rounding=rounding, overflow=overflow)
            fake = fake_quantize(tensor, torch.tensor(float(fmt.integer_bits)), width=fmt.width, signed=fmt.signed,
                                 rounding=rounding, overflow=overflow)
            expected = quantize(values, fmt, rounding, overflow)
            assert np.array_equal(codes.numpy().astype(np.int64), expected), fmt
            assert np.array_equal(fake.numpy().astype(np.float64), dequantize(expected, fmt)), fmt
            compared += 2 * values.size
    assert compared > 100_000


def test_the_values_catch_rounding_by_adding_a_half() -> None:
    values = hard_values(FixedFormat(8, 4), np.float32)
    with np.errstate(over="ignore"):
        naive = np.clip(np.floor(values * np.float32(16) + np.float32(0.5)), -128, 127)
    wrong = naive != quantize(values, FixedFormat(8, 4), Rounding.RND, Overflow.SAT)
    assert wrong.sum() > 0


def test_per_channel_is_each_channel_alone() -> None:
    values = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(1))
    bits = torch.tensor([-1.0, 0.4, 3.6])
    together = fake_quantize(values, bits, width=6, axis=1)
    alone = torch.stack([fake_quantize(values[:, c], bits[c], width=6) for c in range(3)], 1)
    assert torch.equal(together, alone) and together.unique().numel() > 20


def test_powers_of_two_are_exact() -> None:
    for dtype, limit in ((torch.float32, 126), (torch.float64, 1000)):
        exponents = torch.arange(-limit, limit + 1)
        made = exact_power_of_two(exponents, dtype).double().numpy()
        assert np.array_equal(made, np.ldexp(1.0, exponents.numpy()))


@pytest.mark.parametrize("rounding", [Rounding.RND, Rounding.TRN, Rounding.RND_CONV])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("axis", [None, 1])
def test_gradients_follow_the_formulas(rounding: Rounding, signed: bool, axis: int | None) -> None:
    random = torch.Generator().manual_seed(3)
    values = (torch.randn(40, 6, 5, generator=random, dtype=torch.float64) * 2).requires_grad_()
    start = torch.tensor([0.2, 1.4, 2.0, 3.0, -1.0, 2.6], dtype=torch.float64) if axis else torch.tensor(2.3, dtype=torch.float64)
    bits = start.requires_grad_()
    upstream = torch.randn(40, 6, 5, generator=random, dtype=torch.float64)
    fake_quantize(values, bits, width=5, signed=signed, rounding=rounding, axis=axis).backward(upstream)

    frac = 5 - np.rint(start.detach().numpy()).reshape(1, -1, 1)
    x, g = values.detach().numpy(), upstream.numpy()
    fmt = FixedFormat(5, 0, signed)
    scaled = x * 2.0**frac
    rounded = quantize(scaled, FixedFormat(40, 0), rounding, Overflow.SAT)
    inside = (rounded >= fmt.min_code) & (rounded <= fmt.max_code)
    assert 0 < inside.sum() < inside.size
    on_grid = np.clip(rounded, fmt.min_code, fmt.max_code) * 2.0**-frac
    slope = math.log(2) * np.where(inside, on_grid - x, on_grid)
    expected = (g * slope).sum((0, 2)) if axis else (g * slope).sum()
    assert values.grad is not None and np.array_equal(values.grad.numpy(), g * inside)
    # Both sides are float sums of the same terms in another order.
    assert bits.grad is not None and np.allclose(bits.grad.numpy(), expected, rtol=1e-12, atol=1e-12)


def test_learning_the_binary_point_reduces_the_error() -> None:
    values = torch.randn(4000, generator=torch.Generator().manual_seed(5))
    bits = torch.tensor(6.0, requires_grad=True)
    optimizer = torch.optim.Adam([bits], lr=0.05)
    errors = []
    for _ in range(150):
        loss = (fake_quantize(values, bits, width=6) - values).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(loss.item())
    best = min(float((fake_quantize(values, torch.tensor(float(b)), width=6) - values).square().mean()) for b in range(-2, 7))
    assert min(errors) == pytest.approx(best) and errors[0] > 4 * best


@pytest.mark.parametrize(("call", "text"), [
    (lambda: fake_quantize(torch.tensor([1.0, float("nan")]), torch.tensor(2.0), width=8), "not NaN"),
    (lambda: fake_quantize(torch.ones(2), torch.tensor(2.0), width=8, overflow=Overflow.WRAP), "must saturate"),
    (lambda: fake_quantize(torch.ones(2), torch.tensor(2.0), width=25), "at most 24 bits"),
    (lambda: fake_quantize(torch.ones(2), torch.tensor(200.0), width=8), "binary points must be in"),
    (lambda: fake_quantize(torch.ones(2, 3), torch.ones(3), width=8), "needs the channel axis"),
    (lambda: fake_quantize(torch.ones(2, 3), torch.ones(2), width=8, axis=1), "one per channel"),
])
def test_bad_arguments(call, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()


def test_integers_are_refused() -> None:
    with pytest.raises(TypeError, match="float32 or float64"):
        fake_quantize(torch.ones(2, dtype=torch.int32), torch.tensor(2.0), width=8)
