"""A graph as the core's steps: what each engine is asked to do, before tiling and addresses.

Every unit becomes a step. A slice that is no view is gathered by an identity convolution, a part of a concatenation that is not
written in place is copied, and so are graph outputs that own no memory (views, inputs).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hw.spec.deform.instructions import DW_CONV, DW_DEFORM, DW_MAX, DW_SUM
from hw.spec.ops import (
    AvgPool2d,
    Conv2d,
    DeformConv2d,
    DeformDepthwiseConv2d,
    DepthwiseConv2d,
    Linear,
    MaxPool2d,
    Requant,
    Scale,
    identity_requant,
)
from sw.compiler.fuse import Engine, Unit
from sw.compiler.slots import Layout, Slots, View, right_side
from sw.graph import IntegerGraph, Node


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Where a deformable convolution's taps read: a window (rows, columns), moved for each by ``offset``'s codes / 2 ** ``frac``."""

    offset: str
    frac: int
    kernel: tuple[int, int]
    stride: int
    padding: int
    dilation: int

    @property
    def taps(self) -> int:
        return self.kernel[0] * self.kernel[1]


@dataclass(frozen=True, kw_only=True, eq=False)
class PwStep:
    """A convolution on the array in ``groups`` groups of channels.

    With ``sampling`` it goes over what the depthwise unit has sampled, a row of KH * KW taps for each pixel.
    ``weight`` (OC, IC / groups, KH, KW); ``in_slots`` and ``slots`` say which of its channels stand where in the source and in its
    own result; ``table`` replaces the result's bytes. Then ``left`` is zipped in, or added and clipped to ``limits`` if there are
    any. ``upsample`` stores every word of the outcome four times.
    """

    name: str
    source: str
    target: str
    in_slots: Slots
    slots: Slots
    weight: np.ndarray
    requant: Requant
    groups: int = 1
    stride: int = 1
    padding: int = 0
    sampling: Sampling | None = None
    table: np.ndarray | None = None
    left: str | None = None
    limits: tuple[int, int] | None = None
    upsample: bool = False

    @property
    def reads(self) -> tuple[str, ...]:
        offset = None if self.sampling is None else self.sampling.offset
        return tuple(name for name in (self.source, offset, self.left) if name is not None)


@dataclass(frozen=True, kw_only=True, eq=False)
class DwStep:
    """A depthwise step. ``weight`` (C, KH, KW) in modes conv and deform; ``offset`` names the offset map of mode deform."""

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
    table: np.ndarray | None = None
    upsample: bool = False

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.source,) if self.offset is None else (self.source, self.offset)


@dataclass(frozen=True, kw_only=True, eq=False)
class CopyStep:
    """A tensor copied unchanged to the target's words from ``word`` on, each word four times with ``upsample``."""

    name: str
    source: str
    target: str
    word: int = 0
    upsample: bool = False

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.source,)


Step = PwStep | DwStep | CopyStep


def copy_name(output: str) -> str:
    """Layer and tensor name of an output that is copied."""
    return f"output {output}"


def copied_outputs(graph: IntegerGraph, views: Mapping[str, View]) -> list[str]:
    """Graph outputs that own no output memory: views of other tensors and the graph's inputs."""
    unique = dict.fromkeys(graph.outputs)
    return [name for name in unique if views[name].base != name or name in graph.inputs]


def build_steps(graph: IntegerGraph, units: list[Unit], layout: Layout) -> list[Step]:
    """The steps of all units, gathers and copies, in execution order."""
    views, position = layout.views, {node.name: i for i, node in enumerate(graph.nodes)}
    timed: list[tuple[int, Step]] = [(unit.position, _step(unit, graph, views)) for unit in units]
    timed += [(position[node.name], _gather(node, graph, views)) for node in layout.gathers]
    for part in layout.parts:
        copy = CopyStep(name=part.node.name, source=part.tensor, target=part.node.output, word=part.word)
        timed.append((position[part.node.name], copy))
    steps = [step for _, step in sorted(timed, key=lambda entry: entry[0])]
    steps += [CopyStep(name=copy_name(t), source=t, target=copy_name(t)) for t in copied_outputs(graph, views)]
    return steps


def effective_stride(node: Node, graph: IntegerGraph) -> int:
    """The stride of a node's windows; 1 where there is a single window, whatever the stride."""
    return 1 if graph.tensors[node.output].shape[1:] == (1, 1) else getattr(node.operation, "stride", 1)


def _step(unit: Unit, graph: IntegerGraph, views: Mapping[str, View]) -> Step:
    if unit.engine is Engine.COPY:
        return CopyStep(name=unit.name, source=unit.source, target=unit.output, upsample=unit.upsample)
    return _pw_step(unit, graph, views) if unit.engine is Engine.ARRAY else _dw_step(unit, graph)


def _pw_step(unit: Unit, graph: IntegerGraph, views: Mapping[str, View]) -> PwStep:
    zipped = unit.left is not None and not unit.adds
    slots = right_side(views[unit.left or ""].slots) if zipped else views[unit.output].slots
    weight, groups = _array_weight(unit, graph)
    sampling, stride, padding = _sampling(unit, graph), effective_stride(unit.root, graph), getattr(unit.root.operation, "padding", 0)
    return PwStep(
        name=unit.name, source=unit.source, target=unit.output, in_slots=views[unit.source].slots, slots=slots,
        weight=weight, requant=unit.requant, groups=groups, sampling=sampling,
        stride=1 if sampling else stride, padding=0 if sampling else padding,
        table=unit.table, left=unit.left, limits=unit.limits, upsample=unit.upsample,
    )  # fmt: skip


def _sampling(unit: Unit, graph: IntegerGraph) -> Sampling | None:
    """How a deformable convolution samples; None for everything else."""
    operation = unit.root.operation
    if not isinstance(operation, DeformConv2d):
        return None
    _, _, rows, cols = operation.weight.shape
    return Sampling(
        offset=unit.root.inputs[1], frac=operation.offset_frac, kernel=(rows, cols), stride=effective_stride(unit.root, graph),
        padding=operation.padding, dilation=operation.dilation,
    )  # fmt: skip


def _array_weight(unit: Unit, graph: IntegerGraph) -> tuple[np.ndarray, int]:
    """Weights (OC, IC / groups, KH, KW) and groups; what is no convolution is one of single channels."""
    operation = unit.root.operation
    if isinstance(operation, Conv2d):
        return operation.weight, operation.groups
    if isinstance(operation, DeformConv2d):
        return operation.weight.reshape(*operation.weight.shape[:2], 1, -1), operation.groups
    if isinstance(operation, Linear):
        return operation.weight[:, :, None, None], 1
    if isinstance(operation, Scale):
        return operation.weight[:, None, None, None], len(operation.weight)
    return _identity(graph.tensors[unit.source].shape[0])


def _identity(channels: int) -> tuple[np.ndarray, int]:
    return np.ones((channels, 1, 1, 1), np.int64), channels


def _gather(node: Node, graph: IntegerGraph, views: Mapping[str, View]) -> PwStep:
    """A slice whose channels share words with others: an identity convolution that sees them alone."""
    source, start, stop = node.inputs[0], node.operation.start, node.operation.stop
    spec = graph.tensors[node.output]
    weight, groups = _identity(stop - start)
    return PwStep(
        name=node.name, source=source, target=node.output, slots=views[node.output].slots, weight=weight, groups=groups,
        in_slots=tuple(s - start if start <= s < stop else -1 for s in views[source].slots),
        requant=identity_requant(stop - start, spec.fmt.min_code, spec.fmt.max_code),
    )  # fmt: skip


def _dw_step(unit: Unit, graph: IntegerGraph) -> DwStep:
    mode, kernel, weight = _depthwise(unit)
    return DwStep(
        name=unit.name, source=unit.source, target=unit.output, mode=mode, kernel=kernel, requant=unit.requant, weight=weight,
        offset=unit.root.inputs[1] if mode == DW_DEFORM else None,
        stride=effective_stride(unit.root, graph), padding=getattr(unit.root.operation, "padding", 0),
        table=unit.table, upsample=unit.upsample,
    )  # fmt: skip


def _depthwise(unit: Unit) -> tuple[int, tuple[int, int], np.ndarray | None]:
    """Mode, window and weights (C, KH, KW) of a unit on the depthwise engine; limits and tables are maxima of single codes."""
    operation = unit.root.operation
    if isinstance(operation, AvgPool2d):
        return DW_SUM, operation.kernel, None
    if isinstance(operation, (DepthwiseConv2d, DeformDepthwiseConv2d)):
        return DW_CONV if isinstance(operation, DepthwiseConv2d) else DW_DEFORM, (3, 3), operation.weight
    if isinstance(operation, Conv2d):
        weight = operation.weight[:, 0]
        return DW_CONV, (weight.shape[1], weight.shape[2]), weight
    if isinstance(operation, Scale):
        return DW_CONV, (1, 1), operation.weight[:, None, None]
    side = operation.kernel if isinstance(operation, MaxPool2d) else 1
    return DW_MAX, (side, side), None
