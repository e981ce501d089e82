"""From an ordinary torch model to a list of drafts: which layers there are, what feeds them, and what is unsupported.

The model is traced with torch.fx, so that its own forward method says what is connected. Every problem is collected with
the dotted place of its layer; nothing stops at the first one.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from sw.quant.primitives import ChannelSplit, ShuffleJoin, SquareDeform
from sw.quant.recipe import Recipe

__all__ = ["Draft", "Lowered", "Problem", "lower"]

INPUT = "input"
WEIGHTED = ("conv", "depthwise", "deform", "linear")
_ALIASES = (nn.Flatten, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One layer that cannot be quantised: its dotted place in the model, what it is, why, and what to do."""

    place: str
    kind: str
    reason: str
    advice: str

    def __str__(self) -> str:
        return f"{self.place or '(model)'}: {self.kind} {self.reason}; {self.advice}"


@dataclass(kw_only=True)
class Draft:
    """One step to be: ``kind`` names it, ``inputs`` are tensors, its output tensor has its own name."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    source: nn.Module | None = None
    norm: nn.BatchNorm2d | None = None
    relu: bool = False
    half: int = 0


@dataclass(kw_only=True)
class Lowered:
    """What tracing found. ``flat`` says of each output whether the model returns it as (N, features)."""

    drafts: list[Draft] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    flat: list[bool] = field(default_factory=list)
    several: bool = False
    problems: list[Problem] = field(default_factory=list)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (ChannelSplit, ShuffleJoin, SquareDeform)) or super().is_leaf_module(m, module_qualified_name)


def lower(model: nn.Module, recipe: Recipe) -> Lowered:
    """Trace a model and draft its steps; problems are in the result, never raised."""
    try:
        graph = _Tracer().trace(model)
    except Exception as error:  # whatever the model's own forward method raises under tracing
        problem = Problem(place="", kind=type(model).__name__, reason=f"cannot be traced ({error})",
                          advice="write a forward method without control flow that depends on values or shapes")
        return Lowered(problems=[*_by_type(model, recipe), problem])
    return _Lowering(model, graph, recipe).run()


def _by_type(model: nn.Module, recipe: Recipe) -> list[Problem]:
    """The unsupported layers that types alone show, for a model that cannot be traced."""
    leaves = [(name, m) for name, m in model.named_modules() if name and not list(m.children())]
    return [problem for name, m in leaves if not recipe.excludes(name) for problem in check_module(name, m)]


def check_module(place: str, module: nn.Module) -> list[Problem]:
    """Everything that is wrong with one layer, looked at alone."""
    for kind, check in _CHECKS.items():
        if isinstance(module, kind):
            return [Problem(place=place, kind=type(module).__name__, reason=why, advice=do) for why, do in check(module)]
    if isinstance(module, (nn.BatchNorm2d, nn.ReLU, ChannelSplit, ShuffleJoin, SquareDeform, *_ALIASES)):
        return []
    advice = _ADVICE.get(type(module).__name__, "replace it, or exclude it in the recipe if it only follows the network")
    return [Problem(place=place, kind=type(module).__name__, reason="has no integer operation", advice=advice)]


_ADVICE = {
    "ReLU6": "use ReLU: the fixed-point range already clips",
    "SiLU": "use ReLU", "GELU": "use ReLU", "Hardswish": "use ReLU", "LeakyReLU": "use ReLU", "Sigmoid": "use ReLU",
    "BatchNorm1d": "use BatchNorm2d after a convolution, or none after a linear layer",
    "Softmax": "exclude it in the recipe: the largest logit does not change",
    "LogSoftmax": "exclude it in the recipe: the largest logit does not change",
}

Faults = list[tuple[str, str]]


def _equal(value: Any) -> bool:
    return not isinstance(value, (tuple, list)) or len(set(value)) == 1


def _check_conv(conv: nn.Conv2d) -> Faults:
    faults: Faults = []
    if conv.groups != 1 and not conv.groups == conv.in_channels == conv.out_channels:
        faults.append((f"has {conv.groups} groups", "use one group, or one per channel with as many outputs as inputs"))
    elif conv.groups != 1 and conv.kernel_size != (3, 3):
        faults.append((f"is depthwise with a {conv.kernel_size} window", "use a 3 x 3 depthwise window"))
    if set(conv.dilation) != {1}:
        faults.append((f"has dilation {conv.dilation}", "use dilation 1"))
    if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        faults.append((f"pads with {conv.padding_mode!r}, {conv.padding!r}", "use a number of zeros"))
    if not _equal(conv.stride) or not _equal(conv.padding):
        faults.append((f"has stride {conv.stride}, padding {conv.padding}", "use the same value for rows and columns"))
    return faults


def _check_max_pool(pool: nn.MaxPool2d) -> Faults:
    faults: Faults = []
    if pool.ceil_mode or pool.return_indices or pool.dilation not in (1, (1, 1)):
        faults.append(("uses ceil_mode, indices or dilation", "use the plain form"))
    if not all(_equal(v) for v in (pool.kernel_size, pool.stride, pool.padding)):
        faults.append(("has a window that is not square", "use the same size, stride and padding for rows and columns"))
    return faults


def _check_avg_pool(pool: nn.AvgPool2d) -> Faults:
    faults: Faults = []
    if pool.ceil_mode or pool.divisor_override is not None or (pool.padding not in (0, (0, 0)) and not pool.count_include_pad):
        faults.append(("uses ceil_mode, divisor_override or count_include_pad=False", "use the plain form"))
    if not _equal(pool.stride) or not _equal(pool.padding):
        faults.append((f"has stride {pool.stride}, padding {pool.padding}", "use the same value for rows and columns"))
    return faults


def _check_adaptive(pool: nn.AdaptiveAvgPool2d) -> Faults:
    if pool.output_size in (1, (1, 1)):
        return []
    return [(f"has output size {pool.output_size}", "use output size 1, or AvgPool2d with a fixed window")]


def _check_upsample(layer: nn.Upsample) -> Faults:
    scale = layer.scale_factor
    if layer.mode == "nearest" and (scale == 2 or scale == (2, 2)):
        return []
    return [(f"has mode {layer.mode!r}, scale {scale}", "use nearest by 2")]


_CHECKS: dict[type[nn.Module], Callable[[Any], Faults]] = {
    nn.Conv2d: _check_conv,
    nn.Linear: lambda layer: [],
    nn.MaxPool2d: _check_max_pool,
    nn.AvgPool2d: _check_avg_pool,
    nn.AdaptiveAvgPool2d: _check_adaptive,
    nn.Upsample: _check_upsample,
}

_KINDS: dict[type[nn.Module], str] = {
    nn.Linear: "linear", nn.MaxPool2d: "max_pool", nn.AvgPool2d: "avg_pool", nn.AdaptiveAvgPool2d: "avg_pool",
    nn.Upsample: "upsample", ShuffleJoin: "join", SquareDeform: "deform",
}

Value = str | tuple[str, ...] | None
"""The tensor of a traced node; a pair after a split; None after a problem."""


class _Lowering:
    def __init__(self, model: nn.Module, graph: fx.Graph, recipe: Recipe) -> None:
        self.modules = dict(model.named_modules())
        self.graph, self.recipe = graph, recipe
        self.result = Lowered()
        self.values: dict[fx.Node, Value] = {}
        self.flat: set[fx.Node] = set()
        self.by_name: dict[str, Draft] = {}

    def run(self) -> Lowered:
        handlers = {"placeholder": self._placeholder, "call_module": self._module, "call_function": self._function,
                    "call_method": self._function, "output": self._output, "get_attr": self._attribute}
        for node in self.graph.nodes:
            self.values[node] = handlers[node.op](node)
        return self.result

    # -- helpers ------------------------------------------------------------------------------------------------

    def _problem(self, place: str, kind: str, reason: str, advice: str) -> None:
        self.result.problems.append(Problem(place=place, kind=kind, reason=reason, advice=advice))

    def _inputs(self, node: fx.Node) -> list[fx.Node]:
        return [a for a in node.args if isinstance(a, fx.Node)] + [v for v in node.kwargs.values() if isinstance(v, fx.Node)]

    def _alias(self, node: fx.Node) -> Value:
        source = self._inputs(node)[0]
        if source in self.flat:
            self.flat.add(node)
        return self.values[source]

    def _add(self, node: fx.Node, name: str, kind: str, source: nn.Module | None, half: int = 0) -> str | None:
        """Draft a step; its inputs are the node's. Returns its tensor, or None where an input has a problem."""
        names = [self.values[a] for a in self._inputs(node)]
        inputs = tuple(n for n in names if isinstance(n, str))
        if len(inputs) != len(names):
            return None
        unique, count = name, 1
        while unique in self.by_name:
            count += 1
            unique = f"{name}_{count}"
        draft = Draft(name=unique, kind=kind, inputs=inputs, source=source, half=half)
        self.result.drafts.append(draft)
        self.by_name[unique] = draft
        return unique

    def _sole(self, tensor: str) -> bool:
        """Whether nothing but one chain of layers reads a tensor, so that a following layer may be fused into it."""
        return all(len(n.users) == 1 for n, value in self.values.items() if value == tensor)

    def _place(self, node: fx.Node) -> str:
        stack = list((node.meta.get("nn_module_stack") or {}).keys())
        return f"{stack[-1]}.{node.name}" if stack and stack[-1] else node.name

    # -- nodes --------------------------------------------------------------------------------------------------

    def _placeholder(self, node: fx.Node) -> Value:
        if any(v == INPUT for v in self.values.values()):
            self._problem(node.name, "input", "is a second input", "give the model one input tensor")
            return None
        self.flat.add(node)  # may be (N, features); a convolution does not mind
        return INPUT

    def _output(self, node: fx.Node) -> Value:
        found = node.args[0]
        self.result.several = isinstance(found, (tuple, list))
        for item in found if isinstance(found, (tuple, list)) else [found]:
            value = self.values.get(item) if isinstance(item, fx.Node) else None
            if isinstance(value, str):
                self.result.outputs.append(value)
                self.result.flat.append(item in self.flat)
            elif not isinstance(item, fx.Node) or isinstance(value, tuple):
                self._problem("", "output", f"is {type(item).__name__}", "return one tensor or a tuple of tensors")
        return None

    def _attribute(self, node: fx.Node) -> Value:
        self._problem(str(node.target), "parameter", "is used outside a layer", "move it into a supported layer")
        return None

    def _module(self, node: fx.Node) -> Value:
        place, module = str(node.target), self.modules[str(node.target)]
        if self.recipe.excludes(place):
            return self._alias(node)
        if found := check_module(place, module):
            self.result.problems.extend(found)
            return None
        if isinstance(module, _ALIASES):
            return self._flatten(node, place, module.start_dim, module.end_dim) if isinstance(module, nn.Flatten) \
                else self._alias(node)
        if isinstance(module, nn.ReLU):
            return self._relu(node, place)
        if isinstance(module, nn.BatchNorm2d):
            return self._norm(node, place, module)
        if isinstance(module, ChannelSplit):
            halves = [self._add(node, f"{place}.{side}", "split", None, i) for i, side in enumerate(("left", "right"))]
            return None if None in halves else tuple(str(h) for h in halves)
        return self._layer(node, place, module)

    def _layer(self, node: fx.Node, place: str, module: nn.Module) -> Value:
        kind = next((k for t, k in _KINDS.items() if isinstance(module, t)), "conv")
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            kind = "depthwise"
        if kind in WEIGHTED and place in self.by_name:
            self._problem(place, type(module).__name__, "is called more than once", "make one layer per use")
            return None
        if kind == "linear":
            if self._inputs(node)[0] not in self.flat and self.values[self._inputs(node)[0]] is not None:
                self._problem(place, "Linear", "reads a map of pixels", "put nn.Flatten() in front of it")
                return None
            self.flat.add(node)
        return self._add(node, place, kind, module)

    def _flatten(self, node: fx.Node, place: str, start: Any, end: Any) -> Value:
        if (start, end) != (1, -1):
            self._problem(place, "Flatten", f"flattens axes {start}..{end}", "flatten all axes but the batch: (1, -1)")
            return None
        self.flat.add(node)
        return self._alias(node)

    def _norm(self, node: fx.Node, place: str, norm: nn.BatchNorm2d) -> Value:
        tensor = self._alias(node)
        draft = self.by_name.get(tensor) if isinstance(tensor, str) else None
        fits = draft is not None and draft.kind in WEIGHTED[:3] and draft.norm is None and not draft.relu
        if norm.running_mean is None:
            self._problem(place, "BatchNorm2d", "keeps no running statistics", "set track_running_stats=True")
        elif tensor is not None and not (fits and self._sole(str(tensor))):
            self._problem(place, "BatchNorm2d", "does not follow a convolution alone",
                          "put it straight after a convolution whose output nothing else reads")
        elif draft is not None:
            draft.norm = norm
        return tensor

    def _relu(self, node: fx.Node, place: str) -> Value:
        tensor = self._alias(node)
        if isinstance(tensor, str) and not self._fuse_relu(tensor):
            self._problem(place, "ReLU", "cannot be fused into the layer before it",
                          "put it straight after a convolution, linear layer, average pool or sum that nothing else reads")
        return tensor

    def _fuse_relu(self, tensor: str) -> bool:
        draft = self.by_name.get(tensor)
        if draft is None or not self._sole(tensor):
            return False
        if draft.kind == "max_pool":  # max and ReLU commute
            return self._fuse_relu(draft.inputs[0])
        if draft.kind not in (*WEIGHTED, "avg_pool", "add"):
            return False
        draft.relu = True
        return True

    def _function(self, node: fx.Node) -> Value:
        place, target = self._place(node), node.target
        if target in (F.relu, torch.relu, "relu"):
            return self._relu(node, place)
        if target in (torch.flatten, "flatten"):
            bounds = [*node.args[1:], *[0, -1][len(node.args) - 1:]]
            return self._flatten(node, place, node.kwargs.get("start_dim", bounds[0]), node.kwargs.get("end_dim", bounds[1]))
        if target is F.dropout:
            return self._alias(node)
        if target is operator.getitem:
            value, index = self._alias(node), node.args[1]
            if value is None or (isinstance(value, tuple) and isinstance(index, int)):
                return None if value is None else value[index]  # type: ignore[index]
        if target in (operator.add, operator.iadd, torch.add, "add") and len(self._inputs(node)) == 2 and not node.kwargs:
            return self._add(node, place, "add", None)
        name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
        advice = "use a layer of torch.nn that is supported"
        if name == "mean":
            advice = "use nn.AdaptiveAvgPool2d(1)"
        if name in ("view", "reshape"):
            advice = "use torch.flatten(x, 1)"
        self._problem(place, str(name), "has no integer operation", advice)
        return None
