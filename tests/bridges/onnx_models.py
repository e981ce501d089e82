"""Models as others could have made them, node by node, and their import compared with qonnx' own execution."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sw.bridges.qonnx import read_qonnx
from sw.graph import IntegerGraph
from tests.bridges.onnx_networks import run_qonnx

DOMAIN = "qonnx.custom_op.general"


class Model:
    """A model node by node; every verb returns the name of its value."""

    def __init__(self, *shape: int, opset: int = 13) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.shape, self.opset = shape, opset

    def const(self, array: Any, dtype: Any = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def ints(self, *numbers: int) -> str:
        return self.const(numbers, np.int64)

    def node(self, kind: str, *inputs: str, domain: str = "", outputs: int = 1, **attributes: Any) -> Any:
        names = [f"v{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=f"{kind}{len(self.nodes)}", domain=domain, **attributes))
        return names[0] if outputs == 1 else names

    def quant(self, value: str, scale: Any = 0.125, bits: float = 8, *, signed: int = 1, narrow: int = 0, rounding: str = "ROUND",
              zero: float = 0) -> str:
        numbers = self.const(scale), self.const(zero), self.const(bits)
        return self.node("Quant", value, *numbers, domain=DOMAIN, signed=signed, narrow=narrow, rounding_mode=rounding)

    def weights(self, shape: tuple[int, ...], seed: int = 0, scale: Any = 0.25) -> str:
        values = np.random.default_rng(seed).integers(-7, 8, shape) * np.asarray(scale)
        return self.quant(self.const(values), scale, 4, narrow=1)

    def model(self, *outputs: str, batch: int | None = 2) -> onnx.ModelProto:
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch or "N", *self.shape])]
        ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "g", inputs, ends, self.constants)
        versions = [helper.make_opsetid("", self.opset), helper.make_opsetid(DOMAIN, 1)]
        return helper.make_model(graph, opset_imports=versions, ir_version=8)


def exact(model: onnx.ModelProto, *kinds: str, seed: int = 0) -> IntegerGraph:
    """The imported graph, after its outputs were compared with qonnx' own execution of the model."""
    found = read_qonnx(model)
    assert [node.operation.op for node in found.graph.nodes] == list(kinds)
    values = np.random.default_rng(seed).normal(size=(2, *found.graph.tensors["x"].shape)).astype(np.float32) * 6
    values = values.reshape(2, *[d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim][1:])
    codes = found.graph(found.input_codes({"x": values}))
    for name, theirs in zip(found.graph.outputs, run_qonnx(model, {"x": values}), strict=True):
        ours = codes[name].reshape(theirs.shape) * float(found.scales[name])
        assert np.array_equal(ours.astype(np.float32), theirs) and len(np.unique(theirs)) > 3
    return found.graph
