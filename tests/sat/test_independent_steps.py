"""Five training steps of the graph against a second definition (tests/sat/independent_step.py) that shares no code with it.

Every bit is equal after every step. The steps are made to meet the special cases: equal magnitudes in the selection, magnitudes that
differ in FP32 alone, equal maxima that carry a gradient, products beyond FP16, tensors of subnormals, a step that saturates on its way
back and is skipped, parameters with and without decay. At size 6 with 3 images no count of values is a power of two, so that the
constants 1/n are rounded too.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from hw.spec.training import (
    Hyper,
    NormConstants,
    NormState,
    PoolWindow,
    average_pool,
    norm_backward,
    norm_fixed,
    norm_forward,
    softmax_cross_entropy,
)
from sw.sparse import ordered_products
from sw.training_graph import Pattern, StepResult, TrainingGraph, WeightState
from tests.sat.independent_step import (
    Settings,
    Step,
    Unit,
    infer,
    loss_of,
    mean_of_all,
    normalised,
    normalised_fixed,
    normalised_gradient,
    train_step,
)
from tests.sat.small_graphs import random_batch, residual_network

Array = np.ndarray
WEIGHTS = 9 * 8 + 9 * 8 * 16 + 9 * 16 * 16 + 8 * 16 + 16 * 16 + 16 * 10
CHANNELS = 8 + 4 * 16
STATE = 2 * WEIGHTS + 6 * CHANNELS + 4 * 10
PARAMETER_GRADIENTS = WEIGHTS + 2 * CHANNELS + 2 * 10
STEPS = (
    Settings(rate=0.05, decay=1e-4),
    Settings(rate=0.03, momentum=0.875, decay=3e-3, decay_channels=False),
    Settings(rate=0.05, decay=1e-4, loss_scale=2.0**12),
    Settings(rate=0.1, momentum=0.7, decay=1e-3, loss_scale=256.0),
    Settings(rate=0.05, decay=1e-4, loss_scale=1.0),
)


def values_of_an_image(size: int) -> int:
    """Of all tensors but the input."""
    half = size // 2
    return 2 * (2 * size) ** 2 * 8 + size**2 * 8 + 10 * half**2 * 16 + 16 + 2 * 10


def with_ties(graph: TrainingGraph) -> TrainingGraph:
    """Masters of c2 and c3 on a coarse grid; in c1 and the shortcut three of a group that are one number in FP16, rising in FP32."""
    masters = {name: w.master.copy() for name, w in graph.state.weights.items()}
    for name in ("c2", "c3"):
        masters[name] = np.round(masters[name] * 8) / np.float32(8)
    for name in ("c1", "shortcut"):
        close = np.float32(1.5) + np.float32(2.0**-23) * np.arange(3, dtype=np.float32)
        masters[name][:, :, [1, 3, 6], 2] = close
        masters[name][:, :, 4, [9, 11, 14]] = -close
    weights = {name: WeightState(master=master, velocity=np.zeros_like(master)) for name, master in masters.items()}
    return replace(graph, state=replace(graph.state, weights=weights))


def batch_of(graph: TrainingGraph, step: int) -> tuple[Array, Array]:
    images, labels = random_batch(graph, step)
    if step == 1:  # squares of equal pixels
        coarse = np.round(images[:, ::4, ::4].astype(np.float32) * 2) / np.float32(2)
        images = coarse.repeat(4, axis=1).repeat(4, axis=2)[:, : graph.shape[0], : graph.shape[1]].astype(np.float16)
    if step in (2, 4):  # variances far below epsilon: the gradient grows by a factor of 316 at the stem
        images = (images.astype(np.float32) * np.float32(2.0**-18)).astype(np.float16)
    if step == 3:
        images = np.clip(images.astype(np.float32) * 30000, -65504, 65504).astype(np.float16)
    return images, labels


def same(name: str, expected: Array, got: Array) -> int:
    """Values compared, on every bit."""
    kind = {np.dtype(np.float16): np.uint16, np.dtype(np.float32): np.uint32}[expected.dtype]
    assert got.dtype == expected.dtype and got.shape == expected.shape, name
    np.testing.assert_array_equal(got.view(kind), expected.view(kind), err_msg=name)
    return expected.size


def same_arrays(what: str, expected: dict[str, Array], got: dict[str, Array]) -> int:
    assert set(expected) == set(got), what
    return sum(same(f"{what} {name}", array, got[name]) for name, array in expected.items())


def compare(step: int, golden: StepResult, mine: Step) -> Counter[str]:
    """Values compared of each kind; the tensors first, so that a difference shows where it begins."""
    parameters = {f"{name}.master": g for name, g in golden.gradients.weights.items()}
    for name, (scale, bias) in golden.gradients.channels.items():
        parameters |= {f"{name}.scale": scale, f"{name}.bias": bias}
    tensors = {name: value for name, value in golden.tape.values.items() if name != "input"}
    compared = Counter(
        tensors=same_arrays(f"step {step}: tensor", tensors, mine.tensors),
        gradients=same_arrays(f"step {step}: gradient of", golden.gradients.tensors, mine.gradients),
        parameter_gradients=same_arrays(f"step {step}: gradient of", parameters, mine.parameter_gradients),
        logits=same(f"step {step}: logits", golden.logits, mine.logits),
        state=same_arrays(f"step {step}: state", golden.state.arrays(), mine.state),
    )
    assert golden.skipped == mine.backward_saturated and golden.tape.saturated == mine.forward_saturated
    assert golden.loss == pytest.approx(mine.loss, rel=1e-14)
    return compared


def hyper_of(settings: Settings) -> Hyper:
    return Hyper(
        learning_rate=settings.rate, momentum=settings.momentum, weight_decay=settings.decay,
        loss_scale=settings.loss_scale, decay_norm=settings.decay_channels,
    )  # fmt: skip


@pytest.mark.parametrize("pattern", [None, (2, 8)])
@pytest.mark.parametrize("size, batch", [(8, 2), (6, 3), (6, 25)])
def test_five_steps(pattern: Pattern, size: int, batch: int) -> None:
    graph = with_ties(residual_network(pattern, width=8, size=size, batch=batch))
    state, mine = graph.state, graph.state.arrays()
    compared, met, outcomes = Counter[str](), Counter[str](), []
    for number, settings in enumerate(STEPS):
        images, labels = batch_of(graph, number)
        golden = graph.step(state, images, labels, hyper_of(settings), ordered_products())
        step = train_step(mine, images, labels, pattern, settings)
        compared += compare(number, golden, step)
        moved = {name for name, array in step.state.items() if not np.array_equal(array, mine[name])}
        assert len(moved) == (2 * 5 if golden.skipped else 2 * 6 + 6 * 5 + 2)
        loss_saturated = bool((np.abs(step.gradients["logits"]) == 65504).any())
        outcomes.append((step.forward_saturated, step.backward_saturated, loss_saturated))
        state, mine, met = golden.state, step.state, met + step.met

    images, _ = batch_of(graph, 3)  # as large as the running statistics
    logits = graph.infer(state, images, ordered_products()).reshape(batch, -1)
    compared["inference"] = same("inference", logits, infer(mine, images, pattern))
    steps, tensors = len(STEPS), batch * values_of_an_image(size)
    assert compared == {
        "tensors": steps * tensors, "gradients": steps * tensors, "parameter_gradients": steps * PARAMETER_GRADIENTS,
        "logits": steps * batch * 10, "state": steps * STATE, "inference": batch * 10,
    }  # fmt: skip
    none = (False, False, False)
    assert outcomes == [none, none, (False, True, False), (True, False, False), none]
    assert met["FP16 saturated"] > 200 and met["FP16 subnormal"] > 5000 and met["FP16 -0"] > 20 and met["FP16 tie"] > 1000
    assert met["pooling tie"] > 100
    if pattern is not None:
        assert met["selection tie"] > 400 and met["selection tie in FP16 only"] > 50


def test_a_loss_gradient_that_saturates_is_enough() -> None:
    """No gradient behind it saturates: the last layer's weights are 0."""
    graph = residual_network()
    head = graph.state.weights["head"]
    weights = {**graph.state.weights, "head": replace(head, master=np.zeros_like(head.master))}
    graph = replace(graph, state=replace(graph.state, weights=weights))
    images, labels = random_batch(graph)
    settings = Settings(rate=0.05, loss_scale=2.0**20)
    golden = graph.step(graph.state, images, labels, hyper_of(settings), ordered_products())
    step = train_step(graph.state.arrays(), images, labels, None, settings)
    assert golden.skipped and not golden.gradients.saturated
    assert compare(0, golden, step)["state"] == STATE


def test_the_loss_gradient_passes_through_fp32() -> None:
    """Of these logits one gradient would be another FP16 number if it were rounded to it directly."""
    rng = np.random.default_rng(1955)
    logits, labels = rng.standard_normal((2, 10)).astype(np.float16), rng.integers(0, 10, 2)
    loss, gradient = softmax_cross_entropy(logits, labels, 1024.0)
    expected_loss, expected = loss_of(Unit(), logits, labels, 1024.0)
    assert same("gradient", expected, gradient) == 20 and loss == pytest.approx(expected_loss, rel=1e-14)


def test_single_operations_where_terms_cancel() -> None:
    """What rounding to FP16 hides in the network: the order of operations whose terms are large and whose result is small."""
    rng = np.random.default_rng(9)
    shape, channels = (7, 15, 15, 16), 16
    y = (rng.standard_normal(shape) * 0.5 + rng.uniform(-60, 60, channels)).astype(np.float16)
    residual = rng.standard_normal(shape).astype(np.float16)
    g = (rng.standard_normal(shape) + y.astype(np.float32) / 4).astype(np.float16)
    arrays = {f"n.{name}": rng.uniform(0.5, 1.5, channels).astype(np.float32) for name in NormState.__dataclass_fields__}
    arrays["n.running_mean"] = y.mean(axis=(0, 1, 2), dtype=np.float32)
    golden, compared = NormState(**{name[2:]: array for name, array in arrays.items()}), 0
    for other, relu in ((None, False), (residual, False), (residual, True)):
        mine = dict(arrays)
        z, seen, after = norm_forward(y, golden, NormConstants(), other, relu)
        got, kept = normalised(Unit(), y, mine, "n", other, relu)
        compared += same("forward", z, got) + same_arrays("state", {f"n.{k}": v for k, v in vars(after).items()}, mine)
        parts = zip(norm_backward(g, y, golden, seen), normalised_gradient(Unit(), g, y, golden.scale, kept), strict=True)
        compared += sum(same("backward", expected, part) for expected, part in parts)
        fixed = norm_fixed(y, golden, NormConstants(), other, relu)
        compared += same("fixed", fixed, normalised_fixed(y, arrays, "n", other, relu))
    assert compared == 3 * (3 * y.size + (6 + 2) * channels)

    x = (rng.standard_normal((4000, 3, 3, 16)) * 100).astype(np.float16)
    x[:, 2, 2] = -x[:, :2].sum(axis=(1, 2), dtype=np.float32).clip(-600, 600).astype(np.float16)
    expected = average_pool(x, PoolWindow(kernel=(3, 3)))
    assert same("mean", expected, mean_of_all(Unit(), x)) == 4000 * 16
