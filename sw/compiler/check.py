"""What each node asks for that the core does not have, found without compiling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hw.spec.deform import DeformArch
from hw.spec.deform.instructions import DW_MAX
from hw.spec.fixed import FixedFormat
from hw.spec.ops import (
    Add,
    Clip,
    Concat,
    DeformConv2d,
    DeformDepthwiseConv2d,
    MaxPool2d,
    Shuffle,
    ShuffleJoin,
    Slice,
    Table,
    Upsample2x,
)
from sw.compiler.problems import Problem
from sw.compiler.proof import prove_dw, prove_pw, prove_terms
from sw.compiler.shapes import output_shape
from sw.compiler.slots import Slots, View, pair_places
from sw.compiler.steps import CopyStep, DwStep, PwStep, Step, copy_name, effective_stride
from sw.graph import IntegerGraph, Node

MAX_SIDE = 32767
MAX_STRIDE = 8
MAX_KERNEL = 255
MAX_K_STEPS = 32767
DEFORMABLE = (DeformConv2d, DeformDepthwiseConv2d)
KEEPS_FORMAT = (Slice, Shuffle, Concat, ShuffleJoin, MaxPool2d, Upsample2x)
"""Operations that move codes and so keep their format."""


def check_arch(arch: DeformArch) -> list[Problem]:
    if arch.regions >= 4:
        return []
    reason = f"a program needs 4 memory regions, it has {arch.regions}"
    return [Problem(place="architecture", reason=reason, advice="set regions to 4 or more")]


def check_names(graph: IntegerGraph) -> list[Problem]:
    """Node names tell instructions apart, so they must be distinct, and none may be what copies of outputs are called."""
    names = [node.name for node in graph.nodes]
    copies = {copy_name(name) for name in graph.outputs}
    twice = [
        _problem(name, f"{names.count(name)} nodes have this name", "give each node a name of its own")
        for name in dict.fromkeys(names) if names.count(name) > 1
    ]  # fmt: skip
    return twice + [
        _problem(name, "this is what the compiler calls the copy of an output", "give the node or tensor another name")
        for name in dict.fromkeys([*names, *graph.tensors]) if name in copies
    ]  # fmt: skip


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


def check_node(node: Node, graph: IntegerGraph, arch: DeformArch) -> list[Problem]:
    """Problems of one node by itself; a node that has some becomes no step."""
    try:
        shape = output_shape(node.operation, [graph.tensors[t].shape for t in node.inputs])
    except ValueError as error:
        return [_problem(node.name, str(error), "export the graph again")]
    if shape != graph.tensors[node.output].shape:
        reason = f"its result is {shape}, but tensor {node.output} is {graph.tensors[node.output].shape}"
        return [_problem(node.name, reason, "export the graph again")]
    if isinstance(node.operation, Table) and not arch.tables:
        return [_problem(node.name, "the core has no table memory", "set tables of the architecture to 1 or more")]
    return _window_problems(node, graph) + _format_problems(node, graph) + _offset_problems(node, graph)


def _window_problems(node: Node, graph: IntegerGraph) -> list[Problem]:
    """Strides, kernels and paddings beyond the instruction's fields."""
    operation, found = node.operation, []
    stride, padding = effective_stride(node, graph), getattr(operation, "padding", 0)
    kernel = kernel_of(operation)
    reach = min(getattr(operation, "dilation", 1) * (side - 1) + 1 for side in kernel)
    if stride > MAX_STRIDE:
        found.append(_problem(node.name, f"stride {stride} is above {MAX_STRIDE}", f"use a stride of at most {MAX_STRIDE}"))
    if max(kernel) > MAX_KERNEL:
        found.append(_problem(node.name, f"a window of {kernel[0]}x{kernel[1]} is too large", f"use sides of at most {MAX_KERNEL}"))
    if isinstance(operation, DeformConv2d) and kernel[0] * kernel[1] > MAX_KERNEL:
        found.append(_problem(node.name, f"a window of {kernel[0]}x{kernel[1]} has too many taps", f"use at most {MAX_KERNEL}"))
    if padding >= reach:
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
    operation, fmt = node.operation, graph.tensors[node.output].fmt
    inputs = [graph.tensors[t].fmt for t in node.inputs]
    others = [other for other in inputs if other != fmt]
    if isinstance(operation, KEEPS_FORMAT) and others:
        reason = f"{operation.op} keeps its input's format, but goes from {others[0]} to {fmt}"
        return [_problem(node.name, reason, "give its tensors one format")]
    if isinstance(operation, Add) and inputs[0] != inputs[1]:
        return [_problem(node.name, f"add needs one format, not {inputs[0]} and {inputs[1]}", "give its tensors one format")]
    low, high = _codes(operation, inputs[0])
    if isinstance(operation, KEEPS_FORMAT) or (fmt.min_code <= low and high <= fmt.max_code):
        return []
    reason = f"its codes are in {low}..{high}, beyond {fmt} ({fmt.min_code}..{fmt.max_code})"
    return [_problem(node.name, reason, "clip within the output's format")]


def _codes(operation: Any, fmt: FixedFormat) -> tuple[int, int]:
    """Smallest and largest code that an operation can give on an input of a format."""
    if isinstance(operation, Table):
        codes = np.arange(fmt.min_code, fmt.max_code + 1) if fmt.width <= 8 else np.arange(256)
        reached = operation.values[codes & 0xFF]
        return int(reached.min()), int(reached.max())
    if isinstance(operation, Clip):
        low, high = np.clip([fmt.min_code, fmt.max_code], operation.lo, operation.hi)
        return int(low), int(high)
    limits = getattr(operation, "requant", operation)
    return getattr(limits, "lo", fmt.min_code), getattr(limits, "hi", fmt.max_code)


def _offset_problems(node: Node, graph: IntegerGraph) -> list[Problem]:
    if not isinstance(node.operation, DEFORMABLE):
        return []
    fmt = graph.tensors[node.inputs[1]].fmt
    if fmt.max_code <= 127:
        return []
    return [_problem(node.name, f"the offset map has the format {fmt}", "offsets must be signed bytes")]


def check_offsets(graph: IntegerGraph, views: Mapping[str, View], skip: set[str]) -> list[Problem]:
    """Offset maps must stand in the lanes in which the depthwise unit looks for them."""
    return [
        _problem(node.name, f"the offset map {node.inputs[1]} {where}", "compute the offsets with a convolution of their own")
        for node in graph.nodes
        if isinstance(node.operation, DEFORMABLE) and node.name not in skip
        for where in _misplaced(node.operation, views[node.inputs[1]].slots)
    ]  # fmt: skip


def _misplaced(operation: Any, slots: Slots) -> list[str]:
    """What is wrong with the lanes of an offset map; nothing, if nothing is."""
    if isinstance(operation, DeformDepthwiseConv2d):
        return [] if slots[0] == 0 else ["does not stand in the first lane of its word"]
    taps = operation.weight.shape[2] * operation.weight.shape[3]
    return [] if pair_places(slots, taps) else ["does not have each tap's row and column offset in two lanes side by side"]


def check_step(step: Step, graph: IntegerGraph, arch: DeformArch) -> list[Problem]:
    """The accumulator proof of one step. A group's zero weights add nothing, so a grouped convolution's own weights are enough."""
    if isinstance(step, CopyStep):
        return []
    fmt, bias = graph.tensors[step.source].fmt, step.requant.bias
    if isinstance(step, PwStep):
        terms = prove_terms(step.name, step.weight, arch.weight_terms)
        return terms + prove_pw(step.name, step.weight, bias, fmt, arch.field_bits)
    return prove_dw(step.name, _dw_weight(step), bias, fmt)


def _dw_weight(step: DwStep) -> np.ndarray:
    """Weights as the accumulator sees them: a sum has ones, a maximum passes one tap."""
    if step.weight is not None:
        return step.weight
    rows, cols = (1, 1) if step.mode == DW_MAX else step.kernel
    return np.ones((step.requant.channels, rows, cols), np.int64)


def check_k_steps(place: str, steps: int) -> list[Problem]:
    if steps <= MAX_K_STEPS:
        return []
    return [_problem(place, f"its reduction has {steps} terms", f"keep it at or below {MAX_K_STEPS}")]


def _problem(place: str, reason: str, advice: str) -> Problem:
    return Problem(place=place, reason=reason, advice=advice)
