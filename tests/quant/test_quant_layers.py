"""Each layer type alone: the form it becomes, frozen torch equal to the graph on every tensor, gradients to every parameter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sw.graph import IntegerGraph
from sw.quant import QuantModel, Recipe, codes_of, export, quantize_model
from sw.quant.deform import DeformConv2d
from sw.quant.layers import QuantConv2d, QuantScale
from sw.quant.points import ActivationPoint

Images = Callable[[int, int], Tensor]


class Net(nn.Module):
    """(N, 3, 12, 12): a convolution to ``channels``, one statement given as a function, layers by name."""

    def __init__(self, forward: Callable[[Net, Tensor], Tensor], channels: int = 16, **layers: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.statement = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.statement(self, self.stem(x))


def conv(*arguments: Any, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(*arguments, **options)


def spread(layer: nn.Conv2d) -> nn.Conv2d:
    """Offsets of some pixels."""
    with torch.no_grad():
        layer.weight.mul_(6)
    return layer


def norm(layer: nn.Module) -> nn.Module:
    random = torch.Generator().manual_seed(5)
    layer.weight.data.uniform_(0.5, 1.5, generator=random).mul_(torch.randn(layer.num_features, generator=random).sign())
    layer.bias.data.normal_(0, 0.3, generator=random)
    layer.running_mean.normal_(0, 0.2, generator=random)
    layer.running_var.uniform_(0.1, 0.5, generator=random)
    return layer


def unpacked(pieces: Any, count: int) -> list[Tensor]:
    return [pieces[i] for i in range(count)]


def added_in_place(net: Net, x: Tensor) -> Tensor:
    y = net.a(x)
    y += x
    return y


def shuffled(net: Net, x: Tensor) -> Tensor:
    b, c, h, w = x.size()
    return x.view(b, 4, c // 4, h, w).transpose(1, 2).contiguous().view(b, -1, h, w)


def shuffled_by_shape(net: Net, x: Tensor) -> Tensor:
    y = x.reshape(x.shape[0], 2, -1, x.shape[2], x.shape[3])
    return y.permute(0, 2, 1, 3, 4).flatten(1, 2)


LAYERS: dict[str, tuple[Callable[[], nn.Module], set[str]]] = {
    "grouped": (lambda: Net(lambda m, x: m.a(x), a=conv(16, 24, 3, padding=1, groups=4)), {"conv2d"}),
    "depthwise_5x5": (lambda: Net(lambda m, x: m.a(x), a=conv(16, 16, 5, stride=2, padding=2, groups=16)), {"conv2d"}),
    "depthwise_1x3": (lambda: Net(lambda m, x: m.a(x), a=conv(16, 16, (1, 3), groups=16)), {"conv2d"}),
    "multiplier": (lambda: Net(lambda m, x: m.a(x), a=conv(16, 32, 3, padding=1, groups=16)), {"conv2d"}),
    "depthwise_3x3": (lambda: Net(lambda m, x: m.a(x), a=conv(16, 16, 3, padding=1, groups=16)), {"conv2d", "depthwise_conv2d"}),
    "dilated": (lambda: Net(lambda m, x: m.a(x), a=conv(16, 8, 3, padding=2, dilation=2)), {"conv2d"}),
    "dilated_depthwise": (lambda: Net(lambda m, x: m.a(x), a=conv(16, 16, 3, padding=3, dilation=3, groups=16)), {"conv2d"}),
    "same": (lambda: Net(lambda m, x: m.a(x), a=conv(16, 8, 5, padding="same", dilation=2)), {"conv2d"}),
    "own_norm": (lambda: Net(lambda m, x: m.a(torch.relu(x)), a=norm(nn.BatchNorm2d(16))), {"conv2d", "scale"}),
    "own_norm_of_input": (lambda: nn.Sequential(norm(nn.BatchNorm2d(3)), nn.ReLU(), conv(3, 8, 3)), {"scale", "conv2d"}),
    "norm_1d": (lambda: Net(lambda m, x: m.c(m.b(m.a(x.mean((2, 3))))), a=norm(nn.BatchNorm1d(16)), b=nn.Linear(16, 9),
                            c=norm(nn.BatchNorm1d(9))), {"conv2d", "avg_pool2d", "scale", "linear"}),
    "concat": (lambda: Net(lambda m, x: torch.cat([m.a(x), F.relu(m.b(x)), x], dim=1), a=conv(16, 4, 1), b=conv(16, 8, 1)),
               {"conv2d", "concat"}),
    "split": (lambda: Net(lambda m, x: (lambda a, b: m.a(a) + m.b(b))(*unpacked(torch.split(x, [4, 12], dim=1), 2)), a=conv(4, 8, 1),
                          b=conv(12, 8, 1)), {"conv2d", "slice", "add"}),
    "split_size": (lambda: Net(lambda m, x: m.a(x.split(6, 1)[2]), a=conv(4, 8, 1)), {"conv2d", "slice"}),
    "split_half": (lambda: Net(lambda m, x: m.a(torch.split(x, x.size(1) // 2, 1)[1]), a=conv(8, 8, 1)), {"conv2d", "slice"}),
    "chunk": (lambda: Net(lambda m, x: (lambda a, b, c: torch.cat([c, a, b], 1))(*unpacked(x.chunk(3, dim=1), 3))),
              {"conv2d", "slice", "concat"}),
    "chunk_half": (lambda: Net(lambda m, x: torch.chunk(x, 2, 1)[-1] + x.chunk(2, 1)[0]), {"conv2d", "slice", "add"}),
    "slices": (lambda: Net(lambda m, x: m.a(x[:, :5]) + m.b(x[:, -4:, :, :]) + m.c(x[:, x.shape[1] // 2:]), a=conv(5, 8, 1),
                           b=conv(4, 8, 1), c=conv(8, 8, 1)), {"conv2d", "slice", "add"}),
    "shuffle": (lambda: Net(shuffled), {"conv2d", "shuffle"}),
    "shuffle_by_shape": (lambda: Net(shuffled_by_shape), {"conv2d", "shuffle"}),
    "shuffle_layer": (lambda: Net(lambda m, x: m.a(x), a=nn.ChannelShuffle(8)), {"conv2d", "shuffle"}),
    "shuffle_function": (lambda: Net(lambda m, x: F.channel_shuffle(x, 2)), {"conv2d", "shuffle"}),
    "relu6": (lambda: Net(lambda m, x: F.relu6(m.a(x)), a=norm(nn.BatchNorm2d(16))), {"conv2d"}),
    "clamp": (lambda: Net(lambda m, x: m.a(x).clamp(-0.3, 0.7), a=conv(16, 8, 1)), {"conv2d"}),
    "two_limits": (lambda: Net(lambda m, x: m.a(x).clamp(-0.3, 0.2).relu_(), a=conv(16, 8, 1)), {"conv2d"}),
    "limits_after_a_pool": (lambda: Net(lambda m, x: F.relu6(F.max_pool2d(m.a(x), 2)), a=conv(16, 8, 1)), {"conv2d", "max_pool2d"}),
    "hardtanh": (lambda: Net(lambda m, x: m.a(x), a=nn.Sequential(conv(16, 8, 1), nn.Hardtanh(-0.5, 0.25))), {"conv2d"}),
    "own_relu": (lambda: Net(lambda m, x: torch.relu(x) + x), {"conv2d", "clip", "add"}),
    "in_place_at_last": (lambda: Net(lambda m, x: m.a(x) + F.relu(x, inplace=True), a=conv(16, 16, 1)), {"conv2d", "clip", "add"}),
    "own_clamp": (lambda: Net(lambda m, x: torch.clamp(x, min=-0.21, max=0.4) + x), {"conv2d", "clip", "add"}),
    "relu_of_sum": (lambda: Net(lambda m, x: F.relu_(torch.add(x, m.a(x))), a=conv(16, 16, 1)), {"conv2d", "add"}),
    "sum_in_place": (lambda: Net(added_in_place, a=conv(16, 16, 1)), {"conv2d", "add"}),
    "adaptive_mean": (lambda: Net(lambda m, x: F.adaptive_avg_pool2d(x, 3)), {"conv2d", "avg_pool2d"}),
    "mean": (lambda: Net(lambda m, x: torch.mean(x, dim=(-1, -2), keepdim=True)), {"conv2d", "avg_pool2d"}),
    "mean_by_size": (lambda: Net(lambda m, x: F.avg_pool2d(x, x.size()[3]).view(x.size(0), -1)), {"conv2d", "avg_pool2d"}),
    "mean_by_sizes": (lambda: Net(lambda m, x: F.avg_pool2d(x, x.shape[2:])), {"conv2d", "avg_pool2d"}),
    "pools": (lambda: Net(lambda m, x: F.avg_pool2d(F.max_pool2d(x, 3, 2, 1), 2)), {"conv2d", "max_pool2d", "avg_pool2d"}),
    "global_max": (lambda: Net(lambda m, x: m.a(x), a=nn.AdaptiveMaxPool2d(1)), {"conv2d", "max_pool2d"}),
    "upsample": (lambda: Net(lambda m, x: F.interpolate(x, scale_factor=2)), {"conv2d", "upsample2x"}),
    "deform": (lambda: Net(lambda m, x: m.a(x, m.o(x)), a=DeformConv2d(16, 8, 3, padding=1, groups=2),
                           o=spread(conv(16, 18, 3, padding=1))), {"conv2d", "deform_conv2d"}),
    "deform_strided": (lambda: Net(lambda m, x: m.b(m.a(x, m.o(x))), a=DeformConv2d(16, 8, (2, 3), 2, 1, 2),
                                   o=spread(conv(16, 12, (3, 5), 2, 1)), b=norm(nn.BatchNorm2d(8))), {"conv2d", "deform_conv2d"}),
}
TABLES: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid, "sigmoid_method": lambda x: x.sigmoid(), "tanh": torch.tanh, "silu": F.silu,
    "hardswish": F.hardswish, "hardsigmoid": F.hardsigmoid, "leaky_relu": lambda x: F.leaky_relu(x, 0.1), "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "elu": lambda x: F.elu(x, alpha=0.5), "selu": F.selu,
    "celu": F.celu, "softplus": lambda x: F.softplus(x, 2.0), "softsign": F.softsign, "mish": F.mish, "logsigmoid": F.logsigmoid,
}
for _name, _function in TABLES.items():
    LAYERS[_name] = (lambda f=_function: Net(lambda m, x: m.a(f(x)), a=conv(16, 8, 1)), {"conv2d", "table"})
for _layer in (nn.Sigmoid(), nn.Tanh(), nn.SiLU(inplace=True), nn.Hardswish(), nn.LeakyReLU(0.2), nn.GELU(), nn.ELU(), nn.Softplus()):
    LAYERS[f"layer_{type(_layer).__name__}"] = (lambda f=_layer: Net(lambda m, x: m.b(m.a(x)), a=f, b=conv(16, 8, 1)),
                                                {"conv2d", "table"})


def quantised(make: Callable[[], nn.Module], x: Tensor, recipe: Recipe | None = None) -> QuantModel:
    torch.manual_seed(3)
    model = quantize_model(make(), recipe)
    model.calibrate([x])
    return model


def compare(model: QuantModel, graph: IntegerGraph, x: Tensor) -> int:
    """How many codes were compared; all are equal, and most channels are alive."""
    ours, theirs = model.trace(x), graph.trace({"input": codes_of(model, x)})
    assert set(ours) == set(theirs) == set(graph.tensors)
    wrong = {name: int((ours[name].numpy() != theirs[name]).sum()) for name in theirs}
    assert not {name: count for name, count in wrong.items() if count}
    alive = np.concatenate([c.max((0, 2, 3)) > c.min((0, 2, 3)) for c in theirs.values()])
    assert alive.mean() > 0.95
    return sum(codes.size for codes in theirs.values())


@pytest.mark.parametrize("name", LAYERS)
def test_the_frozen_layer_is_its_operation(name: str, images: Images) -> None:
    make, operations = LAYERS[name]
    model = quantised(make, images(16, 1)).eval()
    x = images(4, 2) * 1.5  # beyond what was calibrated, so that codes saturate
    graph = export(model, x)
    assert {n.operation.op for n in graph.nodes} == operations
    assert compare(model, graph, x) > 2000
    assert compare(model, IntegerGraph.from_bytes(graph.to_bytes()), x) > 2000


@pytest.mark.parametrize("name", LAYERS)
def test_the_float_layer_is_the_models_own(name: str, images: Images) -> None:
    """Before quantisation the converted model computes what the original does, but for the order of float sums."""
    torch.manual_seed(3)
    net = LAYERS[name][0]().eval()
    ours, theirs = quantize_model(net).eval()(images(4, 2)), net(images(4, 2))
    assert ours.shape == theirs.shape and theirs.std() > 0.01 and torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_reach_every_parameter(name: str, images: Images) -> None:
    model = quantised(LAYERS[name][0], images(16, 1)).train()
    model.learn_statistics(True)
    model(images(8, 2)).square().sum().backward()
    counted = 0
    for place, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, place
            counted += 1
    learned = [m for m in model.modules() if isinstance(m, ActivationPoint) and m.fixed is None]
    assert counted >= 3 + len(learned) and len(learned) >= 1


@pytest.mark.parametrize("name", ["own_norm", "deform", "silu", "own_clamp", "concat"])
def test_freezing_again_gives_the_same_integers(name: str, images: Images) -> None:
    model = quantised(LAYERS[name][0], images(16, 1))
    first = export(model, images(1, 1)).to_bytes()
    assert first == export(model, images(1, 1)).to_bytes() == export(quantised(LAYERS[name][0], images(16, 1)), images(1, 1)).to_bytes()


def test_limits_are_codes_of_the_output(images: Images) -> None:
    model = quantised(LAYERS["clamp"][0], images(16, 1))
    graph = export(model, images(1, 1))
    requant, fmt = graph.nodes[-1].operation.requant, graph.tensors["a"].fmt
    assert (requant.lo, requant.hi) == (round(-0.3 * 2**fmt.frac), round(0.7 * 2**fmt.frac))
    codes = graph.trace({"input": codes_of(model, images(8, 2))})["a"]
    assert codes.min() == requant.lo and codes.max() == requant.hi


def test_relu6_is_unsigned_and_ends_at_six(images: Images) -> None:
    net = nn.Sequential(conv(3, 8, 3), nn.ReLU6(), conv(8, 4, 1))
    net[0].weight.data.mul_(12)
    model = quantised(lambda: net, images(16, 1))
    graph = export(model, images(1, 1))
    fmt = graph.tensors["0"].fmt
    assert not fmt.signed and graph.nodes[0].operation.requant.lo == 0
    assert graph.nodes[0].operation.requant.hi == min(255, 6 * 2**fmt.frac)
    assert int((graph.trace({"input": codes_of(model, images(8, 2))})["0"] == graph.nodes[0].operation.requant.hi).sum()) > 0


def test_asking_for_a_size_keeps_nothing_from_being_fused(images: Images) -> None:
    def statement(net: Net, x: Tensor) -> Tensor:
        b, width = x.size(0), x.shape[1]
        return torch.relu(x).view(b, width, x.size(2), x.shape[3])

    model = quantize_model(Net(statement))
    assert [s.name for s in model.steps] == ["stem"] and model.layer("stem").relu


def test_a_table_leaves_its_input_as_it_is(images: Images) -> None:
    def statement(net: Net, x: Tensor) -> Tensor:
        return net.b(x) + net.a(x)

    net = Net(statement, a=nn.SiLU(inplace=True), b=conv(16, 16, 1))
    model = quantised(lambda: net, images(16, 1))
    layer: Any = model.layer("a")
    x = images(2, 2).repeat(1, 6, 1, 1)
    before = x.clone()
    layer.function(x)
    assert torch.equal(x, before) and net.a.inplace


def test_tables_hold_the_float64_function(images: Images) -> None:
    """Against a direct definition: every code of the input format, sigmoid in double precision, rounded half up."""
    model = quantised(LAYERS["sigmoid"][0], images(16, 1))
    graph = export(model, images(1, 1))
    node = next(n for n in graph.nodes if n.operation.op == "table")
    before, after = graph.tensors[node.inputs[0]].fmt, graph.tensors[node.output].fmt
    assert before.signed and before.width == 8 and not after.signed
    codes = np.arange(-128, 128)
    value = 1 / (1 + np.exp(-codes * 2.0**-before.frac))
    expected = np.minimum(np.floor(value * 2.0**after.frac + 0.5), 255).astype(np.int64)
    assert np.array_equal(node.operation.values[codes & 255], expected) and len(np.unique(expected)) > 50


def test_what_a_table_reads_has_a_byte(images: Images) -> None:
    model = quantised(LAYERS["silu"][0], images(16, 1), Recipe(activation_bits=4))
    formats = model.formats()
    assert formats["stem"].width == 8 and formats["silu"].width == 4 and formats["a"].width == 4


def test_every_norm_is_a_layer_where_the_recipe_says_so(images: Images) -> None:
    net = nn.Sequential(conv(3, 8, 3, bias=False), norm(nn.BatchNorm2d(8)), nn.ReLU(), conv(8, 4, 1))
    folded = quantised(lambda: net, images(16, 1))
    own = quantised(lambda: net, images(16, 1), Recipe(batch_norm="layer", weight_bits=3))
    assert [s.name for s in folded.steps] == ["0", "3"] and [s.name for s in own.steps] == ["0", "1", "3"]
    scale = own.layer("1")
    assert isinstance(scale, QuantScale) and scale.relu and not own.layer("0").relu
    assert scale.point.width == 8 and scale.point.integer_bits.shape == (8,)
    assert own.formats()["0"].signed and not own.formats()["1"].signed
    assert compare(own, export(own, images(4, 2)), images(4, 2)) > 2000


def test_the_first_layer_is_the_first_with_weights(images: Images) -> None:
    model = quantize_model(LAYERS["own_norm_of_input"][0](), Recipe(weight_bits=3, first_layer_weight_bits=7))
    assert {name: layer.point.width for name, layer in model.quant_layers()} == {"0": 8, "2": 7}


def test_an_own_norm_follows_the_batch_in_training_only(images: Images) -> None:
    net = Net(lambda m, x: m.a(torch.relu(x)), a=nn.BatchNorm2d(16))
    model = quantize_model(net)
    x = images(16, 2) * 2 + 1
    ours, theirs = model.train()(x), net.train()(x)
    scale = model.layer("a")
    assert isinstance(scale, QuantScale) and scale.norm is not None
    assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    assert torch.allclose(scale.norm.running_var, net.a.running_var) and not torch.allclose(scale.norm.running_var, torch.ones(16))
    model.learn_statistics(False)
    before = scale.norm.running_mean.clone()
    held = model(x)
    assert torch.equal(scale.norm.running_mean, before) and torch.allclose(held, net.eval()(x), rtol=1e-3, atol=1e-4)


def test_a_dilated_kernel_has_zeros_between_its_weights(images: Images) -> None:
    model = quantised(LAYERS["dilated"][0], images(16, 1))
    weight = export(model, images(1, 1)).nodes[-1].operation.weight
    layer = model.layer("a")
    assert isinstance(layer, QuantConv2d) and layer.integers is not None and weight.shape == (8, 16, 5, 5)
    assert np.array_equal(weight[:, :, ::2, ::2], layer.integers.weight)
    assert not weight[:, :, 1::2].any() and not weight[..., 1::2].any() and layer.integers.weight.any()


def test_shapes_that_only_show_at_run_time(images: Images) -> None:
    for statement, text in (
        (lambda m, x: F.avg_pool2d(x, x.size(3)), "needs a square image"),
        (lambda m, x: F.adaptive_avg_pool2d(x, 5), "divides into as many squares"),
        (lambda m, x: F.adaptive_max_pool2d(x, 1), "needs a square image"),
        (lambda m, x: x[:, 20:], "channels 20:None of 16 are none"),
    ):
        model = quantize_model(Net(statement))
        with pytest.raises(ValueError, match=text):
            model(images(2, 1)[:, :, :, :10])


def test_one_binary_point_for_all_channels(images: Images) -> None:
    model = quantised(LAYERS["grouped"][0], images(16, 1), Recipe(per_channel=False))
    graph = export(model, images(2, 2))
    for node in graph.nodes:
        assert len(set(node.operation.requant.shift.tolist())) == 1
    assert model.layer("a").point.integer_bits.ndim == 0 and compare(model, graph, images(4, 2)) > 2000
