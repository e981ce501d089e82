"""Random pruning of dY for dW: exact values of each draw, unbiasedness over many draws, reproducibility."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hw.spec.counter import counter_key, counter_uniform
from sw.kernels import mvue as kernel
from sw.sparse import set_step, sparsify, step_of
from sw.sparse.mvue import mvue, mvue_definition, uniform


def at(step: int) -> Tensor:
    return torch.tensor(step)


def test_the_numbers_are_those_of_the_counter() -> None:
    elements = torch.arange(5000) * 858_993
    for seed, step, layer in ((0, 0, 0), (3, 70_000, 5), (2**40 + 1, 2**33, 9)):
        found = uniform(seed, at(step), layer, elements)
        assert np.array_equal(found.numpy(), counter_uniform(counter_key(seed, step, layer), elements.numpy()))
    assert len({float(uniform(s, at(t), k, at(1))) for s in range(3) for t in range(3) for k in range(3)}) == 27


def draws_of_two(column: list[float], step: int) -> list[float]:
    """The rule in Python's own float32 arithmetic, of one channel."""
    out, key = [], counter_key(1, step, 2)
    for pair, (a, b) in enumerate(zip(column[::2], column[1::2], strict=False)):
        a32, b32 = np.float32(a), np.float32(b)
        total, u = np.float32(abs(a32) + abs(b32)), counter_uniform(key, [pair])[0]
        left = np.float32(u * total) < abs(a32)
        out += [float(np.copysign(total, a32)) if left else 0.0, 0.0 if left else float(np.copysign(total, b32))]
    return out + column[len(out) :]


def test_one_of_two_is_exact_in_every_draw() -> None:
    column = [0.3, -1.7, 0.0, 2.0, -5.0, 0.0, 1e-30, -1e-30, 7.5]  # the last has no partner
    lefts = 0
    for step in range(300):
        values = torch.tensor(column).view(-1, 1)
        found = mvue(values, 2, 1, 1, at(step), 2).flatten().tolist()
        assert found == draws_of_two([float(v) for v in values.flatten()], step)
        assert found[2:6] == [0, 2, -5, 0] and found[8] == 7.5
        lefts += found[0] != 0
    assert 20 < lefts < 80  # 15 %


def test_two_of_four_keeps_two_at_the_values_of_least_variance() -> None:
    random = torch.Generator().manual_seed(0)
    values = torch.randn(400, 3, generator=random).double() ** 3  # some groups have one that outweighs the rest
    dominated = 0
    for step in range(20):
        found = mvue(values, 4, 1, 0, at(step), 0).view(-1, 4, 3)
        groups = values.view(-1, 4, 3)
        size = groups.abs()
        total, largest = size.sum(1, keepdim=True), size.amax(1, keepdim=True)
        heavy = largest >= total - largest
        top = size == largest
        wanted = torch.where(heavy, torch.where(top, size, total - largest), total / 2).copysign(groups)
        kept = found != 0
        assert (kept.sum(1) == 2).all()
        torch.testing.assert_close(found[kept], wanted[kept], rtol=1e-12, atol=0)
        assert kept[(heavy & top)].all()
        dominated += int(heavy.sum())
    assert dominated > 100


@pytest.mark.parametrize("m", [2, 4])
def test_the_mean_of_many_draws_is_the_gradient(m: int) -> None:
    """6,000 draws of each of 24 values: every mean within 5 standard errors, and they are not all on one side."""
    random = torch.Generator().manual_seed(2)
    values = torch.randn(12, 2, generator=random).double()
    values[0, 0] = 8.0  # outweighs its group
    draws = torch.stack([mvue(values, m, 1, 4, at(step), 7) for step in range(6_000)])
    error = draws.std(0) / len(draws) ** 0.5
    off = (draws.mean(0) - values) / error.clamp(min=1e-9)
    assert off.abs().max() < 5 and 0.3 < off.std() < 2 and (draws.std(0) > 0).sum() >= 20
    if m == 2:  # variance of the rule: |a| |b|
        a, b = values.abs().view(6, 2, 2).unbind(1)
        torch.testing.assert_close(draws.var(0).view(6, 2, 2)[:, 0], a * b, rtol=0.15, atol=1e-3)


@pytest.mark.parametrize("m", [2, 4])
def test_the_order_is_image_row_column_for_each_channel(m: int) -> None:
    """A convolution's dY is the same columns as its pixels written as rows; odd images make groups span two of them."""
    random = torch.Generator().manual_seed(3)
    grad = torch.randn(3, 4, 3, 3, generator=random)
    rows = grad.permute(0, 2, 3, 1).reshape(27, 4)
    expected = mvue(rows, m, 1, 5, at(6), 7)
    found = mvue(grad, m, 1, 5, at(6), 7)
    assert found.is_contiguous() and torch.equal(found.permute(0, 2, 3, 1).reshape(27, 4), expected)
    assert torch.equal(expected[27 // m * m :], rows[27 // m * m :]) and (expected == 0).sum() == 27 // m * m * 4 // 2
    last = mvue(grad.to(memory_format=torch.channels_last), m, 1, 5, at(6), 7)
    assert torch.equal(last, found)


@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize("shape", [(3, 4, 4, 4), (3, 4, 3, 3), (5, 7, 1, 2), (64, 16), (7, 3), (2, 5, 6), (2, 24, 66, 64)])
def test_the_kernel_is_equal_to_the_definition(shape: tuple[int, ...], m: int) -> None:
    """Groups inside images and across them, ties, zeros of both signs, sizes far apart; large tensors take threads."""
    random = torch.Generator().manual_seed(6)
    grad = torch.randint(-5, 6, shape, generator=random) / 4 * 10.0 ** torch.randint(-20, 20, shape, generator=random)
    assert kernel.usable(grad) and not kernel.usable(grad.double())
    if grad.numel() > 1 << 17:
        torch.set_num_threads(3)
    compared = 0
    for step in (0, 1, 2**31 + 3):
        found, expected = mvue(grad, m, 1, 2**33 + 5, at(step), 3), mvue_definition(grad, m, 1, 2**33 + 5, at(step), 3)
        assert torch.equal(found, expected) and torch.equal(torch.signbit(found), torch.signbit(expected))
        compared += int((found != 0).sum())
    assert compared > 20


@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_float32_rounded(dtype: torch.dtype, m: int) -> None:
    values = torch.randn(64, 8, generator=torch.Generator().manual_seed(4)).to(dtype)
    found = mvue(values, m, 1, 0, at(1), 0)
    assert found.dtype == dtype and torch.equal(found, mvue(values.float(), m, 1, 0, at(1), 0).to(dtype))


@pytest.mark.parametrize("m", [2, 4])
def test_zeros_and_damage(m: int) -> None:
    assert not mvue(torch.zeros(8, 2), m, 1, 0, at(1), 0).any()
    for damage in (float("nan"), float("inf")):
        values = torch.ones(8, 1)
        values[1] = damage
        assert not mvue(values, m, 1, 0, at(1), 0).isfinite().all()  # a loss scaler must see it
    assert mvue(torch.ones(1, 3), m, 1, 0, at(1), 0).tolist() == [[1, 1, 1]]


def trained(seed: int, steps: int, start: int = 0, **options: Any) -> tuple[list[Tensor], list[Tensor]]:
    """Weight gradients and input gradients of a linear layer, step by step."""
    torch.manual_seed(0)
    model = sparsify(nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16)), 2, 8, keep_ends=False, wu=(1, 2), seed=seed, **options)
    set_step(model, start)
    slopes, inputs = [], []
    for _ in range(steps):
        x = torch.randn(32, 16, generator=torch.Generator().manual_seed(1)).requires_grad_()
        model.zero_grad()
        model(x).square().sum().backward()
        slopes.append(model[1].weight.grad.clone())  # type: ignore[index,union-attr]
        inputs.append(x.grad)  # type: ignore[arg-type]
        model.eval()(x)
        model.train()
    assert step_of(model) == start + steps
    return slopes, inputs


def test_draws_follow_seed_and_step_and_go_on_after_a_stop() -> None:
    whole, inputs = trained(3, 4)
    again, _ = trained(3, 4)
    other, _ = trained(4, 4)
    later, _ = trained(3, 2, start=2)
    assert all(torch.equal(a, b) for a, b in zip(whole, again, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(whole[2:], later, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(whole, other, strict=True)) and not torch.equal(whole[0], whole[1])
    assert all(torch.equal(inputs[0], i) for i in inputs)  # dX and the bias see dY unpruned


def test_the_weight_gradient_is_unbiased_and_the_rest_untouched() -> None:
    """Mean over 1,500 steps of a convolution's dW against dW without pruning."""
    torch.manual_seed(5)
    dense = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1))
    x, dy = torch.randn(2, 8, 5, 5), torch.randn(2, 8, 5, 5)
    model, plain = (sparsify(dense, 2, 8, keep_ends=False, wu=wu) for wu in ((2, 4), None))
    plain(x).backward(dy)
    draws = []
    for _ in range(1500):
        model.zero_grad()
        model(x).backward(dy)
        draws.append(model[0].weight.grad.clone())  # type: ignore[index,union-attr]
    stack = torch.stack(draws).double()
    off = (stack.mean(0) - plain[0].weight.grad) / (stack.std(0) / len(draws) ** 0.5)  # type: ignore[index]
    assert off.numel() == 576 and off.abs().max() < 5 and 0.8 < off.std() < 1.2
    torch.testing.assert_close(model[0].bias.grad, plain[0].bias.grad)  # type: ignore[index,union-attr]
