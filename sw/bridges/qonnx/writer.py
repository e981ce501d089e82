"""ONNX nodes, one after the other, with a shape for every value and names that collide with nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["HINT", "IR_VERSION", "OPSET", "OnnxWriter"]

OPSET, IR_VERSION = 20, 10
"""Operator set and file version: the first with deformable convolutions, and with metadata on nodes."""

HINT = "bitloom.op"
"""Key of a node's metadata that says which of two equal operations, such as ``shuffle:2``, or roundings a node stands for."""


@dataclass(eq=False, kw_only=True)
class OnnxWriter:
    """A model while it is written. ``taken`` are names in use; shapes are without the batch, which comes in front."""

    taken: set[str]
    batch: int | None
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    infos: dict[str, onnx.ValueInfoProto] = field(default_factory=dict)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def fresh(self, wanted: str) -> str:
        """``wanted``, or with a number behind it where that name is taken."""
        name, count = wanted, 1
        while name in self.taken:
            count += 1
            name = f"{wanted}:{count}"
        self.taken.add(name)
        return name

    def info(self, name: str, shape: Sequence[int], kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
        """Type and shape of a value."""
        return helper.make_tensor_value_info(name, kind, [self.batch or "N", *shape])

    def constant(self, wanted: str, array: np.ndarray) -> str:
        """An initializer; returns its name."""
        name = self.fresh(wanted)
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def floats(self, wanted: str, values: Any) -> str:
        """A float32 initializer of values that float32 holds exactly."""
        wide = np.asarray(values, np.float64)
        narrow = wide.astype(np.float32)
        if not np.array_equal(narrow.astype(np.float64), wide):
            raise ValueError(f"constant {wanted} must be exact in float32")
        return self.constant(wanted, narrow)

    def node(self, kind: str, inputs: Sequence[str], shape: Sequence[int], *, name: str, output: str = "", hint: str = "",
             domain: str = "", dtype: int = TensorProto.FLOAT, **attributes: Any) -> str:
        """A node with one output, named ``output`` or after the node; returns its name. Constants may have no shape ()."""
        output = output or self.fresh(f"{name}:{kind}")
        made = helper.make_node(kind, list(inputs), [output], name=name, domain=domain, **attributes)
        if hint:
            made.metadata_props.add(key=HINT, value=hint)
        self.nodes.append(made)
        self.infos[output] = self.info(output, shape, dtype)
        return output

    def fixed(self, kind: str, inputs: Sequence[str], shape: Sequence[int], *, name: str, domain: str = "", **attributes: Any) -> str:
        """A node on constants, whose result has no batch; returns the result's name."""
        output = self.fresh(name)
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=name, domain=domain, **attributes))
        self.infos[output] = helper.make_tensor_value_info(output, TensorProto.FLOAT, list(shape))
        return output

    def model(self, inputs: Sequence[tuple[str, Sequence[int]]], outputs: Sequence[tuple[str, Sequence[int]]],
              domains: Sequence[tuple[str, int]]) -> onnx.ModelProto:
        """The finished model."""
        ends = {name for name, _ in outputs}
        graph = helper.make_graph(
            self.nodes, "bitloom", [self.info(*entry) for entry in inputs], [self.info(*entry) for entry in outputs], self.constants,
            value_info=[info for name, info in self.infos.items() if name not in ends],
        )  # fmt: skip
        opsets = [helper.make_opsetid(domain, version) for domain, version in (("", OPSET), *domains)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="bitloom")
