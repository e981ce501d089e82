"""From an ordinary torch model to a list of drafts: which layers there are, what feeds them, and what is unsupported.

The model is traced with torch.fx, so that its own forward method says what is connected. Every problem is collected with
the dotted place of its layer; nothing stops at the first one.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from sw.quant.builder import FOLDING, INPUT, WEIGHTED, Draft, Lowered
from sw.quant.deform import DeformConv2d, deform_conv2d
from sw.quant.primitives import ChannelSplit, ShuffleJoin, SquareDeform
from sw.quant.recipe import Recipe
from sw.quant.spans import Size
from sw.quant.supported import check_module, is_deform_conv
from sw.quant.views import Grouped, Pieces, Sizes, pieces, reshape, slice_of, transpose
from sw.quant.walk import QuantWalk
from sw.tracing.problems import Problem
from sw.tracing.walk import CHANGES, leaves, trace, works_in_place

__all__ = ["FOLDING", "INPUT", "WEIGHTED", "Draft", "Lowered", "lower"]


class _Tracer(fx.Tracer):
    def __init__(self) -> None:
        super().__init__(autowrap_functions=(deform_conv2d,))

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        leaf = isinstance(m, (ChannelSplit, ShuffleJoin, SquareDeform)) or is_deform_conv(m)
        return leaf or super().is_leaf_module(m, module_qualified_name)


def lower(model: nn.Module, recipe: Recipe) -> Lowered:
    """Trace a model and draft its steps; problems are in the result, never raised."""
    graph = trace(_Tracer(), model)
    return Lowered(problems=[*_by_type(model, recipe), graph]) if isinstance(graph, Problem) else _Lowering(model, graph, recipe).run()


def _by_type(model: nn.Module, recipe: Recipe) -> list[Problem]:
    """The unsupported layers that types alone show, for a model that cannot be traced."""
    return [problem for name, m in leaves(model) if not recipe.excludes(name) for problem in check_module(name, m)]


_ADVICE = {
    "mean": "take the mean over (2, 3), or use nn.AdaptiveAvgPool2d(1)",
    "view": "use torch.flatten(x, 1), or group channels and exchange axes 1 and 2 for a shuffle",
    "reshape": "use torch.flatten(x, 1), or group channels and exchange axes 1 and 2 for a shuffle",
    "getitem": "slice channels as x[:, a:b] only",
    "add": "add two tensors of one shape; a constant belongs into a bias",
    "mul": "products of tensors or with constants have no operation: put a constant into weights",
    "softmax": "exclude it in the recipe: the largest logit does not change",
    "log_softmax": "exclude it in the recipe: the largest logit does not change",
    "deform_conv2d": f"use the layer {DeformConv2d.__module__}.{DeformConv2d.__name__}",
    "conv2d": "use nn.Conv2d", "linear": "use nn.Linear", "batch_norm": "use nn.BatchNorm2d",
}


class _Lowering(QuantWalk):
    """What functions and methods are beside layers: sizes and views, and joins of tensors."""

    advice = _ADVICE

    def _structure(self, node: fx.Node, place: str, target: Any, arguments: Any, options: Any) -> Any:
        handler = _STRUCTURE.get(target)
        return None if handler is None else handler(self, node, place, *arguments, **options)

    def _add_tensors(self, node: fx.Node, place: str, a: Any, b: Any) -> Any:
        if works_in_place(node) and self._read_later(node):
            return self.refuse(place, "add", *CHANGES)
        return self._add(node, place, "add") if isinstance(a, str) and isinstance(b, str) else None

    def _concat(self, node: fx.Node, place: str, tensors: Any, dim: int = 0) -> Any:
        if dim not in (1, -3) or not isinstance(tensors, (tuple, list)):
            return None
        return self._add(node, place, "concat") if len(tensors) > 1 else tensors[0]

    def _chunk(self, node: fx.Node, place: str, tensor: Any, chunks: Any, dim: int = 0) -> Any:
        cuts = isinstance(tensor, str) and dim in (1, -3) and isinstance(chunks, int) and chunks > 0
        return Pieces(tensor, chunks=chunks) if cuts else None

    def _split(self, node: fx.Node, place: str, tensor: Any, split_size_or_sections: Any = 0, dim: int = 0, **options: Any) -> Any:
        sizes = options.get("split_size", split_size_or_sections)
        return pieces(tensor, sizes) if isinstance(tensor, str) and dim in (1, -3) else None

    def _getitem(self, node: fx.Node, place: str, value: Any, index: Any) -> Any:
        if isinstance(value, Sizes):
            return value.at(index)
        if isinstance(value, (tuple, list)) and isinstance(index, int):
            return value[index]
        if isinstance(value, Pieces) and isinstance(index, int):
            return self._cut(f"{self.place(node.all_input_nodes[0])}.{index}", value, index)
        if isinstance(value, str) and (span := slice_of(index)) is not None:
            return self._add(node, place, "slice", span=span)
        return None

    def _size(self, node: fx.Node, place: str, value: Any, dim: Any = None) -> Any:
        return Sizes() if dim is None else Sizes().at(dim)

    def _getattr(self, node: fx.Node, place: str, value: Any, name: str) -> Any:
        return Sizes() if name == "shape" else self._alias(node) if name == "data" else None

    def _reshape(self, node: fx.Node, place: str, value: Any, *sizes: Any, **options: Any) -> Any:
        wanted = options.get("shape", sizes)
        if len(wanted) == 1 and isinstance(wanted[0], (tuple, list)):
            wanted = wanted[0]
        made = reshape(value, wanted) if isinstance(value, (str, Grouped)) else None
        if made == "flat":
            self.flat.add(node)
            return value
        if made == "map" and isinstance(value, Grouped):
            return self._shuffle(place, value)
        return self._alias(node) if made == "map" else made

    def _transpose(self, node: fx.Node, place: str, value: Any, *axes: Any) -> Any:
        wanted = axes[0] if len(axes) == 1 and isinstance(axes[0], (tuple, list)) else axes
        return transpose(value, wanted) if isinstance(value, Grouped) else None

    def _same(self, node: fx.Node, place: str, *_: Any, **__: Any) -> Any:
        return self._alias(node)

    def _arithmetic(self, node: fx.Node, place: str, a: Any, b: Any) -> Any:
        if not isinstance(a, Size) or not isinstance(b, int) or b < 1:
            return b.mul(a) if isinstance(b, Size) and isinstance(a, int) and node.target is operator.mul else None
        return a.floordiv(b) if node.target is operator.floordiv else a.mul(b)


Handler = Callable[..., Any]


def _table(*rows: tuple[Handler, tuple[Any, ...]]) -> dict[Any, Handler]:
    return {target: handler for handler, targets in rows for target in targets}


_STRUCTURE = _table(
    (_Lowering._add_tensors, (operator.add, operator.iadd, torch.add, "add", "add_")),
    (_Lowering._concat, (torch.cat, torch.concat, torch.concatenate)),
    (_Lowering._chunk, (torch.chunk, "chunk")),
    (_Lowering._split, (torch.split, "split")),
    (_Lowering._getitem, (operator.getitem,)),
    (_Lowering._size, ("size",)),
    (_Lowering._getattr, (getattr,)),
    (_Lowering._reshape, ("view", "reshape", torch.reshape)),
    (_Lowering._transpose, (torch.transpose, "transpose", torch.permute, "permute", torch.swapaxes, "swapaxes")),
    (_Lowering._same, ("contiguous", "clone", "detach", F.dropout, F.dropout2d, F.alpha_dropout, torch.dropout)),
    (_Lowering._arithmetic, (operator.floordiv, operator.mul)),
)
