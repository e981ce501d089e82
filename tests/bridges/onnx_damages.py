"""A small model, and what can be done to it: named damages of a model's parts, each a function that changes the model."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hw.spec import ops
from hw.spec.fixed import FixedFormat
from sw.bridges.qonnx import to_qonnx
from sw.graph import IntegerGraph
from tests.bridges.onnx_networks import ExactBuilder


@cache
def base() -> IntegerGraph:
    """A small graph with what makes files interesting: weights, a sum, a table, a shuffle, pools, a linear layer."""
    b = ExactBuilder(3)
    b.conv("a", b.input("x", (2, 6, 6)), 4, kernel=(3, 3), padding=1)
    b.depthwise("b", "a", fmt=FixedFormat(8, 0))
    b.sum("c", "a", "b")
    b.add("d", ops.Shuffle(groups=2), b.table("t", "c"))
    b.add("e", ops.MaxPool2d(kernel=2, stride=2), "d")
    b.linear("f", b.mean("m", "e", (3, 3)), 3)
    return b.graph("f")


@cache
def data() -> bytes:
    return bytes(to_qonnx(base()).SerializeToString(deterministic=True))


def _tensor(model: onnx.ModelProto, end: str) -> onnx.TensorProto:
    return next(t for t in model.graph.initializer if t.name.endswith(end))


def _node(model: onnx.ModelProto, kind: str) -> onnx.NodeProto:
    return next(n for n in model.graph.node if n.op_type == kind)


def _set(end: str, array: Any) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        tensor = _tensor(model, end)
        tensor.CopyFrom(numpy_helper.from_array(np.asarray(array), tensor.name))
    return change


def _field(end: str, **fields: Any) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        tensor = _tensor(model, end)
        for name, value in fields.items():
            if name == "dims":
                del tensor.dims[:]
                tensor.dims.extend(value)
            else:
                setattr(tensor, name, value)
    return change


def attribute(kind: str, name: str, value: Any) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        node = _node(model, kind)
        rest = [a for a in node.attribute if a.name != name]
        del node.attribute[:]
        node.attribute.extend([*rest, helper.make_attribute(name, value)])
    return change


def _with(function: Callable[[onnx.ModelProto], Any]) -> Callable[[onnx.ModelProto], None]:
    return lambda model: (function(model), None)[1]


def input_shape(*sizes: Any) -> Callable[[onnx.ModelProto], None]:
    return lambda model: model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, list(sizes)))


def _rename(kind: str, index: int, name: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        _node(model, kind).input[index] = name
    return change


def _external(model: onnx.ModelProto) -> None:
    tensor = _tensor(model, "a:weight:values")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    tensor.ClearField("raw_data")


def _cycle(model: onnx.ModelProto) -> None:
    add = _node(model, "Add")
    add.input[1] = "t"


def _nested(model: onnx.ModelProto) -> None:
    inner = model.graph
    for _ in range(20):
        outer = onnx.GraphProto(name="g", node=[helper.make_node("If", ["x"], ["f"], then_branch=inner)])
        inner = outer
    model.graph.CopyFrom(inner)


NAN, INF = float("nan"), float("inf")
CASES: dict[str, Callable[[onnx.ModelProto], None]] = {
    "empty graph": _with(lambda m: m.ClearField("graph")),
    "no nodes": _with(lambda m: m.graph.ClearField("node")),
    "no outputs": _with(lambda m: m.graph.ClearField("output")),
    "no inputs": _with(lambda m: m.graph.ClearField("input")),
    "no initializers": _with(lambda m: m.graph.ClearField("initializer")),
    "no opset": _with(lambda m: m.ClearField("opset_import")),
    "strange opset": _with(lambda m: setattr(m.opset_import[0], "version", 999)),
    "negative opset": _with(lambda m: setattr(m.opset_import[0], "version", -1)),
    "functions": _with(lambda m: m.functions.add(name="f", domain="d")),
    "training": _with(lambda m: m.training_info.add()),
    "sparse": _with(lambda m: m.graph.sparse_initializer.add()),
    "reversed nodes": _with(lambda m: replace(m, list(m.graph.node)[::-1])),
    "a node twice": _with(lambda m: m.graph.node.append(m.graph.node[2])),
    "a node missing": _with(lambda m: m.graph.node.pop(3)),
    "cycle": _cycle,
    "itself as input": _with(lambda m: m.graph.node[0].input.__setitem__(0, m.graph.node[0].output[0])),
    "two initializers of a name": _with(lambda m: m.graph.initializer.append(m.graph.initializer[0])),
    "unnamed initializer": _with(lambda m: setattr(m.graph.initializer[0], "name", "")),
    "output nobody writes": _with(lambda m: setattr(m.graph.output[0], "name", "nothing")),
    "output is a constant": _with(lambda m: setattr(m.graph.output[0], "name", m.graph.initializer[0].name)),
    "nested subgraphs": _nested,
    "external data": _external,
    "unknown operation": _with(lambda m: setattr(_node(m, "Add"), "op_type", "Subtract")),
    "unknown domain": _with(lambda m: setattr(_node(m, "Add"), "domain", "elsewhere")),
    "operation without a name": _with(lambda m: setattr(_node(m, "Add"), "op_type", "")),
    "conv without inputs": _with(lambda m: _node(m, "Conv").ClearField("input")),
    "conv without weights": _rename("Conv", 1, ""),
    "quant without scale": _rename("Quant", 1, ""),
    "weights that depend on the input": _rename("Conv", 1, "x"),
    "scale that depends on the input": _rename("Quant", 1, "x"),
    "missing tensor": _rename("Conv", 0, "gone"),
    "add of one": _with(lambda m: _node(m, "Add").input.pop()),
    "gather of itself": _rename("Gather", 0, "c"),
    "node without output": _with(lambda m: _node(m, "MaxPool").ClearField("output")),
    "nan scale": _set("x:scale", np.float32(NAN)),
    "infinite scale": _set("x:scale", np.float32(INF)),
    "zero scale": _set("x:scale", np.float32(0)),
    "negative scale": _set("x:scale", np.float32(-1)),
    "denormal scale": _set("x:scale", np.float32(1e-45)),
    "scale of many": _set("x:scale", np.ones((1, 2, 1, 1), np.float32)),
    "scale of none": _set("x:scale", np.ones((0,), np.float32)),
    "nan weight scale": _set("a:weight:scale", np.full((4, 1, 1, 1), NAN, np.float32)),
    "zero weight scale": _set("a:weight:scale", np.zeros((4, 1, 1, 1), np.float32)),
    "negative bits": _set("x:bits", np.float32(-8)),
    "zero bits": _set("x:bits", np.float32(0)),
    "many bits": _set("x:bits", np.float32(1e9)),
    "nan bits": _set("x:bits", np.float32(NAN)),
    "half a bit": _set("x:bits", np.float32(7.5)),
    "many weight bits": _set("a:weight:bits", np.float32(1e30)),
    "zero point": _set("x:zero", np.float32(1)),
    "nan zero point": _set("x:zero", np.float32(NAN)),
    "weight zero point": _set("a:weight:zero", np.float32(1)),
    "nan weights": _set("a:weight:values", np.full((4, 2, 3, 3), NAN, np.float32)),
    "infinite weights": _set("a:weight:values", np.full((4, 2, 3, 3), INF, np.float32)),
    "weights of another shape": _set("a:weight:values", np.ones((4, 3, 3, 3), np.float32)),
    "weights of rank 3": _set("a:weight:values", np.ones((4, 2, 9), np.float32)),
    "weights of no channels": _set("a:weight:values", np.ones((0, 2, 3, 3), np.float32)),
    "weights of rank 0": _set("a:weight:values", np.float32(1)),
    "integer weights": _set("a:weight:values", np.ones((4, 2, 3, 3), np.int64)),
    "nan bias": _set("a:bias", np.full(4, NAN, np.float32)),
    "bias of another length": _set("a:bias", np.ones(5, np.float32)),
    "huge bias": _set("a:bias", np.full(4, 1e38, np.float32)),
    "short table": _set("t:table", np.ones(20, np.float32)),
    "nan table": _set("t:table", np.full(256, NAN, np.float32)),
    "integer table": _set("t:table", np.ones(256, np.int64)),
    "table of two axes": _set("t:table", np.ones((16, 16), np.float32)),
    "shape of floats": _set("d:groups", np.ones(5, np.float32)),
    "shape of nonsense": _set("d:groups", np.array([0, 5, 5, 5, 5], np.int64)),
    "shape of two unknowns": _set("d:groups", np.array([0, -1, -1, 6, 6], np.int64)),
    "shape of huge numbers": _set("d:groups", np.array([0, 2**62, 2**62, 6, 6], np.int64)),
    "shape of many numbers": _set("d:groups", np.ones(5000, np.int64)),
    "shape of zeros": _set("d:groups", np.zeros(5, np.int64)),
    "huge dims": _field("a:weight:values", dims=[2**40, 2**20]),
    "negative dims": _field("a:weight:values", dims=[-4, -2, 3, 3]),
    "dims without data": _field("a:weight:values", dims=[1 << 20, 1 << 4]),
    "too much data": _field("a:weight:values", dims=[1]),
    "many dims": _field("a:weight:values", dims=[1] * 5000),
    "unknown element type": _field("a:weight:values", data_type=99),
    "text elements": _field("a:weight:values", data_type=TensorProto.STRING),
    "complex elements": _field("a:weight:values", data_type=TensorProto.COMPLEX64),
    "double elements": _field("a:weight:values", data_type=TensorProto.DOUBLE),
    "half elements": _field("a:weight:values", data_type=TensorProto.FLOAT16),
    "odd bytes": _field("a:weight:values", raw_data=b"123"),
    "huge image": input_shape(1, 2, 2**31, 2**31),
    "empty image": input_shape(1, 2, 0, 6),
    "negative image": input_shape(1, 2, -6, 6),
    "open image": input_shape(1, 2, "H", 6),
    "no batch": input_shape(0, 2, 6, 6),
    "rank 3": input_shape(1, 2, 6),
    "rank 0": input_shape(),
    "large image": input_shape(1, 2, 2000, 2000),
    "small image": input_shape(1, 2, 1, 1),
    "another number of channels": input_shape(1, 3, 6, 6),
    "integers as input": _with(lambda m: m.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.INT8, [1, 2, 6, 6]))),
    "input without type": _with(lambda m: m.graph.input[0].ClearField("type")),
    "input of unknown rank": _with(lambda m: m.graph.input[0].type.tensor_type.ClearField("shape")),
    "a second input": _with(lambda m: m.graph.input.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 6, 6]))),
    "stride 0": attribute("Conv", "strides", [0, 0]),
    "negative stride": attribute("Conv", "strides", [-1, -1]),
    "huge stride": attribute("Conv", "strides", [2**62, 2**62]),
    "negative pads": attribute("Conv", "pads", [-1] * 4),
    "huge pads": attribute("Conv", "pads", [2**40] * 4),
    "three pads": attribute("Conv", "pads", [1] * 3),
    "pads as text": attribute("Conv", "pads", "one"),
    "pads as floats": attribute("Conv", "pads", [1.0] * 4),
    "group 0": attribute("Conv", "group", 0),
    "negative group": attribute("Conv", "group", -2),
    "huge group": attribute("Conv", "group", 2**40),
    "group of another size": attribute("Conv", "group", 2),
    "kernel of another size": attribute("Conv", "kernel_shape", [5, 5]),
    "kernel of one side": attribute("Conv", "kernel_shape", [3]),
    "pool kernel 0": attribute("MaxPool", "kernel_shape", [0, 0]),
    "pool kernel negative": attribute("MaxPool", "kernel_shape", [-2, -2]),
    "pool kernel huge": attribute("MaxPool", "kernel_shape", [2**40, 2**40]),
    "mean kernel huge": attribute("AveragePool", "kernel_shape", [2**20, 2**20]),
    "rounding of no name": attribute("Quant", "rounding_mode", "NONSENSE"),
    "rounding as number": attribute("Quant", "rounding_mode", 3),
    "sign as text": attribute("Quant", "signed", "yes"),
    "transpose twice an axis": attribute("Transpose", "perm", [0, 1, 1, 3, 4]),
    "transpose out of range": attribute("Transpose", "perm", [0, 2, 1, 3, 9]),
    "transpose of the batch": attribute("Transpose", "perm", [2, 0, 1, 3, 4]),
    "cast to nothing": attribute("Cast", "to", 77),
    "gather another axis": attribute("Gather", "axis", 3),
    "gemm scaled": attribute("Gemm", "alpha", NAN),
    "gemm transposed": attribute("Gemm", "transB", 0),
    "flatten elsewhere": attribute("Flatten", "axis", 3),
}  # fmt: skip


def replace(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> None:
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)


# -- damage at random ---------------------------------------------------------------------------------------------------


def rewired(seed: int) -> bytes:
    """The model with one to three random changes that leave it a model in form."""
    random, model = np.random.default_rng(seed), onnx.ModelProto.FromString(data())
    for _ in range(int(random.integers(1, 4))):
        _CHANGES[random.integers(len(_CHANGES))](model, random)
    return bytes(model.SerializeToString())


def _any(random: np.random.Generator, entries: Any) -> Any:
    return entries[int(random.integers(len(entries)))]


def _another_input(model: onnx.ModelProto, random: np.random.Generator) -> None:
    names = [n for node in model.graph.node for n in (*node.input, *node.output)]
    node = _any(random, [n for n in model.graph.node if n.input])
    node.input[int(random.integers(len(node.input)))] = _any(random, names)


def _another_number(model: onnx.ModelProto, random: np.random.Generator) -> None:
    node = _any(random, [n for n in model.graph.node if n.attribute])
    entry = _any(random, node.attribute)
    if entry.ints:
        entry.ints[int(random.integers(len(entry.ints)))] = int(random.integers(-2, 5))
    elif entry.type == onnx.AttributeProto.INT:
        entry.i = int(random.integers(-2, 5))


def _another_value(model: onnx.ModelProto, random: np.random.Generator) -> None:
    tensor = _any(random, model.graph.initializer)
    array = numpy_helper.to_array(tensor).copy()
    array.flat[int(random.integers(max(array.size, 1)))] = random.choice([0, 1, -1, 2, 0.5, 3, 7, 1e9])
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _less(model: onnx.ModelProto, random: np.random.Generator) -> None:
    entries = _any(random, [model.graph.node, model.graph.initializer, _any(random, model.graph.node).attribute])
    if len(entries):
        entries.pop(int(random.integers(len(entries))))


def _another_operation(model: onnx.ModelProto, random: np.random.Generator) -> None:
    _any(random, model.graph.node).op_type = _any(random, ["Relu", "Identity", "Add", "Mul", "Conv", "Sub", "MaxPool", "Quant"])


_CHANGES = [_another_input, _another_number, _another_value, _another_value, _less, _another_operation]
