"""Where each tensor's channels lie: slots of 16-channel words, and views into other tensors' words.

A split is free if its halves start at word boundaries, also after any number of joins, which zip slot by slot. So a tensor of
2h channels that will be split is stored as two halves of H = ceil16(h) slots, and channel i of a half that will be zipped stands
at slot floor(i * H / h), on the right side of a zip half a step later: so the first h channels of a zip of such halves fill the
first H slots again, unit after unit. Where h is a multiple of 16 all of this is the plain order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hw.spec.ops import AvgPool2d, Conv2d, DeformDepthwiseConv2d, DepthwiseConv2d, Linear, MaxPool2d, ShuffleJoin, Split
from hw.spec.program import WORD_BYTES, default_slots
from sw.compiler.problems import Problem
from sw.graph import IntegerGraph, Node

Slots = tuple[int, ...]
KEEPS_SLOTS = (DepthwiseConv2d, DeformDepthwiseConv2d, MaxPool2d, AvgPool2d)
"""Operations whose output channels lie where the first input's lie."""


@dataclass(frozen=True, kw_only=True)
class View:
    """A tensor's place in ``base``, the tensor that owns the memory: its pixels' words start at ``word``."""

    base: str
    word: int
    slots: Slots

    @property
    def words(self) -> int:
        return len(self.slots) // WORD_BYTES

    @property
    def has_pads(self) -> bool:
        return -1 in self.slots


def ceil16(channels: int) -> int:
    return -(-channels // WORD_BYTES) * WORD_BYTES


def spread(channels: int, size: int, *, odd: bool = False) -> Slots:
    """Channels spread over ``size`` slots, in order; ``odd`` for the right side of a zip (half a step later)."""
    slots = [-1] * size
    for i in range(channels):
        slots[(2 * i + odd) * size // (2 * channels)] = i
    return tuple(slots)


def halves(channels: int) -> Slots:
    """A tensor that will be split: each half spread over whole words."""
    half = channels // 2
    first = spread(half, ceil16(half))
    return first + tuple(s + half if s >= 0 else -1 for s in first)


def zip_slots(left: Slots, right: Slots) -> Slots:
    """Slots of the joined tensor: 2i from the left's slot i, 2i + 1 from the right's."""
    pairs = zip(left, right, strict=True)
    return tuple(s for a, b in pairs for s in (2 * a if a >= 0 else -1, 2 * b + 1 if b >= 0 else -1))


def users(graph: IntegerGraph) -> dict[str, list[Node]]:
    """For each tensor the nodes that read it, once per reading."""
    found: dict[str, list[Node]] = {name: [] for name in graph.tensors}
    for node in graph.nodes:
        for name in node.inputs:
            found[name].append(node)
    return found


def assign_views(graph: IntegerGraph) -> tuple[dict[str, View], list[Problem]]:
    """A view for every tensor, and the splits that do not fall on a word boundary (they get a place of their own)."""
    readers, views, problems = users(graph), {}, []
    for name in graph.inputs:
        views[name] = View(base=name, word=0, slots=_wish(graph, readers, name))
    for node in graph.nodes:
        view = _view(graph, readers, views, node)
        if view is None:
            problems.append(_misaligned(node, graph))
            view = View(base=node.output, word=0, slots=default_slots(graph.tensors[node.output].shape[0]))
        views[node.output] = view
    return views, problems


def _view(graph: IntegerGraph, readers: Mapping[str, list[Node]], views: Mapping[str, View], node: Node) -> View | None:
    channels = graph.tensors[node.output].shape[0]
    slots = default_slots(channels)
    if isinstance(node.operation, Split):
        return _half(views[node.inputs[0]], node.operation.half * channels, channels)
    if isinstance(node.operation, ShuffleJoin):
        left = views[node.inputs[0]].slots
        slots = zip_slots(left, spread(channels // 2, len(left), odd=True))
    elif isinstance(node.operation, KEEPS_SLOTS):
        slots = views[node.inputs[0]].slots
    elif isinstance(node.operation, (Conv2d, Linear)):
        slots = _wish(graph, readers, node.output)
    return View(base=node.output, word=0, slots=slots)


def _wish(graph: IntegerGraph, readers: Mapping[str, list[Node]], name: str) -> Slots:
    """The order that a tensor's readers like best, if its producer can write any."""
    channels = graph.tensors[name].shape[0]
    final = _final_readers(readers, name)
    if channels % 2 == 0 and any(isinstance(n.operation, Split) for n, _ in final):
        return halves(channels)
    if any(isinstance(n.operation, ShuffleJoin) for n, _ in final):
        return spread(channels, ceil16(channels))
    return default_slots(channels)


def _final_readers(readers: Mapping[str, list[Node]], name: str) -> list[tuple[Node, str]]:
    """Who reads a tensor, seen through operations that keep its slots."""
    found: list[tuple[Node, str]] = []
    for node in readers[name]:
        keeps = isinstance(node.operation, KEEPS_SLOTS) and node.inputs[0] == name
        found += _final_readers(readers, node.output) if keeps else [(node, name)]
    return found


def _half(view: View, first: int, channels: int) -> View | None:
    """The words that hold channels first..first+channels-1 and no other; None if there are none."""
    inside = [i for i, s in enumerate(view.slots) if first <= s < first + channels]
    if not inside:
        return None
    start, stop = inside[0] // WORD_BYTES * WORD_BYTES, ceil16(inside[-1] + 1)
    slots: Sequence[int] = view.slots[start:stop]
    if sum(s >= 0 for s in slots) != channels:
        return None
    return View(base=view.base, word=view.word + start // WORD_BYTES, slots=tuple(s - first if s >= 0 else -1 for s in slots))


def _misaligned(node: Node, graph: IntegerGraph) -> Problem:
    channels = graph.tensors[node.output].shape[0]
    return Problem(
        place=node.name,
        reason=f"the halves of {channels} channels do not fall on 16-channel words",
        advice=f"make each half a multiple of 16 channels, such as {ceil16(channels)}",
    )
