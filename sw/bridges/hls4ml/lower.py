"""From an integer graph to hls4ml's layers, or the list of all that hls4ml does not compute exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sw.bridges.errors import refusal
from sw.bridges.hls.plan import Layer, Network, Tensor, survey
from sw.bridges.hls4ml import moves, weighted
from sw.bridges.hls4ml.formats import ApFixed, of_format
from sw.bridges.hls4ml.layers import HlsLayer, Layers, Value
from sw.graph import IntegerGraph
from sw.tracing.problems import Problem

__all__ = ["HlsNetwork", "Port", "to_hls4ml"]

INPUT_BITS = 24
"""Widest codes of an input: hls4ml's test bench reads values as float."""

_MAKERS: dict[str, Callable[..., Value]] = {
    "conv2d": weighted.conv, "linear": weighted.linear, "depthwise_conv2d": weighted.depthwise, "scale": weighted.scale,
    "avg_pool2d": weighted.mean, "max_pool2d": moves.most, "add": moves.add, "clip": moves.clip, "table": moves.table,
    "concat": moves.concat, "slice": moves.slice_, "shuffle": moves.shuffle, "shuffle_join": moves.shuffle_join,
    "upsample2x": moves.upsample,
}  # fmt: skip

_KEEP_POINT = frozenset(("max_pool2d", "add", "clip", "concat", "slice", "shuffle", "shuffle_join", "upsample2x"))
"""Operations on codes as they are: hls4ml has values, and keeps them only where all tensors have one binary point."""


@dataclass(frozen=True, kw_only=True)
class Port:
    """An argument of the top function: the graph's tensor (C, H, W), hls4ml's layer, and the type, whose codes are the tensor's."""

    tensor: str
    layer: str
    shape: tuple[int, int, int]
    type: ApFixed


@dataclass(frozen=True, kw_only=True, eq=False)
class HlsNetwork:
    """hls4ml's layers in execution order, and the ports by the graph's order."""

    layers: tuple[HlsLayer, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def to_hls4ml(graph: IntegerGraph) -> HlsNetwork:
    """The layers that hls4ml makes a project of, equal to the graph in every code; hls4ml itself is not needed.

    BridgeError lists every layer that hls4ml does not compute exactly, with the reason and what to do.
    """
    network, found = survey(graph)
    problems = [*found, *_obstacles(network, {problem.place for problem in found})]
    if problems:
        raise refusal("the graph cannot be given to hls4ml", problems)
    to = Layers()
    values = {t.name: to.input(t.identifier, t.shape, of_format(t.fmt)) for t in network.inputs}
    for layer in network.layers:
        values[layer.output.name] = _MAKERS[layer.operation.op](to, layer, *(values[t.name] for t in layer.inputs))
    outputs = _outputs(to, network, values)
    inputs = tuple(Port(tensor=t.name, layer=t.identifier, shape=t.shape, type=of_format(t.fmt)) for t in network.inputs)
    return HlsNetwork(layers=tuple(to.made), inputs=inputs, outputs=outputs)


def _outputs(to: Layers, network: Network, values: dict[str, Value]) -> tuple[Port, ...]:
    """Each output from a layer of its own: an input, a tensor in another shape and one that is an output already are copied."""
    own = {layer.name for layer in to.made if layer.kind not in ("InputLayer", "Reshape")}
    ports = []
    for tensor in network.outputs:
        value = values[tensor.name]
        if value.layer not in own:
            value = to.copied(value, f"{tensor.identifier}_copy")
        own.discard(value.layer)
        ports.append(Port(tensor=tensor.name, layer=value.layer, shape=tensor.shape, type=value.type))
    return tuple(ports)


def _obstacles(network: Network, known: set[str]) -> list[Problem]:
    """What is in the way of hls4ml beyond what is in the way of any C++."""
    problems = [
        Problem(place=t.name, kind="input", reason=f"has codes of {t.fmt}, and hls4ml's test bench reads float, which holds "
                f"{INPUT_BITS} bits", advice="requantise it to 8 bits")
        for t in network.inputs if t.fmt.width > INPUT_BITS
    ]  # fmt: skip
    for layer in network.layers:
        if layer.node.name not in known and (reason := _reason(layer)):
            problems.append(Problem(place=layer.node.name, kind=layer.operation.op, reason=reason[0], advice=reason[1]))
    return problems


def _reason(layer: Layer) -> tuple[str, str] | None:
    operation = layer.operation
    if operation.op not in _MAKERS:
        return ("reads pixels at positions that are computed, and hls4ml has no layer that does",
                "use 'bitloom hls', which writes it, or train without it")
    if operation.op in _KEEP_POINT and (other := _another_point([*layer.inputs, layer.output])):
        return (f"moves codes as they are from {other[0].name} of {other[0].fmt} to {other[1].name} of {other[1].fmt}, and hls4ml "
                "keeps values and not codes", "give all its tensors one binary point")
    return None


def _another_point(tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor] | None:
    """The output and an input at another binary point, or None."""
    *inputs, output = tensors
    return next(((t, output) for t in inputs if t.fmt.frac != output.fmt.frac), None)
