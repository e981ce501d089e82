"""Which layers become sparse, the reasons for the others, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from sw.models.resnet import resnet20
from sw.models.small_cnn import ResidualNet
from sw.sparse import NonFiniteError, Rule, SparseConv2d, SparseLinear, choices, densify, set_step, sparsify, step_of


class Own(nn.Linear):
    pass


def mixed() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 3), nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 16, 1, groups=2),
        nn.Conv2d(16, 12, 1), nn.Conv2d(12, 16, 1), nn.Sequential(nn.Linear(16, 16), Own(16, 16)), nn.Linear(16, 8))


def reasons(model: nn.Module) -> dict[str, str]:
    return {c.name: c.reason for c in choices(model)}


def test_every_layer_has_a_reason() -> None:
    found = reasons(sparsify(mixed(), 2, 8))
    assert found == {
        "0": "the first layer", "1": "", "2": "it has 16 groups, and grouped convolutions stay dense",
        "3": "it has 2 groups, and grouped convolutions stay dense", "4": "m = 8 does not divide its 12 output channels",
        "5": "m = 8 does not divide its 12 input channels", "6.0": "",
        "6.1": "it is a subclass, and only Linear and Conv2d themselves are known to compute what they are", "7": "the last layer"}
    model = sparsify(mixed(), 2, 8)
    types = {name: type(model.get_submodule(name)) for name in found}
    assert [name for name, kind in types.items() if kind in (SparseConv2d, SparseLinear)] == ["1", "6.0"]
    assert "4 (Conv2d): dense, m = 8 does not divide" in str(choices(model)[4]) and str(choices(model)[1]) == "1 (Conv2d): sparse"


@pytest.mark.parametrize(("method", "sparse"), [
    ("bdwp", {"1", "6.0"}), ("srste", {"1", "4", "6.0"}), ("sdgp", {"1", "5", "6.0"}), ("sdwp", {"1", "5", "6.0"}), ("dense", set())])
def test_only_the_pruned_axes_must_divide(method: str, sparse: set[str]) -> None:
    assert {c.name for c in choices(sparsify(mixed(), 2, 8, method)) if c.sparse} == sparse


def test_patterns() -> None:
    found = reasons(sparsify(resnet20(), 2, 4, exclude=["stages.1.*", "stages.2.0.shortcut.0"]))
    assert found["stages.1.0.first.0"] == "excluded by 'stages.1.*'" and found["stages.2.0.first.0"] == ""
    assert sum(reason.startswith("excluded") for reason in found.values()) == 8 and found["head"] == "the last layer"
    assert reasons(sparsify(mixed(), 2, 8, include=["7"]))["7"] == ""
    assert reasons(sparsify(mixed(), 2, 8, keep_ends=False))["7"] == ""
    assert reasons(sparsify(mixed(), 2, 8, keep_ends=False))["0"] == "m = 8 does not divide its 3 input channels"


@pytest.mark.parametrize(("options", "message"), [
    ({"n": 9}, "1 <= n <= m <= 256, not n = 9 and m = 8"), ({"n": 0}, "1 <= n <= m"), ({"m": 512}, "m <= 256"),
    ({"method": "magic"}, "one of bdwp, srste, sdgp, sdwp, dense, not 'magic'"),
    ({"exclude": ["stages*"]}, "exclude pattern 'stages.' matches no Linear or Conv2d layer; the model has: 0, 1, 2"),
    ({"include": ["nothing"]}, "include pattern 'nothing' matches no"),
    ({"exclude": "0"}, "a list of patterns"),
    ({"include": ["4"]}, "layer 4 must be sparse by include pattern '4', but it cannot be: m = 8 does not divide its 12 output"),
    ({"include": ["2"]}, "grouped convolutions stay dense"),
    ({"include": ["1"], "exclude": ["1"]}, "excluded by '1'"),
    ({"exclude": ["*"]}, "no layer of the model would be sparse"), ({"n": 2, "m": 256}, "no layer of the model would be sparse"),
    ({"wu": (1, 4)}, r"wu must be \(1, 2\), \(2, 4\) or None"), ({"decay": -1.0}, "decay must be a number of at least 0"),
    ({"decay": float("nan")}, "decay must be"), ({"method": "sdwp", "decay": 0.1}, "sdwp has none"),
    ({"seed": -1}, "seed must not be negative"), ({"method": "dense", "wu": (1, 2)}, "no sparse layers"),
])
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sparsify(mixed(), **{"n": 2, "m": 8, **options})


def test_integers_must_be_integers() -> None:
    with pytest.raises(TypeError):
        Rule(n=2.5, m=8)  # type: ignore[arg-type]


def test_a_sparse_model_is_not_sparsified_again_and_a_dense_one_has_no_choices() -> None:
    model = sparsify(mixed(), 2, 8)
    with pytest.raises(ValueError, match="sparse already"):
        sparsify(model, 2, 4)
    assert choices(sparsify(densify(model), 2, 4))[1].sparse
    for function in (choices, step_of):
        with pytest.raises(ValueError, match="must come from sparsify, not be a Sequential"):
            function(mixed())
    with pytest.raises(ValueError, match="step must not be negative"):
        set_step(model, -1)


@pytest.mark.parametrize("damage", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("method", ["bdwp", "srste", "sdgp", "sdwp"])
def test_damaged_weights_are_refused_by_name(method: str, damage: float) -> None:
    model = ResidualNet()
    broken: Any = model.block1.branch[0][0]  # type: ignore[index]
    with torch.no_grad():
        broken.weight[3, 2, 1, 1] = damage
    with pytest.raises(NonFiniteError, match=r"block1\.branch\.0\.0\.weight must be finite, and 1 of 2304"):
        sparsify(model, 2, 8, method)
    sparse = sparsify(ResidualNet(), 2, 8, method)
    layer: Any = sparse.get_submodule("down1.0")
    with torch.no_grad():
        layer.weight[0, 0] = damage
    with pytest.raises(NonFiniteError, match=r"down1\.0\.weight must be finite, and 9 of 4608"):
        sparse(torch.randn(2, 3, 32, 32))


def test_a_copy_is_made_unless_in_place() -> None:
    dense = mixed()
    sparse = sparsify(dense, 2, 8)
    assert type(dense[1]) is nn.Conv2d and sparse is not dense and sparse[1].weight is not dense[1].weight  # type: ignore[index]
    parameter = dense[1].weight
    assert sparsify(dense, 2, 8, inplace=True) is dense and type(dense[1]) is SparseConv2d and dense[1].weight is parameter


def test_a_single_layer_can_be_sparse() -> None:
    layer = sparsify(nn.Linear(8, 8), 2, 4, keep_ends=False)
    assert isinstance(layer, SparseLinear) and layer(torch.ones(1, 8)).shape == (1, 8)
    assert "2:4 bdwp" in repr(layer)
