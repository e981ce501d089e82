"""The memory plan: which region and words hold each tensor. Scratch words are reused when their tensor has been read last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sw.compiler.emit import INPUT, OUTPUT, SCRATCH, Axis
from sw.compiler.slots import Slots, View
from sw.compiler.steps import Step
from sw.graph import TensorSpec


@dataclass(frozen=True, kw_only=True)
class Place:
    """First word of a tensor that owns memory."""

    region: int
    offset: int


@dataclass(frozen=True, kw_only=True)
class Operand:
    """A tensor as a step sees it: ``pitch`` words from pixel to pixel, ``words`` of them its own from ``offset`` on."""

    region: int
    offset: int
    pitch: int
    rows: int
    cols: int
    slots: Slots
    spec: TensorSpec

    @property
    def words(self) -> int:
        return len(self.slots) // 16

    def at(self, row: int, word: int = 0, col: int = 0) -> tuple[int, int]:
        """(region, word) of a pixel's channel word."""
        return self.region, self.offset + (row * self.cols + col) * self.pitch + word

    def axes(self, rows: int, words: int, cols: int | None = None, step: int = 1) -> list[Axis]:
        """Loops over some words of ``cols`` pixels (all, if not given) of some rows, packed on chip; every ``step``-th both ways."""
        cols = self.cols if cols is None else cols
        return [
            Axis(count=rows, memory=step * self.cols * self.pitch, chip=cols * words),
            Axis(count=cols, memory=step * self.pitch, chip=words),
            Axis(count=words, memory=1, chip=1),
        ]


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """Places of all tensors that own memory, and the words of each region."""

    places: Mapping[str, Place]
    sizes: Mapping[int, int]
    views: Mapping[str, View]
    tensors: Mapping[str, TensorSpec]

    def operand(self, name: str) -> Operand:
        view, spec = self.views[name], self.tensors[name]
        place, base = self.places[view.base], self.views[view.base]
        _, rows, cols = spec.shape
        return Operand(
            region=place.region, offset=place.offset + view.word, pitch=base.words, rows=rows, cols=cols, slots=view.slots, spec=spec
        )


@dataclass(frozen=True, kw_only=True)
class Life:
    """A scratch tensor of ``words`` words, in use from step ``first`` to step ``last``."""

    name: str
    words: int
    first: int
    last: int


def plan_memory(
    inputs: Sequence[str], outputs: Sequence[str], views: Mapping[str, View], tensors: Mapping[str, TensorSpec], steps: Sequence[Step]
) -> MemoryPlan:
    """Inputs and outputs one after the other in their regions, all else packed into scratch."""
    words = {name: view.words * tensors[name].shape[1] * tensors[name].shape[2] for name, view in views.items() if view.base == name}
    places: dict[str, Place] = {}
    sizes = {INPUT: 0, OUTPUT: 0}
    for region, names in ((INPUT, inputs), (OUTPUT, outputs)):
        for name in dict.fromkeys(names):
            places[name] = Place(region=region, offset=sizes[region])
            sizes[region] += words[name]
    scratch = pack([life for life in lives(steps, views, words) if life.name not in places])
    places |= {name: Place(region=SCRATCH, offset=at) for name, at in scratch.items()}
    sizes[SCRATCH] = max((at + words[name] for name, at in scratch.items()), default=0)
    return MemoryPlan(places=places, sizes=sizes, views=views, tensors=tensors)


def lives(steps: Sequence[Step], views: Mapping[str, View], words: Mapping[str, int]) -> list[Life]:
    """When each tensor that owns memory is in use: from the first step that writes any of it (or the start) to the last reader."""
    last = {views[name].base: i for i, step in enumerate(steps) for name in step.reads}
    first = dict.fromkeys(last, 0) | {views[step.target].base: i for i, step in reversed(list(enumerate(steps)))}
    return [Life(name=name, words=words[name], first=i, last=max(i, last.get(name, i))) for name, i in first.items()]


def pack(tensors: Sequence[Life]) -> dict[str, int]:
    """First words such that no two tensors in use at once overlap: the largest first, each as low as it can."""
    placed: list[tuple[Life, int]] = []
    for life in sorted(tensors, key=lambda t: (-t.words, t.first, t.name)):
        at = 0
        for other, start in sorted(placed, key=lambda p: p[1]):
            apart = life.last < other.first or other.last < life.first
            if not apart and at < start + other.words and start < at + life.words:
                at = start + other.words
        placed.append((life, at))
    return {life.name: at for life, at in placed}
