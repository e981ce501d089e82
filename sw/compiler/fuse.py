"""Which nodes one step of the core computes together.

A unit is a core operation on the array, on the depthwise unit or a copy, and what follows it without being stored in between:
limits and tables after its requantise step, one merge on the array, a doubled store. A node joins the unit before it only where
nothing else reads the tensor between them. Slices, shuffles and concatenations are no units: they are views (``slots.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np

from hw.spec.deform.instructions import WINDOW_MAX
from hw.spec.ops import (
    Add,
    Clip,
    Concat,
    Conv2d,
    DeformConv2d,
    Linear,
    Requant,
    Scale,
    Shuffle,
    ShuffleJoin,
    Slice,
    Table,
    Upsample2x,
    identity_requant,
)
from sw.graph import IntegerGraph, Node

VIEWS = (Slice, Shuffle, Concat)
MERGES = (Add, ShuffleJoin)
FOLLOWERS = (Clip, Table, Upsample2x)
"""Operations of one tensor that a unit may take in behind its own."""

POINTWISE = (Scale, Table, Clip)
"""Operations on single codes: the depthwise unit is faster at them, but the array can do them too, and merge."""


class Engine(Enum):
    """Who runs a unit."""

    ARRAY = "PW"
    DEPTHWISE = "DW"
    COPY = "copy"


@dataclass(frozen=True, kw_only=True, eq=False)
class Unit:
    """What one step computes: ``root``'s operation on ``source``, then ``requant``, ``table``, the merge with ``left``, the store.

    A unit on the array whose root is no convolution carries ``source`` through it, each channel by itself. ``position`` is the
    index of the node at which it runs (that of its merge, if it has one), ``limits`` the clip of an addition. ``requant`` of a
    copy lets everything through.
    """

    root: Node
    engine: Engine
    source: str
    position: int
    output: str
    requant: Requant
    table: np.ndarray | None = None
    merge: Node | None = None
    left: str | None = None
    limits: tuple[int, int] | None = None
    upsample: bool = False

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def adds(self) -> bool:
        return self.merge is not None and isinstance(self.merge.operation, Add)


def is_depthwise(operation: Any) -> bool:
    """True for a convolution whose groups are single channels, in a window that the depthwise unit has."""
    if not isinstance(operation, Conv2d):
        return False
    channels, _, rows, cols = operation.weight.shape
    return 1 < operation.groups == operation.in_channels == channels and max(rows, cols) <= WINDOW_MAX


def on_array(operation: Any) -> bool:
    return isinstance(operation, (Conv2d, DeformConv2d, Linear)) and not is_depthwise(operation)


def users(graph: IntegerGraph) -> dict[str, list[Node]]:
    """For each tensor the nodes that read it, once per reading."""
    found: dict[str, list[Node]] = {name: [] for name in graph.tensors}
    for node in graph.nodes:
        for name in node.inputs:
            found[name].append(node)
    return found


def fuse(graph: IntegerGraph, skip: Set[str]) -> list[Unit]:
    """The units of all nodes but views and those named in ``skip``, in execution order."""
    readers = users(graph)
    units: dict[str, Unit] = {}
    for position, node in enumerate(graph.nodes):
        if node.name in skip or isinstance(node.operation, VIEWS):
            continue
        free = {name: units[name] for name in node.inputs if name in units and _alone(graph, readers, name)}
        unit = _joined(node, position, free) or _begun(graph, node, position)
        for name in free:
            if unit.root is units[name].root:
                del units[name]
        units[node.output] = unit
    return sorted(units.values(), key=lambda unit: unit.position)


def _alone(graph: IntegerGraph, readers: Mapping[str, list[Node]], name: str) -> bool:
    """True if a single node reads a tensor, so that the tensor itself need not exist."""
    return len(readers[name]) == 1 and name not in graph.outputs


def _joined(node: Node, position: int, free: Mapping[str, Unit]) -> Unit | None:
    """The unit that takes a node in; None if no unit can."""
    if isinstance(node.operation, MERGES):
        # The right side of a join carries the left one; of two convolutions that an addition could join, the later does.
        names = node.inputs if isinstance(node.operation, Add) else node.inputs[1:]
        able = [free[name] for name in names if name in free and _mergeable(free[name])]
        return _merged(node, position, max(able, key=lambda unit: unit.position)) if able else None
    if not isinstance(node.operation, FOLLOWERS) or node.inputs[0] not in free:
        return None
    unit = free[node.inputs[0]]
    followed = _followed(unit, node.operation)
    return None if followed is None else replace(followed, output=node.output)


def _followed(unit: Unit, operation: Any) -> Unit | None:
    if isinstance(operation, Upsample2x):
        return _doubled(unit)
    followed = _clipped(unit, operation) if isinstance(operation, Clip) else _looked_up(unit, operation)
    if followed is None or unit.engine is not Engine.COPY:
        return followed
    # A copy computes nothing; with limits or a table it is a maximum of single codes.
    return replace(followed, engine=Engine.DEPTHWISE)


def _mergeable(unit: Unit) -> bool:
    able = unit.engine is Engine.ARRAY or isinstance(unit.root.operation, POINTWISE)
    return able and unit.merge is None and not unit.upsample


def _merged(node: Node, position: int, unit: Unit) -> Unit:
    left = node.inputs[0] if node.inputs[0] != unit.output else node.inputs[1]
    unit = replace(unit, engine=Engine.ARRAY, position=position, output=node.output)
    return replace(unit, merge=node, left=left, limits=_limits(node))


def _limits(node: Node) -> tuple[int, int] | None:
    return (node.operation.lo, node.operation.hi) if isinstance(node.operation, Add) else None


def _clipped(unit: Unit, operation: Clip) -> Unit | None:
    """Limits after limits are limits again; after a table they change its values. The left side of a join has none."""
    if unit.merge is not None and not unit.adds:
        return None
    if unit.limits is not None:
        return replace(unit, limits=_within(unit.limits, operation))
    if unit.table is not None:
        return replace(unit, table=np.clip(unit.table, operation.lo, operation.hi))
    lo, hi = _within((unit.requant.lo, unit.requant.hi), operation)
    return replace(unit, requant=replace(unit.requant, lo=lo, hi=hi))


def _within(limits: tuple[int, int], operation: Clip) -> tuple[int, int]:
    """``clip(clip(x, *limits), lo, hi)`` is a clip to these two, also where the ranges are apart (then it is a constant)."""
    low, high = (min(max(limit, operation.lo), operation.hi) for limit in limits)
    return low, high


def _looked_up(unit: Unit, operation: Table) -> Unit | None:
    if unit.merge is not None:
        return None
    return replace(unit, table=operation.values if unit.table is None else operation.values[unit.table & 0xFF])


def _doubled(unit: Unit) -> Unit | None:
    """A word can be stored four times; what follows works on single codes, so that it may as well come before."""
    return None if unit.upsample else replace(unit, upsample=True)


def _begun(graph: IntegerGraph, node: Node, position: int) -> Unit:
    """A unit of one node."""
    operation, source = node.operation, node.inputs[1 if isinstance(node.operation, MERGES) else 0]
    unit = Unit(
        root=node, engine=_engine(operation), source=source, position=position, output=node.output,
        requant=getattr(operation, "requant", None) or _passing(graph, source),
        table=operation.values if isinstance(operation, Table) else None, upsample=isinstance(operation, Upsample2x),
    )  # fmt: skip
    if isinstance(operation, MERGES):
        return replace(unit, left=node.inputs[0], merge=node, limits=_limits(node))
    if isinstance(operation, Clip):
        return replace(unit, requant=replace(unit.requant, lo=operation.lo, hi=operation.hi))
    return unit


def _engine(operation: Any) -> Engine:
    if isinstance(operation, Upsample2x):
        return Engine.COPY
    return Engine.ARRAY if on_array(operation) or isinstance(operation, MERGES) else Engine.DEPTHWISE


def _passing(graph: IntegerGraph, tensor: str) -> Requant:
    """A requantise step that lets every code of a tensor through."""
    spec = graph.tensors[tensor]
    return identity_requant(spec.shape[0], spec.fmt.min_code, spec.fmt.max_code)
