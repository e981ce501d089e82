"""The steps of a model while it is lowered: drafts by name, and what may be fused into what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn

from sw.quant.base import UNBOUNDED, Bounds
from sw.quant.spans import Chunk, Slice
from sw.tracing.problems import Problem

__all__ = ["FOLDING", "INPUT", "SHARING", "WEIGHTED", "Builder", "Draft", "Lowered"]

INPUT = "input"
FOLDING = ("conv", "depthwise", "deform", "deform_conv", "linear")
"""Kinds of step that a BatchNorm behind them is folded into."""

WEIGHTED = (*FOLDING, "scale")
SHARING = ("max_pool", "slice", "concat", "shuffle", "join", "upsample", "add", "clip")
"""Kinds of step whose inputs and output have one format."""

_ORDER_KEEPING = ("max_pool", "slice", "shuffle", "upsample")
"""Kinds of step that an activation may be moved through, to the layer before: they only choose and order values."""


@dataclass(kw_only=True)
class Draft:
    """One step to be: ``kind`` names it, ``inputs`` are tensors, its output tensor has its own name."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    source: nn.Module | None = None
    norm: nn.BatchNorm1d | nn.BatchNorm2d | None = None
    bounds: Bounds = UNBOUNDED
    span: Slice | Chunk | None = None
    groups: int = 1


@dataclass(kw_only=True)
class Lowered:
    """What tracing found. ``flat`` says of each output whether the model returns it as (N, features)."""

    drafts: list[Draft] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    flat: list[bool] = field(default_factory=list)
    several: bool = False
    problems: list[Problem] = field(default_factory=list)


class Builder:
    """Collects drafts. ``sole`` says of a tensor whether nothing but one chain of layers reads it."""

    def __init__(self, sole: Callable[[str], bool]) -> None:
        self.sole = sole
        self.result = Lowered()
        self.by_name: dict[str, Draft] = {}

    def add(
        self, place: str, kind: str, inputs: tuple[str, ...], source: nn.Module | None = None, *,
        bounds: Bounds = UNBOUNDED, span: Slice | Chunk | None = None, groups: int = 1,
    ) -> str:
        """Draft a step; returns its tensor, which is ``place``, with a number if that is taken."""
        name, count = place, 1
        while name in self.by_name:
            count += 1
            name = f"{place}_{count}"
        draft = Draft(name=name, kind=kind, inputs=inputs, source=source, bounds=bounds, span=span, groups=groups)
        self.result.drafts.append(draft)
        self.by_name[name] = draft
        return name

    def activate(self, place: str, tensor: str, bounds: Bounds) -> str:
        """An activation with limits: fused into what makes the tensor, or else a step of its own."""
        return tensor if self._fuse(tensor, bounds) else self.add(place, "clip", (tensor,), bounds=bounds)

    def _fuse(self, tensor: str, bounds: Bounds) -> bool:
        draft = self.by_name.get(tensor)
        if draft is None or not self.sole(tensor):
            return False
        if draft.kind in _ORDER_KEEPING:
            return self._fuse(draft.inputs[0], bounds)
        if draft.kind in ("concat", "join"):
            return False
        draft.bounds = draft.bounds.then(bounds)
        return True

    def normalise(self, place: str, tensor: str, norm: nn.BatchNorm1d | nn.BatchNorm2d, *, fold: bool) -> str:
        """A BatchNorm: folded into the layer before it where ``fold`` allows and it can be, else a layer of its own."""
        draft = self.by_name.get(tensor)
        if fold and draft is not None and draft.kind in FOLDING and draft.norm is None and not draft.bounds.limited \
                and self.sole(tensor):
            draft.norm = norm
            return tensor
        return self.add(place, "scale", (tensor,), norm)
