"""From a Brevitas model to an integer graph: trace, run once for the shapes, and walk the nodes in order."""

from __future__ import annotations

import copy
import operator
import warnings
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from sw.graph import IntegerGraph
from sw.quant.brevitas.layers import add, check_alone, layer_value, relu
from sw.quant.brevitas.report import BrevitasImport, ImportedScaleWarning, UnsupportedBrevitasError
from sw.quant.brevitas.values import Codes, Raw, Shape, Value
from sw.quant.brevitas.writer import GraphWriter
from sw.tracing.problems import Problem, RefusedError
from sw.tracing.walk import trace

__all__ = ["examine_brevitas", "import_brevitas"]


def import_brevitas(model: nn.Module, example_input: Tensor) -> IntegerGraph:
    """The integer graph of a Brevitas model; `examine_brevitas` gives scales and differences too.

    Raises UnsupportedBrevitasError; warns with ImportedScaleWarning, one line per layer, where codes can differ.
    """
    found = examine_brevitas(model, example_input)
    if found.differences:
        lines = "\n".join(f"  {difference}" for difference in found.differences)
        warnings.warn(f"the imported graph is not equal to the Brevitas model everywhere:\n{lines}", ImportedScaleWarning,
                      stacklevel=2)
    return found.graph


def examine_brevitas(model: nn.Module, example_input: Tensor) -> BrevitasImport:
    """Import a model and say how equal it is. ``example_input`` (N, C, H, W) or (N, features) gives the shapes.

    Raises UnsupportedBrevitasError, which lists every layer that has no integer counterpart.
    """
    model = copy.deepcopy(model).eval()
    graph = trace(_Tracer(), model)
    if isinstance(graph, Problem):
        raise UnsupportedBrevitasError([graph])
    with torch.no_grad():
        walk = _Walk(model=model, writer=GraphWriter(shapes=_shapes(model, graph, example_input)))
        walk.follow(graph)
    if walk.problems:
        raise UnsupportedBrevitasError(walk.problems)
    return walk.writer.result()


# -- tracing ------------------------------------------------------------------------------------------------------


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m).__module__.startswith("brevitas.") or super().is_leaf_module(m, module_qualified_name)


class _ShapeRecorder(fx.Interpreter):
    """Runs a traced model; ``found`` is (C, H, W) of every value by the name of its node, 1 where there is no such axis."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.found: dict[str, Shape] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        shape = tuple(getattr(value, "shape", ()))
        if 2 <= len(shape) <= 4:
            self.found[n.name] = (*shape[1:], *(1,) * (4 - len(shape)))
        return value


def _shapes(model: nn.Module, graph: fx.Graph, example: Tensor) -> dict[str, Shape]:
    """(C, H, W) of every traced value, by the name of its node."""
    try:
        recorder = _ShapeRecorder(fx.GraphModule(model, graph))
        recorder.run(example)
    except Exception as error:  # Brevitas' own checks too, such as a sum of tensors of two scales
        raise _whole(model, f"does not run on the example input ({str(error).splitlines()[0]})",
                     "make it run in evaluation mode first") from error
    return recorder.found


def _whole(model: nn.Module, reason: str, advice: str) -> UnsupportedBrevitasError:
    return UnsupportedBrevitasError([Problem(place="", kind=type(model).__name__, reason=reason, advice=advice)])


# -- the walk -----------------------------------------------------------------------------------------------------


@dataclass(eq=False, kw_only=True)
class _Walk:
    """Follows the nodes of a traced model and writes what they become; every refusal is kept with its place."""

    model: nn.Module
    writer: GraphWriter
    problems: list[Problem] = field(default_factory=list)
    values: dict[fx.Node, Value] = field(default_factory=dict)

    def follow(self, graph: fx.Graph) -> None:
        for node in graph.nodes:
            try:
                self.values[node] = self._value(node)
            except RefusedError as refusal:
                self.problems.append(self._problem(node, refusal))
                self.values[node] = None

    def _problem(self, node: fx.Node, refusal: RefusedError) -> Problem:
        place = _place(node)
        kind = type(self.model.get_submodule(place)).__name__ if node.op == "call_module" else str(node.op)
        return Problem(place=place, kind=kind, reason=refusal.reason, advice=refusal.advice)

    def _value(self, node: fx.Node) -> Value:
        if node.op == "placeholder":
            return Raw(name=node.name)
        if node.op == "output":
            self._name_outputs(node)
            return None
        values = [self.values[a] for a in node.args if isinstance(a, fx.Node)]
        if not values or any(value is None for value in values):
            self._check_without_input(node)
            return None
        if node.op == "call_module":
            shape = self.writer.shapes.get(node.name, (0, 0, 0))
            return layer_value(self.writer, self.model.get_submodule(_place(node)), _place(node), values, shape)
        return self._function(node, values)

    def _check_without_input(self, node: fx.Node) -> None:
        """A node whose input was refused, which is told already: look for what else is wrong with the layer itself."""
        if node.op == "get_attr":
            raise RefusedError("is a parameter used outside a layer", "move it into a quantised layer")
        if node.op == "call_module":
            check_alone(self.model.get_submodule(_place(node)))

    def _name_outputs(self, node: fx.Node) -> None:
        found = node.args[0]
        for item in found if isinstance(found, (tuple, list)) else [found]:
            value = self.values.get(item) if isinstance(item, fx.Node) else None
            if isinstance(value, Codes):
                self.writer.outputs.append(value.name)
            elif value is not None:
                raise RefusedError("is not quantised", "put a QuantIdentity at the end, or an output_quant on the last layer")

    def _function(self, node: fx.Node, values: list[Value]) -> Value:
        if node.target in (operator.add, torch.add, "add") and len(values) == 2:
            return add(node.name, values[0], values[1], self.writer.shapes[node.name])
        if node.target in (torch.flatten, "flatten") and (*node.args[1:], *node.kwargs.values())[:1] == (1,):
            return values[0]
        if node.target in (torch.relu, torch.nn.functional.relu, "relu"):
            return relu(self.writer, node.name, values[0])
        raise RefusedError(f"({node.target}) has no integer operation", "use a layer of brevitas.nn or torch.nn instead")


def _place(node: fx.Node) -> str:
    """The dotted place of a layer, or the name of another node."""
    return str(node.target) if node.op == "call_module" else node.name
