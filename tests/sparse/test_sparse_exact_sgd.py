"""The exact update as an optimiser of torch: the core's rounding, the graph's training, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hw.spec.training import Hyper, updated
from sw.sparse import (
    ExactSGD,
    NonFiniteError,
    export,
    hyper_of,
    ordered_products,
)
from sw.sparse.exact import half_images
from tests.sparse.exact_networks import batch, network, sgd, trained

F32 = np.float32


def random_floats(rng: np.random.Generator, count: int) -> np.ndarray:
    """Finite float32 of all exponents, with subnormals and zeros of both signs; a half of them of ordinary size."""
    bits = rng.integers(0, 1 << 32, count, dtype=np.uint32)
    bits[: count // 8] &= np.uint32(0x80FFFFFF)  # around the smallest normal
    bits[count // 8 : count // 8 + 1000] &= np.uint32(0x80000000)
    values = bits.view(np.float32)
    values[~np.isfinite(values)] = 1.0
    values[count // 2 :] = rng.standard_normal(count - count // 2) * 0.1
    return values[rng.permutation(count)]


@pytest.mark.parametrize(("lr", "momentum", "decay"), [(0.1, 0.9, 5e-4), (1e-30, 0.999, 0.0), (3e4, 0.0, 1e30), (0.0, 1.0, 1.0)])
def test_the_update_is_the_core_s(lr: float, momentum: float, decay: float) -> None:
    """Two steps on half a million values in two parameters: the first from no momentum, the second from random ones."""
    rng = np.random.default_rng(1)
    value = random_floats(rng, 500_000)
    parameters = [nn.Parameter(torch.from_numpy(part.copy())) for part in (value[:300_000], value[300_000:].reshape(400, 500))]
    optimizer = ExactSGD(parameters, lr, momentum, decay)
    velocity, hyper = np.zeros_like(value), Hyper(learning_rate=lr, momentum=momentum, weight_decay=decay, loss_scale=1.0)
    compared, unfused, small = 0, 0, 0
    for _ in range(2):
        gradient = random_floats(rng, value.size)
        if velocity.any():
            velocity = random_floats(rng, value.size)
            _give(optimizer, parameters, velocity)
        for parameter, part in zip(parameters, (gradient[:300_000], gradient[300_000:].reshape(400, 500)), strict=True):
            parameter.grad = torch.from_numpy(part.copy())
        optimizer.step()
        unfused += int((fused(value, velocity, gradient, hyper) != updated(value, velocity, gradient, hyper, decay)[1]).sum())
        value, velocity = updated(value, velocity, gradient, hyper, decay)
        for found, expected in ((torch.cat([p.detach().flatten() for p in parameters]), value),
                                (torch.cat([optimizer.state[p]["momentum_buffer"].flatten() for p in parameters]), velocity)):
            np.testing.assert_array_equal(found.numpy().view(np.uint32), expected.view(np.uint32))
            compared += expected.size
            small += int(((np.abs(expected) < 2.0**-126) & (expected != 0)).sum())
    assert compared == 2_000_000 and (small > 1000 or decay > 1)
    assert unfused > 1000 or 0.0 in (decay, momentum) or momentum == 1.0, "a fused multiply-add would not be noticed"


def _give(optimizer: ExactSGD, parameters: list[nn.Parameter], velocity: np.ndarray) -> None:
    optimizer.state[parameters[0]]["momentum_buffer"] = torch.from_numpy(velocity[:300_000].copy())
    optimizer.state[parameters[1]]["momentum_buffer"] = torch.from_numpy(velocity[300_000:].reshape(400, 500).copy())


def fused(value: np.ndarray, velocity: np.ndarray, gradient: np.ndarray, hyper: Hyper) -> np.ndarray:
    """The velocity with the product of the second sum kept exact, as a fused multiply-add has it (up to double rounding)."""
    with np.errstate(over="ignore", invalid="ignore"):
        step = F32(hyper.weight_decay) * value
        step = np.clip(np.clip(step, -3.4028235e38, 3.4028235e38) + gradient, -3.4028235e38, 3.4028235e38).astype(F32)
        return (velocity.astype(np.float64) * np.float64(F32(hyper.momentum)) + step).astype(F32)


def test_the_optimiser_trains_as_the_graph_does() -> None:
    """Gradients of the graph in a torch optimiser: the same parameters and momenta as the graph's own update."""
    model, _ = trained("forms")
    optimizer = ExactSGD(model.parameters(), 0.05, 0.875, 1e-3)
    images, labels = batch("forms")
    graph = export(model, optimizer, images)
    result = graph.step(graph.state, half_images(images), labels.numpy(), hyper_of(model, optimizer, 256.0), ordered_products())
    for name, parameter in model.named_parameters():
        place, part = name.rsplit(".", 1)
        if part == "weight" and place in result.gradients.weights:
            gradient = result.gradients.weights[place].transpose(3, 2, 0, 1)
        else:
            gradient = result.gradients.channels[place if place in result.gradients.channels else f"{place}.bias"][part != "weight"]
        parameter.grad = torch.from_numpy(np.ascontiguousarray(gradient)).reshape(parameter.shape) / 256
    optimizer.step()
    found, expected, compared = export(model, optimizer, images).state.arrays(), result.state.arrays(), 0
    for name, array in expected.items():
        if not name.endswith(("running_mean", "running_variance")):
            np.testing.assert_array_equal(found[name].view(np.uint32), array.view(np.uint32), err_msg=name)
            compared += array.size
    assert compared > 1000


def test_ordinary_training_in_torch_with_the_optimiser() -> None:
    """Closures, schedulers, groups, checkpoints of torch; beside torch's own SGD, which rounds in another order."""
    model, other = network("vgg"), network("vgg")
    ours = ExactSGD([{"params": [p]} for p in model.parameters()], 0.05, 0.875, 1e-3)
    theirs = sgd(other)
    images, labels = batch("vgg")
    schedulers = [torch.optim.lr_scheduler.StepLR(o, 2, 0.5) for o in (ours, theirs)]
    losses = []
    for _ in range(6):
        for net, optimizer in ((model, ours), (other, theirs)):
            def loss(net: nn.Module = net, optimizer: Any = optimizer) -> torch.Tensor:
                optimizer.zero_grad()
                found = F.cross_entropy(net(images), labels)
                found.backward()
                return found
            losses.append(float(optimizer.step(loss).detach()))
        for scheduler in schedulers:
            scheduler.step()
    assert ours.param_groups[0]["lr"] == 0.05 / 8 and losses[-2] < 0.7 * losses[0]
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    again = ExactSGD([{"params": [p]} for p in model.parameters()], 1.0)
    again.load_state_dict(ours.state_dict())
    first = next(model.parameters())
    assert again.param_groups[0]["lr"] == 0.05 / 8 and torch.equal(again.state[first]["momentum_buffer"],
                                                                  ours.state[first]["momentum_buffer"])


def test_other_updates_are_refused() -> None:
    parameter = nn.Parameter(torch.ones(3))
    for options, words in (({"lr": -1}, "learning_rate must be a finite number of at least 0"),
                           ({"lr": 0.1, "momentum": float("nan")}, "momentum must be a finite number"),
                           ({"lr": 0.1, "weight_decay": -1e-4}, "weight_decay must be a finite number")):
        with pytest.raises(ValueError, match=words):
            ExactSGD([parameter], **options)
    with pytest.raises(ValueError, match=r"parameters must be float32, not torch\.float64"):
        ExactSGD([nn.Parameter(torch.ones(2).double())], 0.1)
    second = nn.Parameter(torch.ones(2))
    optimizer = ExactSGD([parameter, second], 0.1)
    parameter.grad, second.grad = torch.ones(3), torch.tensor([1.0, float("inf")])
    with pytest.raises(NonFiniteError, match=r"shape \(2,\) must be finite, and 1 of 2 values"):
        optimizer.step()
    assert torch.equal(parameter.detach(), torch.ones(3)) and not optimizer.state
    second.grad = None
    optimizer.step()
    assert torch.equal(second.detach(), torch.ones(2)) and not torch.equal(parameter.detach(), torch.ones(3))
