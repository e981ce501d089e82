"""Where each tensor's channels lie: slots of 16-channel words, and views into other tensors' words.

A shuffle is other numbers on the same slots; a slice is free where its channels fill whole words, a concatenation where its parts
can be written into their words of it. So a tensor that will be sliced is stored with each part on words of its own, and where a
part has h channels on H = ceil16(h) slots, channel i stands at slot floor(i * H / h), on the right side of a zip half a step
later: then the first h channels of a zip of such parts fill the first H slots again, unit after unit. Where h is a multiple of 16
all of this is the plain order. So are offset maps of deformable convolutions, where a tap's two offsets must lie side by side. Slots
without a channel are pads; what they hold is of no matter (their weights are 0).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from hw.spec.ops import (
    Add,
    AvgPool2d,
    Clip,
    Concat,
    DeformConv2d,
    DeformDepthwiseConv2d,
    DepthwiseConv2d,
    MaxPool2d,
    Scale,
    Shuffle,
    ShuffleJoin,
    Slice,
    Table,
    Upsample2x,
)
from hw.spec.program import WORD_BYTES, default_slots
from sw.compiler.fuse import VIEWS, Engine, Unit, is_depthwise, users
from sw.graph import IntegerGraph, Node

Slots = tuple[int, ...]
KEEPS_SLOTS = (
    Add, AvgPool2d, Clip, DeformDepthwiseConv2d, DepthwiseConv2d, MaxPool2d, Scale, Table, Upsample2x,
)  # fmt: skip
"""Operations whose output channels lie where an input's lie."""

SPARSE_WORDS = 4
"""Words that a tensor may have for the sake of its slices, if that is more than twice what its channels need."""


@dataclass(frozen=True, kw_only=True)
class View:
    """A tensor's place in ``base``, the tensor that owns the memory: its pixels' words start at ``word``."""

    base: str
    word: int
    slots: Slots

    @property
    def words(self) -> int:
        return len(self.slots) // WORD_BYTES


@dataclass(frozen=True, kw_only=True)
class Part:
    """A tensor that must be copied into a concatenation, to the words from ``word`` on."""

    node: Node
    tensor: str
    word: int


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Places of all tensors: their views, the concatenations' parts to copy, and slices to gather channel by channel."""

    views: Mapping[str, View]
    parts: tuple[Part, ...]
    gathers: tuple[Node, ...]


def ceil16(channels: int) -> int:
    return -(-channels // WORD_BYTES) * WORD_BYTES


def spread(channels: int, size: int, *, odd: bool = False) -> Slots:
    """Channels spread over ``size`` slots, in order; ``odd`` for the right side of a zip (half a step later)."""
    slots = [-1] * size
    for i in range(channels):
        slots[(2 * i + odd) * size // (2 * channels)] = i
    return tuple(slots)


def shifted(slots: Sequence[int], by: int) -> Slots:
    """The same slots with channel numbers ``by`` higher."""
    return tuple(s + by if s >= 0 else -1 for s in slots)


def segments(channels: int, cuts: set[int], *, plain: bool = False) -> Slots:
    """A tensor that will be sliced at ``cuts``: the channels between two cuts on whole words, spread over them or in plain order."""
    borders = sorted(cuts | {0, channels})
    sizes = [(start, stop - start) for start, stop in pairwise(borders)]
    return tuple(
        s for start, size in sizes for s in shifted(default_slots(size) if plain else spread(size, ceil16(size)), start)
    )


def zip_slots(left: Slots, right: Slots) -> Slots:
    """Slots of the joined tensor: 2i from the left's slot i, 2i + 1 from the right's."""
    pairs = zip(left, right, strict=True)
    return tuple(s for a, b in pairs for s in (2 * a if a >= 0 else -1, 2 * b + 1 if b >= 0 else -1))


def sliced(slots: Slots, start: int, stop: int) -> tuple[int, Slots] | None:
    """(first word, slots) of the words that hold channels start..stop-1 and no other; None if there are none."""
    inside = [i for i, s in enumerate(slots) if start <= s < stop]
    first, last = inside[0] // WORD_BYTES * WORD_BYTES, ceil16(inside[-1] + 1)
    part = slots[first:last]
    if sum(s >= 0 for s in part) != stop - start:
        return None
    return first // WORD_BYTES, shifted(part, -start)


def pair_places(slots: Slots, pairs: int, first: int = 0) -> list[tuple[int, int]] | None:
    """(word, pair of lanes in it) of each two channels from ``first`` on; None if some are not in an even lane and the next."""
    places = []
    for channel in range(first, first + 2 * pairs, 2):
        at = slots.index(channel)
        if at % 2 or slots[at + 1] != channel + 1:
            return None
        places.append((at // WORD_BYTES, at % WORD_BYTES // 2))
    return places


def shuffled(slots: Slots, order: np.ndarray) -> Slots:
    """Slots under new numbers: ``order`` holds the old channel of each new one."""
    new = np.argsort(order)
    return tuple(int(new[s]) if s >= 0 else -1 for s in slots)


def right_side(left: Slots) -> Slots:
    """Slots of the tensor that is zipped with ``left``: as many channels on as many slots, half a step later."""
    return spread(sum(s >= 0 for s in left), len(left), odd=True)


def assign_layout(graph: IntegerGraph, units: Sequence[Unit], skip: set[str]) -> Layout:
    """A view of every tensor that exists; nodes named in ``skip`` get memory of their own."""
    return _Assignment(graph, units, skip).run()


class _Assignment:
    """Goes through a graph in order: each tensor's slots, and in which other tensor's words it lies."""

    def __init__(self, graph: IntegerGraph, units: Sequence[Unit], skip: set[str]) -> None:
        self.graph, self.skip = graph, skip
        self.units = {unit.output: unit for unit in units}
        self.readers = users(graph)
        self.slots: dict[str, Slots] = {}
        self.inside: dict[str, tuple[str, int]] = {}
        self.parts: list[Part] = []
        self.gathers: list[Node] = []

    def run(self) -> Layout:
        for name in self.graph.inputs:
            self.slots[name] = self._wish(name)
        for node in self.graph.nodes:
            if node.name in self.skip:
                self.slots[node.output] = default_slots(self._channels(node.output))
            elif isinstance(node.operation, VIEWS):
                {Slice: self._slice, Shuffle: self._shuffle, Concat: self._concat}[type(node.operation)](node)
            elif node.output in self.units:
                self.slots[node.output] = self._of_unit(self.units[node.output])
        views = {name: self._view(name) for name in self.slots}
        return Layout(views=views, parts=tuple(self.parts), gathers=tuple(self.gathers))

    def _channels(self, name: str) -> int:
        return self.graph.tensors[name].shape[0]

    def _view(self, name: str) -> View:
        base, word = name, 0
        while base in self.inside:
            base, more = self.inside[base]
            word += more
        return View(base=base, word=word, slots=self.slots[name])

    def _slice(self, node: Node) -> None:
        source = node.inputs[0]
        found = sliced(self.slots[source], node.operation.start, node.operation.stop)
        if found is None:
            self.gathers.append(node)
            self.slots[node.output] = self._wish(node.output)
        else:
            self.inside[node.output], self.slots[node.output] = (source, found[0]), found[1]

    def _shuffle(self, node: Node) -> None:
        source = node.inputs[0]
        self.inside[node.output] = source, 0
        self.slots[node.output] = shuffled(self.slots[source], node.operation.order(self._channels(source)))

    def _concat(self, node: Node) -> None:
        slots: Slots = ()
        channels = 0
        for name in node.inputs:
            word = len(slots) // WORD_BYTES
            if self._placeable(name):
                self.inside[name] = node.output, word
            else:
                self.parts.append(Part(node=node, tensor=name, word=word))
            slots += shifted(self.slots[name], channels)
            channels += self._channels(name)
        self.slots[node.output] = slots

    def _placeable(self, name: str) -> bool:
        """True if a tensor may be written into another's words from the start: it owns its words, and nobody outside sees them."""
        return name not in self.inside and name not in self.graph.inputs and name not in self.graph.outputs

    def _of_unit(self, unit: Unit) -> Slots:
        if unit.engine is not Engine.ARRAY:
            return self.slots[unit.source]
        if unit.left is None:
            return self._wish(unit.output)
        left = self.slots[unit.left]
        return left if unit.adds else zip_slots(left, right_side(left))

    def _wish(self, name: str) -> Slots:
        """The order that a tensor's readers like best, if its producer can write any."""
        channels = self._channels(name)
        cuts, zipped, maps = self._uses(name)
        if cuts:
            slots = segments(channels, cuts, plain=bool(maps))
            apart = any(pair_places(slots, pairs, first) is None for first, pairs in maps)
            if not apart and len(slots) <= max(2 * ceil16(channels), SPARSE_WORDS * WORD_BYTES):
                return slots
        return spread(channels, ceil16(channels)) if zipped and not maps else default_slots(channels)

    def _uses(self, name: str) -> tuple[set[int], bool, set[tuple[int, int]]]:
        """Channels at which slices cut a tensor, whether a join zips it, and which of its parts (first channel, pairs) are offsets of a
        deformable convolution: seen through operations that keep its slots."""
        cuts: set[int] = set()
        maps: set[tuple[int, int]] = set()
        zipped, seen, todo = False, set(), [(name, 0)]
        while todo:
            tensor, first = todo.pop()
            if (tensor, first) in seen:
                continue
            seen.add((tensor, first))
            for node in self.readers[tensor]:
                if isinstance(node.operation, Slice):
                    cuts |= {first + node.operation.start, first + node.operation.stop}
                    todo.append((node.output, first + node.operation.start))
                elif _keeps(node, tensor):
                    todo.append((node.output, first))
                else:
                    zipped |= isinstance(node.operation, ShuffleJoin)
                    if isinstance(node.operation, DeformConv2d) and node.inputs[1] == tensor:
                        maps.add((first, self._channels(tensor) // 2))
        return cuts, zipped, maps


def _keeps(node: Node, tensor: str) -> bool:
    """True if a node's result has its channels in the slots of one of its inputs, and that is ``tensor``."""
    if isinstance(node.operation, Add):
        return True
    return (isinstance(node.operation, KEEPS_SLOTS) or is_depthwise(node.operation)) and node.inputs[0] == tensor
