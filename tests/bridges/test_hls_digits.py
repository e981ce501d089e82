"""Trained networks as HLS C++: all held-out digits, code by code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hw.spec.fixed import Rounding
from sw.data.digits import INPUT_FORMAT, Digits, load_digits
from sw.graph import IntegerGraph
from sw.models.blocks import conv_norm, depthwise_norm, pointwise_norm
from sw.models.small_cnn import Residual
from sw.quant.export import codes_of, export
from sw.quant.ptq import post_training
from sw.quant.recipe import Recipe
from tests.bridges.hls_project import compared
from tests.compiler.graphs import assert_alive


class Plain(nn.Sequential):
    """(N, 1, 8, 8) to 10 scores: three convolutions, mean, linear."""

    def __init__(self) -> None:
        super().__init__(conv_norm(1, 8, 3), conv_norm(8, 16, 3, stride=2), conv_norm(16, 16, 3), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(16, 10))


class Branched(nn.Sequential):
    """A residual block, a depthwise convolution, both poolings, a sigmoid and a BatchNorm of its own."""

    def __init__(self) -> None:
        super().__init__(conv_norm(1, 8, 3), Residual(8), nn.MaxPool2d(3, 2, 1), depthwise_norm(8), pointwise_norm(8, 16),
                         nn.Sigmoid(), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


def trained(net: nn.Module, data: Digits, epochs: int) -> nn.Module:
    torch.manual_seed(3)
    optimiser = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(epochs):
        for chosen in torch.randperm(len(data.train_images)).split(64):
            optimiser.zero_grad()
            F.cross_entropy(net(data.train_images[chosen]), data.train_labels[chosen]).backward()
            optimiser.step()
    return net.eval()


def quantised(net: nn.Module, data: Digits, recipe: Recipe) -> tuple[IntegerGraph, dict[str, np.ndarray]]:
    """The graph, and the codes of all held-out images."""
    model = post_training(net, list(data.train_images[:256].split(64)), recipe)
    graph = export(model, data.test_images)
    return graph, {graph.inputs[0]: codes_of(model, data.test_images)}


def check(net: nn.Module, recipe: Recipe, folder: Path) -> float:
    """Compare all held-out digits; the fraction that is classified correctly."""
    torch.manual_seed(1)
    data = load_digits()
    graph, codes = quantised(trained(net, data, 6), data, recipe)
    assert len(data.test_images) == 450
    scores: Tensor = torch.from_numpy(next(iter(graph(codes).values()))).flatten(1)
    assert_alive("scores", scores.numpy())
    assert compared(graph, codes, folder) == 450 * 10
    return float((scores.argmax(1) == data.test_labels).double().mean())


def test_a_trained_network_is_exact_on_all_held_out_digits(tmp_path: Path) -> None:
    recipe = Recipe(input_format=INPUT_FORMAT, weight_bits=5)
    assert check(Plain(), recipe, tmp_path / "plain") > 0.7


def test_a_residual_depthwise_pooled_network_is_exact_on_all_held_out_digits(tmp_path: Path) -> None:
    recipe = Recipe(input_format=INPUT_FORMAT, weight_bits=6, activation_bits=7, rounding=Rounding.RND_CONV, per_channel=False,
                    batch_norm="layer")
    assert check(Branched(), recipe, tmp_path / "branched") > 0.7
