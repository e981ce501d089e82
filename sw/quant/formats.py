"""Formats of activations: which tensors share one, which are unsigned, which are given, and what cannot be."""

from __future__ import annotations

from dataclasses import dataclass

from hw.spec.fixed import FixedFormat
from hw.spec.ops import SQUARE_FRAC_MAX
from sw.quant.builder import INPUT, SHARING, Draft, Lowered
from sw.quant.points import ActivationPoint
from sw.quant.recipe import Recipe, RecipeError
from sw.quant.tables import is_non_negative

__all__ = ["OFFSET_FORMAT", "OffsetPoint", "activation_points", "offset_groups", "sharing_groups"]

OFFSET_FORMAT = FixedFormat(8, 0)
"""Offsets of a square deformable convolution, unless the recipe gives others: whole pixels, rounded half up."""

_OFFSET_FRAC = (0, 7)
_TABLE_BITS = 8
"""A tensor that only tables read has the byte that a table is indexed by."""


class OffsetPoint(ActivationPoint):
    """The format of fractional offsets: signed, with 0..7 fraction bits."""

    @property
    def limits(self) -> tuple[int, int]:
        return _OFFSET_FRAC if self.fixed is None else super().limits


def sharing_groups(lowered: Lowered) -> dict[str, str]:
    """Tensor name to its group's key, the name of the group's first tensor."""
    parent = {INPUT: INPUT} | {d.name: d.name for d in lowered.drafts}

    def find(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    order = {name: i for i, name in enumerate(parent)}
    for draft in lowered.drafts:
        if draft.kind in SHARING:
            for other in draft.inputs:
                first, second = sorted((find(draft.name), find(other)), key=order.__getitem__)
                parent[second] = first
    return {name: find(name) for name in parent}


def offset_groups(lowered: Lowered, groups: dict[str, str], kind: str) -> set[str]:
    """Groups of the tensors that are offsets of a ``kind`` of deformable convolution."""
    return {groups[d.inputs[1]] for d in lowered.drafts if d.kind == kind}


def activation_points(lowered: Lowered, groups: dict[str, str], recipe: Recipe) -> dict[str, ActivationPoint]:
    """Every sharing group's format, learned or given. Raises RecipeError for given ones that do not fit."""
    return _Formats(lowered, groups, recipe).points()


@dataclass(frozen=True)
class _Formats:
    lowered: Lowered
    groups: dict[str, str]
    recipe: Recipe

    def points(self) -> dict[str, ActivationPoint]:
        whole, parts = (offset_groups(self.lowered, self.groups, kind) for kind in ("deform", "deform_conv"))
        unsigned = self._non_negative() - parts
        found: dict[str, ActivationPoint] = {}
        for key in dict.fromkeys(self.groups.values()):
            fixed = self._given(key, unsigned)
            if key in whole:
                fixed = self._offset_format(key, fixed)
            if key in parts and fixed is not None:
                self._check_fractional(key, fixed)
            make = OffsetPoint if key in parts else ActivationPoint
            found[key] = make(width=self._width(key) if fixed is None else fixed.width, signed=key not in unsigned, fixed=fixed)
        return found

    def _members(self, key: str) -> list[Draft]:
        return [d for d in self.lowered.drafts if self.groups[d.name] == key]

    # -- signs --------------------------------------------------------------------------------------------------

    def _non_negative(self) -> set[str]:
        """Groups whose tensors are all non-negative: the largest set that the layers do not contradict."""
        good = set(self.groups.values())
        before = -1
        while before != len(good):
            before = len(good)
            good -= {self.groups[name] for name in self._signed_tensors(good)}
        return good

    def _signed_tensors(self, good: set[str]) -> list[str]:
        """Tensors that can be negative if just the groups in ``good`` cannot."""
        unsigned_input = self.recipe.input_format is not None and not self.recipe.input_format.signed
        found = [] if unsigned_input else [INPUT]
        for d in self.lowered.drafts:
            passes = d.kind in (*SHARING, "avg_pool") and all(self.groups[t] in good for t in d.inputs)
            never = d.kind == "table" and d.source is not None and is_non_negative(d.source)
            if not (d.bounds.non_negative or passes or never):
                found.append(d.name)
        return found

    # -- given formats ------------------------------------------------------------------------------------------

    def _given(self, key: str, unsigned: set[str]) -> FixedFormat | None:
        given = {d.name: fmt for d in self._members(key) if (fmt := self.recipe.layer(d.name).activation_format) is not None}
        if self.groups[INPUT] == key and self.recipe.input_format is not None:
            given[INPUT] = self.recipe.input_format
        if not given:
            return None
        if len({fmt.signed for fmt in given.values()}) > 1:
            raise RecipeError(f"tensors that share one format must have one sign, and {_list(given)} are given signed and "
                              "unsigned formats: a sum, a concatenation or a pool joins them")
        if len(set(given.values())) > 1:
            raise RecipeError(f"tensors that share one format must be given one, not {_list(given)}")
        fmt = next(iter(given.values()))
        if not fmt.signed and key not in unsigned:
            joins = {d.name for d in self.lowered.drafts if d.kind in SHARING}  # they are as their inputs are
            able = [t for t in self._signed_tensors(self._non_negative()) if self.groups[t] == key and t not in joins]
            if able:
                raise RecipeError(f"the format {fmt}, given for {_list(given)}, must be signed: {', '.join(able)} can be "
                                  "negative and shares it")
        return fmt

    def _offset_format(self, key: str, fixed: FixedFormat | None) -> FixedFormat:
        if fixed is None:
            return OFFSET_FORMAT
        if fixed not in [FixedFormat(OFFSET_FORMAT.width, frac) for frac in range(SQUARE_FRAC_MAX + 1)]:
            what = "the input" if self.groups[INPUT] == key else key
            raise RecipeError(f"{what} is used as offsets of a square deformable convolution: its format must be {OFFSET_FORMAT}, or "
                              f"have up to {SQUARE_FRAC_MAX} fraction bits, not {fixed}")
        return fixed

    @staticmethod
    def _check_fractional(key: str, fixed: FixedFormat) -> None:
        if not fixed.signed or not _OFFSET_FRAC[0] <= fixed.frac <= _OFFSET_FRAC[1]:
            raise RecipeError(f"{key} is used as offsets: its format must be signed with {_OFFSET_FRAC[0]}.."
                              f"{_OFFSET_FRAC[1]} fraction bits, not {fixed}")

    # -- widths -------------------------------------------------------------------------------------------------

    def _width(self, key: str) -> int:
        if self._only_tables_read(key):
            return _TABLE_BITS
        makers = {d.name: self.recipe.layer(d.name).activation_bits for d in self._members(key) if d.kind not in SHARING}
        if self.groups[INPUT] == key:
            makers[INPUT] = self.recipe.activation_bits
        widths = set(makers.values())
        if len(widths) > 1:
            raise RecipeError(f"layers that share one format must have one activation_bits, not {makers}")
        return widths.pop() or self.recipe.activation_bits

    def _only_tables_read(self, key: str) -> bool:
        members = {d.name for d in self._members(key)}
        readers = [d.kind for d in self.lowered.drafts if members & set(d.inputs)]
        seen = INPUT in self.lowered.outputs or members & set(self.lowered.outputs)
        return bool(readers) and set(readers) == {"table"} and not seen and self.groups[INPUT] != key


def _list(given: dict[str, FixedFormat]) -> str:
    return ", ".join(f"{name} ({fmt})" for name, fmt in given.items())
