"""Images that the host writes window by window, so that the first convolution wastes no lanes.

A word has 16 lanes, an image one or three channels: a first convolution of K x K would read K * K words of which most is zero. If the
host writes, for every output pixel, its window's values side by side, the convolution is a 1 x 1 one over ceil(C * K * K / 16) words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from hw.spec.deform import LANES, DeformArch
from hw.spec.ops import Conv2d
from hw.spec.program import WindowLayout
from sw.compiler.fuse import users
from sw.compiler.proof import is_wide
from sw.graph import IntegerGraph, Node, TensorSpec


def choose_windows(graph: IntegerGraph, arch: DeformArch) -> dict[str, WindowLayout]:
    """The inputs that should be written in windows: one convolution alone reads them, and loads and array then take fewer cycles."""
    readers, found = users(graph), {}
    for name in graph.inputs:
        if len(readers[name]) == 1 and name not in graph.outputs:
            (node,) = readers[name]
            if _can(node) and _cycles(node, graph, arch, windows=True) < _cycles(node, graph, arch):
                rows, columns = node.operation.weight.shape[2:]
                found[name] = WindowLayout(rows=rows, columns=columns, stride=node.operation.stride, padding=node.operation.padding)
    return found


def _can(node: Node) -> bool:
    conv = node.operation
    return isinstance(conv, Conv2d) and conv.groups == 1 and conv.padding < min(conv.weight.shape[2:])


def _cycles(node: Node, graph: IntegerGraph, arch: DeformArch, *, windows: bool = False) -> int:
    """About the cycles of loads and array."""
    conv = node.operation
    assert isinstance(conv, Conv2d)
    outputs, inputs, rows, columns = conv.weight.shape
    _, height, width = graph.tensors[node.inputs[0]].shape
    pixels = graph.tensors[node.output].shape[1] * graph.tensors[node.output].shape[2]
    words = -(-inputs * rows * columns // LANES) if windows else -(-inputs // LANES) * rows * columns
    loads = pixels * words if windows else height * width * -(-inputs // LANES)
    tiles = -(-outputs // (arch.columns // (2 if is_wide(conv.weight) else 1)))
    return loads + -(-pixels // arch.rows) * LANES * words * tiles


def with_windows(graph: IntegerGraph, windows: Mapping[str, WindowLayout]) -> IntegerGraph:
    """The graph on windows in place of images: same results."""
    tensors = {name: _on_device(spec, windows.get(name)) for name, spec in graph.tensors.items()}
    nodes = tuple(_pointwise(node) if node.inputs and node.inputs[0] in windows else node for node in graph.nodes)
    return replace(graph, tensors=tensors, nodes=nodes)


def _on_device(spec: TensorSpec, window: WindowLayout | None) -> TensorSpec:
    return spec if window is None else TensorSpec(shape=window.shape(spec.shape), fmt=spec.fmt)


def _pointwise(node: Node) -> Node:
    """The convolution of windows: weights (OC, IC, KH, KW) in the order of a window's channels."""
    conv = node.operation
    assert isinstance(conv, Conv2d)
    weight = np.ascontiguousarray(conv.weight.transpose(0, 2, 3, 1)).reshape(len(conv.weight), -1, 1, 1)
    return replace(node, operation=replace(conv, weight=weight, stride=1, padding=0))
