"""Conversion: folding, sharing groups, problems with their places, recipes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hw.spec.fixed import FixedFormat, Rounding
from sw.models.blocks import ShuffleUnit, conv_norm
from sw.quant import (
    LayerRecipe,
    Mode,
    Recipe,
    RecipeError,
    UnsupportedModelError,
    deform_conv2d,
    export,
    quantize_model,
    unsupported,
)
from sw.quant.layers import QuantConv2d, QuantLayer

Make = Callable[[int], nn.Module]
Images = Callable[[int, int], Tensor]


def test_folding_keeps_the_float_network(every_layer: Make, images: Images) -> None:
    """Folding reorders float products, so this is close, not equal."""
    net, x = every_layer(3), images(8, 1)
    model = quantize_model(net).eval()
    for ours, theirs in zip(model(x), net(x), strict=True):
        assert theirs.std() > 0.01 and torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_batch_statistics_fold_like_batch_norm() -> None:
    """In training with learned statistics the folded layer normalises by the batch, as BatchNorm2d does."""
    torch.manual_seed(4)
    net = conv_norm(3, 8, 3)
    model = quantize_model(net)
    model.train()(torch.randn(16, 3, 10, 10))
    assert torch.equal(model.layer("0").norm.running_mean, torch.zeros(8))  # held until they are to learn
    model.learn_statistics(True)
    x = torch.randn(16, 3, 10, 10) * 3 + 1
    ours, theirs = model.train()(x), net.train()(x)
    assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    norm = model.layer("0").norm
    assert torch.allclose(norm.running_mean, net[1].running_mean) and torch.allclose(norm.running_var, net[1].running_var)
    model.learn_statistics(False)
    before = norm.running_mean.clone()
    model(x)
    assert torch.equal(norm.running_mean, before)


def test_sharing_groups(every_layer: Make, images: Images) -> None:
    model = quantize_model(every_layer(2))
    together = [
        ["down.join", "down.left.1.0", "down.right.2.0", "unit.split.left", "unit.split.right", "unit.branch.2.0", "unit.join"],
        ["deform2", "up", "add", "side.0", "max"],
    ]
    for names in together:
        assert len({model.groups[n] for n in names}) == 1, names
        assert len({id(model.point(n)) for n in names}) == 1
    assert len({model.groups[names[0]] for names in together} | {model.groups["stem.0"], model.groups["avg"]}) == 4
    model.calibrate([images(8, 1)])
    formats = model.formats()
    assert not formats["unit.join"].signed  # every producer has a ReLU
    assert formats["add"].signed  # `side` has none
    assert not formats["square.pointwise.0"].signed and formats["square.deform"].signed
    assert formats["square.offset"] == formats["offset2"] == FixedFormat(8, 0)
    graph = export(model, images(1, 1))
    for node in graph.nodes:
        if node.operation.op in ("slice", "concat", "shuffle", "shuffle_join", "add", "clip", "max_pool2d", "upsample2x"):
            assert {graph.tensors[t].fmt for t in node.inputs} == {graph.tensors[node.output].fmt}


def test_a_signed_branch_makes_its_group_signed() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.unit = conv_norm(3, 32, 1), ShuffleUnit(32)
            self.unit.branch[2] = conv_norm(16, 16, 1, relu=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.unit(self.stem(x))

    model = quantize_model(Net())
    assert model.formats()["unit.join"].signed and model.formats()["stem.0"].signed


class Unsupported(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.PReLU(), nn.Conv2d(8, 8, 3, stride=(1, 2)))
        self.body = nn.ModuleDict({"act": nn.Softmax2d(), "fine": nn.Conv2d(8, 8, 1)})
        self.unused = nn.GroupNorm(2, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.body["fine"](self.body["act"](self.features(x)))


def test_every_unsupported_layer_is_named() -> None:
    problems = unsupported(Unsupported())
    assert [p.place for p in problems] == ["features.1", "features.2", "body.act"]
    assert [p.kind for p in problems] == ["PReLU", "Conv2d", "Softmax2d"]
    assert all(p.reason and p.advice for p in problems)
    with pytest.raises(UnsupportedModelError) as caught:
        quantize_model(Unsupported())
    assert all(place in str(caught.value) for place in ("features.1", "features.2", "body.act")) and "3 layer(s)" in str(caught.value)


def test_a_model_that_cannot_be_traced_still_lists_its_layers() -> None:
    class Branching(Unsupported):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else super().forward(x)

    problems = unsupported(Branching())
    assert [p.place for p in problems] == ["features.1", "features.2", "body.act", "unused", ""]
    assert "cannot be traced" in problems[-1].reason


class Functional(nn.Module):
    """One statement, given as a function, after a convolution."""

    def __init__(self, statement: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.line, self.line2 = nn.Conv2d(3, 8, 3), nn.Linear(8, 8), nn.Linear(800, 8)
        self.norm1, self.still = nn.BatchNorm1d(800), nn.BatchNorm2d(8, track_running_stats=False)
        self.silu, self.statement = nn.SiLU(inplace=True), statement

    def forward(self, x: Tensor) -> Tensor:
        return self.statement(self, self.conv(x))


@pytest.mark.parametrize(("statement", "place", "reason"), [
    (lambda m, y: y * 2, "mul", "no integer operation"),
    (lambda m, y: y * torch.sigmoid(y), "mul", "no integer operation"),
    (lambda m, y: y.mean(1), "mean", "no integer operation"),
    (lambda m, y: y.mean(), "mean", "no integer operation"),
    (lambda m, y: torch.softmax(y, 1), "softmax", "no integer operation"),
    (lambda m, y: m.line(y), "line", "reads a map of pixels"),
    (lambda m, y: m.conv(y[:, :3, 1:]), "getitem", "no integer operation"),
    (lambda m, y: y[:, ::2], "getitem", "no integer operation"),
    (lambda m, y: y[0], "getitem", "no integer operation"),
    (lambda m, y: y + 1, "add", "no integer operation"),
    (lambda m, y: torch.add(y, y, alpha=2), "add", "no integer operation"),
    (lambda m, y: torch.flatten(y, 2), "flatten", "flattens axes"),
    (lambda m, y: torch.cat([y, y], 2), "cat", "no integer operation"),
    (lambda m, y: y.chunk(2, 3)[0], "chunk", "no integer operation"),
    (lambda m, y: y.transpose(1, 2), "transpose", "no integer operation"),
    (lambda m, y: y.view(y.size(0), 2, -1), "view", "no integer operation"),
    (lambda m, y: y.view(2, y.size(0) // 2, y.size(1), y.size(2), y.size(3)), "view", "no integer operation"),
    (lambda m, y: y.view(y.size(0), 2, -1, y.size(2), y.size(3)), "", "is Grouped"),
    (lambda m, y: y.view(y.size(0), 2, -1, y.size(2), y.size(3)).transpose(1, 3), "transpose", "no integer operation"),
    (lambda m, y: y.clamp(max=y), "clamp", "no integer operation"),
    (lambda m, y: F.relu(y, inplace=True) + y, "relu", "changes its input in place"),
    (lambda m, y: y.relu_() + y, "relu_", "changes its input in place"),
    (lambda m, y: m.silu(y) + y, "silu", "changes its input in place"),
    (lambda m, y: y.add_(torch.tanh(y)) + y, "add_", "changes its input in place"),
    (lambda m, y: y.clamp(2, 1), "clamp", "has no usable limits"),
    (lambda m, y: F.max_pool2d(y, (2, 3)), "max_pool2d", "has a window that is not square"),
    (lambda m, y: F.interpolate(y, scale_factor=3), "interpolate", "has mode 'nearest', scale 3"),
    (lambda m, y: F.conv2d(y, m.conv.weight), "conv.weight", "is used outside a layer"),
    (lambda m, y: deform_conv2d(y, y, m.conv.weight), "conv.weight", "is used outside a layer"),
    (lambda m, y: m.line2(m.norm1(torch.flatten(y, 1))), "norm1", "reads a map of pixels"),
    (lambda m, y: m.conv(y[:, :3]), "conv", "is called more than once"),
    (lambda m, y: m.still(y), "still", "keeps no running statistics"),
])
def test_unsupported_statements(statement: Callable, place: str, reason: str) -> None:
    problems = unsupported(Functional(statement))
    assert problems and problems[0].place == place and reason in problems[0].reason, problems
    assert problems[0].advice and len(problems) == 1, problems


def test_a_second_input_is_refused() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    problems = unsupported(Two())
    assert [(p.place, p.reason) for p in problems] == [("y", "is a second input")]


def test_relu_moves_through_a_max_pool(images: Images) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(8, 2, 1))
    model = quantize_model(net)
    assert model.layer("0").relu and not model.formats()["1"].signed
    x = images(4, 1)
    assert torch.allclose(model(x), net(x), atol=1e-5)


def test_excluded_layers_pass_their_input(images: Images) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Softmax(1))
    assert [p.place for p in unsupported(net)] == ["3"]
    model = quantize_model(net, Recipe(exclude=("3",)))
    assert torch.allclose(model(images(2, 1)).softmax(1), net(images(2, 1)), atol=1e-6)


def test_a_plain_perceptron(images: Images) -> None:
    net = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3))
    model = quantize_model(net, Recipe(input_format=FixedFormat(8, 5)))
    x = images(20, 1)[:, 0, 0, :6].contiguous()
    model.calibrate([x])
    graph = export(model, x)
    out = graph({"input": model.input_codes(x).long().numpy()})["2"]
    assert model(x).shape == (20, 3) and graph.tensors["input"].fmt == FixedFormat(8, 5)
    assert int((model.trace(x)["2"].numpy() != out).sum()) == 0 and out.size == 60


def test_overrides_reach_their_layers(every_layer: Make) -> None:
    recipe = Recipe(weight_bits=4, first_layer_weight_bits=8, overrides={
        "unit.*": LayerRecipe(weight_bits=3), "unit.branch.1.*": {"rounding": "TRN"}, "head.*": {"activation_bits": 6}})
    model = quantize_model(every_layer(1), recipe)
    bits = {name: layer.point.width for name, layer in model.quant_layers()}
    assert bits["stem.0"] == 8 and bits["unit.branch.1.0"] == 3 and bits["down.left.0.0"] == 4
    assert model.layer("unit.branch.1.0").rounding is Rounding.TRN
    assert model.layer("unit.branch.0.0").rounding is Rounding.RND
    assert model.formats()["head.2"].width == 6 and model.formats()["stem.0"].width == 8


@pytest.mark.parametrize(("make", "text"), [
    (lambda: Recipe(weight_bits=9), "weight_bits must be an integer of 1..8 bits, not 9"),
    (lambda: Recipe(activation_bits=True), "activation_bits must be"),
    (lambda: Recipe(rounding=Rounding.RND_ZERO), "rounding must be one of TRN, RND, RND_CONV"),
    (lambda: Recipe.from_dict({"weight_bit": 4}), "unknown keys \\['weight_bit'\\]"),
    (lambda: Recipe.from_dict({"overrides": {"a": {"bits": 3}}}), "override 'a' has unknown keys"),
    (lambda: Recipe(overrides={"a": 3}), "override 'a' must be a LayerRecipe"),
    (lambda: Recipe(overrides={"a": {"weight_bits": 0}}), "override weight_bits must be an integer of 1..8 bits, not 0"),
    (lambda: Recipe(activation_bits=1), "activation_bits must be an integer of 2..8 bits, not 1"),
    (lambda: Recipe(input_format="u16f4"), "at most 8 bits"),
    (lambda: Recipe(input_format="8.4"), "input_format must be a FixedFormat or text"),
    (lambda: Recipe(exclude="head"), "exclude must be a list"),
    (lambda: quantize_model(conv_norm(3, 8, 3), Recipe(exclude=("softmax",))), "'softmax' matches no layer"),
    (lambda: quantize_model(ShuffleUnit(32), Recipe(overrides={"branch.2.*": {"activation_bits": 5}})), "share one format"),
])
def test_bad_recipes(make: Callable[[], object], text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        make()


def test_a_recipe_from_toml(tmp_path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('weight_bits = 3\nrounding = "RND_CONV"\ninput_format = "u8f4"\n[overrides."head*"]\nweight_bits = 8\n')
    recipe = Recipe.from_toml(path)
    assert recipe == Recipe(weight_bits=3, rounding=Rounding.RND_CONV, input_format=FixedFormat(8, 4, False),
                            overrides={"head*": LayerRecipe(weight_bits=8)})
    assert recipe.layer("header").weight_bits == 8 and recipe.layer("x").weight_bits == 3
    path.write_text("weight_bits = [")
    with pytest.raises(RecipeError, match=r"recipe\.toml"):
        Recipe.from_toml(path)


def test_shifts_and_biases_stay_in_range(images: Images) -> None:
    """Channels of almost no weight beside a bias, and extreme binary points, still give legal records."""
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1))
    with torch.no_grad():
        net[0].weight[0] *= 1e-9
        net[0].weight[1] *= 1e4
        net[0].bias[0] = 3.0
        net[2].weight[2] = 0
    model = quantize_model(net)
    model.calibrate([images(8, 1)])
    for shift in (0.0, 40.0, -40.0):
        with torch.no_grad():
            for _, layer in model.quant_layers():
                layer.point.integer_bits.add_(shift)
        graph = export(model, images(1, 1))
        for node in graph.nodes:
            record = node.operation.requant
            assert record.shift.min() >= -32 and record.shift.max() <= 31 and abs(record.bias).max() <= 2**21
        ours, theirs = model.trace(images(4, 2)), graph.trace({"input": model.input_codes(images(4, 2)).long().numpy()})
        assert sum(int((ours[n].numpy() != theirs[n]).sum()) for n in theirs) == 0


def test_gradients_reach_weights_points_and_offsets(every_layer: Make, images: Images) -> None:
    model = quantize_model(every_layer(5)).train()
    model.calibrate([images(32, 1)])
    assert model.mode is Mode.QAT
    sum(y.square().sum() for y in model(images(16, 2))).backward()
    counted = 0
    for name, layer in model.quant_layers():
        assert isinstance(layer, QuantLayer)
        for parameter in (*layer.parameters(), layer.point.integer_bits):
            if parameter.requires_grad:
                assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
                counted += 1
    assert counted > 2 * len(list(model.quant_layers())) > 30
    offset = model.layer("square.offset")
    assert isinstance(offset, QuantConv2d) and offset.bias.grad is not None and offset.bias.grad.abs() > 0
    learned = [p for p in model.points.values() if p.fixed is None and p.integer_bits.grad is not None]
    assert len(learned) >= 10 and all(p.integer_bits.grad != 0 for p in learned)
