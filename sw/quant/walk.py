"""The walk over a traced model: its layers become drafts, every problem is noted with its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx, nn

from sw.quant.builder import INPUT, WEIGHTED, Builder, Lowered
from sw.quant.forms import FORMS, bounds_of
from sw.quant.primitives import ChannelSplit, ShuffleJoin, SquareDeform
from sw.quant.recipe import Recipe
from sw.quant.spans import Size
from sw.quant.supported import ALIASES, check_module, is_deform_conv
from sw.quant.tables import TABLE_FUNCTIONS
from sw.quant.views import Grouped, Pieces, Sizes
from sw.tracing.forms import FlatMean
from sw.tracing.walk import BROKEN, CHANGES, Walk, asks_size, in_order, works_in_place

__all__ = ["QuantWalk", "draft_kind"]

Norm = nn.BatchNorm1d | nn.BatchNorm2d

_KINDS: tuple[tuple[type[nn.Module], str], ...] = (
    (nn.Linear, "linear"), (nn.MaxPool2d, "max_pool"), (nn.AdaptiveMaxPool2d, "max_pool"), (nn.AvgPool2d, "avg_pool"),
    (nn.AdaptiveAvgPool2d, "avg_pool"), (nn.Upsample, "upsample"), (ShuffleJoin, "join"), (SquareDeform, "deform"),
)
_ELEMENTWISE = ("scale", "table", "clip", "add", "concat", "slice")


def draft_kind(module: nn.Module) -> str:
    """The kind of step that a supported layer with one output is."""
    if isinstance(module, nn.Conv2d):
        plain = module.kernel_size == (3, 3) and set(module.dilation) == {1}
        return "depthwise" if plain and 1 < module.groups == module.in_channels == module.out_channels else "conv"
    if isinstance(module, TABLE_FUNCTIONS):
        return "table"
    return "deform_conv" if is_deform_conv(module) else next(kind for t, kind in _KINDS if isinstance(module, t))


class QuantWalk(Walk):
    """``values`` are names of tensors, tuples of names, sizes and views (`sw.quant.views`). What functions and methods are is a
    subclass's to say.
    """

    tensors = (str, Grouped)
    forms = FORMS
    missing = "has no integer operation"

    def __init__(self, model: nn.Module, graph: fx.Graph, recipe: Recipe) -> None:
        super().__init__(model, graph)
        self.recipe = recipe
        self.flat: set[fx.Node] = set()
        self.cut: dict[tuple[Pieces, int], str] = {}
        self.build = Builder(self._sole)

    def run(self) -> Lowered:
        self.visit()
        self.build.result.problems = self.problems
        return self.build.result

    # -- helpers ------------------------------------------------------------------------------------------------

    def _sole(self, tensor: str) -> bool:
        """Whether nothing but one chain of layers reads a tensor, so that a following layer may be fused into it."""
        return all(sum(not asks_size(user) for user in n.users) == 1
                   for n, value in self.values.items() if isinstance(value, str) and value == tensor)

    def _read_later(self, node: fx.Node) -> bool:
        """Whether what a node changes in place is read behind it, other than through the node."""
        tensor = self.values[node.all_input_nodes[0]]
        same = [n for n, value in self.values.items() if isinstance(value, str) and value == tensor]
        return any(self.order[user] > self.order[node] and not asks_size(user) for n in same for user in n.users)

    def _alias(self, node: fx.Node) -> Any:
        source = node.all_input_nodes[0]
        if source in self.flat:
            self.flat.add(node)
        return self.values[source]

    def _add(self, node: fx.Node, place: str, kind: str, source: nn.Module | None = None, **fields: Any) -> Any:
        """Draft a step whose inputs are the node's tensors, in order."""
        reads = [n for n in in_order(node) if not _is_size(self.values[n])]
        inputs = tuple(self.values[n] for n in reads)
        if not inputs or not all(isinstance(name, str) for name in inputs):
            return self.refuse(place, kind, "does not read tensors alone", "give it tensors that layers return")
        if kind in _ELEMENTWISE and all(n in self.flat for n in reads):
            self.flat.add(node)
        return self.build.add(place, kind, inputs, source, **fields)

    # -- nodes --------------------------------------------------------------------------------------------------

    def _placeholder(self, node: fx.Node) -> Any:
        if INPUT in (v for v in self.values.values() if isinstance(v, str)):
            return self.refuse(node.name, "input", "is a second input", "give the model one input tensor")
        self.flat.add(node)  # may be (N, features); a convolution does not mind
        return INPUT

    def _output(self, node: fx.Node) -> Any:
        found, result = node.args[0], self.build.result
        result.several = isinstance(found, (tuple, list))
        for item in found if isinstance(found, (tuple, list)) else [found]:
            value = self.values.get(item) if isinstance(item, fx.Node) else None
            if isinstance(value, str):
                result.outputs.append(value)
                result.flat.append(item in self.flat)
            elif value is not BROKEN:
                self.refuse("", "output", f"is {type(item if value is None else value).__name__}",
                            "return one tensor or a tuple of tensors")
        return None

    def _module(self, node: fx.Node) -> Any:
        return self._alias(node) if self.recipe.excludes(str(node.target)) else super()._module(node)

    def _function(self, node: fx.Node) -> Any:
        return self._alias(node) if self.recipe.excludes(self.place(node)) else super()._function(node)

    def _layer(self, node: fx.Node, place: str, module: nn.Module) -> Any:
        if found := check_module(place, module):
            self.problems.extend(found)
            return BROKEN
        if any(self.values[n] is BROKEN for n in node.all_input_nodes):
            return BROKEN
        return self._sound_layer(node, place, module)

    def _sound_layer(self, node: fx.Node, place: str, module: nn.Module) -> Any:
        if works_in_place(node, module) and self._read_later(node):
            return self.refuse(place, type(module).__name__, *CHANGES)
        if isinstance(module, ALIASES):
            return self._flatten(node, place, module.start_dim, module.end_dim) if isinstance(module, nn.Flatten) \
                else self._alias(node)
        if (bounds := bounds_of(module)) is not None:
            return self._on_tensor(node, place, lambda tensor: self.build.activate(place, tensor, bounds))
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            return self._norm(node, place, module)
        if isinstance(module, ChannelSplit):
            return self._on_tensor(node, place, lambda tensor: tuple(
                self._cut(f"{place}.{side}", Pieces(tensor, chunks=2), i) for i, side in enumerate(("left", "right"))))
        if isinstance(module, nn.ChannelShuffle):
            return self._add(node, place, "shuffle", groups=module.groups)
        return self._step(node, place, module, draft_kind(module))

    def _on_tensor(self, node: fx.Node, place: str, make: Callable[[str], Any]) -> Any:
        tensor = self._alias(node)
        return make(tensor) if isinstance(tensor, str) else \
            self.refuse(place, type(tensor).__name__, "is not a tensor here", "give the layer one tensor")

    def _step(self, node: fx.Node, place: str, module: nn.Module, kind: str) -> Any:
        if kind in WEIGHTED and self.once(place, module):
            return BROKEN
        if kind == "deform_conv" and len(in_order(node)) != 2:
            return self.refuse(place, type(module).__name__, "multiplies its samples by a mask", "leave the mask out")
        if kind == "linear":
            if node.all_input_nodes[0] not in self.flat:
                return self.refuse(place, "Linear", "reads a map of pixels", "put nn.Flatten() in front of it")
            self.flat.add(node)
        if isinstance(module, FlatMean):
            self.flat.add(node)
        return self._add(node, place, kind, module)

    def _flatten(self, node: fx.Node, place: str, start: Any, end: Any) -> Any:
        value = self.values[node.all_input_nodes[0]]
        if isinstance(value, Grouped) and (start, end) == (1, 2):
            return self._shuffle(place, value)
        if (start, end) not in ((1, -1), (1, 3)) or not isinstance(value, str):
            return self.refuse(place, "Flatten", f"flattens axes {start}..{end}", "flatten all axes but the batch: (1, -1)")
        self.flat.add(node)
        return value

    def _cut(self, place: str, whole: Pieces, index: int) -> Any:
        span = whole.span(index)
        if span is not None and (whole, index) not in self.cut:
            self.cut[whole, index] = self.build.add(place, "slice", (whole.tensor,), span=span)
        return None if span is None else self.cut[whole, index]

    def _shuffle(self, place: str, value: Grouped) -> Any:
        return self.build.add(place, "shuffle", (value.tensor,), groups=value.groups) if value.swapped else value.tensor

    def _norm(self, node: fx.Node, place: str, norm: Norm) -> Any:
        fold = self.recipe.layer(place).batch_norm == "fold"
        if isinstance(norm, nn.BatchNorm1d) and not self._is_vector(self.values[node.all_input_nodes[0]]):
            return self.refuse(place, "BatchNorm1d", "reads a map of pixels, flattened", "put BatchNorm2d before the flattening")
        return self.once(place, norm) or self._on_tensor(
            node, place, lambda tensor: self.build.normalise(place, tensor, norm, fold=fold))

    def _is_vector(self, tensor: Any) -> bool:
        """Whether a tensor surely has one pixel."""
        draft = self.build.by_name.get(tensor) if isinstance(tensor, str) else None
        if draft is None or draft.kind == "linear":
            return True
        pooled = isinstance(draft.source, nn.AdaptiveAvgPool2d) and draft.source.output_size in (1, (1, 1))
        return pooled or (draft.kind in _ELEMENTWISE and all(self._is_vector(t) for t in draft.inputs))


def _is_size(value: Any) -> bool:
    return isinstance(value, (Size, Sizes)) or (isinstance(value, list) and all(isinstance(v, Size) for v in value))
