"""Formats of activations: given by name, shared, signed or not, and refused in words where they cannot be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hw.spec.fixed import FixedFormat
from sw.quant import Recipe, RecipeError, codes_of, export, quantize_model
from sw.quant.deform import DeformConv2d
from sw.quant.formats import OffsetPoint

Images = Callable[[int, int], Tensor]


class Branches(nn.Module):
    """Two convolutions, one with ReLU, whose outputs a concatenation and a sum join; offsets of a deformable convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 3, padding=1)
        self.mix, self.offset = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 18, 3, padding=1)
        self.deform = DeformConv2d(16, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([torch.relu(self.left(x)), self.right(x)], 1)
        y = torch.relu(self.mix(y)) + y
        return self.deform(y, self.offset(y))


def given(**formats: str) -> Recipe:
    return Recipe(overrides={name: {"activation_format": fmt} for name, fmt in formats.items()})


def test_a_given_format_is_the_groups(images: Images) -> None:
    torch.manual_seed(2)
    model = quantize_model(Branches(), given(right="s7f3", offset="s8f5", deform="fixed<6, 2>"))
    model.calibrate([images(16, 1)])
    formats = model.formats()
    assert {formats[name] for name in ("left", "right", "cat", "mix", "add")} == {FixedFormat(7, 3)}
    assert formats["offset"] == FixedFormat(8, 5) and formats["deform"] == FixedFormat(6, 4)
    assert all(p.fixed is not None for n, p in model.points.items() if n != "input") and len(model.binary_points()) == 6
    x = images(4, 2)
    graph = export(model, x)
    ours, theirs = model.trace(x), graph.trace({"input": codes_of(model, x)})
    assert graph.nodes[-1].operation.offset_frac == 5
    assert sum(int((ours[n].numpy() != theirs[n]).sum()) for n in theirs) == 0 < sum(c.size for c in theirs.values())


def test_fractional_offsets_learn_their_point_within_what_the_operation_takes(images: Images) -> None:
    torch.manual_seed(2)
    for scale, frac in ((1e-4, 7), (1.0, None), (1e4, 0)):
        net = Branches()
        net.offset.weight.data.mul_(scale)
        net.offset.bias.data.zero_()
        model = quantize_model(net)
        model.calibrate([images(8, 1)])
        point = model.point("offset")
        assert isinstance(point, OffsetPoint) and point.signed and 0 <= point.fmt.frac <= 7
        assert frac is None or point.fmt.frac == frac
        operation = export(model, images(1, 1)).nodes[-1].operation
        assert operation.op == "deform_conv2d" and operation.offset_frac == point.fmt.frac


@pytest.mark.parametrize(("formats", "text"), [
    ({"left": "u8f4", "right": "s8f4"}, "must have one sign, and left \\(u8f4\\), right \\(s8f4\\)"),
    ({"left": "s8f4", "right": "s8f3"}, "must be given one, not left \\(s8f4\\), right \\(s8f3\\)"),
    ({"left": "u8f4"}, "given for left \\(u8f4\\), must be signed: right can be negative"),
    ({"mix": "u8f4"}, "must be signed: right can be negative"),
    ({"deform": "u8f4"}, "must be signed: deform can be negative"),
    ({"offset": "u8f4"}, "must be signed: offset can be negative"),
    ({"offset": "s8f8"}, "used as offsets: its format must be signed with 0..7 fraction bits, not s8f8"),
    ({"offset": "s8f-1"}, "used as offsets"),
])
def test_formats_that_cannot_be(formats: dict[str, str], text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        quantize_model(Branches(), given(**formats))


def test_an_unsigned_format_for_what_is_never_negative(images: Images) -> None:
    class Positive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([torch.relu(self.a(x)), torch.sigmoid(self.b(x))], 1).mean((2, 3))

    model = quantize_model(Positive(), given(a="u8f7", mean="u6f6"))
    assert model.formats()["cat"] == FixedFormat(8, 7, False) == model.formats()["sigmoid"]
    assert model.formats()["mean"] == FixedFormat(6, 6, False) and model.formats()["b"].signed


@pytest.mark.parametrize("fmt", ["s8f6", "s4f2", "s2f0"])
def test_given_weights(images: Images, fmt: str) -> None:
    torch.manual_seed(2)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, groups=1), nn.ReLU(), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, groups=4))
    net[0].weight.data.mul_(4)
    model = quantize_model(net, Recipe(overrides={"*": {"weight_format": fmt}}))
    model.calibrate([images(8, 1)])
    graph = export(model, images(2, 2))
    want, found = FixedFormat.parse(fmt), 0
    for node in graph.nodes:
        weight, inputs = node.operation.weight, graph.tensors[node.inputs[0]].fmt
        assert abs(weight).max() <= want.max_code and set(node.operation.requant.shift) == {
            want.frac + inputs.frac - graph.tensors[node.output].fmt.frac}
        found += weight.size
    assert found == 8 * 27 + 8 + 8 * 18 and {layer.point.width for _, layer in model.quant_layers()} == {want.width}


def test_no_record_holds_formats_too_far_apart(images: Images) -> None:
    recipe = Recipe(input_format="s8f-16", overrides={"0": {"activation_format": "s8f24", "weight_format": "s4f4"}})
    model = quantize_model(nn.Sequential(nn.Conv2d(3, 8, 1)), recipe)
    with pytest.raises(ValueError, match="0: the format s4f4 was given"):
        model.calibrate([images(8, 1)])
        model.freeze()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_training_that_diverged_is_told_with_its_layer(images: Images, value: float) -> None:
    model = quantize_model(nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1)))
    model.calibrate([images(8, 1)])
    layer: Any = model.layer("2")
    with torch.no_grad():
        layer.weight[3, 0] = value
    with pytest.raises(ValueError, match="2: weights, BatchNorm folded in, must be finite, and 1 of 64"):
        model.freeze()
