"""What a training graph asks for that the core does not have, found for all nodes at once."""

from __future__ import annotations

from hw.spec.sat import SatArch
from sw.compiler.problems import Problem
from sw.training_graph import INPUT, ConvNode, Pattern, TrainingGraph

MAX_KERNEL = 8
MAX_CHUNK = 16
MAX_COUNT = (1 << 23) - 1
REGIONS = 8


def check_training(graph: TrainingGraph, arch: SatArch) -> list[Problem]:
    """All obstacles to compiling a graph; sizes that do not fit on chip are found by the tiling."""
    found = []
    if arch.regions < REGIONS:
        reason = f"a program needs {REGIONS} memory regions, it has {arch.regions}"
        found.append(_problem("architecture", reason, f"set regions to {REGIONS}"))
    names = [node.name for node in graph.nodes]
    found += [
        _problem(name, f"{names.count(name)} nodes have this name", "give each node a name of its own")
        for name in dict.fromkeys(names) if names.count(name) > 1
    ]  # fmt: skip
    for node in graph.nodes:
        if isinstance(node, ConvNode):
            found += _conv_problems(node)
        if node.target != graph.output and not graph.consumers(node.target):
            found.append(_problem(node.name, f"nothing reads its result {node.target}", "leave the node out"))
    found += [
        _problem(name, f"its tensor has {graph.batch * shape[0] * shape[1]} pixels", f"keep a batch below {MAX_COUNT} pixels per layer")
        for name, shape in graph.shapes().items() if graph.batch * shape[0] * shape[1] > MAX_COUNT
    ]  # fmt: skip
    if graph.consumers(graph.output):
        found.append(_problem(graph.output, "the output is read by a node", "let the loss be its only reader"))
    if not graph.nodes or graph.output == INPUT:
        found.append(_problem("graph", "it computes nothing", "give it nodes"))
    return found


def _conv_problems(node: ConvNode) -> list[Problem]:
    g, found = node.geometry, []
    if max(g.kernel_h, g.kernel_w) > MAX_KERNEL:
        found.append(_problem(node.name, f"its kernel is {g.kernel_h}x{g.kernel_w}", f"use sides of at most {MAX_KERNEL}"))
    if g.padding >= min(g.kernel_h, g.kernel_w):
        reason = f"padding {g.padding} leaves windows without any input"
        found.append(_problem(node.name, reason, "use less padding than the kernel's sides"))
    patterns = (("forward", node.forward_pattern, node.in_channels), ("backward", node.backward_pattern, node.out_channels))
    for direction, pattern, channels in patterns:
        found += _pattern_problems(node.name, direction, pattern, channels)
    return found


def _pattern_problems(name: str, direction: str, pattern: Pattern, channels: int) -> list[Problem]:
    if pattern is None:
        return []
    n, m = pattern
    if m not in (1, 2, 4, 8, 16) or not 1 <= n <= m:
        return [_problem(name, f"{direction} pattern {n}:{m} is not one of the core", f"use n of m = 1, 2, 4, 8 or {MAX_CHUNK}")]
    if channels % m:
        return [_problem(name, f"{direction} pattern {n}:{m} does not divide {channels} channels", "leave the layer dense")]
    return []


def _problem(place: str, reason: str, advice: str) -> Problem:
    return Problem(place=place, reason=reason, advice=advice)
