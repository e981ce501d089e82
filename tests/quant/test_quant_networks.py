"""Whole networks: frozen torch equal to the integer graph on every tensor, tensors alive, gradients to every parameter."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sw.graph import IntegerGraph
from sw.models.mobilenet import SmallMobileNet
from sw.models.resnet import CifarResNet, PreActResNet, resnet20
from sw.quant import QuantModel, Recipe, codes_of, export, quantize_model

CONVOLUTIONS = {"conv2d", "linear", "avg_pool2d", "add"}
NETWORKS: dict[str, tuple[Callable[[], nn.Module], set[str]]] = {
    "resnet20": (partial(resnet20, width=4), CONVOLUTIONS),
    "mobilenet": (partial(SmallMobileNet, width=4), CONVOLUTIONS | {"depthwise_conv2d"}),
    "preact": (partial(PreActResNet, blocks=2, width=4), CONVOLUTIONS | {"scale"}),
    "silu": (partial(SmallMobileNet, width=4, expansion=2, activation=nn.SiLU), CONVOLUTIONS | {"depthwise_conv2d", "table"}),
    "hardswish": (partial(SmallMobileNet, width=4, expansion=2, activation=nn.Hardswish),
                  CONVOLUTIONS | {"depthwise_conv2d", "table"}),
}


def images(count: int, seed: int) -> Tensor:
    """Smooth random images (count, 3, 32, 32): neighbouring pixels are alike, as in photographs."""
    noise = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(noise, size=(32, 32), mode="bilinear") * 1.5


def settled(make: Callable[[], nn.Module]) -> nn.Module:
    """A network with random weights whose BatchNorms know the images, and have all kinds of coefficients."""
    torch.manual_seed(11)
    net = make()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.3)
    with torch.no_grad():
        net.train()(images(32, 1))
    return net.eval()


def quantised(make: Callable[[], nn.Module], recipe: Recipe | None = None) -> QuantModel:
    model = quantize_model(settled(make), recipe)
    model.calibrate([images(16, 2)])
    return model


def compare(model: QuantModel, x: Tensor) -> tuple[IntegerGraph, int]:
    """The graph, and how many codes were compared; all are equal, and nearly all channels are alive."""
    graph = export(model.eval(), x)
    ours, theirs = model.trace(x), graph.trace({"input": codes_of(model, x)})
    assert set(ours) == set(theirs)
    assert sum(int((ours[name].numpy() != theirs[name]).sum()) for name in theirs) == 0
    alive = np.concatenate([c.max((0, 2, 3)) > c.min((0, 2, 3)) for c in theirs.values()])
    zero = np.mean([(c == 0).mean() for c in theirs.values()])
    assert alive.mean() > 0.9 and zero < 0.6
    return graph, sum(codes.size for codes in theirs.values())


@pytest.mark.parametrize("name", NETWORKS)
def test_the_frozen_network_is_its_graph(name: str) -> None:
    make, operations = NETWORKS[name]
    graph, compared = compare(quantised(make), images(4, 3) * 1.3)
    assert {n.operation.op for n in graph.nodes} == operations and compared > 150_000
    assert graph.tensors[graph.outputs[0]].shape == (10, 1, 1)


@pytest.mark.parametrize("name", ["resnet20", "mobilenet"])
def test_with_every_norm_as_a_layer_and_few_bits(name: str) -> None:
    make, operations = NETWORKS[name]
    recipe = Recipe(batch_norm="layer", weight_bits=3, activation_bits=5)
    graph, compared = compare(quantised(make, recipe), images(4, 3))
    norms = sum(isinstance(m, nn.BatchNorm2d) for m in make().modules())
    assert {n.operation.op for n in graph.nodes} == operations | {"scale"} and compared > 150_000
    assert sum(n.operation.op == "scale" for n in graph.nodes) == norms > 15
    assert {t.fmt.width for t in graph.tensors.values()} == {5}


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_reach_every_parameter(name: str) -> None:
    model = quantised(NETWORKS[name][0]).train()
    model(images(4, 4)).square().sum().backward()
    parameters = [(place, p) for place, p in model.named_parameters() if p.requires_grad]
    lost = [place for place, p in parameters if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert not lost and len(parameters) > 60
    assert all(any(p is bits for _, p in parameters) for bits in model.binary_points())


def test_resnet20_has_its_layers() -> None:
    net = resnet20()
    count = sum(p.numel() for p in net.parameters())
    assert 268_000 < count < 280_000  # 0.27 million in the publication, whose shortcuts have no weights
    assert sum(isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3) for m in net.modules()) == 19
    assert isinstance(net, CifarResNet) and net(images(2, 1)).shape == (2, 10)


def test_the_residual_stream_needs_no_requantisation() -> None:
    """All tensors that sums of one stage join have one format; ReLU6 fuses into the layers before."""
    model = quantised(NETWORKS["mobilenet"][0])
    for step in model.steps:
        if step.name.endswith("add"):
            assert len({model.groups[t] for t in (*step.inputs, step.name)}) == 1
    inner = model.layer("blocks.0.body.0.0")
    assert (inner.bounds.low, inner.bounds.high) == (0, 6) and not model.formats()["blocks.0.body.0.0"].signed


@pytest.mark.slow
@pytest.mark.parametrize("make", [resnet20, SmallMobileNet, PreActResNet], ids=["resnet20", "mobilenet", "preact"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_full_width(make: Callable[[], nn.Module], bits: int) -> None:
    assert compare(quantised(make, Recipe(weight_bits=bits)), images(8, 3))[1] > 1_000_000
