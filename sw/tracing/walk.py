"""The walk over a traced model, as every export does it. What tensors, layers and joins become is each export's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import fx, nn

from sw.tracing.forms import Form
from sw.tracing.problems import Problem

__all__ = ["BROKEN", "CHANGES", "Broken", "Walk", "asks_size", "in_order", "leaves", "trace", "works_in_place"]


class Broken:
    """The value of a node behind a problem."""


BROKEN = Broken()

CHANGES = ("changes its input in place, and other layers read that later", "do not work in place here")
"""Reason and advice."""


def trace(tracer: fx.Tracer, model: nn.Module) -> fx.Graph | Problem:
    """A model's graph, or why it has none."""
    try:
        return tracer.trace(model)
    except Exception as error:  # whatever the model's own forward method raises under tracing
        return Problem(place="", kind=type(model).__name__, reason=f"cannot be traced ({error})",
                       advice="write a forward method without control flow that depends on values or shapes")


def leaves(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The layers without layers in them, by name: all that is known of a model that cannot be traced."""
    return [(name, m) for name, m in model.named_modules() if name and not list(m.children())]


class Walk:
    """Visits the nodes of a graph in order. ``values`` says what each node is, BROKEN behind a problem; ``problems`` are all there are.

    A subclass says what inputs, layers and outputs are, and which functions are more than a layer (`_structure`).
    """

    tensors: tuple[type, ...]
    """The types of values that a function may be a layer of."""

    forms: Mapping[Any, Form]
    """The layers that functions are (`sw.tracing.forms`)."""

    missing: str
    """What is said of a function that is neither."""

    advice: Mapping[str, str]
    """What is said to do about it, by its name."""

    def __init__(self, model: nn.Module, graph: fx.Graph) -> None:
        self.modules, self.graph = dict(model.named_modules()), graph
        self.values: dict[fx.Node, Any] = {}
        self.problems: list[Problem] = []
        self.used: set[str] = set()
        self.order = {node: i for i, node in enumerate(graph.nodes)}

    def visit(self) -> None:
        """Every node, in order."""
        handlers = {"placeholder": self._placeholder, "call_module": self._module, "call_function": self._function,
                    "call_method": self._function, "output": self._output, "get_attr": self._attribute}
        for node in self.graph.nodes:
            self.values[node] = handlers[node.op](node)

    def refuse(self, place: str, kind: str, reason: str, advice: str) -> Broken:
        """Note a problem; the value of what has it."""
        self.problems.append(Problem(place=place, kind=kind, reason=reason, advice=advice))
        return BROKEN

    def once(self, place: str, module: nn.Module) -> Broken | None:
        """Note that a layer with parameters is used; it may be only once."""
        if place in self.used:
            return self.refuse(place, type(module).__name__, "is called more than once", "make one layer per use")
        self.used.add(place)
        return None

    def place(self, node: fx.Node) -> str:
        """The dotted place of a function: that of the module that calls it, and its own name."""
        stack = list((node.meta.get("nn_module_stack") or {}).keys())
        return f"{stack[-1]}.{node.name}" if stack and stack[-1] else node.name

    def _attribute(self, node: fx.Node) -> Any:
        return self.refuse(str(node.target), "parameter", "is used outside a layer", "move it into a supported layer")

    def _module(self, node: fx.Node) -> Any:
        return self._layer(node, str(node.target), self.modules[str(node.target)])

    def _function(self, node: fx.Node) -> Any:
        """What a function or a method returns."""
        if any(self.values[n] is BROKEN for n in node.all_input_nodes):
            return BROKEN
        place, target = self.place(node), node.target
        arguments = fx.node.map_arg(node.args, self.values.__getitem__)
        options = fx.node.map_arg(node.kwargs, self.values.__getitem__)
        try:
            made = self._structure(node, place, target, arguments, options)
            if made is not None:
                return made
            make = self.forms.get(target) if isinstance(arguments[0], self.tensors) else None
            module = make(*arguments[1:], **options) if make else None
        except (TypeError, ValueError, AssertionError, IndexError):  # arguments that the function does not have
            module = None
        if module is not None:
            return self._layer(node, place, module)
        name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
        return self.refuse(place, str(name), self.missing, self.advice.get(str(name), "use a layer of torch.nn that is supported"))

    def _placeholder(self, node: fx.Node) -> Any:
        raise NotImplementedError

    def _output(self, node: fx.Node) -> Any:
        raise NotImplementedError

    def _layer(self, node: fx.Node, place: str, module: nn.Module) -> Any:
        """A layer, of the model or as the form of a function."""
        raise NotImplementedError

    def _structure(self, node: fx.Node, place: str, target: Any, arguments: Any, options: Any) -> Any:
        """What a function is that asks for sizes, reshapes or joins; None if it is none of these."""
        raise NotImplementedError


def works_in_place(node: fx.Node, module: nn.Module | None = None) -> bool:
    """Whether a function, a method or the layer that is called there changes its first argument."""
    if getattr(module, "inplace", False):
        return True
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return node.op != "call_module" and (bool(node.kwargs.get("inplace")) or name == "iadd" or name.endswith("_"))


def asks_size(node: fx.Node) -> bool:
    """Whether a node reads a tensor's shape alone."""
    return node.target == "size" or (node.target is getattr and node.args[1] == "shape")


def in_order(node: fx.Node) -> list[fx.Node]:
    """The nodes among the arguments, in order, with repetitions (``all_input_nodes`` has none)."""
    found: list[fx.Node] = []
    fx.node.map_arg((node.args, node.kwargs), lambda n: found.append(n) or n)  # type: ignore[func-returns-value]
    return found
