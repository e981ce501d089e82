"""What each node asks for that the core does not have, found without compiling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hw.spec.deform import DeformArch
from hw.spec.deform.instructions import DW_MAX
from hw.spec.fixed import FixedFormat
from hw.spec.ops import Add, DeformDepthwiseConv2d, MaxPool2d, ShuffleJoin, Split, Upsample2x
from sw.compiler.problems import Problem
from sw.compiler.proof import prove_dw, prove_pw
from sw.compiler.shapes import output_shape
from sw.compiler.slots import View
from sw.compiler.steps import CopyStep, DwStep, PwStep, Step, effective_stride
from sw.graph import IntegerGraph, Node

MAX_SIDE = 32767
MAX_STRIDE = 8
MAX_KERNEL = 255
MAX_K_STEPS = 32767


def check_arch(arch: DeformArch) -> list[Problem]:
    if arch.regions >= 4:
        return []
    reason = f"a program needs 4 memory regions, it has {arch.regions}"
    return [Problem(place="architecture", reason=reason, advice="set regions to 4 or more")]


def check_names(graph: IntegerGraph) -> list[Problem]:
    """Node names tell instructions apart, so they must be distinct."""
    names = [node.name for node in graph.nodes]
    return [
        Problem(place=name, reason=f"{names.count(name)} nodes have this name", advice="give each node a name of its own")
        for name in dict.fromkeys(names) if names.count(name) > 1
    ]


def check_tensors(graph: IntegerGraph) -> list[Problem]:
    """Formats and sizes that memory words cannot hold; the place is the tensor's node, or the input's name."""
    place = {node.output: node.name for node in graph.nodes}
    found = []
    for name in (*graph.inputs, *place):
        spec = graph.tensors[name]
        if spec.fmt.width > 8:
            found.append(_problem(place.get(name, name), f"tensor {name} has the format {spec.fmt}, words hold 8 bits",
                                  "quantise it to at most 8 bits"))
        if max(spec.shape[1:]) > MAX_SIDE:
            found.append(_problem(place.get(name, name), f"tensor {name} is {spec.shape[1]}x{spec.shape[2]}",
                                  f"keep each side at or below {MAX_SIDE}"))
    return found


def check_node(node: Node, graph: IntegerGraph, views: Mapping[str, View]) -> list[Problem]:
    """Problems of one node by itself; a node that has some becomes no step."""
    if isinstance(node.operation, (Add, Upsample2x)):
        return [_problem(node.name, f"{node.operation.op} is not in this core yet", "leave it out of the network")]
    try:
        shape = output_shape(node.operation, [graph.tensors[t].shape for t in node.inputs])
    except ValueError as error:
        return [_problem(node.name, str(error), "export the graph again")]
    if shape != graph.tensors[node.output].shape:
        reason = f"its result is {shape}, but tensor {node.output} is {graph.tensors[node.output].shape}"
        return [_problem(node.name, reason, "export the graph again")]
    return _window_problems(node, graph) + _format_problems(node, graph) + _offset_problems(node, graph, views)


def _window_problems(node: Node, graph: IntegerGraph) -> list[Problem]:
    """Strides, kernels and paddings beyond the instruction's fields."""
    operation, found = node.operation, []
    stride, padding = effective_stride(node, graph), getattr(operation, "padding", 0)
    kernel = kernel_of(operation)
    if stride > MAX_STRIDE:
        found.append(_problem(node.name, f"stride {stride} is above {MAX_STRIDE}", f"use a stride of at most {MAX_STRIDE}"))
    if max(kernel) > MAX_KERNEL:
        found.append(_problem(node.name, f"a window of {kernel[0]}x{kernel[1]} is too large", f"use sides of at most {MAX_KERNEL}"))
    if padding >= min(kernel):
        found.append(_problem(node.name, f"padding {padding} leaves windows of {kernel[0]}x{kernel[1]} without any input",
                              "use a padding below the window's sides"))
    return found


def kernel_of(operation: Any) -> tuple[int, int]:
    """(rows, columns) of an operation's window; (1, 1) if it has none."""
    if isinstance(operation, MaxPool2d):
        return operation.kernel, operation.kernel
    kernel = getattr(operation, "kernel", None)
    if kernel is None:
        weight = getattr(operation, "weight", None)
        kernel = weight.shape[-2:] if weight is not None and weight.ndim > 2 else (1, 1)
    return int(kernel[0]), int(kernel[1])


def _format_problems(node: Node, graph: IntegerGraph) -> list[Problem]:
    """A result's codes must be those that its format allows."""
    fmt = graph.tensors[node.output].fmt
    if isinstance(node.operation, (Split, ShuffleJoin, MaxPool2d)):
        others = [graph.tensors[t].fmt for t in node.inputs if graph.tensors[t].fmt != fmt]
        reason = f"{node.operation.op} keeps its input's format, but goes from {others[0]} to {fmt}" if others else ""
        return [_problem(node.name, reason, "give its tensors one format")] if others else []
    requant = node.operation.requant
    if fmt.min_code <= requant.lo and requant.hi <= fmt.max_code:
        return []
    reason = f"it clips to {requant.lo}..{requant.hi}, beyond {fmt} ({fmt.min_code}..{fmt.max_code})"
    return [_problem(node.name, reason, "clip within the output's format")]


def _offset_problems(node: Node, graph: IntegerGraph, views: Mapping[str, View]) -> list[Problem]:
    if not isinstance(node.operation, DeformDepthwiseConv2d):
        return []
    name, found = node.inputs[1], []
    fmt: FixedFormat = graph.tensors[name].fmt
    if fmt.max_code > 127:
        found.append(_problem(node.name, f"the offset map has the format {fmt}", "offsets must be signed bytes"))
    if views[name].slots[0] != 0:
        found.append(_problem(node.name, f"the offset map {name} does not stand in the first lane of its word",
                              "compute the offsets with a convolution of their own"))
    return found


def check_step(step: Step, graph: IntegerGraph, views: Mapping[str, View], arch: DeformArch) -> list[Problem]:
    """The accumulator proof and the zero pads of one step."""
    if isinstance(step, CopyStep):
        return []
    fmt, requant = graph.tensors[step.source].fmt, step.requant
    if isinstance(step, PwStep):
        found = prove_pw(step.name, step.weight, requant.bias, fmt, arch.field_bits) + _k_problems(step, views)
    else:
        found = prove_dw(step.name, _dw_weight(step), requant.bias, fmt)
    if -1 in views[step.target].slots and not requant.lo <= 0 <= requant.hi:
        reason = f"pad channels must be 0, but it clips to {requant.lo}..{requant.hi}"
        found.append(_problem(step.name, reason, "let the range contain 0, or use a multiple of 16 channels"))
    return found


def _dw_weight(step: DwStep) -> np.ndarray:
    """Weights as the accumulator sees them: a sum has ones, a maximum passes one tap."""
    if step.weight is not None:
        return step.weight
    rows, cols = (1, 1) if step.mode == DW_MAX else step.kernel
    return np.ones((step.requant.channels, rows, cols), np.int64)


def _k_problems(step: PwStep, views: Mapping[str, View]) -> list[Problem]:
    steps = step.weight.shape[2] * step.weight.shape[3] * len(views[step.source].slots)
    if steps <= MAX_K_STEPS:
        return []
    return [_problem(step.name, f"its reduction has {steps} terms", f"keep it at or below {MAX_K_STEPS}")]


def _problem(place: str, reason: str, advice: str) -> Problem:
    return Problem(place=place, reason=reason, advice=advice)
