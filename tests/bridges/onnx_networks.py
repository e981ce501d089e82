"""Graphs for the ONNX bridge, and the two executions that they are compared with: qonnx, and ONNX Runtime without optimisations."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from hw.spec import ops
from hw.spec.fixed import FixedFormat, Rounding
from sw.data.digits import INPUT_FORMAT, Digits, load_digits
from sw.graph import IntegerGraph
from sw.models.mobilenet import SmallMobileNet
from sw.models.resnet import PreActResNet
from sw.models.shufflenet_digits import DigitsNet
from sw.models.small_cnn import PlainNet
from sw.quant import Recipe, export
from sw.quant.ptq import post_training
from tests.compiler.graphs import Builder

UP, EVEN = Rounding.RND, Rounding.RND_CONV


def exact_record(record: ops.Requant) -> ops.Requant:
    """The record with multipliers so small that their products are exact in float32."""
    large = record.multiplier > 15
    return dataclasses.replace(record, multiplier=np.where(large, 5, record.multiplier),
                               shift=np.where(large, record.shift - 13, record.shift))


def rounded(operation: Any, rounding: Rounding) -> Any:
    """The operation with another rounding, where it has one."""
    if not hasattr(operation, "requant"):
        return operation
    return dataclasses.replace(operation, requant=dataclasses.replace(operation.requant, rounding=rounding))


class ExactBuilder(Builder):
    """Random graphs that ONNX expresses, with one rounding."""

    def __init__(self, seed: int, rounding: Rounding = UP) -> None:
        super().__init__(seed)
        self.rounding = rounding

    def requant(self, *arguments: Any, **options: Any) -> ops.Requant:
        return exact_record(super().requant(*arguments, **options))

    def add(self, name: str, operation: Any, *inputs: str, fmt: FixedFormat | None = None) -> str:
        return super().add(name, rounded(operation, self.rounding), *inputs, fmt=fmt)


@cache
def every_operation(rounding: Rounding = UP) -> IntegerGraph:
    """Each golden operation at least once, with four outputs; the deformable ones move by whole pixels."""
    b = ExactBuilder(1, rounding)
    b.input("x", (4, 9, 8))
    b.conv("conv", "x", 8, kernel=(3, 3), padding=1)
    b.conv("grouped", "conv", 16, kernel=(1, 3), groups=4, fmt=FixedFormat(4, 0))
    b.depthwise("depthwise", "conv", stride=2, fmt=FixedFormat(8, 0, False))
    b.table("table", b.scale("scale", "depthwise"))
    b.sum("add", b.clip("clip", "table", -50, 60), "table")
    b.add("join", ops.ShuffleJoin(), b.half("left", "add", 0), b.half("right", "add", 1))
    b.add("concat", ops.Concat(), b.add("shuffle", ops.Shuffle(groups=4), "join"), "join")
    b.add("up", ops.Upsample2x(), b.add("max", ops.MaxPool2d(kernel=3, stride=2, padding=1), "concat"))
    b.mean("odd_mean", "up", (3, 3), stride=2, padding=1)
    b.mean("even_mean", "up", (2, 3))
    b.deform("square", "odd_mean", b.conv("offset", "odd_mean", 1, fmt=FixedFormat(5, 0)))
    b.deform_conv("deform", "square", b.conv("offsets", "square", 18, kernel=(3, 3), padding=1, fmt=FixedFormat(3, 0)), 6, frac=0)
    b.mean("mean", "deform", b.tensors["deform"].shape[1:])
    b.linear("linear", "mean", 10)
    return b.graph("linear", "up", "even_mean", "grouped")


def random_values(graph: IntegerGraph, count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Codes (count, C, H, W) of every input over its whole format."""
    random = np.random.default_rng(seed)
    specs = {name: graph.tensors[name] for name in graph.inputs}
    return {name: random.integers(s.fmt.min_code, s.fmt.max_code + 1, (count, *s.shape)) for name, s in specs.items()}


# -- trained and calibrated networks ------------------------------------------------------------------------------------


@cache
def digits() -> Digits:
    return load_digits()


@cache
def _trained(make: Callable[[], nn.Module], epochs: int) -> nn.Module:
    """A network after some epochs on the digits."""
    torch.manual_seed(3)
    data, net = digits(), make()
    steps = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(data.train_images)).split(64):
            loss = nn.functional.cross_entropy(net(data.train_images[rows]), data.train_labels[rows])
            steps.zero_grad()
            loss.backward()
            steps.step()
    return net.eval()


def _quantised(net: nn.Module, images: torch.Tensor, rounding: Rounding, **options: Any) -> IntegerGraph:
    """The integer graph of a network, by the recipe's defaults but for what is given."""
    return export(post_training(net, [images], Recipe(rounding=rounding, **options)), images[:1])


@cache
def plain_graph(rounding: Rounding = UP) -> IntegerGraph:
    """Three convolutions, a mean and a linear layer, for digits."""
    return _quantised(_trained(PlainNet, 3), digits().train_images[:256], rounding, input_format=INPUT_FORMAT)


@cache
def digits_graph(rounding: Rounding = UP) -> IntegerGraph:
    """DigitsNet: shuffle units, depthwise convolutions, and a square deformable one, whose offsets round half up by definition."""
    return _quantised(_trained(DigitsNet, 2), digits().train_images[:256], rounding, input_format=INPUT_FORMAT)


def test_codes() -> np.ndarray:
    """Every held-out digit as codes (450, 1, 8, 8)."""
    return np.rint(digits().test_images.numpy().astype(np.float64) * 16).astype(np.int64)


test_codes.__test__ = False  # type: ignore[attr-defined]


def _calibrated(net: nn.Module, rounding: Rounding) -> IntegerGraph:
    images = torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        net.train()(images)
    return _quantised(net.eval(), images, rounding, weight_bits=8)


@cache
def residual_graph(rounding: Rounding = UP) -> IntegerGraph:
    """Residual sums, BatchNorms as layers of their own, strides, a global mean."""
    torch.manual_seed(4)
    return _calibrated(PreActResNet(blocks=1, width=4), rounding)


@cache
def mobile_graph(rounding: Rounding = UP) -> IntegerGraph:
    """Depthwise convolutions, residual sums, tables, a global mean."""
    torch.manual_seed(4)
    return _calibrated(SmallMobileNet(width=4, expansion=2, activation=nn.Hardswish), rounding)


# -- executions ---------------------------------------------------------------------------------------------------------


def floats(graph: IntegerGraph, codes: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The model's inputs for the graph's codes, float32."""
    return {name: np.ldexp(array.astype(np.float64), -graph.tensors[name].fmt.frac).astype(np.float32) for name, array in codes.items()}


def run_qonnx(model: onnx.ModelProto, values: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The model's outputs by qonnx's own node-by-node execution."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.infer_shapes import InferShapes

    wrapped = ModelWrapper(model)
    if not wrapped.check_all_tensor_shapes_specified():
        wrapped = wrapped.transform(InferShapes())
    found = execute_onnx(wrapped, values)
    return [found[entry.name] for entry in model.graph.output]


def run_runtime(model: onnx.ModelProto, values: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The model's outputs by ONNX Runtime with all optimisations off."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, values))


def mismatches(graph: IntegerGraph, codes: dict[str, np.ndarray], outputs: list[np.ndarray]) -> tuple[int, int]:
    """How many values are not code * 2**-frac of the graph's output, and how many were compared."""
    wanted, wrong, count = graph(codes), 0, 0
    assert len(outputs) == len(graph.outputs)
    for name, found in zip(graph.outputs, outputs, strict=True):
        exact = np.ldexp(wanted[name].astype(np.float64), -graph.tensors[name].fmt.frac)
        assert found.shape == exact.shape and len(np.unique(exact)) > 3, f"{name}: {found.shape}, {exact.shape}"
        wrong, count = wrong + int((found.astype(np.float64) != exact).sum()), count + exact.size
    return wrong, count


def ties(graph: IntegerGraph, codes: dict[str, np.ndarray], other: Rounding = EVEN) -> int:
    """How many codes of all layers another rounding of the same sums would have changed."""
    values, found = graph.trace(codes), 0
    for node in graph.nodes:
        changed = rounded(node.operation, other)(*(values[name] for name in node.inputs))
        found += int((changed != values[node.output]).sum())
    return found


def single(operation: Any, shape: tuple[int, int, int], *others: tuple[int, int, int], fmt: FixedFormat | None = None,
           out: FixedFormat | None = None) -> IntegerGraph:
    """A graph of one operation on inputs of 8 bits."""
    b = Builder(0)
    names = [b.input(f"in{i}", each, fmt or FixedFormat(8, 0)) for i, each in enumerate((shape, *others))]
    b.add("it", operation, *names, fmt=out)
    return b.graph("it")


def in_rounding(graph: IntegerGraph, rounding: Rounding) -> IntegerGraph:
    """The graph with another rounding of every layer."""
    nodes = tuple(dataclasses.replace(n, operation=rounded(n.operation, rounding)) for n in graph.nodes)
    return dataclasses.replace(graph, nodes=nodes)
