"""`quantize_model`: an ordinary torch model and a recipe to a fixed-point model with the same layers by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from hw.spec.fixed import Rounding
from sw.quant.base import QuantOp
from sw.quant.finite import check_finite
from sw.quant.formats import OFFSET_FORMAT, activation_points, offset_groups, sharing_groups
from sw.quant.forms import SquareMean
from sw.quant.layers import (
    QuantConv2d,
    QuantDeformConv2d,
    QuantDeformDepthwise,
    QuantDepthwiseConv2d,
    QuantLayer,
    QuantLinear,
    QuantScale,
)
from sw.quant.lower import FOLDING, INPUT, WEIGHTED, Draft, Lowered, lower
from sw.quant.model import QuantModel, Step
from sw.quant.points import weight_point
from sw.quant.recipe import LayerRecipe, Recipe
from sw.quant.shapes import (
    QuantAdd,
    QuantAvgPool2d,
    QuantConcat,
    QuantMaxPool2d,
    QuantShuffle,
    QuantShuffleJoin,
    QuantSlice,
    QuantUpsample2x,
)
from sw.quant.tables import QuantClip, QuantTable
from sw.tracing.problems import Problem

__all__ = ["OFFSET_FORMAT", "UnsupportedModelError", "quantize_model", "unsupported"]


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

    BatchNorm is folded into the layer before it or, where it cannot be or the recipe says so, a layer of its own;
    activations that only limit go into the requantisation before them, others become tables. Raises UnsupportedModelError,
    which names every unsupported layer, RecipeError for a recipe that does not fit the model, and NonFiniteError for NaN or
    infinite weights.
    """
    recipe = recipe or Recipe()
    lowered = lower(model, recipe)
    if lowered.problems:
        raise UnsupportedModelError(lowered.problems)
    check_finite(model)
    places = [name for name, _ in model.named_modules() if name]
    recipe.check_patterns(dict.fromkeys([*places, *(d.name for d in lowered.drafts)]))
    groups = sharing_groups(lowered)
    layers = _layers(lowered, groups, recipe)
    return QuantModel(
        layers=layers, steps=[Step(name=d.name, inputs=d.inputs) for d in lowered.drafts], groups=groups,
        points=activation_points(lowered, groups, recipe), outputs=lowered.outputs, flat=lowered.flat,
        several=lowered.several, rounding=recipe.rounding, input_name=INPUT,
    )


def _layers(lowered: Lowered, groups: dict[str, str], recipe: Recipe) -> dict[str, QuantOp]:
    first = next((d for d in lowered.drafts if d.kind in FOLDING), None)  # a BatchNorm of the input is not meant
    offsets = offset_groups(lowered, groups, "deform")
    made: dict[str, QuantOp] = {}
    for draft in lowered.drafts:
        entry = recipe.layer(draft.name, first=draft is first)
        rounding = Rounding.RND if groups[draft.name] in offsets else entry.rounding
        assert rounding is not None
        make = _weighted if draft.kind in WEIGHTED else _MAKERS[draft.kind]
        made[draft.name] = make(draft, entry, rounding)
    return made


_WEIGHTED_TYPES: dict[str, type[QuantLayer]] = {
    "conv": QuantConv2d, "depthwise": QuantDepthwiseConv2d, "deform": QuantDeformDepthwise,
    "deform_conv": QuantDeformConv2d, "linear": QuantLinear,
}


def _weighted(draft: Draft, entry: LayerRecipe, rounding: Rounding) -> QuantLayer:
    source: Any = draft.source
    if draft.kind == "scale":
        return _scale(draft, entry, rounding)
    make: Callable[..., QuantLayer] = _WEIGHTED_TYPES[draft.kind]
    return make(source, draft.norm, point=weight_point(entry, source.weight.shape[0]), rounding=rounding, bounds=draft.bounds)


def _scale(draft: Draft, entry: LayerRecipe, rounding: Rounding) -> QuantScale:
    """A BatchNorm of its own: coefficients of 8 bits with a binary point per channel, whatever weights have."""
    norm: Any = draft.source
    wide = entry if entry.weight_format is not None else LayerRecipe(weight_bits=8, digit_kind="k_hot", per_channel=True)
    return QuantScale(norm, point=weight_point(wide, norm.num_features), rounding=rounding, bounds=draft.bounds)


def _max_pool(draft: Draft, entry: LayerRecipe, rounding: Rounding) -> QuantMaxPool2d:
    pool: Any = draft.source
    if isinstance(pool, nn.AdaptiveMaxPool2d):
        return QuantMaxPool2d(None)
    kernel = _one(pool.kernel_size)
    return QuantMaxPool2d(kernel, kernel if pool.stride is None else _one(pool.stride), _one(pool.padding))


def _avg_pool(draft: Draft, entry: LayerRecipe, rounding: Rounding) -> QuantAvgPool2d:
    pool: Any = draft.source
    if isinstance(pool, nn.AdaptiveAvgPool2d):
        return QuantAvgPool2d(None, cells=_two(pool.output_size), square=isinstance(pool, SquareMean), rounding=rounding,
                              bounds=draft.bounds)
    kernel = _two(pool.kernel_size)
    stride = _one(kernel if pool.stride is None else pool.stride)
    return QuantAvgPool2d(kernel, stride=stride, padding=_one(pool.padding), rounding=rounding, bounds=draft.bounds)


def _slice(draft: Draft, entry: LayerRecipe, rounding: Rounding) -> QuantSlice:
    assert draft.span is not None
    return QuantSlice(draft.span)


def _table(draft: Draft, entry: LayerRecipe, rounding: Rounding) -> QuantTable:
    assert draft.source is not None
    return QuantTable(draft.source, rounding=rounding, bounds=draft.bounds)


_MAKERS: dict[str, Callable[[Draft, LayerRecipe, Rounding], QuantOp]] = {
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "slice": _slice,
    "table": _table,
    "concat": lambda draft, entry, rounding: QuantConcat(),
    "shuffle": lambda draft, entry, rounding: QuantShuffle(draft.groups),
    "join": lambda draft, entry, rounding: QuantShuffleJoin(),
    "upsample": lambda draft, entry, rounding: QuantUpsample2x(),
    "add": lambda draft, entry, rounding: QuantAdd(rounding=rounding, bounds=draft.bounds),
    "clip": lambda draft, entry, rounding: QuantClip(rounding=rounding, bounds=draft.bounds),
}


def _one(value: Any) -> int:
    return int(value[0]) if isinstance(value, (tuple, list)) else int(value)


def _two(value: Any) -> tuple[int, int]:
    return (int(value[0]), int(value[1])) if isinstance(value, (tuple, list)) else (int(value), int(value))
