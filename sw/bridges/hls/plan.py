"""A graph as layers of C++: tensors with identifiers and proven ranges, or the list of all that has no C++."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hw.spec.fixed import FixedFormat
from hw.spec.ops import OPERATIONS, DeformConv2d, DeformDepthwiseConv2d, Table
from sw.bridges.errors import refusal
from sw.bridges.hls.names import comment, identifiers
from sw.bridges.hls.ranges import ACCUMULATOR_BITS, Interval, accumulator, clipped, fits, reach
from sw.graph import IntegerGraph, Node
from sw.tracing.problems import Problem

__all__ = ["Layer", "Network", "Tensor", "plan", "survey"]

OFFSET_BITS = 16
"""Widest offsets of a deformable convolution: positions are C++ ints."""


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A tensor in C++: an array ``identifier`` [C][H][W] of the type ``type``. ``reach`` is the range of its codes."""

    name: str
    identifier: str
    shape: tuple[int, int, int]
    fmt: FixedFormat
    reach: Interval

    @property
    def type(self) -> str:
        return f"{self.identifier}_t"

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def dimensions(self) -> str:
        """The sizes behind a declaration."""
        return "".join(f"[{size}]" for size in self.shape)


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """One operation, from its input tensors to its output."""

    node: Node
    inputs: tuple[Tensor, ...]
    output: Tensor

    @property
    def operation(self) -> Any:
        return self.node.operation

    @property
    def title(self) -> str:
        """The layer in words, for comments."""
        shapes = " and ".join("x".join(map(str, t.shape)) for t in self.inputs)
        return f"{comment(self.node.name)}: {self.operation.op}, {shapes} to {'x'.join(map(str, self.output.shape))}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """Inputs, layers in execution order and outputs."""

    inputs: tuple[Tensor, ...]
    layers: tuple[Layer, ...]
    outputs: tuple[Tensor, ...]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (*self.inputs, *(layer.output for layer in self.layers))


def plan(graph: IntegerGraph) -> Network:
    """The layers of a graph; BridgeError lists all that has no C++."""
    network, problems = survey(graph)
    if problems:
        raise refusal("the graph cannot be written as HLS C++", problems)
    return network


def survey(graph: IntegerGraph) -> tuple[Network, list[Problem]]:
    """The layers of a graph, and all that has no C++. A layer in the way has its format's whole range as codes."""
    names = identifiers([*graph.inputs, *(node.output for node in graph.nodes)])
    made: dict[str, Tensor] = {}
    problems: list[Problem] = []

    def tensor(name: str, codes: Interval) -> Tensor:
        spec = graph.tensors[name]
        made[name] = Tensor(name=name, identifier=names[name], shape=spec.shape, fmt=spec.fmt, reach=codes)
        return made[name]

    inputs = [tensor(name, _range(graph.tensors[name].fmt)) for name in graph.inputs]
    layers = []
    for node in graph.nodes:
        given, spec = tuple(made[name] for name in node.inputs), graph.tensors[node.output]
        found = _obstacles(node, given, spec.shape, spec.fmt)
        problems += found
        codes = _range(spec.fmt) if found else clipped(reach(node.operation, [t.reach for t in given]), *_range(spec.fmt))
        layers.append(Layer(node=node, inputs=given, output=tensor(node.output, codes)))
    outputs = tuple(made[name] for name in graph.outputs)
    return Network(inputs=tuple(inputs), layers=tuple(layers), outputs=outputs), problems + _ports(graph)


def _range(fmt: FixedFormat) -> Interval:
    return fmt.min_code, fmt.max_code


def _ports(graph: IntegerGraph) -> list[Problem]:
    """What the top function's arguments lack."""
    if not graph.outputs or not graph.inputs:
        return [Problem(place="", kind="graph", reason="has no input or no output, so the top function would have no port",
                           advice="name the tensors that go in and come out")]
    return [Problem(place=name, kind="tensor", reason="is an output more than once, and a port is one argument",
                       advice="name it once") for name in sorted({n for n in graph.outputs if graph.outputs.count(n) > 1})]


def _obstacles(node: Node, inputs: Sequence[Tensor], shape: tuple[int, int, int], fmt: FixedFormat) -> list[Problem]:
    """Why one node has no C++."""
    operation = node.operation
    for rule in (_unknown, _misfit, _wide_table, _wide_offset, _wide_sum):
        if reason := rule(operation, inputs, shape):
            return [Problem(place=node.name, kind=operation.op, reason=reason[0], advice=reason[1])]
    low, high = reach(operation, [t.reach for t in inputs])
    if fmt.min_code <= low and high <= fmt.max_code:
        return []
    return [Problem(
        place=node.name, kind=operation.op,
        reason=f"has codes that can be {low}..{high}, and the format {fmt} of {node.output} has {fmt.min_code}..{fmt.max_code}",
        advice="give the tensor a format that holds them, or the operation limits within the format",
    )]


Reason = tuple[str, str] | None
Shape = tuple[int, int, int]


def _unknown(operation: Any, inputs: Sequence[Tensor], shape: Shape) -> Reason:
    if operation.op in OPERATIONS and operation.op in EXPRESSED:
        return None
    return "has no C++", "replace it by operations that have"


EXPRESSED = frozenset((
    "conv2d", "linear", "depthwise_conv2d", "deform_depthwise_conv2d", "max_pool2d", "avg_pool2d", "slice", "shuffle_join", "add",
    "upsample2x", "scale", "table", "clip", "concat", "shuffle", "deform_conv2d",
))  # fmt: skip


def _misfit(operation: Any, inputs: Sequence[Tensor], shape: Shape) -> Reason:
    """The operation itself says what fits: it runs once, on zeros of one image."""
    zeros = [np.zeros((1, *t.shape), np.int64) for t in inputs]
    try:
        found = operation(*zeros).shape[1:]
    except (ValueError, TypeError, IndexError) as error:
        return f"does not take its inputs ({error})", "correct the graph, whose own run fails there too"
    if found == shape:
        return None
    return f"gives a tensor of {found}, and the graph says {shape}", "correct the tensor's shape"


def _wide_table(operation: Any, inputs: Sequence[Tensor], shape: Shape) -> Reason:
    if not isinstance(operation, Table) or (inputs[0].reach[0] >= -128 and inputs[0].reach[1] <= 255):
        return None
    return f"takes codes of at most 8 bits, and {inputs[0].name} has {inputs[0].fmt}", "requantise to 8 bits before it"


def _wide_offset(operation: Any, inputs: Sequence[Tensor], shape: Shape) -> Reason:
    if not isinstance(operation, DeformConv2d | DeformDepthwiseConv2d) or inputs[1].fmt.width <= OFFSET_BITS:
        return None
    return f"has offsets of {inputs[1].fmt}, wider than {OFFSET_BITS} bits", "requantise the offsets to 8 bits"


def _wide_sum(operation: Any, inputs: Sequence[Tensor], shape: Shape) -> Reason:
    if getattr(operation, "requant", None) is None:
        return None
    low, high = accumulator(operation, inputs[0].reach)
    if fits(operation, low, high):
        return None
    return (f"has sums that can be {min(low)}..{max(high)} before the bias, and a requantise step takes {ACCUMULATOR_BITS} bits",
            "use fewer inputs, narrower weights or narrower activations")
