"""When two integer graphs are the same: what a graph computes and how it is connected, not how a record is written.

A requantise record may be written in several ways: (multiplier 2, shift 1) is (1, 0), a rounding that never rounds anything is of no
matter, and half up is rounding down with half a step more as bias. `differences` compares the codes of every sum that there is; nodes
are matched by the tensor that they write, so that two valid orders of the same nodes are equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import numpy as np

from hw.spec.ops import Requant
from sw.bridges.qonnx.roundings import steps
from sw.graph import IntegerGraph, Node

__all__ = ["differences", "same_graph"]


def same_graph(a: IntegerGraph, b: IntegerGraph) -> bool:
    """Whether two graphs have the same inputs, outputs, formats, connections, names and operations."""
    return not differences(a, b)


def differences(a: IntegerGraph, b: IntegerGraph) -> list[str]:
    """Every difference of two graphs in words; empty if they are the same."""
    found = [f"{what} are {getattr(a, what)} and {getattr(b, what)}" for what in ("inputs", "outputs")
             if getattr(a, what) != getattr(b, what)]
    found += _tensors(a, b)
    ours, theirs = ({node.output: node for node in graph.nodes} for graph in (a, b))
    found += [f"only one graph has a node that writes {name}" for name in sorted(set(ours) ^ set(theirs))]
    return found + [line for name in ours if name in theirs for line in _nodes(ours[name], theirs[name])]


def _used(graph: IntegerGraph) -> dict[str, Any]:
    names = (*graph.inputs, *(node.output for node in graph.nodes))
    return {name: graph.tensors[name] for name in names}


def _tensors(a: IntegerGraph, b: IntegerGraph) -> Iterator[str]:
    ours, theirs = _used(a), _used(b)
    for name in sorted(set(ours) | set(theirs)):
        if ours.get(name) != theirs.get(name):
            yield f"tensor {name} is {ours.get(name)} and {theirs.get(name)}"


def _nodes(a: Node, b: Node) -> Iterator[str]:
    for what, ours, theirs in (("name", a.name, b.name), ("operation", a.operation.op, b.operation.op),
                               ("inputs", a.inputs, b.inputs)):
        if ours != theirs:
            yield f"the {what} of the node that writes {a.output} is {ours} and {theirs}"
    if type(a.operation) is type(b.operation):
        for entry in fields(a.operation):
            if not _equal(getattr(a.operation, entry.name), getattr(b.operation, entry.name)):
                yield f"{entry.name} of the node that writes {a.output} differs"


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Requant):
        return isinstance(b, Requant) and _same_record(a, b)
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b)
    return bool(a == b)


def _same_record(a: Requant, b: Requant) -> bool:
    """Whether two records give every sum the same code: they reach each code at the same one."""
    ours, theirs = (steps(record) - record.bias[:, None] for record in (a, b))
    return (a.lo, a.hi) == (b.lo, b.hi) and np.array_equal(ours, theirs)
