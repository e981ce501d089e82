"""Multiply-accumulates: layers counted by hand, published sizes of networks, and the ideal reductions worked out before."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import nn

from sw.models.imagenet_resnet import resnet18, resnet50
from sw.models.resnet9 import ResNet9
from sw.models.vgg import VGG19
from sw.models.vit import SmallViT
from sw.sparse import report, sparsify

COLUMNS: list[dict[str, Any]] = [
    {"n": 2, "m": 8, "method": "srste"}, {"n": 2, "m": 4}, {"n": 2, "m": 8}, {"n": 2, "m": 16}, {"n": 2, "m": 8, "wu": (2, 4)}]
"""2:8 in FF only, BDWP 2:4, 2:8, 2:16, and 2:8 with WU 2:4."""

TABLE: list[tuple[str, Callable[[], nn.Module], int, list[float]]] = [
    ("ResNet9", ResNet9, 32, [1.33, 1.50, 1.99, 2.39, 2.98]),
    ("VGG19", VGG19, 32, [1.33, 1.50, 1.99, 2.39, 2.98]),
    ("ViT", SmallViT, 32, [1.32, 1.48, 1.95, 2.31, 2.84]),
    ("ResNet18", lambda: resnet18(200), 64, [1.31, 1.47, 1.91, 2.26, 2.75]),
]


@pytest.mark.parametrize(
    ("name", "make", "size", "expected"),
    [pytest.param(*row, id=row[0], marks=[pytest.mark.slow] if row[0] in ("ViT", "ResNet18") else []) for row in TABLE])
def test_ideal_reductions_of_a_training_step(name: str, make: Callable[[], nn.Module], size: int, expected: list[float]) -> None:
    """The numbers were computed for the project before this code; first layer, classifier and attention are dense."""
    dense, x = make(), torch.zeros(1, 3, size, size)
    found = [round(report(sparsify(dense, **column), x).reduction, 2) for column in COLUMNS]
    assert found == expected
    for method in ("sdwp", "sdgp"):  # BP only, the same as FF only but for the first layer's BP
        assert round(report(sparsify(dense, 2, 8, method), x).reduction, 2) == expected[0]
    assert report(dense, x).reduction == 1


@pytest.mark.slow
def test_resnet50() -> None:
    """4.09 G multiply-accumulates. The table has 1.33, 1.49, 1.96, 2.34, 2.89: here 1.3245 and 2.3348 round the other way."""
    dense, x = resnet50(), torch.zeros(1, 3, 224, 224)
    found = [report(sparsify(dense, **column), x) for column in COLUMNS]
    assert sum(layer.macs for layer in found[0].layers) == 4_089_184_256  # as other counters have it
    assert [round(r.reduction, 4) for r in found] == [1.3245, 1.4852, 1.9609, 2.3348, 2.8850]


def test_layers_counted_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, 2, 1), nn.Flatten(), nn.Linear(16 * 16, 10))
    found = report(sparsify(model, 2, 8, wu=(1, 2)), torch.zeros(5, 3, 8, 8))
    first, second, last = found.layers
    assert [layer.macs for layer in found.layers] == [5 * 64 * 8 * 27, 5 * 16 * 16 * 72, 5 * 256 * 10]
    assert (first.passes, second.passes) == (("FF", "WU"), ("FF", "BP", "WU")) and first.dense == 2 * first.macs
    assert second.share == {"FF": Fraction(1, 4), "BP": Fraction(1, 4), "WU": Fraction(1, 2)} and second.sparse == second.macs
    assert first.sparse == first.dense and (first.reason, second.reason, last.reason) == ("the first layer", "", "the last layer")
    assert found.sparse == 2 * first.macs + second.macs + 3 * last.macs
    lines = str(found).splitlines()
    assert len(lines) == 5 and "92,160" in lines[2] and f"{found.reduction:.3f} times fewer" in lines[4]


def test_shared_and_frozen_layers_and_products() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)
            self.layer.weight.requires_grad_(False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.layer(self.layer(x))
            return x @ x.t()

    layer, products = report(Twice(), torch.zeros(4, 8)).layers
    assert layer.macs == 2 * 4 * 64 and layer.passes == ("FF", "BP") and (products.name, products.macs) == ("products", 4 * 4 * 8)
    with pytest.raises(ValueError, match="runs none"):
        report(nn.ReLU(), torch.zeros(1))


def test_the_model_is_left_as_it_is() -> None:
    model = sparsify(ResNet9(width=8), 2, 8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report(model, torch.zeros(2, 3, 32, 32))
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
