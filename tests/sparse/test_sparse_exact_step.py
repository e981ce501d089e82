"""A whole step of a network without BatchNorm, with biases, against loops written here in the one order."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from hw.spec.training import Hyper, softmax_cross_entropy
from sw.sparse import (
    ExactTrainer,
    LossScaling,
    export,
    load_into,
    sparsify,
)
from tests.sparse.exact_networks import sgd

F16, F32 = np.float16, np.float32


class Tiny(nn.Module):
    """(N, 2, 5, 5): the second convolution is sparse in both directions and has a stride; the linear layer reads 2 x 2 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.head = nn.Linear(8 * 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.two(torch.relu(self.one(x)))).flatten(1))


def chain(terms: list[tuple[F16, F16]]) -> F32:
    """The one order: a float32 sum that begins at +0."""
    total = F32(0)
    for a, b in terms:
        total = F32(total + F32(a) * F32(b))
    return total


def largest(values: np.ndarray, n: int, m: int, axis: int) -> np.ndarray:
    """Group by group along an axis: the n of largest magnitude, the lower index among equals; zeros elsewhere."""
    kept = np.zeros_like(values)
    for place in np.ndindex(values.shape):
        start = place[axis] // m * m
        group = [(-abs(values[(*place[:axis], i, *place[axis + 1 :])]), i) for i in range(start, start + m)]
        if place[axis] in [i for _, i in sorted(group)[:n]]:
            kept[place] = values[place]
    return kept


def conv(x: np.ndarray, w: np.ndarray, stride: int, padding: int) -> np.ndarray:
    """x (N, C, H, W), w (O, C, KH, KW), float16: sums over (kh, kw, c) as float16."""
    (n, c, h, width), (o, _, kh, kw) = x.shape, w.shape
    y = np.zeros((n, o, (h + 2 * padding - kh) // stride + 1, (width + 2 * padding - kw) // stride + 1), F16)
    for image, out, row, col in np.ndindex(y.shape):
        terms = []
        for i, j, k in np.ndindex(kh, kw, c):
            r, q = row * stride + i - padding, col * stride + j - padding
            if 0 <= r < h and 0 <= q < width:
                terms.append((x[image, k, r, q], w[out, k, i, j]))
        y[image, out, row, col] = F16(chain(terms))
    return y


def conv_input(dy: np.ndarray, w: np.ndarray, shape: tuple[int, ...], stride: int, padding: int) -> np.ndarray:
    """The gradient of x: sums over taps from the last to the first, then output channels, as float16."""
    dx, (o, _, kh, kw) = np.zeros(shape, F16), w.shape
    for image, k, r, q in np.ndindex(shape):
        terms = []
        for i, j, out in ((i, j, out) for i in reversed(range(kh)) for j in reversed(range(kw)) for out in range(o)):
            (row, left), (col, over) = divmod(r + padding - i, stride), divmod(q + padding - j, stride)
            if not left and not over and 0 <= row < dy.shape[2] and 0 <= col < dy.shape[3]:
                terms.append((dy[image, out, row, col], w[out, k, i, j]))
        dx[image, k, r, q] = F16(chain(terms))
    return dx


def conv_weight(x: np.ndarray, dy: np.ndarray, shape: tuple[int, ...], stride: int, padding: int) -> np.ndarray:
    """The gradient of w: sums over (n, row, column), float32."""
    dw = np.zeros(shape, F32)
    for out, k, i, j in np.ndindex(shape):
        terms = []
        for image, row, col in np.ndindex(len(x), *dy.shape[2:]):
            r, q = row * stride + i - padding, col * stride + j - padding
            if 0 <= r < x.shape[2] and 0 <= q < x.shape[3]:
                terms.append((x[image, k, r, q], dy[image, out, row, col]))
        dw[out, k, i, j] = chain(terms)
    return dw


def with_bias(y: np.ndarray, bias: np.ndarray, relu: bool) -> np.ndarray:
    z = (y.astype(F32) + bias[:, None, None]).astype(F32)
    return np.where(z > 0, z, F32(0)).astype(F16) if relu else z.astype(F16)


def bias_gradient(dz: np.ndarray) -> np.ndarray:
    """Exact sums, as float64 holds these, rounded once."""
    return dz.astype(np.float64).sum(axis=(0, 2, 3)).astype(F32)


def moved(value: np.ndarray, velocity: np.ndarray, gradient: np.ndarray, hyper: Hyper) -> tuple[np.ndarray, np.ndarray]:
    """Value by value in scalars."""
    k, rate, momentum, decay = (F32(v) for v in (1 / hyper.loss_scale, hyper.learning_rate, hyper.momentum, hyper.weight_decay))
    values, velocities = np.empty_like(value), np.empty_like(value)
    for place in np.ndindex(value.shape):
        step = F32(F32(value[place] * decay) + F32(gradient[place] * k))
        velocities[place] = F32(F32(velocity[place] * momentum) + step)
        values[place] = F32(value[place] - F32(velocities[place] * rate))
    return values, velocities


def test_a_step_equals_loops_written_here() -> None:
    """From torch's own layouts: forward, backward, update; parameters and momenta of all six, and the loss, on every bit."""
    torch.manual_seed(4)
    model = sparsify(Tiny(), 2, 4, include=["two"])
    optimizer, hyper = sgd(model), Hyper(learning_rate=0.05, momentum=0.875, weight_decay=1e-3, loss_scale=128.0)
    images, labels = torch.randn(2, 2, 5, 5).half().float(), torch.tensor([2, 0])
    F.cross_entropy(model(images), labels).backward()
    optimizer.step()
    p = {name: parameter.detach().numpy().copy() for name, parameter in model.named_parameters()}
    v = {name: optimizer.state[parameter]["momentum_buffer"].numpy().copy() for name, parameter in model.named_parameters()}

    training = ExactTrainer(export(model, optimizer, images), scaling=LossScaling(initial=128))
    result = training.step(images, labels, hyper)
    load_into(model, optimizer, training.state)

    x, head = images.numpy().astype(F16), p["head.weight"].reshape(3, 8, 2, 2)
    two_forward, two_backward = largest(p["two.weight"], 2, 4, 1).astype(F16), largest(p["two.weight"], 2, 4, 0).astype(F16)
    a = with_bias(conv(x, p["one.weight"].astype(F16), 1, 0), p["one.bias"], relu=True)
    b = with_bias(conv(a, two_forward, 2, 1), p["two.bias"], relu=True)
    logits = with_bias(conv(b, head.astype(F16), 1, 0), p["head.bias"], relu=False)
    loss, gradient = softmax_cross_entropy(logits[:, :, 0, 0], labels.numpy(), hyper.loss_scale)
    dy = gradient[:, :, None, None]
    g = {"head.weight": conv_weight(b, dy, head.shape, 1, 0).reshape(3, 32), "head.bias": bias_gradient(dy)}
    db = np.where(b > 0, conv_input(dy, head.astype(F16), b.shape, 1, 0), F16(0))
    g |= {"two.weight": conv_weight(a, db, p["two.weight"].shape, 2, 1), "two.bias": bias_gradient(db)}
    da = np.where(a > 0, conv_input(db, two_backward, a.shape, 2, 1), F16(0))
    g |= {"one.weight": conv_weight(x, da, p["one.weight"].shape, 1, 0), "one.bias": bias_gradient(da)}

    assert result.loss == loss and np.array_equal(result.logits, logits[:, :, 0, 0])
    compared = 0
    for name, parameter in model.named_parameters():
        expected, velocity = moved(p[name], v[name], g[name], hyper)
        np.testing.assert_array_equal(parameter.detach().numpy().view(np.uint32), expected.view(np.uint32), err_msg=name)
        found = optimizer.state[parameter]["momentum_buffer"].numpy()
        np.testing.assert_array_equal(found.view(np.uint32), velocity.view(np.uint32), err_msg=name)
        assert not np.array_equal(expected, p[name])
        compared += 2 * expected.size
    assert compared == 2 * (72 + 4 + 288 + 8 + 96 + 3)
    assert (two_forward != 0).sum() == (two_backward != 0).sum() == 144 and (two_forward != two_backward).sum() > 50
