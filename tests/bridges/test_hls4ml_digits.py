"""Trained networks as projects of hls4ml, compiled by hls4ml itself: all held-out digits, code by code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hw.spec.fixed import Rounding
from hw.spec.ops import OPERATIONS
from sw.data.digits import INPUT_FORMAT, Digits, load_digits
from sw.graph import IntegerGraph
from sw.models.blocks import conv_norm, depthwise_norm, pointwise_norm
from sw.models.small_cnn import Residual
from sw.quant.recipe import Recipe
from tests.bridges.hls4ml_project import compared
from tests.bridges.test_hls_digits import Plain, quantised, trained
from tests.compiler.graphs import assert_alive


class Flat(nn.Sequential):
    """(N, 64) to 10 scores: three linear layers."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 10))


class Pooled(nn.Sequential):
    """A residual block, a depthwise convolution, a ReLU6 and both poolings; means of 4 and of 3 x 3 pixels."""

    def __init__(self) -> None:
        super().__init__(conv_norm(1, 6, 3), Residual(6), nn.MaxPool2d(3, 2, 1), depthwise_norm(6), pointwise_norm(6, 12), nn.ReLU6(),
                         nn.AvgPool2d(2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10))


def check(net: nn.Module, data: Digits, recipe: Recipe, folder: Path) -> tuple[IntegerGraph, float]:
    """Compare all held-out digits; the graph, and the fraction that is classified correctly."""
    torch.manual_seed(1)
    graph, codes = quantised(trained(net, data, 6), data, recipe)
    assert len(data.test_images) == 450
    scores: Tensor = torch.from_numpy(next(iter(graph(codes).values()))).flatten(1)
    assert_alive("scores", scores.numpy())
    assert compared(graph, codes, folder) == 450 * 10
    return graph, float((scores.argmax(1) == data.test_labels).double().mean())


def shifts(graph: IntegerGraph) -> list[int]:
    """How many shifts the channels of each layer have."""
    return [len(np.unique(node.operation.requant.shift)) for node in graph.nodes if hasattr(node.operation, "requant")]


def test_a_linear_network_is_exact_on_all_held_out_digits(tmp_path: Path) -> None:
    data = load_digits()
    flat = Digits(train_images=data.train_images.flatten(1), train_labels=data.train_labels, test_images=data.test_images.flatten(1),
                  test_labels=data.test_labels)
    graph, accuracy = check(Flat(), flat, Recipe(input_format=INPUT_FORMAT, weight_bits=5), tmp_path / "flat")
    assert [node.operation.op for node in graph.nodes] == ["linear"] * 3 and max(shifts(graph)) > 1 and accuracy > 0.7


def test_a_convolutional_network_with_scales_per_channel_is_exact_on_all_held_out_digits(tmp_path: Path) -> None:
    graph, accuracy = check(Plain(), load_digits(), Recipe(input_format=INPUT_FORMAT, weight_bits=5), tmp_path / "plain")
    assert max(shifts(graph)) > 1 and accuracy > 0.7


def test_a_residual_depthwise_pooled_network_is_exact_on_all_held_out_digits(tmp_path: Path) -> None:
    recipe = Recipe(input_format=INPUT_FORMAT, weight_bits=6, activation_bits=7, rounding=Rounding.RND_CONV)
    graph, accuracy = check(Pooled(), load_digits(), recipe, tmp_path / "pooled")
    operations = {node.operation.op for node in graph.nodes}
    assert {"conv2d", "add", "depthwise_conv2d", "max_pool2d", "avg_pool2d", "linear"} <= operations <= set(OPERATIONS)
    assert any((node.operation.requant.multiplier != 1).any() for node in graph.nodes if node.operation.op == "avg_pool2d")
    assert accuracy > 0.7
