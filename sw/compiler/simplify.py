"""Graphs rewritten into equal ones that the core runs in fewer steps or cycles.

A concatenation of two equal parts, shuffled in two groups, is a shuffle join. Where halves are taken of the result that form is
better: the array zips words as it writes them, so that each half fills words again, while halves of shuffled views would have to
be gathered channel by channel.

A 1 x 1 convolution computes each pixel alone, so it gives the same codes before an upsampling as behind it, from a fourth of the
pixels. Where only such convolutions read an upsampled tensor, they move before it.

The depthwise unit takes whole offsets of a square deformable convolution. Fractional ones become the two offsets of each tap, by a
1 x 1 convolution with weights -1, 0 and 1, and the convolution one of the general kind, a group for each channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from hw.spec.fixed import FixedFormat, Rounding
from hw.spec.ops import (
    Clip,
    Concat,
    Conv2d,
    DeformConv2d,
    DeformDepthwiseConv2d,
    Requant,
    Shuffle,
    ShuffleJoin,
    Slice,
    Upsample2x,
)
from sw.compiler.fuse import users
from sw.graph import IntegerGraph, Node, TensorSpec

SQUARE_SIDE = 3
"""Rows and columns of taps of a square deformable convolution."""


def simplified(graph: IntegerGraph) -> IntegerGraph:
    """The same function of the same inputs; tensors that were only steps on the way may be gone, and others be there."""
    return _at_source_resolution(_with_tap_offsets(_with_joins(graph)))


def _with_joins(graph: IntegerGraph) -> IntegerGraph:
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


def _with_tap_offsets(graph: IntegerGraph) -> IntegerGraph:
    """Square deformable convolutions with fractional offsets as general ones."""
    nodes, tensors = [], dict(graph.tensors)
    for node in graph.nodes:
        if not isinstance(node.operation, DeformDepthwiseConv2d) or not node.operation.offset_frac:
            nodes.append(node)
            continue
        made = _general(node, tensors[node.inputs[1]])
        tensors |= {entry.output: spec for entry, spec in made if entry.output != node.output}
        nodes += [entry for entry, _ in made]
    return replace(graph, nodes=tuple(nodes), tensors=tensors)


def _general(node: Node, offset: TensorSpec) -> list[tuple[Node, TensorSpec]]:
    """The offset limited, the offsets of all taps, and the convolution: nodes and what they make."""
    square, (_, height, width) = node.operation, offset.shape
    one, (x, s) = 1 << square.offset_frac, node.inputs
    limited, taps = (f"{node.output} {what}" for what in ("limited offset", "tap offsets"))
    lo, hi = (int(square.saturated(np.array(end))) for end in (offset.fmt.min_code, offset.fmt.max_code))
    place = np.array([(i - 1, j - 1) for i in range(SQUARE_SIDE) for j in range(SQUARE_SIDE)]).reshape(-1)
    wide = FixedFormat(8, square.offset_frac)  # -8..8 pixels fit
    whole = Requant(bias=-one * place, multiplier=np.ones_like(place), shift=np.zeros_like(place), rounding=Rounding.RND,
                    lo=wide.min_code, hi=wide.max_code)  # fmt: skip
    spread = Conv2d(weight=place.reshape(-1, 1, 1, 1), requant=whole)
    general = DeformConv2d(weight=square.weight[:, None], requant=square.requant, offset_frac=square.offset_frac, stride=square.stride,
                           padding=1, groups=len(square.weight))  # fmt: skip
    return [
        (Node(name=f"{node.name} limit", operation=Clip(lo=lo, hi=hi), inputs=(s,), output=limited), offset),
        (Node(name=f"{node.name} offsets", operation=spread, inputs=(limited,), output=taps),
         TensorSpec(shape=(len(place), height, width), fmt=wide)),
        (Node(name=node.name, operation=general, inputs=(x, taps), output=node.output), offset),
    ]  # fmt: skip


def _at_source_resolution(graph: IntegerGraph) -> IntegerGraph:
    """1 x 1 convolutions of upsampled tensors before the upsampling, as often as one stands behind another."""
    readers = users(graph)
    moved = [node for node in graph.nodes if isinstance(node.operation, Upsample2x) and _only_pointwise(node, graph, readers)]
    if not moved:
        return graph
    sources, tensors = {node.output: node.inputs[0] for node in moved}, dict(graph.tensors)
    nodes: list[Node] = []
    for node in graph.nodes:
        if node in moved:
            continue
        if node.inputs[0] not in sources:
            nodes.append(node)
            continue
        (channels, height, width), small = tensors[node.output].shape, f"{node.output} before upsampling"
        tensors[small] = TensorSpec(shape=(channels, height // 2, width // 2), fmt=tensors[node.output].fmt)
        nodes.append(replace(node, inputs=(sources[node.inputs[0]],), output=small))
        nodes.append(Node(name=f"{node.name} upsampled", operation=Upsample2x(), inputs=(small,), output=node.output))
    kept = {name: spec for name, spec in tensors.items() if name not in sources}
    return _at_source_resolution(replace(graph, nodes=tuple(nodes), tensors=kept))


def _only_pointwise(node: Node, graph: IntegerGraph, readers: Mapping[str, list[Node]]) -> bool:
    found = readers[node.output]
    return bool(found) and node.output not in graph.outputs and all(_is_pointwise(reader) for reader in found)


def _is_pointwise(node: Node) -> bool:
    conv = node.operation
    return isinstance(conv, Conv2d) and conv.weight.shape[2:] == (1, 1) and (conv.stride, conv.padding) == (1, 0)
