"""Training graphs against torch: float64 autograd of the same network, and their own refusals.

The one tolerance here is between FP16 training and float64: tensors are rounded to 11 bits after every layer.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hw.spec.training import Hyper, PoolWindow, max_pool, max_pool_backward
from sw.training_graph import ChannelNode, ConvNode, Gradients, PoolNode, SumNode, TrainingGraph, TrainingGraphError
from tests.sat.small_graphs import random_batch, residual_network

TOLERANCE = 0.03
"""Largest relative error (norm of the difference to norm) of FP16 gradients against float64 ones."""


def pooled(node: PoolNode, x: torch.Tensor) -> torch.Tensor:
    w = node.window
    return F.avg_pool2d(x, w.kernel, w.stride) if node.average else F.max_pool2d(x, w.kernel, w.stride, w.padding)


def torch_pass(graph: TrainingGraph, images: np.ndarray, labels: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
    """Loss and gradients of all masters, scales and biases, by autograd in float64."""
    leaves = {
        name: torch.tensor(array.astype(np.float64), requires_grad=True)
        for name, array in graph.state.arrays().items() if name.endswith((".master", ".scale", ".bias"))
    }  # fmt: skip
    values = {"input": torch.tensor(images.astype(np.float64)).permute(0, 3, 1, 2)}
    for node in graph.nodes:
        x = values[node.source]
        if isinstance(node, ConvNode):
            weight = leaves[f"{node.name}.master"].permute(3, 2, 0, 1)
            y = F.conv2d(x, weight, stride=node.geometry.stride, padding=node.geometry.padding)
        elif isinstance(node, PoolNode):
            y = pooled(node, x)
        elif isinstance(node, SumNode):
            y = torch.relu(x + values[node.residual]) if node.relu else x + values[node.residual]
        else:
            scale, bias = leaves[f"{node.name}.scale"], leaves[f"{node.name}.bias"]
            y = F.batch_norm(x, None, None, scale, bias, True, eps=1e-5) if node.constants else x + bias[:, None, None]
            y = y if node.residual is None else y + values[node.residual]
            y = torch.relu(y) if node.relu else y
        values[node.target] = y
    loss = F.cross_entropy(values[graph.output].flatten(1), torch.tensor(labels))
    loss.backward()
    return loss.item(), {name: leaf.grad.numpy() for name, leaf in leaves.items() if leaf.grad is not None}


def test_gradients_agree_with_autograd() -> None:
    graph, hyper = residual_network(batch=4), Hyper(learning_rate=0.1, loss_scale=256.0)
    images, labels = random_batch(graph)
    result = graph.step(graph.state, images, labels, hyper)
    loss, expected = torch_pass(graph, images, labels)
    assert result.loss == pytest.approx(loss, rel=2e-3)
    ours = {f"{name}.master": g for name, g in result.gradients.weights.items()}
    for name, (scale, bias) in result.gradients.channels.items():
        ours |= {f"{name}.scale": scale, f"{name}.bias": bias}
    errors = {
        name: np.linalg.norm(ours[name] / hyper.loss_scale - gradient) / np.linalg.norm(gradient) for name, gradient in expected.items()
    }
    assert len(errors) == 6 + 2 * 5 + 1
    assert max(errors.values()) < TOLERANCE, errors


def test_overlapping_pools_agree_with_torch() -> None:
    """Values of FP16 that are all different: the maximum is one place, and gradients are whole numbers, so that nothing rounds."""
    rng = np.random.default_rng(0)
    x = rng.permutation(2 * 9 * 9 * 4).reshape(2, 9, 9, 4).astype(np.float16) - np.float16(300)
    for kernel, stride, padding in ((3, 2, 1), (3, 1, 1), (2, 1, 0), (4, 2, 3 // 2)):
        window = PoolWindow(kernel=(kernel, kernel), stride=(stride, stride), padding=(padding, padding))
        taken = torch.tensor(x.astype(np.float64)).permute(0, 3, 1, 2).requires_grad_()
        expected = F.max_pool2d(taken, kernel, stride, padding)
        y = max_pool(x, window)
        np.testing.assert_array_equal(y, expected.detach().permute(0, 2, 3, 1).numpy())
        dy = rng.integers(-50, 50, y.shape).astype(np.float16)
        expected.backward(torch.tensor(dy.astype(np.float64)).permute(0, 3, 1, 2))
        assert taken.grad is not None
        np.testing.assert_array_equal(max_pool_backward(dy, x, y, window), taken.grad.permute(0, 2, 3, 1).numpy())


def test_loss_falls() -> None:
    graph, hyper = residual_network((2, 8), batch=8), Hyper(learning_rate=0.05, weight_decay=1e-4)
    images, labels = random_batch(graph)
    state, losses = graph.state, []
    for _ in range(8):
        result = graph.step(state, images, labels, hyper)
        state = result.state
        losses.append(result.loss)
    assert losses[-1] < 0.5 * losses[0], losses


def test_a_step_that_saturates_changes_only_the_running_statistics() -> None:
    graph = residual_network()
    images, labels = random_batch(graph)
    result = graph.step(graph.state, images, labels, Hyper(learning_rate=0.1, loss_scale=2.0**40))
    assert result.skipped and result.gradients.saturated
    # Gradients of the logits that saturate are enough.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sw.training_graph.TrainingGraph.backward", lambda *_: Gradients())
        assert graph.step(graph.state, images, labels, Hyper(learning_rate=0.1, loss_scale=2.0**40)).skipped
    before, after = graph.state.arrays(), result.state.arrays()
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    norms = ("stem_norm", "n1", "n2", "n3", "shortcut_norm")
    assert changed == {f"{norm}.{part}" for norm in norms for part in ("running_mean", "running_variance")}


def test_what_does_not_fit_is_refused() -> None:
    graph = residual_network()
    images, _ = random_batch(graph)
    with pytest.raises(TrainingGraphError, match="finite float16"):
        graph.forward(graph.state, np.where(images > 2, np.float16(np.inf), images))
    with pytest.raises(TrainingGraphError, match=r"stem\.master must be finite float32"):
        bad = replace(graph.state.weights["stem"], master=np.full((3, 3, 1, 8), np.nan, np.float32))
        replace(graph, state=replace(graph.state, weights={**graph.state.weights, "stem": bad}))
    with pytest.raises(TrainingGraphError, match="before anything writes it"):
        replace(graph, nodes=graph.nodes[1:])
    node = graph.nodes[1]
    assert isinstance(node, ChannelNode)
    with pytest.raises(TrainingGraphError, match="has 9 channels"):
        replace(graph, nodes=(graph.nodes[0], replace(node, channels=9), *graph.nodes[2:]))
    with pytest.raises(ValueError, match="power of two"):
        Hyper(learning_rate=0.1, loss_scale=1000.0)
