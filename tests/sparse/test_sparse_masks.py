"""Copies are made when the weight changes and only then; the selection is that of hw.spec, with and without the kernel."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hw.spec.sparsity import nm_mask
from sw.kernels import nm_select
from sw.sparse import SparseLinear, refresh, sparsify
from sw.sparse.select import finite_select, select, select_definition

OPTIMIZERS: list[Any] = [
    lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9), lambda p: torch.optim.SGD(p, lr=0.5, foreach=True),
    lambda p: torch.optim.SGD(p, lr=0.5, fused=True), lambda p: torch.optim.SGD(p, lr=0.5, foreach=False),
    lambda p: torch.optim.Adam(p, lr=0.1), lambda p: torch.optim.Adam(p, lr=0.1, fused=True), lambda p: torch.optim.AdamW(p, lr=0.1),
    lambda p: torch.optim.RMSprop(p, lr=0.1), lambda p: torch.optim.Adagrad(p, lr=0.1), lambda p: torch.optim.LBFGS(p, lr=0.5),
    lambda p: torch.optim.NAdam(p, lr=0.1), lambda p: torch.optim.Rprop(p)]


def layer(**options: Any) -> SparseLinear:
    torch.manual_seed(0)
    made = sparsify(nn.Linear(16, 16), 2, 8, keep_ends=False, **options)
    assert isinstance(made, SparseLinear)
    return made


def expected(weight: Tensor, axis: int) -> Tensor:
    values = weight.detach().numpy()
    return torch.from_numpy(np.where(nm_mask(values, 2, 8, axis), values, 0).astype(values.dtype))


def check(made: SparseLinear) -> None:
    assert torch.equal(made.forward_weight(), expected(made.weight, 1))
    assert torch.equal(made.backward_weight(), expected(made.weight, 0))


def test_copies_are_made_once_per_change() -> None:
    made, x = layer(), torch.randn(4, 16)
    for _ in range(3):
        made(x).sum().backward()
        made.eval()(x)
        with torch.no_grad():
            made.train()(x)
    assert made.generated == 1
    check(made)
    with torch.no_grad():
        made.weight.mul_(-2)
    made(x)
    made(x)
    assert made.generated == 2
    check(made)


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_every_optimizer_is_noticed(make: Any) -> None:
    made, x = layer(), torch.randn(32, 16)
    optimizer = make(made.parameters())

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (made(x) - 1).square().sum()
        loss.backward()
        return loss

    for _ in range(3):
        before = made.weight.detach().clone()
        optimizer.step(closure)
        assert not torch.equal(before, made.weight)
        check(made)


def test_loading_and_edits_are_noticed() -> None:
    made, other = layer(), nn.Linear(16, 16)
    made(torch.randn(1, 16))
    for change in (lambda: made.load_state_dict(other.state_dict()),
                   lambda: made.load_state_dict(nn.Linear(16, 16).state_dict(), assign=True),
                   lambda: setattr(made, "weight", nn.Parameter(torch.randn(16, 16))),
                   lambda: setattr(made.weight, "data", torch.randn(16, 16)),
                   lambda: nn.init.normal_(made.weight), lambda: made.weight.detach().mul_(torch.randn(16, 16)),
                   lambda: made.double(), lambda: made.float()):
        count = made.generated
        change()
        check(made)
        assert made.generated == count + 1


def test_uncounted_edits_need_refresh() -> None:
    made = layer()
    made(torch.randn(1, 16))
    made.weight.data.copy_(torch.randn(16, 16))
    assert not torch.equal(made.forward_weight(), expected(made.weight, 1))  # torch does not count edits through .data
    refresh(made)
    check(made)


@pytest.mark.parametrize("method", ["bdwp", "srste", "sdgp", "sdwp"])
def test_copies_made_in_evaluation_serve_in_training(method: str) -> None:
    made, x = layer(method=method), torch.randn(2, 16)
    with torch.inference_mode():
        made(x)
    made(x).sum().backward()
    assert made.generated == 1 and made.weight.grad is not None
    with torch.inference_mode():
        frozen = copy.deepcopy(made)
        assert torch.equal(frozen(x), made(x))


def test_a_weight_changed_between_forward_and_backward_is_refused() -> None:
    made = layer()
    loss = made(torch.randn(2, 16)).sum()
    with torch.no_grad():
        made.weight.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


# --- selection --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("shape", "axis"), [((8,), 0), ((96, 64), 0), ((96, 64), 1), ((16, 48, 3, 3), 0), ((16, 48, 3, 3), 1),
                                             ((2, 16, 9, 8), 1), ((0, 16), 1), ((16, 0), 0)])
def test_selection_is_that_of_the_definition(shape: tuple[int, ...], axis: int, dtype: torch.dtype) -> None:
    random, compared = torch.Generator().manual_seed(1), 0
    for n, m in ((1, 2), (2, 4), (2, 8), (3, 8), (8, 8), (2, 16)):
        if shape[axis] % m:
            continue
        values = torch.randint(-6, 7, shape, generator=random).to(dtype) / 3  # many ties and zeros of both signs
        found = select(values, n, m, axis)
        wide = values.double().numpy()  # exact for every type
        mask = torch.from_numpy(nm_mask(wide, n, m, axis))
        assert found.dtype == dtype and torch.equal(found, torch.where(mask, values, 0))
        assert torch.equal(torch.signbit(found), torch.signbit(torch.where(mask, values, 0)))
        assert torch.equal(select_definition(values, n, m, axis), found)
        compared += 1 + found.numel()
    assert compared > 2


def test_the_kernel_is_used_on_this_machine_and_large_tensors_take_threads() -> None:
    values = torch.randn(256, 64, 5, 5)
    assert nm_select.usable(values) and not nm_select.usable(values.half())
    one = select(values, 2, 8, 1)
    torch.set_num_threads(3)
    assert torch.equal(select(values, 2, 8, 1), one) and torch.equal(select_definition(values, 2, 8, 1), one)


def test_without_the_kernel_results_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(16, 16, 3, 3)
    expected = select(values, 2, 8, 0)
    monkeypatch.setattr("sw.kernels.build.ENABLED", False)
    assert not nm_select.usable(values) and torch.equal(select(values, 2, 8, 0), expected)
    with pytest.raises(ValueError, match=r"here\.weight must be finite"):
        finite_select(values * float("nan"), 2, 8, 0, "here")


def test_damaged_gradients_stay_visible() -> None:
    values = torch.tensor([[1.0, float("nan"), float("inf"), 2.0, -float("inf"), 0.0, 0.0, 0.0]])
    assert select(values, 2, 8, 1).isnan().sum() == 1 and torch.isinf(select(values, 2, 8, 1)).sum() == 1
    assert torch.equal(select(values, 2, 8, 1).nan_to_num(7), select_definition(values, 2, 8, 1).nan_to_num(7))


@pytest.mark.parametrize("axis", [0, 1])
def test_weights_keep_their_memory_format(axis: int) -> None:
    values = torch.randn(16, 24, 3, 3)
    last = values.to(memory_format=torch.channels_last)
    found = finite_select(last, 2, 8, axis, "x")
    assert found.is_contiguous(memory_format=torch.channels_last) and torch.equal(found, finite_select(values, 2, 8, axis, "x"))
    odd = values.transpose(2, 3)
    assert torch.equal(finite_select(odd, 2, 8, axis, "x"), select_definition(odd, 2, 8, axis))
