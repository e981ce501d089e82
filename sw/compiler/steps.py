"""A graph as the core's steps: what each engine is asked to do, before tiling and addresses.

Splits vanish into views. A shuffle join becomes the merge of the convolution that makes its right side, or of an identity
convolution where there is none that feeds the join alone. Graph outputs that own no memory (views, inputs) are copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hw.spec.deform.instructions import DW_CONV, DW_DEFORM, DW_MAX, DW_SUM
from hw.spec.ops import (
    AvgPool2d,
    Conv2d,
    DeformDepthwiseConv2d,
    DepthwiseConv2d,
    Linear,
    MaxPool2d,
    Requant,
    ShuffleJoin,
    Split,
    identity_requant,
)
from sw.compiler.slots import Slots, View, spread, users
from sw.graph import IntegerGraph, Node


@dataclass(frozen=True, kw_only=True, eq=False)
class PwStep:
    """A convolution on the array. ``weight`` (OC, IC, KH, KW); ``slots`` of its own result; ``left`` is zipped in, if named."""

    name: str
    source: str
    target: str
    left: str | None
    slots: Slots
    weight: np.ndarray
    requant: Requant
    stride: int = 1
    padding: int = 0

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.source,) if self.left is None else (self.source, self.left)


@dataclass(frozen=True, kw_only=True, eq=False)
class DwStep:
    """A depthwise step. ``weight`` (C, 3, 3) in modes conv and deform; ``offset`` names the offset map of mode deform."""

    name: str
    source: str
    target: str
    mode: int
    kernel: tuple[int, int]
    requant: Requant
    weight: np.ndarray | None = None
    offset: str | None = None
    stride: int = 1
    padding: int = 0

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.source,) if self.offset is None else (self.source, self.offset)


@dataclass(frozen=True, kw_only=True, eq=False)
class CopyStep:
    """A tensor copied unchanged to memory of its own."""

    name: str
    source: str
    target: str

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.source,)


Step = PwStep | DwStep | CopyStep
DW_MODES = {DepthwiseConv2d: DW_CONV, DeformDepthwiseConv2d: DW_DEFORM, AvgPool2d: DW_SUM}


def copy_name(output: str) -> str:
    """Layer and tensor name of an output that is copied."""
    return f"output {output}"


def copied_outputs(graph: IntegerGraph, views: Mapping[str, View]) -> list[str]:
    """Graph outputs that own no output memory: views of other tensors and the graph's inputs."""
    unique = dict.fromkeys(graph.outputs)
    return [name for name in unique if views[name].base != name or name in graph.inputs]


def merged_joins(graph: IntegerGraph) -> dict[str, Node]:
    """By the convolution's name the shuffle join that it can merge: it makes the join's right side and nothing else."""
    readers, producer = users(graph), {node.output: node for node in graph.nodes}
    found = {}
    for join in graph.nodes:
        if not isinstance(join.operation, ShuffleJoin):
            continue
        right = join.inputs[1]
        alone = len(readers[right]) == 1 and right not in graph.outputs and right in producer
        if alone and isinstance(producer[right].operation, (Conv2d, Linear)):
            found[producer[right].name] = join
    return found


def build_steps(graph: IntegerGraph, views: Mapping[str, View], skip: set[str]) -> list[Step]:
    """The steps of all nodes but those named in ``skip``, in execution order."""
    merged = {name: join for name, join in merged_joins(graph).items() if join.name not in skip}
    maker = {merged[node.name].name: node for node in graph.nodes if node.name in merged}
    steps: list[Step] = []
    for node in graph.nodes:
        producer = maker.get(node.name)
        left_out = node.name in skip or (producer is not None and producer.name in skip)
        if left_out or isinstance(node.operation, Split) or node.name in merged:
            continue
        if isinstance(node.operation, ShuffleJoin):
            steps.append(_join_step(graph, views, node, producer))
        elif isinstance(node.operation, (Conv2d, Linear)):
            steps.append(_pw_step(node, graph, node.output, None, views[node.output].slots))
        else:
            steps.append(_dw_step(node, graph))
    steps += [CopyStep(name=copy_name(t), source=t, target=copy_name(t)) for t in copied_outputs(graph, views)]
    return steps


def effective_stride(node: Node, graph: IntegerGraph) -> int:
    """The stride of a node's windows; 1 where there is a single window, whatever the stride."""
    return 1 if graph.tensors[node.output].shape[1:] == (1, 1) else getattr(node.operation, "stride", 1)


def _pw_step(node: Node, graph: IntegerGraph, target: str, left: str | None, slots: Slots) -> PwStep:
    operation = node.operation
    weight = operation.weight if isinstance(operation, Conv2d) else operation.weight[:, :, None, None]
    return PwStep(
        name=node.name, source=node.inputs[0], target=target, left=left, slots=slots, weight=weight,
        requant=operation.requant, stride=effective_stride(node, graph), padding=getattr(operation, "padding", 0),
    )


def _join_step(graph: IntegerGraph, views: Mapping[str, View], join: Node, producer: Node | None) -> PwStep:
    """The convolution that merges a join, or else an identity convolution that carries the right side into it."""
    left, right = join.inputs
    channels = graph.tensors[right].shape[0]
    slots = spread(channels, len(views[left].slots), odd=True)
    if producer is not None:
        return _pw_step(producer, graph, join.output, left, slots)
    fmt = graph.tensors[right].fmt
    return PwStep(
        name=join.name, source=right, target=join.output, left=left, slots=slots,
        weight=np.eye(channels, dtype=np.int64)[:, :, None, None],
        requant=identity_requant(channels, fmt.min_code, fmt.max_code),
    )


def _dw_step(node: Node, graph: IntegerGraph) -> DwStep:
    operation, stride = node.operation, effective_stride(node, graph)
    if isinstance(operation, MaxPool2d):
        spec = graph.tensors[node.output]
        requant = identity_requant(spec.shape[0], spec.fmt.min_code, spec.fmt.max_code)
        mode, kernel = DW_MAX, (operation.kernel, operation.kernel)
    else:
        mode, requant = DW_MODES[type(operation)], operation.requant
        kernel = operation.kernel if isinstance(operation, AvgPool2d) else (3, 3)
    return DwStep(
        name=node.name, source=node.inputs[0], target=node.output, mode=mode, kernel=kernel, requant=requant,
        weight=getattr(operation, "weight", None), offset=node.inputs[1] if mode == DW_DEFORM else None,
        stride=stride, padding=getattr(operation, "padding", 0),
    )
