"""Exact training: compiled products equal to the definition, a step equal to loops written here, resumed runs, and the update."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hw.spec.training import DEFINITION, Hyper, softmax_cross_entropy, updated
from sw.sparse import (
    CheckpointError,
    DivergedError,
    ExactSGD,
    ExactTrainer,
    LossScaling,
    NonFiniteError,
    export,
    hyper_of,
    load_into,
    ordered_products,
    sparsify,
)
from sw.sparse.exact import half_images
from sw.training_graph import TrainingState
from tests.sparse.exact_networks import batch, network, sgd, trained
from tests.sparse.killed_exact import STEPS, run, trainer

PROGRAM = Path(__file__).with_name("killed_exact.py")
F16, F32 = np.float16, np.float32


def same(first: TrainingState, second: TrainingState) -> int:
    """Number of values compared, on every bit."""
    ours, theirs, compared = first.arrays(), second.arrays(), 0
    assert set(ours) == set(theirs)
    for name, array in ours.items():
        np.testing.assert_array_equal(array.view(np.uint32), theirs[name].view(np.uint32), err_msg=name)
        compared += array.size
    return compared


# --- products --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vgg", "forms"])
def test_kernels_equal_the_definition_over_three_steps(name: str) -> None:
    """Every array of the state after each step, from a state with momenta."""
    model, optimizer = trained(name)
    graph = export(model, optimizer, batch(name)[0])
    training, state, compared = ExactTrainer(graph, scaling=LossScaling(initial=512), threads=2), graph.state, 0
    for step in range(3):
        images, labels = batch(name, 20 + step)
        hyper = hyper_of(model, optimizer, 512.0)
        result = training.step(images, labels, hyper)
        expected = graph.step(state, half_images(images), labels.numpy(), hyper, DEFINITION)
        state = expected.state
        compared += same(training.state, state)
        np.testing.assert_array_equal(result.logits.view(np.uint16), expected.logits.view(np.uint16))
        assert training.history[-1].loss == expected.loss and not expected.skipped
    assert compared > 5000 and same_as_before(graph.state, state) > 20


def same_as_before(before: TrainingState, after: TrainingState) -> int:
    """Arrays that a training has changed."""
    later = after.arrays()
    return sum(not np.array_equal(array, later[name]) for name, array in before.arrays().items())


# --- one step, written out -------------------------------------------------------------------------------------------------


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


# --- loss scale and checkpoints --------------------------------------------------------------------------------------------


def overflowing(scaling: LossScaling) -> ExactTrainer:
    """Weights of the last layer so large that scaled gradients pass 65504."""
    graph = export(*trained("vgg"), batch("vgg")[0])
    head = graph.state.weights["head"]
    large = {**graph.state.weights, "head": replace(head, master=head.master * F32(200))}
    return ExactTrainer(replace(graph, state=replace(graph.state, weights=large)), scaling=scaling)


def test_a_step_that_saturates_is_skipped_and_halves_the_scale() -> None:
    training = overflowing(LossScaling(initial=2.0**15, growth_steps=2))
    hyper, skipped = Hyper(learning_rate=1e-6), 0
    for step in range(12):
        before = training.state
        result = training.step(*batch("vgg", step), hyper)
        record = training.history[-1]
        assert record.skipped == result.skipped == result.gradients.saturated
        if record.skipped:
            skipped += 1
            names = {n for n, a in training.state.arrays().items() if not np.array_equal(a, before.arrays()[n])}
            assert names and all(name.endswith(("running_mean", "running_variance")) for name in names)
            assert training.scale.value == record.loss_scale / 2 and training.scale.good_steps == 0
        else:
            assert not np.array_equal(training.state.weights["head"].master, before.weights["head"].master)
            assert training.scale.value == record.loss_scale or training.scale.value == 2 * record.loss_scale
    scales = [record.loss_scale for record in training.history]
    grown = [b for a, b in pairwise(scales) if b == 2 * a]
    assert skipped >= 2 and grown and scales[0] == 2.0**15 and min(scales) < 2.0**14, scales


def test_saturation_at_the_smallest_scale_is_said() -> None:
    training = overflowing(LossScaling(initial=2.0**15, smallest=2.0**15))
    with pytest.raises(DivergedError, match="gradients saturate at the smallest loss scale, 32768: the training diverged"):
        training.step(*batch("vgg"), Hyper(learning_rate=0.1))
    assert not training.history and training.state is training.graph.state and training.scale.value == 2.0**15


@pytest.mark.parametrize(("options", "words"), [
    ({"initial": 1000.0}, r"initial must be a power of two of at most 32768, not 1000"),
    ({"largest": 65536.0}, r"largest must be a power of two of at most 32768, not 65536"),
    ({"initial": 0.5}, r"initial must be in 1\.0\.\.32768\.0, not 0\.5"),
    ({"growth_steps": -1}, "growth_steps must be at least 0, not -1"),
])  # fmt: skip
def test_bad_scalings_raise(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LossScaling(**options)


@pytest.fixture(scope="module")
def whole() -> ExactTrainer:
    training = trainer()
    run(training)
    assert [record.loss_scale for record in training.history] == [64, 64, 128, 128, 256, 256, 512]
    return training


@pytest.mark.parametrize("stop", [0, 1, 4, STEPS])
def test_a_resumed_training_is_the_uninterrupted_one(whole: ExactTrainer, tmp_path: Path, stop: int) -> None:
    first, second = trainer(), trainer()
    run(first, stop=stop)
    first.save(tmp_path / "a")
    second.load(tmp_path / "a")
    run(second)
    assert same(second.state, whole.state) > 1000
    assert second.history == whole.history and second.scale == whole.scale


def test_a_killed_training_ends_as_if_it_had_not_been(whole: ExactTrainer, tmp_path: Path) -> None:
    path = tmp_path / "killed.checkpoint"
    process = subprocess.Popen([sys.executable, str(PROGRAM), str(path), "3"])
    end = time.monotonic() + 120
    while process.poll() is None and not (path.exists() and len(torch.load(path, weights_only=True)["history"]) == 3):
        assert time.monotonic() < end, "the training did not come so far in time"
        time.sleep(0.1)
    assert process.poll() is None, "it should sleep before its fourth step"
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    resumed = trainer()
    resumed.load(path)
    assert len(resumed.history) == 3
    run(resumed, path)
    assert same(resumed.state, whole.state) > 1000 and resumed.history == whole.history
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_other_checkpoints_are_refused_and_change_nothing(whole: ExactTrainer, tmp_path: Path) -> None:
    training = trainer()
    before = training.state
    good = whole.state_dict()
    other = export(*trained("forms"), batch("forms")[0])
    arrays = good["arrays"]
    for content, words in (
        ({**good, "version": 2}, "its version must be 1, not 2"),
        (ExactTrainer(other, scaling=training.scaling).state_dict(), "it is of another graph"),
        (ExactTrainer(training.graph).state_dict(), "its loss scaling is"),
        ({**good, "arrays": {k: v for k, v in arrays.items() if k != "head.master"}}, r"arrays \['head.master'\] are in one"),
        ({**good, "arrays": {**arrays, "head.master": arrays["head.master"] * float("nan")}}, r"head\.master must be finite"),
        ({**good, "arrays": {**arrays, "head.master": arrays["head.master"].double()}}, r"head\.master must be finite float32"),
        ({**good, "scale": {"value": 64}}, "Scale must have"),
        ({**good, "history": [{"loss": "x"}]}, "StepRecord must have"),
        ({}, "does not continue this training"),
    ):
        with pytest.raises(CheckpointError, match=words):
            training.load_state_dict(content)
    for damage in (b"", b"no checkpoint", _saved(whole, tmp_path)[:-100]):
        (tmp_path / "bad").write_bytes(damage)
        with pytest.raises(CheckpointError, match="bad is not a usable checkpoint"):
            training.load(tmp_path / "bad")
    assert training.state is before and not training.history


def _saved(training: ExactTrainer, folder: Path) -> bytes:
    training.save(folder / "good")
    return (folder / "good").read_bytes()


def test_the_trained_graph_goes_to_a_file_and_into_torch(whole: ExactTrainer) -> None:
    model = network("vgg", seed=8)
    load_into(model, sgd(model), whole.state)
    images, _ = batch("vgg", 50)
    logits = whole.logits(images[:4])  # any number of images
    assert logits.dtype == np.float16
    np.testing.assert_allclose(logits, model.eval()(images[:4]).detach().numpy(), atol=0.02)  # FP16 against torch's FP32
    again = type(whole.graph).from_bytes(whole.trained().to_bytes())
    assert same(again.state, whole.state) > 1000


def test_products_do_not_depend_on_threads() -> None:
    graph = export(*trained("vgg"), batch("vgg")[0])
    images, labels = batch("vgg")
    states = [graph.step(graph.state, half_images(images), labels.numpy(), Hyper(learning_rate=0.1), ordered_products(threads)).state
              for threads in (1, 3)]
    assert same(*states) > 1000


# --- operands --------------------------------------------------------------------------------------------------------------


def test_images_are_rounded_once() -> None:
    """A value just above the middle between two FP16, which float32 rounds onto the middle: the even neighbour would be wrong."""
    value = 1 + 2.0**-11 + 2.0**-40
    wide = torch.full((1, 1, 1, 1), value, dtype=torch.float64)
    assert half_images(wide)[0, 0, 0, 0] == F16(1 + 2.0**-10) and F16(F32(value)) == 1
    images = torch.randn(2, 3, 4, 5)
    np.testing.assert_array_equal(half_images(images), images.permute(0, 2, 3, 1).half().numpy())
    np.testing.assert_array_equal(half_images(images.bfloat16()), images.bfloat16().float().permute(0, 2, 3, 1).half().numpy())
    np.testing.assert_array_equal(half_images(images.numpy()), half_images(images))


@pytest.mark.parametrize(("images", "words"), [
    (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), r"images must be floats \(N, C, H, W\), not uint8"),
    (torch.zeros(2, 3, 4), r"of shape \(2, 3, 4\)"),
    (torch.full((1, 1, 1, 2), float("nan")), "2 of 2 values are NaN or infinite"),
    (np.full((1, 1, 1, 1), 65505.0), "at most 65504 in magnitude, not 65505"),
])  # fmt: skip
def test_other_images_are_refused(images: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        half_images(images)


def test_other_labels_and_batches_are_refused() -> None:
    training = trainer()
    images, labels = batch("vgg")
    hyper = Hyper(learning_rate=0.1)
    with pytest.raises(ValueError, match=r"labels must be integers \(N,\), not float32"):
        training.step(images, labels.float(), hyper)
    with pytest.raises(ValueError, match="labels must be 6 classes"):
        training.step(images, labels + 5, hyper)
    with pytest.raises(ValueError, match="images must be finite float16"):
        training.step(images[:3], labels[:3], hyper)
    assert not training.history


# --- the update ------------------------------------------------------------------------------------------------------------


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
