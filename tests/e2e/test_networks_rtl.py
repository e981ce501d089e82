"""Whole networks, from torch to the simulated core, equal at every link: every layer type, ResNet-20, a MobileNetV2-like one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from boards.board import load_board_arch
from hw.sim.build import SimulationBuild
from hw.spec.deform import DeformArch
from sw.compiler import compile_graph
from sw.flow.chain import Report
from sw.flow.verify import Simulation, Variant, verify
from sw.graph import IntegerGraph
from sw.models.imagenet_resnet import resnet18
from sw.models.mobilenet import MobileNetV2, SmallMobileNet
from sw.models.resnet import PreActResNet, resnet20
from sw.models.settled import settle, smooth_images
from sw.quant import Recipe, codes_of, export, quantize_model
from tests.e2e.every_layer import LAYERS, EveryLayer

WIDE = {"weight_bits": 8, "first_layer_weight_bits": 8}


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return make()


def chain(make: Callable[[], nn.Module], side: int, arch: DeformArch, recipe: Recipe, simulation: Simulation,
          count: int = 2) -> tuple[IntegerGraph, Report]:
    """The graph, and the report of all links; asserted to be equal, and its tensors to be alive."""
    model = quantize_model(settle(seeded(make), smooth_images(32, side, 1)), recipe)
    model.calibrate([smooth_images(32, side, 2)])
    x = smooth_images(count, side, 3)
    graph = export(model, x)
    trace = {name: codes.numpy() for name, codes in model.trace(x).items()}
    program = compile_graph(graph, arch)
    report = verify(graph, program, {graph.inputs[0]: codes_of(model, x)}, torch_trace=trace, simulation=simulation)
    assert report.first == [] and report.ok
    assert all(link.compared > 1000 for link in report.links.values())
    assert report.timing is not None and report.timing.compared == count * program.instruction_count
    alive = [life for life in report.alive if life.codes >= 1000]
    assert len(alive) > 3 and max(life.zero for life in alive) < 0.95 and max(life.saturated for life in alive) < 0.5
    return graph, report


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(batch_norm="layer", activation_bits=6, **WIDE)], ids=["fold", "layer"])
def test_every_layer_type(recipe: Recipe, core_build: SimulationBuild, core_arch: DeformArch) -> None:
    simulation = Simulation(build=core_build, variants=(Variant(name="other state", images=1, state_seed=9),))
    graph, report = chain(EveryLayer, 12, core_arch, recipe, simulation)
    assert LAYERS <= {node.operation.op for node in graph.nodes}
    assert all(node.operation.offset_frac > 0 for node in graph.nodes if node.operation.op == "deform_conv2d")
    assert report.links["machine_rtl"].compared > 50_000


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Recipe]] = {
    "resnet20": (resnet20, Recipe()),
    "resnet20_wide_weights": (resnet20, Recipe(**WIDE)),
    "mobilenet": (SmallMobileNet, Recipe()),
    "mobilenet_silu": (partial(SmallMobileNet, activation=nn.SiLU), Recipe(batch_norm="layer")),
    "preact": (partial(PreActResNet, blocks=1), Recipe()),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_at_full_width(name: str) -> None:
    """32 x 32 images on the default core."""
    make, recipe = NETWORKS[name]
    _, report = chain(make, 32, DeformArch(), recipe, Simulation())
    assert report.links["machine_rtl"].compared > 500_000


PUBLISHED: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet18": (lambda: resnet18(1000, "imagenet"), 11_689_512),
    "mobilenet_v2": (MobileNetV2, 3_504_872),
}
"""Networks of a thousand classes, and how many parameters they have."""


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_with_all_their_channels(name: str) -> None:
    """64 x 64 images on the Ultra96's core."""
    make, parameters = PUBLISHED[name]
    assert sum(value.numel() for value in make().parameters()) == parameters
    _, report = chain(make, 64, load_board_arch("ultra96v2"), Recipe(), Simulation(), count=1)
    assert report.links["machine_rtl"].compared > 3_000_000
