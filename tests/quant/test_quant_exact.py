"""The frozen torch forward and the exported graph agree on every code of every tensor; planted faults show."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hw.spec.fixed import FixedFormat, Rounding
from hw.spec.ops import OPERATIONS
from sw.graph import IntegerGraph
from sw.quant import Mode, QuantModel, Recipe, codes_of, export, quantize_model
from sw.quant.emulate import Geometry, conv_codes, exact_dtype
from sw.quant.layers import QuantLayer

Make = Callable[[int], nn.Module]
Images = Callable[[int, int], Tensor]


def compare(model: QuantModel, graph: IntegerGraph, x: Tensor) -> tuple[int, dict[str, int]]:
    """How many codes were compared, and the mismatches by tensor."""
    ours, theirs = model.trace(x), graph.trace({"input": codes_of(model, x)})
    assert set(ours) == set(theirs) == set(graph.tensors)
    wrong = {name: int((ours[name].numpy() != theirs[name]).sum()) for name in theirs}
    return sum(codes.size for codes in theirs.values()), {name: n for name, n in wrong.items() if n}


def fraction_alive(graph: IntegerGraph, x: np.ndarray) -> float:
    """Part of all channels that are not constant."""
    values = graph.trace({"input": x})
    flags = [(c.max((0, 2, 3)) > c.min((0, 2, 3))) for c in values.values()]
    return float(np.concatenate(flags).mean())


SHUFFLE_KIND = {
    "conv2d", "linear", "depthwise_conv2d", "deform_depthwise_conv2d", "max_pool2d", "avg_pool2d", "slice", "shuffle_join",
    "add", "upsample2x"}
OTHERS = {"conv2d", "scale", "table", "clip", "concat", "slice", "shuffle", "deform_conv2d", "add"}


@pytest.mark.parametrize("operations", [SHUFFLE_KIND, OTHERS], ids=["shuffle kind", "others"])
@pytest.mark.parametrize(("bits", "rounding"), [
    (4, Rounding.RND), (4, Rounding.TRN), (4, Rounding.RND_CONV), (2, Rounding.RND), (8, Rounding.RND)])
def test_every_layer(
    every_layer: Make, more_layers: Make, images: Images, rounding: Rounding, bits: int, operations: set[str]
) -> None:
    make = every_layer if operations is SHUFFLE_KIND else more_layers
    model = quantize_model(make(bits), Recipe(weight_bits=bits, rounding=rounding))
    model.calibrate([images(32, 1)])
    x = images(8, 2) * 1.5  # beyond what was calibrated, so that codes saturate
    graph = export(model.eval(), x)
    assert {n.operation.op for n in graph.nodes} == operations and set(OPERATIONS) == SHUFFLE_KIND | OTHERS
    compared, wrong = compare(model, graph, x)
    assert compared > 90_000 and not wrong
    assert fraction_alive(graph, codes_of(model, x)) > 0.9
    # The forward pass returns the values of the same codes.
    out, values = graph({"input": codes_of(model, x)}), model(x)
    for value, name in zip(values if isinstance(values, tuple) else (values,), graph.outputs, strict=True):
        scale = 2.0 ** -graph.tensors[name].fmt.frac
        assert np.array_equal(value.numpy().reshape(out[name].shape), (out[name] * scale).astype(np.float32))


def test_offsets_reach_both_ends(every_layer: Make, images: Images) -> None:
    model = quantize_model(every_layer(9))
    model.calibrate([images(32, 1)])
    x = images(16, 3) * 2
    graph = export(model, x)
    compared, wrong = compare(model, graph, x)
    offsets = graph.trace({"input": codes_of(model, x)})["square.offset"]
    assert compared > 0 and not wrong and offsets.min() < -7 and offsets.max() > 8
    assert graph.tensors["square.offset"].fmt == FixedFormat(8, 0)
    node = next(n for n in graph.nodes if n.name == "square.offset")
    assert node.operation.requant.rounding is Rounding.RND


def test_planted_faults_are_seen(every_layer: Make, images: Images) -> None:
    model = quantize_model(every_layer(4))
    model.calibrate([images(32, 1)])
    x = images(4, 2)
    graph = export(model, x)
    assert not compare(model, graph, x)[1]
    ours, faults = model.trace(x), 0
    for node in graph.nodes:
        requant = getattr(node.operation, "requant", None)
        if requant is None:
            continue
        one_more = dataclasses.replace(requant, bias=requant.bias + (1 << np.maximum(requant.shift, 0)))
        broken = dataclasses.replace(node.operation, requant=one_more)
        inputs, expected = [ours[t].numpy() for t in node.inputs], ours[node.output].numpy()
        assert int((node.operation(*inputs) != expected).sum()) == 0 < int((broken(*inputs) != expected).sum()), node.name
        faults += 1
    assert faults > 15
    layer = model.layer("unit.branch.1.0")
    assert isinstance(layer, QuantLayer) and layer.integers is not None
    layer.integers.weight[0, 0, 1, 1] += 1
    wrong = compare(model, graph, x)[1]
    assert wrong.get("unit.branch.1.0", 0) > 0 and "unit.branch.0.0" not in wrong


def test_the_graph_survives_its_file(every_layer: Make, images: Images, tmp_path) -> None:
    model = quantize_model(every_layer(4))
    model.calibrate([images(32, 1)])
    x = images(4, 2)
    export(model, x).save(tmp_path / "net.graph")
    compared, wrong = compare(model, IntegerGraph.load(tmp_path / "net.graph"), x)
    assert compared > 0 and not wrong


def test_weight_codes_are_symmetric(every_layer: Make, images: Images) -> None:
    model = quantize_model(every_layer(6), Recipe(first_layer_weight_bits=8))
    with torch.no_grad():
        for _, layer in model.quant_layers():
            layer.weight.mul_(-1)
    model.calibrate([images(16, 1)], method="minmax")
    with torch.no_grad():
        for point in model.binary_points():
            point.sub_(2)  # so that many weights saturate
    graph = export(model, images(1, 1))
    limits = {"stem.0": 127}
    for node in graph.nodes:
        if hasattr(node.operation, "weight"):
            weight, limit = node.operation.weight, limits.get(node.name, 7)
            assert weight.min() >= -limit and weight.max() <= limit and np.abs(weight).max() == limit, node.name


@pytest.mark.parametrize("kind", ["every_layer", "more_layers"])
def test_fixed_point_training_follows_the_frozen_integers(kind: str, images: Images, request: pytest.FixtureRequest) -> None:
    """Float sums may round differently next to ties, so this is close, not equal."""
    model = quantize_model(request.getfixturevalue(kind)(4))
    model.calibrate([images(32, 1)])
    x = images(32, 2)
    model.eval()
    found = model(x)
    trained = [y.detach() for y in (found if isinstance(found, tuple) else (found,))]
    model.freeze()
    again = model(x)
    for a, b, name in zip(trained, again if isinstance(again, tuple) else (again,), model.outputs, strict=True):
        step = 2.0 ** -model.formats()[name].frac
        assert b.std() > 2 * step and ((a - b).abs() > step / 2).float().mean() < 0.01


def test_float32_is_used_only_where_it_is_exact() -> None:
    random = np.random.default_rng(1)
    weight = random.integers(-127, 128, (4, 64, 3, 3))
    bias = np.zeros(4, np.int64)
    assert exact_dtype(weight, bias, FixedFormat(8, 4, False)) is torch.float32
    heavy = np.full((4, 64, 3, 3), 127)
    assert exact_dtype(heavy, bias, FixedFormat(8, 4, False)) is torch.float64
    assert exact_dtype(heavy[:, :1], bias + 2**24, FixedFormat(8, 4, False)) is torch.float64
    x = torch.from_numpy(random.integers(254, 256, (2, 64, 6, 6)).astype(np.float32))
    exact = conv_codes(x, torch.from_numpy(heavy), Geometry(padding=1), torch.float64)
    rough = conv_codes(x, torch.from_numpy(heavy), Geometry(padding=1), torch.float32)
    assert int((exact != rough).sum()) > 0  # float32 would have been wrong here


def test_modes_need_calibration(every_layer: Make, images: Images) -> None:
    model = quantize_model(every_layer(1))
    with pytest.raises(ValueError, match="must be calibrated first"):
        model.freeze()
    with pytest.raises(ValueError, match="must be calibrated first"):
        model.set_mode(Mode.QAT)
    with pytest.raises(ValueError, match="call freeze"):
        model.trace(images(1, 1))
    with pytest.raises(ValueError, match="at least one batch"):
        model.calibrate([])
    with pytest.raises(ValueError, match="must be one of minmax, mse"):
        model.calibrate([images(1, 1)], method="guess")
    with pytest.raises(TypeError, match="quantize_model returned"):
        export(every_layer(1), images(1, 1))  # type: ignore[arg-type]
