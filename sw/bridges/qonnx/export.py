"""From an integer graph to an ONNX model, node by node; every layer's exactness is proven on the way, every refusal is kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import onnx

from hw.spec import ops
from hw.spec.fixed import Rounding
from sw.bridges.errors import BridgeError, refusal
from sw.bridges.qonnx.dialects import QCDQ, QONNX, Dialect, Target
from sw.bridges.qonnx.export_ops import WRITE
from sw.bridges.qonnx.proofs import check_exponents, check_product, check_sums, reach
from sw.bridges.qonnx.roundings import offsets
from sw.bridges.qonnx.writer import OnnxWriter
from sw.graph import IntegerGraph, Node, TensorSpec
from sw.tracing.problems import Problem, RefusedError

__all__ = ["QCDQ", "QONNX", "Export", "export"]


def export(graph: IntegerGraph, dialect: Dialect, batch: int | None) -> onnx.ModelProto:
    """The model of a graph. Raises BridgeError with every layer that the dialect does not express exactly."""
    if not isinstance(graph, IntegerGraph):
        raise BridgeError(f"export takes an IntegerGraph, not {type(graph).__name__}")
    if batch is not None and (isinstance(batch, bool) or not isinstance(batch, int) or batch < 1):
        raise BridgeError(f"batch must be a number of images, at least 1, or None, not {batch!r}")
    return Export(graph, dialect, batch).run()


def _extent(fmt: Any) -> tuple[int, int]:
    return fmt.min_code, fmt.max_code


class Export:
    """Writes a graph's nodes. ``ranges`` are the smallest and largest code of each tensor, ``values`` their ONNX names."""

    def __init__(self, graph: IntegerGraph, dialect: Dialect, batch: int | None) -> None:
        self.graph, self.dialect = graph, dialect
        self.writer = OnnxWriter(taken=set(graph.inputs) | {node.output for node in graph.nodes}, batch=batch)
        self.ranges: dict[str, tuple[int, int]] = {}
        self.values: dict[str, str] = {}
        self.problems: list[Problem] = []

    def run(self) -> onnx.ModelProto:
        for name in self.graph.inputs:
            self._guarded(name, "input", partial(self._input, name))
        for node in self.graph.nodes:
            self._guarded(node.name or node.output, node.operation.op, partial(self._node, node))
        if self.problems:
            raise refusal(f"the graph cannot be exported to {self.dialect.name}", self.problems)
        outputs = self._outputs()
        inputs = [(name, self.graph.tensors[name].shape) for name in self.graph.inputs]
        return self.writer.model(inputs, outputs, self.dialect.domains)

    def _guarded(self, place: str, kind: str, write: Callable[[], None]) -> None:
        try:
            write()
        except RefusedError as refused:
            self.problems.append(refused.at(place, kind))
        except (ValueError, TypeError) as error:
            self.problems.append(RefusedError(f"does not hold together ({error})", "repair the graph").at(place, kind))

    # -- ends ---------------------------------------------------------------------------------------------------------

    def _input(self, name: str) -> None:
        spec = self.graph.tensors[name]
        if not name:
            raise RefusedError("has an empty name", "name it")
        self.values[name], self.ranges[name] = self.writer.fresh(f"{name}:quant"), _extent(spec.fmt)
        self._check_format(spec)
        self.dialect.quantise(self.writer, name, spec.shape, _whole(spec), name=name, output=self.values[name])

    def _outputs(self) -> list[tuple[str, tuple[int, int, int]]]:
        """Names and shapes; an output that is an input, or is there twice, is copied."""
        found: list[tuple[str, tuple[int, int, int]]] = []
        for name in self.graph.outputs:
            shape, value = self.graph.tensors[name].shape, self.values[name]
            if name in self.graph.inputs or (value, shape) in found:
                value = self.writer.node("Identity", [value], shape, name=f"{name}:output")
            found.append((value, shape))
        return found

    @staticmethod
    def _check_format(spec: TensorSpec) -> None:
        if spec.fmt.min_code < -256 or spec.fmt.max_code > 255:
            raise RefusedError(f"has the format {spec.fmt}, wider than the 9 bits of a code", "use at most 8 bits")
        check_exponents(spec.fmt.frac)

    # -- nodes --------------------------------------------------------------------------------------------------------

    def _node(self, node: Node) -> None:
        spec = self.graph.tensors[node.output]
        self.values[node.output] = node.output
        self.ranges[node.output] = _extent(spec.fmt)  # until the operation knows better
        if not node.name or not node.output:
            raise RefusedError("has an empty name", "name it and its tensor")
        if any(name not in self.values for name in node.inputs):
            return
        self._check_format(spec)
        WRITE[type(node.operation)](self, node, node.operation, spec)

    def source(self, node: Node, index: int = 0) -> tuple[str, TensorSpec, tuple[int, int]]:
        """An input's value, spec and range of codes."""
        name = node.inputs[index]
        return self.values[name], self.graph.tensors[name], self.ranges[name]

    def quantise(self, node: Node, value: str, low: int, high: int, rounding: Rounding = Rounding.RND_CONV) -> None:
        """The node's tensor, of a value that its operation left."""
        spec = self.graph.tensors[node.output]
        target = Target(fmt=spec.fmt, low=low, high=high, rounding=rounding)
        self.ranges[node.output] = low, high
        self.dialect.quantise(self.writer, value, spec.shape, target, name=node.name, output=node.output)

    def moved(self, node: Node) -> tuple[str, TensorSpec]:
        """The input of an operation that only moves codes; its formats must be one."""
        specs = [self.graph.tensors[name] for name in node.inputs]
        if len({spec.fmt for spec in specs} | {self.graph.tensors[node.output].fmt}) != 1:
            raise RefusedError(f"moves codes of the formats {', '.join(str(s.fmt) for s in specs)} to "
                               f"{self.graph.tensors[node.output].fmt}", "give its tensors one format")
        ranges = [self.ranges[name] for name in node.inputs]
        self.ranges[node.output] = min(low for low, _ in ranges), max(high for _, high in ranges)
        return self.values[node.inputs[0]], specs[0]

    # -- layers with weights ------------------------------------------------------------------------------------------

    def weighted(self, node: Node, kind: str, weight: np.ndarray, *, shape: tuple[int, ...] = (), values: list[str] | None = None,
                 axis: int = 0, **attributes: Any) -> None:
        """A layer of ``kind`` with weight codes (OC, ...), its bias and requantise step; ``shape`` of its result without batch."""
        source, spec, extent = self.source(node)
        requant, out = node.operation.requant, self.graph.tensors[node.output]
        factor, frac = self._scales(requant, spec, out)
        channels = weight if axis == 0 else weight.reshape(-1, 1)
        least, most = reach(channels, *extent)
        native = self.dialect.native(requant.rounding)
        offset = offsets(requant, least, most, native)
        check_sums(requant, least, most, offset)
        if (factor != 1).any() or offset.any():
            check_product(requant, least, most, offset, native)
        self.dialect.check(Target(fmt=out.fmt, low=requant.lo, high=requant.hi, rounding=requant.rounding))
        weights = self.dialect.weights(self.writer, weight, frac, axis, name=self.writer.fresh(f"{node.name}:weight"))
        first, *others = values or [source]
        operands = [first, weights, *others]
        bias = (requant.bias + offset) * np.ldexp(1.0, -(spec.fmt.frac + frac))
        apart = kind == "Mul" or (self.dialect.whole_biases and bool(offset.any()))
        value = self._layer(node, kind, operands, bias, shape or out.shape, attributes, apart)
        if (factor != 1).any():
            factors = self.writer.floats(f"{node.name}:factor", factor.reshape(1, -1, 1, 1))
            value = self.writer.node("Mul", [value, factors], out.shape, name=f"{node.name}:mul")
        self.quantise(node, value, requant.lo, requant.hi, requant.rounding)

    def _layer(self, node: Node, kind: str, operands: list[str], bias: np.ndarray, shape: tuple[int, ...], attributes: dict[str, Any],
               apart: bool) -> str:
        """The layer as an image, and its bias: as its own input, or ``apart`` as an addition."""
        writer, out = self.writer, self.graph.tensors[node.output].shape
        if bias.any() and not apart:
            operands = [*operands, writer.floats(f"{node.name}:bias", bias)]
        value = writer.node(kind, operands, shape, name=node.name, hint=node.operation.op, **attributes)
        if type(node.operation) is ops.Linear:
            pixels = writer.constant(f"{node.name}:shape", np.array([0, out[0], 1, 1], np.int64))
            value = writer.node("Reshape", [value, pixels], out, name=f"{node.name}:reshape")
        return self.added(node, value, bias) if apart else value

    def added(self, node: Node, value: str, bias: np.ndarray) -> str:
        """A value of the node's shape plus one number per channel; itself where all are 0."""
        if not bias.any():
            return value
        numbers = self.writer.floats(f"{node.name}:bias", bias.reshape(1, -1, 1, 1))
        return self.writer.node("Add", [value, numbers], self.graph.tensors[node.output].shape, name=f"{node.name}:add")

    @staticmethod
    def _scales(requant: ops.Requant, spec: TensorSpec, out: TensorSpec) -> tuple[np.ndarray, np.ndarray]:
        """Per channel: what a multiplier leaves beyond powers of two (1 to below 2), and the weights' fraction bits."""
        power = np.array([m.bit_length() - 1 for m in requant.multiplier.tolist()], np.int64)
        sums = requant.shift - power + out.fmt.frac
        check_exponents(sums, sums - spec.fmt.frac)
        return np.ldexp(requant.multiplier.astype(np.float64), -power), sums - spec.fmt.frac


def _whole(spec: TensorSpec) -> Target:
    return Target(fmt=spec.fmt, low=spec.fmt.min_code, high=spec.fmt.max_code)
