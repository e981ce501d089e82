"""The walk over a traced model: its layers become nodes of a training graph, every problem is noted with its place.

Residual sums and ReLUs join the node of the BatchNorm or bias in front of them, which the core computes in one pass.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx, nn

from hw.spec.training import Geometry, NormConstants, PoolWindow
from sw.sparse.forms import FORMS
from sw.sparse.layers import SparseLayer
from sw.sparse.supported import ALIASES, CONVOLUTIONS, DROPOUTS, LARGEST_KERNEL, LINEARS, check_module, padding_of
from sw.tracing.forms import FlatMean
from sw.tracing.problems import Problem
from sw.tracing.walk import BROKEN, CHANGES, Walk, asks_size, in_order, leaves, trace, works_in_place
from sw.training_graph import INPUT, ChannelNode, ConvNode, Node, Pattern, PoolNode, SumNode

__all__ = ["TrainingWalk", "walk"]


@dataclass(frozen=True)
class Value:
    """A tensor of the graph: its name, (H, W, C), and whether the model sees it flattened, as (N, C * H * W)."""

    name: str
    shape: tuple[int, int, int]
    flat: bool = False


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, SparseLayer) or super().is_leaf_module(m, module_qualified_name)


def walk(model: nn.Module, batch: int, shape: tuple[int, int, int]) -> TrainingWalk:
    """The walk of a model over images (H, W, C): nodes and problems, none raised."""
    graph = trace(_Tracer(), model)
    if isinstance(graph, Problem):
        found = TrainingWalk(model, fx.Graph(), batch, shape)
        found.problems = [*(problem for name, m in leaves(model) for problem in check_module(name, m)), graph]
        return found
    found = TrainingWalk(model, graph, batch, shape)
    found.run()
    return found


_SUMS: tuple[Callable[..., Any] | str, ...] = (operator.add, operator.iadd, torch.add, "add", "add_")
_ADVICE = {
    "mean": "take the mean over (2, 3), or use nn.AdaptiveAvgPool2d(1)",
    "view": "use torch.flatten(x, 1)", "reshape": "use torch.flatten(x, 1)",
    "cat": "the core's layers read one tensor: use a residual sum", "mul": "put a factor into weights",
    "softmax": "return the logits: the loss contains the softmax", "log_softmax": "return the logits: the loss contains the softmax",
    "conv2d": "use nn.Conv2d", "linear": "use nn.Linear", "batch_norm": "use nn.BatchNorm2d",
}


class TrainingWalk(Walk):
    """``nodes`` in forward order, ``output`` the tensor of logits; without meaning where there are ``problems``."""

    tensors = (Value,)
    forms = FORMS
    missing = "has no operation in the training core"
    advice = _ADVICE

    def __init__(self, model: nn.Module, graph: fx.Graph, batch: int, shape: tuple[int, int, int]) -> None:
        super().__init__(model, graph)
        self.batch, self.shape = batch, shape
        self.nodes: list[Node] = []
        self.output = ""

    def run(self) -> None:
        self.visit()
        self._check_use()

    # -- helpers ------------------------------------------------------------------------------------------------

    def _add(self, node: Node, shape: tuple[int, int, int], flat: bool = False) -> Value:
        self.nodes.append(node)
        return Value(node.target, shape, flat)

    def _free(self, place: str) -> str:
        """A name that no node has yet: a layer without parameters may be called several times."""
        taken, name, count = {node.name for node in self.nodes}, place, 1
        while name in taken:
            count += 1
            name = f"{place}_{count}"
        return name

    def _readers(self, value: Value) -> list[fx.Node]:
        """Who reads a tensor's values (asking for sizes is no reading); aliases of it are no readers, their readers are."""
        same = {n for n, v in self.values.items() if isinstance(v, Value) and v.name == value.name}
        return [user for n in same for user in n.users if user not in same and not asks_size(user)]

    def _host(self, node: fx.Node, value: Value) -> ChannelNode | SumNode | None:
        """The BatchNorm, bias or sum that wrote a tensor which ``node`` alone reads, once."""
        found = next((n for n in self.nodes if n.target == value.name), None)
        once = [n for n in in_order(node) if isinstance(self.values[n], Value) and self.values[n].name == value.name]
        alone = self._readers(value) == [node] and len(once) == 1
        return found if isinstance(found, (ChannelNode, SumNode)) and alone else None

    def _changes_what_is_read_later(self, node: fx.Node, module: nn.Module | None) -> bool:
        value = self.values[node.all_input_nodes[0]]
        return works_in_place(node, module) and any(self.order[user] > self.order[node] for user in self._readers(value))

    # -- nodes --------------------------------------------------------------------------------------------------

    def _placeholder(self, node: fx.Node) -> Any:
        if any(isinstance(v, Value) for v in self.values.values()):
            return self.refuse(node.name, "input", "is a second input", "give the model one input tensor")
        return Value(INPUT, self.shape)

    def _output(self, node: fx.Node) -> None:
        value = self.values.get(node.args[0]) if isinstance(node.args[0], fx.Node) else None
        if isinstance(value, Value):
            self.output = value.name
            if value.shape[:2] != (1, 1) or value.name == INPUT:
                self.refuse("", "output", f"has {value.shape[0]}x{value.shape[1]} pixels", "end in a Linear layer: logits (N, classes)")
        elif value is not BROKEN:
            self.refuse("", "output", f"is {type(node.args[0] if value is None else value).__name__}",
                        "return one tensor of logits (N, classes)")

    def _check_use(self) -> None:
        """Whether every node's result is used: the core computes gradients of what has one."""
        if self.problems:
            return
        read = {self.output} | {name for n in self.nodes for name in (n.source, getattr(n, "residual", None))}
        if any(self.output in (n.source, getattr(n, "residual", None)) for n in self.nodes):
            self.refuse("", "output", "is read by a layer too", "let the loss alone read the logits")
        for node in self.nodes:
            if node.target not in read:
                self.refuse(node.name, type(node).__name__, "computes what nothing reads", "remove the layer from forward")

    def _structure(self, node: fx.Node, place: str, target: Any, arguments: Any, options: Any) -> Any:
        first = arguments[0] if arguments else None
        if not isinstance(first, Value):
            if target in _SUMS and len(arguments) == 2 and isinstance(arguments[1], Value):
                return self.refuse(place, "add", "adds a constant", "put the constant into a bias")
            return target(*arguments, **options) if getattr(target, "__module__", "") == "_operator" else None
        if target in _SUMS:
            return self._sum(node, place, *arguments, **options)
        if asks_size(node):
            axis = None if target is getattr else options.get("dim", arguments[1] if len(arguments) > 1 else None)
            return self._seen(first) if axis is None else self._seen(first)[axis]
        if target in ("view", "reshape", torch.reshape):
            return self._reshape(place, first, arguments[1:])
        return None

    def _seen(self, value: Value) -> tuple[int, ...]:
        """The shape that the model sees."""
        height, width, channels = value.shape
        return (self.batch, height * width * channels) if value.flat else (self.batch, channels, height, width)

    def _reshape(self, place: str, value: Value, sizes: tuple[Any, ...]) -> Any:
        wanted = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)) else sizes
        found = tuple(torch.empty(self._seen(value), device="meta").reshape(tuple(wanted)).shape)
        if found == (self.batch, math.prod(value.shape)):
            return replace(value, flat=True)
        return value if found == self._seen(value) else None

    # -- layers -------------------------------------------------------------------------------------------------

    def _layer(self, node: fx.Node, place: str, module: nn.Module) -> Any:
        form = nn.AdaptiveAvgPool2d(1) if isinstance(module, FlatMean) else module
        if found := check_module(place, form):
            self.problems.extend(found)
            return BROKEN
        operands = [self.values[n] for n in in_order(node)]
        if any(value is BROKEN for value in operands):
            return BROKEN
        if not operands or not isinstance(operands[0], Value):
            return self.refuse(place, type(module).__name__, "does not read a tensor", "give it what another layer returns")
        if self._changes_what_is_read_later(node, module):
            return self.refuse(place, type(module).__name__, *CHANGES)
        if isinstance(module, ALIASES + DROPOUTS):
            return operands[0]
        if isinstance(module, nn.Flatten):
            return replace(operands[0], flat=True)
        if isinstance(module, nn.ReLU):
            return self._relu(node, place, operands[0])
        return self._spatial(place, module, operands[0])

    def _spatial(self, place: str, module: Any, value: Value) -> Any:
        """Layers that know rows and columns, or have parameters."""
        kind = type(module).__name__
        if isinstance(module, LINEARS):
            return self.once(place, module) or self._linear(place, module, value)
        if value.flat:
            return self.refuse(place, kind, "reads a flattened map", "put it in front of the flattening")
        if isinstance(module, CONVOLUTIONS):
            return self.once(place, module) or self._conv(place, module, value)
        if isinstance(module, nn.BatchNorm2d):
            return self.once(place, module) or self._norm(place, module, value)
        return self._pool(place, module, value)

    def _conv(self, place: str, conv: nn.Conv2d, value: Value) -> Any:
        height, width, channels = value.shape
        if channels != conv.in_channels:
            return self.refuse(place, "Conv2d", f"reads {channels} channels", f"give it {conv.in_channels}")
        padding = padding_of(conv)
        assert padding is not None
        try:
            geometry = Geometry(height=height, width=width, kernel_h=conv.kernel_size[0], kernel_w=conv.kernel_size[1],
                                stride=conv.stride[0], padding=padding)
        except ValueError as error:
            return self.refuse(place, "Conv2d", f"does not fit its input ({error})", "use a larger image or more padding")
        return self._weighted(place, conv, value, geometry, (channels, conv.out_channels))

    def _linear(self, place: str, linear: nn.Linear, value: Value) -> Any:
        """A convolution with a kernel as large as the map."""
        height, width, channels = value.shape
        if not value.flat:
            return self.refuse(place, "Linear", "reads a map of pixels", "put nn.Flatten() in front of it")
        if height * width * channels != linear.in_features:
            return self.refuse(place, "Linear", f"reads {height * width * channels} values", f"give it {linear.in_features}")
        if max(height, width) > LARGEST_KERNEL:
            return self.refuse(place, "Linear", f"reads a flattened map of {height}x{width} pixels",
                               f"pool it to at most {LARGEST_KERNEL}x{LARGEST_KERNEL} first")
        if height * width > 1 and isinstance(linear, SparseLayer) and linear.rule.forward_pruned:
            return self.refuse(place, "Linear", f"groups its weights along a flattened map of {height}x{width} pixels, and the core "
                               "along channels", "exclude it from sparsify, or use Conv2d with a kernel of that size")
        geometry = Geometry(height=height, width=width, kernel_h=height, kernel_w=width)
        return self._weighted(place, linear, value, geometry, (channels, linear.out_features))

    def _weighted(self, place: str, layer: Any, value: Value, geometry: Geometry, channels: tuple[int, int]) -> Any:
        forward, backward = patterns(layer)
        node = ConvNode(
            name=place, source=value.name, target=f"{place}.y", geometry=geometry, in_channels=channels[0], out_channels=channels[1],
            forward_pattern=forward, backward_pattern=backward,
        )  # fmt: skip
        result = self._add(node, (geometry.out_height, geometry.out_width, channels[1]), value.flat)
        if layer.bias is None:
            return result
        name = f"{place}.bias"
        bias = ChannelNode(name=name, source=node.target, target=f"{name}.y", channels=channels[1])
        return self._add(bias, result.shape, value.flat)

    def _norm(self, place: str, norm: nn.BatchNorm2d, value: Value) -> Any:
        if value.shape[2] != norm.num_features:
            return self.refuse(place, "BatchNorm2d", f"reads {value.shape[2]} channels", f"give it {norm.num_features}")
        if self.batch * value.shape[0] * value.shape[1] < 2:
            return self.refuse(place, "BatchNorm2d", "has one value per channel", "use a larger batch")
        assert norm.momentum is not None
        constants = NormConstants(epsilon=float(norm.eps), running_weight=float(norm.momentum))
        return self._add(ChannelNode(name=place, source=value.name, target=f"{place}.y", channels=value.shape[2], constants=constants),
                         value.shape)

    def _pool(self, place: str, pool: Any, value: Value) -> Any:
        height, width, channels = value.shape
        window = _window(pool, height, width)
        if window is None or (not window.overlaps and _leaves_out(window, height, width)) or min(window.size(height, width)) < 1:
            return self.refuse(place, type(pool).__name__, f"has windows that do not divide an image of {height}x{width}",
                               "pad or crop the image, or choose another window")
        flat = isinstance(pool, FlatMean)
        if window.kernel == window.stride == (1, 1):
            return replace(value, flat=flat)
        name = self._free(place)
        node = PoolNode(name=name, source=value.name, target=f"{name}.y", window=window, average=not isinstance(pool, nn.MaxPool2d))
        return self._add(node, (*window.size(height, width), channels), flat)

    # -- joins --------------------------------------------------------------------------------------------------

    def _relu(self, node: fx.Node, place: str, value: Value) -> Any:
        writer = next((n for n in self.nodes if n.target == value.name), None)
        if isinstance(writer, (ChannelNode, SumNode)) and writer.relu:
            return value
        host = self._host(node, value)
        if host is None:
            several = isinstance(writer, (ChannelNode, SumNode))
            reason = "reads what other layers read without it" if several else "follows neither a BatchNorm, a bias nor a residual sum"
            advice = "apply it once, to what all of them read" if several else \
                "put BatchNorm2d in front of it, give the convolution a bias, or put it in front of the pooling"
            self.refuse(place, "ReLU", reason, advice)
            return value  # go on, to find what else there is
        self.nodes[self.nodes.index(host)] = replace(host, relu=True)
        return value

    def _sum(self, node: fx.Node, place: str, a: Value, b: Any, alpha: Any = 1) -> Any:
        if not isinstance(b, Value) or alpha != 1:
            return self.refuse(place, "add", "adds a constant or a multiple", "put constants into biases and weights")
        if (a.shape, a.flat) != (b.shape, b.flat):
            return self.refuse(place, "add", f"adds tensors of {self._seen(a)} and {self._seen(b)}", "add tensors of one shape")
        if self._changes_what_is_read_later(node, None):
            return self.refuse(place, "add", *CHANGES)
        for value, other in ((a, b), (b, a)):
            host = self._host(node, value)
            if isinstance(host, ChannelNode) and not host.relu and host.residual is None:
                # Nothing else reads the host, so it may wait until the other operand is written.
                self.nodes.remove(host)
                return self._add(replace(host, residual=other.name), value.shape, value.flat)
        name = self._free(place)
        joined = SumNode(name=name, source=a.name, target=f"{name}.y", residual=b.name)
        return self._add(joined, a.shape, a.flat)


def patterns(layer: Any) -> tuple[Pattern, Pattern]:
    """(n, m) of a layer's weights forward and backward; None where nothing is pruned."""
    if not isinstance(layer, SparseLayer) or layer.rule.n == layer.rule.m:
        return None, None
    pattern = (layer.rule.n, layer.rule.m)
    return pattern if layer.rule.forward_pruned else None, pattern if layer.rule.backward_pruned else None


def _window(pool: Any, height: int, width: int) -> PoolWindow | None:
    """The windows of a pool on an image; None where an adaptive one's would not all be equal."""
    if not isinstance(pool, nn.AdaptiveAvgPool2d):
        return PoolWindow(kernel=_pair(pool.kernel_size), stride=_pair(pool.stride), padding=_pair(pool.padding))
    rows, columns = _pair(pool.output_size)
    if height % rows or width % columns:
        return None
    return PoolWindow(kernel=(height // rows, width // columns))


def _leaves_out(window: PoolWindow, height: int, width: int) -> bool:
    """Whether windows side by side do not make up an image."""
    return window.stride != window.kernel or bool(height % window.kernel[0] or width % window.kernel[1])


def _pair(value: Any) -> tuple[int, int]:
    return (value[0], value[1]) if isinstance(value, (tuple, list)) else (value, value)
