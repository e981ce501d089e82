"""Graphs rewritten into equal ones that the core runs in fewer steps.

A concatenation of two equal parts, shuffled in two groups, is a shuffle join. Where halves are taken of the result that form is
better: the array zips words as it writes them, so that each half fills words again, while halves of shuffled views would have to
be gathered channel by channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hw.spec.ops import Concat, Shuffle, ShuffleJoin, Slice
from sw.compiler.fuse import users
from sw.graph import IntegerGraph, Node


def simplified(graph: IntegerGraph) -> IntegerGraph:
    """The same function of the same inputs; tensors that were only steps on the way may be gone."""
    readers, producer = users(graph), {node.output: node for node in graph.nodes}
    joined = {node.name: producer[node.inputs[0]] for node in graph.nodes if _is_join(node, graph, readers, producer)}
    gone = {concat.name for concat in joined.values()}
    nodes = tuple(
        replace(node, operation=ShuffleJoin(), inputs=joined[node.name].inputs) if node.name in joined else node
        for node in graph.nodes if node.name not in gone
    )  # fmt: skip
    return replace(graph, nodes=nodes)


def _is_join(
    node: Node, graph: IntegerGraph, readers: Mapping[str, list[Node]], producer: Mapping[str, Node]
) -> bool:
    if not isinstance(node.operation, Shuffle) or node.operation.groups != 2 or len(node.inputs) != 1:
        return False
    concat = producer.get(node.inputs[0])
    if concat is None or not isinstance(concat.operation, Concat) or len(readers[concat.output]) > 1 or concat.output in graph.outputs:
        return False
    parts = [graph.tensors[name] for name in concat.inputs]
    halves = any(_is_half(reader, graph.tensors[node.output].shape[0]) for reader in readers[node.output])
    return halves and len(parts) == 2 and parts[0] == parts[1]


def _is_half(node: Node, channels: int) -> bool:
    if not isinstance(node.operation, Slice):
        return False
    return (2 * node.operation.start, 2 * node.operation.stop) in ((0, channels), (channels, 2 * channels))
