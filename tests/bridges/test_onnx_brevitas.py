"""Models that Brevitas itself exported to QONNX: imported, and equal to what qonnx computes from the same file."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

import brevitas.nn as qnn
import numpy as np
import onnx
import pytest
import torch
from brevitas.export import export_qonnx
from brevitas.quant import Int8ActPerTensorFloat, Int32Bias, Uint8ActPerTensorFloat
from brevitas.quant.fixed_point import Int8ActPerTensorFixedPoint, Int8WeightPerChannelFixedPoint
from brevitas.quant.scaled_int import Int8WeightPerChannelFloat
from torch import Tensor, nn

from sw.bridges.errors import BridgeError
from sw.bridges.qonnx import from_qonnx, read_qonnx, same_graph, to_qonnx
from sw.bridges.qonnx.values import InexactImportWarning, QonnxImport
from tests.bridges.onnx_networks import run_qonnx
from tests.quant.brevitas_models import FixedPointNet, FloatScaleNet, identity, relu, trained

OPTIONS: dict[str, Any] = {"weight_quant": Int8WeightPerChannelFixedPoint, "bias_quant": Int32Bias}
IMAGES = 12


class Plain(nn.Module):
    """(N, 3, 8, 8) to (N, 10): convolutions with weights per channel, a max pool, a flattened image into a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.quant = identity()
        self.first, self.first_relu = qnn.QuantConv2d(3, 8, 3, padding=1, **OPTIONS), relu()
        self.pool = nn.MaxPool2d(2)
        self.second, self.second_relu = qnn.QuantConv2d(8, 12, 3, stride=2, padding=1, weight_bit_width=4, **OPTIONS), relu(bit_width=6)
        self.head, self.head_quant = qnn.QuantLinear(12 * 4, 10, bias=True, **OPTIONS), identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.first_relu(self.first(self.quant(x))))
        return self.head_quant(self.head(torch.flatten(self.second_relu(self.second(x)), 1)))


class Residual(nn.Module):
    """(N, 3, 8, 8) to (N, 10): one sum in its own format, one that a ReLU requantises to another scale, a global mean."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.stem = identity(), qnn.QuantConv2d(3, 8, 3, padding=1, **OPTIONS)
        self.shared, self.again = identity(), identity()
        self.left, self.right = (qnn.QuantConv2d(8, 8, 3, padding=1, **OPTIONS) for _ in range(2))
        self.after, self.mean, self.mean_quant = relu(bit_width=5), nn.AdaptiveAvgPool2d(1), identity()
        self.head, self.head_quant = qnn.QuantLinear(8, 10, bias=True, **OPTIONS), identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.shared(self.stem(self.quant(x)))
        x = self.shared(x + self.shared(self.left(x)))
        x = self.after(self.again(x) + self.again(self.right(x)))
        return self.head_quant(self.head(torch.flatten(self.mean_quant(self.mean(x)), 1)))


class Depthwise(nn.Module):
    """(N, 4, 9, 9) to (N, 6): depthwise and pointwise convolutions with BatchNorms; ``power`` makes those powers of two."""

    def __init__(self, power: bool = True) -> None:
        super().__init__()
        free: dict[str, Any] = {"weight_quant": Int8WeightPerChannelFixedPoint, "bias": False}
        self.quant = identity()
        self.depth, self.depth_norm, self.depth_relu = qnn.QuantConv2d(4, 4, 3, groups=4, **free), nn.BatchNorm2d(4), relu()
        self.point, self.point_norm, self.point_relu = qnn.QuantConv2d(4, 8, 1, **free), nn.BatchNorm2d(8), relu()
        self.mean, self.mean_quant = nn.AvgPool2d(7), identity()
        self.head, self.head_quant = qnn.QuantLinear(8, 6, bias=False, **OPTIONS), identity()
        for norm in (self.depth_norm, self.point_norm):
            norm.momentum = 0.0
            norm.running_var.fill_(1 - norm.eps)
            norm.weight.data.copy_(torch.tensor([1.0, -0.5, 0.25, 2.0]).repeat(norm.num_features // 4))
            norm.bias.data.copy_(torch.arange(norm.num_features) / 4 - 0.5)
            norm.running_mean.copy_(torch.arange(norm.num_features) / 8)
            if not power:
                norm.weight.data.mul_(torch.rand(norm.num_features) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depth_relu(self.depth_norm(self.depth(self.quant(x))))
        x = self.mean_quant(self.mean(self.point_relu(self.point_norm(self.point(x)))))
        return self.head_quant(self.head(torch.flatten(x, 1)))


class Perceptron(nn.Module):
    """(N, 20) to (N, 5): two linear layers, their output quantised by themselves."""

    def __init__(self) -> None:
        super().__init__()
        last: dict[str, Any] = {"output_quant": Int8ActPerTensorFixedPoint, "output_collect_stats_steps": 2}
        self.quant, self.hidden, self.act = identity(bit_width=6), qnn.QuantLinear(20, 16, bias=True, **OPTIONS), relu(bit_width=4)
        self.head = qnn.QuantLinear(16, 5, bias=True, weight_bit_width=3, **last, **OPTIONS)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.hidden(self.quant(x))))


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], set[str]]] = {
    "plain": (Plain, (3, 8, 8), {"conv2d", "max_pool2d"}),
    "residual": (Residual, (3, 8, 8), {"conv2d", "add", "shuffle_join", "avg_pool2d", "linear"}),
    "depthwise": (Depthwise, (4, 9, 9), {"depthwise_conv2d", "conv2d", "avg_pool2d", "linear"}),
    "perceptron": (Perceptron, (20,), {"linear"}),
    "fixed": (FixedPointNet, (3, 16, 16), {"conv2d", "depthwise_conv2d", "add", "clip", "max_pool2d", "avg_pool2d", "linear"}),
}


@cache
def exported(make: Callable[[], nn.Module], shape: tuple[int, ...], seed: int = 0) -> onnx.ModelProto:
    """A model after a few steps, written by Brevitas for a batch of ``IMAGES``."""
    torch.manual_seed(seed)
    model = trained(make(), shape)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        found = export_qonnx(model, args=torch.randn(IMAGES, *shape))
    assert isinstance(found, onnx.ModelProto) or hasattr(found, "model_proto")
    return found if isinstance(found, onnx.ModelProto) else found.model_proto


def images(shape: tuple[int, ...], seed: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(IMAGES, *shape)).astype(np.float32) * 1.5


def compared(model: onnx.ModelProto, found: QonnxImport, values: np.ndarray) -> tuple[int, int]:
    """Outputs of the graph against qonnx' own execution: how many differ, and how many there are."""
    (name,) = found.graph.inputs
    codes = found.graph(found.input_codes({name: values}))
    wrong = count = 0
    for output, theirs in zip(found.graph.outputs, run_qonnx(model, {name: values}), strict=True):
        ours = codes[output].reshape(theirs.shape) * float(found.scales[output])
        assert len(np.unique(ours)) > 3
        wrong, count = wrong + int((ours.astype(np.float32) != theirs).sum()), count + ours.size
    return wrong, count


@pytest.mark.parametrize("name", MODELS)
def test_models_of_brevitas_are_exact(name: str) -> None:
    make, shape, kinds = MODELS[name]
    model = exported(make, shape)
    assert any(node.op_type == "Quant" and node.domain == "qonnx.custom_op.general" for node in model.graph.node)
    found = read_qonnx(model)
    assert found.exact and {node.operation.op for node in found.graph.nodes} == kinds
    wrong, count = compared(model, found, images(shape))
    assert wrong == 0 and count == IMAGES * int(np.prod(found.graph.tensors[found.graph.outputs[0]].shape))


def test_a_file_of_brevitas_is_read_as_its_model(tmp_path: Path) -> None:
    model = exported(*MODELS["plain"][:2])
    path = tmp_path / "plain.onnx"
    path.write_bytes(model.SerializeToString())
    assert same_graph(from_qonnx(path), from_qonnx(model))
    assert same_graph(from_qonnx(path), from_qonnx(str(path)))


def test_imported_models_can_be_exported_again() -> None:
    for name in ("plain", "residual", "perceptron", "fixed"):
        graph = from_qonnx(exported(*MODELS[name][:2]))
        assert same_graph(graph, from_qonnx(to_qonnx(graph)))


def test_a_free_batch_norm_is_refused_or_told() -> None:
    """No 16-bit multiplier gives arbitrary factors over a whole range of sums: refused, or the nearest with its differences."""
    make: Callable[[], nn.Module] = lambda: Depthwise(power=False)  # noqa: E731
    model = exported(make, (4, 9, 9))
    with pytest.raises(BridgeError, match="no 16-bit multiplier gives exactly") as caught:
        read_qonnx(model)
    assert {p.kind for p in caught.value.problems} == {"Quant"} and "nearest=True" in str(caught.value)
    found = read_qonnx(model, nearest=True)
    assert not found.exact and all(0 < d.differing <= d.sums // 100 and d.largest == 1 for d in found.differences)
    with pytest.warns(InexactImportWarning, match="give another code"):
        assert same_graph(from_qonnx(model, nearest=True), found.graph)
    wrong, count = compared(model, found, images((4, 9, 9)))
    assert wrong <= count // 10


def test_float_scales_are_exact_where_their_sums_are_few() -> None:
    """Arbitrary scales, 4-bit codes: every record is compared with real arithmetic over all sums."""
    model = exported(FloatScaleNet, (3, 10, 10))
    found = read_qonnx(model, nearest=True)
    multipliers = [n.operation.requant.multiplier for n in found.graph.nodes]
    assert min(int(m.max()) for m in multipliers) > 1 << 10
    wrong, count = compared(model, found, images((3, 10, 10)))
    assert wrong == 0 and count == IMAGES * 6
    assert sum(d.differing for d in found.differences) < found.proven // 1000


class Refused(nn.Module):
    """Three things that no integer graph holds, one behind the other."""

    def __init__(self) -> None:
        super().__init__()
        self.quant = identity(Int8ActPerTensorFloat)
        self.conv = qnn.QuantConv2d(2, 4, 3, dilation=2, padding=2, weight_quant=Int8WeightPerChannelFloat)
        self.act, self.mean = relu(Uint8ActPerTensorFloat), nn.AvgPool2d(2)
        self.sigmoid, self.head = nn.Sigmoid(), qnn.QuantLinear(4 * 16, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mean(self.act(self.conv(self.quant(x))))
        return self.head(torch.flatten(self.sigmoid(x), 1))


def test_all_that_is_in_the_way_is_told_at_once() -> None:
    with pytest.raises(BridgeError) as caught:
        read_qonnx(exported(Refused, (2, 8, 8)))
    kinds = {p.kind: p for p in caught.value.problems}
    assert set(kinds) >= {"Conv", "Sigmoid"} and all(p.place for p in caught.value.problems)
    assert "dilation" in kinds["Conv"].reason and "table of its values" in kinds["Sigmoid"].advice
