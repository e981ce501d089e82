"""`quantize_model`: an ordinary torch model and a recipe to a fixed-point model with the same layers by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from hw.spec.fixed import FixedFormat, Rounding
from sw.quant.layers import QuantConv2d, QuantDeformDepthwise, QuantDepthwiseConv2d, QuantLinear, QuantOp
from sw.quant.lower import INPUT, WEIGHTED, Draft, Lowered, Problem, lower
from sw.quant.model import QuantModel, Step
from sw.quant.points import ActivationPoint
from sw.quant.recipe import Recipe, RecipeError
from sw.quant.shapes import (
    QuantAdd,
    QuantAvgPool2d,
    QuantMaxPool2d,
    QuantShuffleJoin,
    QuantSplit,
    QuantUpsample2x,
)

__all__ = ["OFFSET_FORMAT", "UnsupportedModelError", "quantize_model", "unsupported"]

OFFSET_FORMAT = FixedFormat(8, 0)
"""Offsets of a square deformable convolution: whole pixels, rounded half up."""


class UnsupportedModelError(ValueError):
    """A model with layers that have no integer operation; ``problems`` lists every one."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        lines = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"the model cannot be quantised, {len(problems)} layer(s) are not supported:\n{lines}")


def unsupported(model: nn.Module, recipe: Recipe | None = None) -> list[Problem]:
    """Every layer of a model that cannot be quantised, with its place; empty if there is none."""
    return lower(model, recipe or Recipe()).problems


def quantize_model(model: nn.Module, recipe: Recipe | None = None) -> QuantModel:
    """A fixed-point copy of a model, in FLOAT mode; the next step is its `calibrate`.

    BatchNorm is folded into the layer before it, ReLU into its requantisation. Raises UnsupportedModelError, which names
    every unsupported layer, and RecipeError for a recipe that does not fit the model.
    """
    recipe = recipe or Recipe()
    lowered = lower(model, recipe)
    if lowered.problems:
        raise UnsupportedModelError(lowered.problems)
    recipe.check_patterns([name for name, _ in model.named_modules() if name])
    groups = _sharing_groups(lowered)
    offsets = {groups[d.inputs[1]] for d in lowered.drafts if d.kind == "deform"}
    points = _points(lowered, groups, offsets, recipe)
    layers = {d.name: _layer(d, recipe, first=d is _first(lowered), offset=groups[d.name] in offsets)
              for d in lowered.drafts}
    return QuantModel(
        layers=layers, steps=[Step(name=d.name, inputs=d.inputs) for d in lowered.drafts], groups=groups, points=points,
        outputs=lowered.outputs, flat=lowered.flat, several=lowered.several, rounding=recipe.rounding, input_name=INPUT,
    )


def _first(lowered: Lowered) -> Draft | None:
    return next((d for d in lowered.drafts if d.kind in WEIGHTED), None)


_SHARING = ("max_pool", "split", "join", "upsample", "add")


def _sharing_groups(lowered: Lowered) -> dict[str, str]:
    """Tensor name to its group's key, the name of the group's first tensor."""
    parent = {INPUT: INPUT} | {d.name: d.name for d in lowered.drafts}

    def find(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    order = {name: i for i, name in enumerate(parent)}
    for draft in lowered.drafts:
        if draft.kind in _SHARING:
            for other in draft.inputs:
                first, second = sorted((find(draft.name), find(other)), key=order.__getitem__)
                parent[second] = first
    return {name: find(name) for name in parent}


def _points(
    lowered: Lowered, groups: dict[str, str], offsets: set[str], recipe: Recipe
) -> dict[str, ActivationPoint]:
    unsigned = _non_negative(lowered, groups, recipe)
    fixed: dict[str, FixedFormat] = dict.fromkeys(offsets, OFFSET_FORMAT)
    if recipe.input_format is not None:
        if groups[INPUT] in offsets and recipe.input_format != OFFSET_FORMAT:
            raise RecipeError(f"the input is used as offsets: its format must be {OFFSET_FORMAT}, not {recipe.input_format}")
        fixed[groups[INPUT]] = recipe.input_format
    return {key: ActivationPoint(width=fixed[key].width if key in fixed else _width(key, lowered, groups, recipe),
                                 signed=key not in unsigned, fixed=fixed.get(key))
            for key in dict.fromkeys(groups.values())}


def _width(key: str, lowered: Lowered, groups: dict[str, str], recipe: Recipe) -> int:
    makers = {d.name: recipe.layer(d.name).activation_bits for d in lowered.drafts
              if groups[d.name] == key and d.kind not in _SHARING}
    if groups[INPUT] == key:
        makers[INPUT] = recipe.activation_bits
    widths = set(makers.values())
    if len(widths) > 1:
        raise RecipeError(f"layers that share one format must have one activation_bits, not {makers}")
    return widths.pop() or recipe.activation_bits


def _non_negative(lowered: Lowered, groups: dict[str, str], recipe: Recipe) -> set[str]:
    """Groups whose tensors are all non-negative: the largest set that the layers do not contradict."""
    good = set(groups.values())
    if recipe.input_format is None or recipe.input_format.signed:
        good.discard(groups[INPUT])
    before = -1
    while before != len(good):
        before = len(good)
        for draft in lowered.drafts:
            from_inputs = draft.kind in (*_SHARING, "avg_pool") and all(groups[t] in good for t in draft.inputs)
            if not (draft.relu or from_inputs):
                good.discard(groups[draft.name])
    return good


def _layer(draft: Draft, recipe: Recipe, *, first: bool, offset: bool) -> QuantOp:
    entry = recipe.layer(draft.name, first=first)
    rounding = Rounding.RND if offset else entry.rounding
    assert rounding is not None
    if draft.kind in WEIGHTED:
        make: Callable[..., QuantOp] = _WEIGHTED_TYPES[draft.kind]
        return make(draft.source, draft.norm, weight_bits=entry.weight_bits, rounding=rounding, relu=draft.relu)
    if draft.kind == "avg_pool":
        return _avg_pool(draft, rounding)
    if draft.kind == "max_pool":
        return _max_pool(draft.source)
    if draft.kind == "split":
        return QuantSplit(draft.half)
    if draft.kind == "add":
        return QuantAdd(relu=draft.relu)
    return QuantShuffleJoin() if draft.kind == "join" else QuantUpsample2x()


_WEIGHTED_TYPES: dict[str, type[QuantOp]] = {
    "conv": QuantConv2d, "depthwise": QuantDepthwiseConv2d, "deform": QuantDeformDepthwise, "linear": QuantLinear,
}


def _max_pool(pool: Any) -> QuantMaxPool2d:
    kernel = _one(pool.kernel_size)
    return QuantMaxPool2d(kernel, kernel if pool.stride is None else _one(pool.stride), _one(pool.padding))


def _avg_pool(draft: Draft, rounding: Rounding) -> QuantAvgPool2d:
    pool: Any = draft.source
    if isinstance(pool, nn.AdaptiveAvgPool2d):
        return QuantAvgPool2d(None, rounding=rounding, relu=draft.relu)
    size = pool.kernel_size
    kernel = (int(size[0]), int(size[1])) if isinstance(size, (tuple, list)) else (int(size), int(size))
    stride = _one(kernel if pool.stride is None else pool.stride)
    return QuantAvgPool2d(kernel, stride=stride, padding=_one(pool.padding), rounding=rounding, relu=draft.relu)


def _one(value: Any) -> int:
    return int(value[0]) if isinstance(value, (tuple, list)) else int(value)
