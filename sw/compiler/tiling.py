"""Cutting a layer to the on-chip memories: groups of channel words, and stripes of output rows with the input rows they need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from hw.spec.deform import DeformArch
from sw.compiler.problems import Problem


@dataclass(frozen=True, kw_only=True)
class Span:
    """Integers start..stop-1."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, kw_only=True)
class Window:
    """Which of ``in_rows`` input rows an output row reads: ``extent`` rows from ``row * stride + first`` on."""

    in_rows: int
    stride: int
    first: int
    extent: int

    def rows(self, out: Span) -> Span:
        """The existing input rows of a stripe of output rows."""
        start = max(0, out.start * self.stride + self.first)
        return Span(start=start, stop=min(self.in_rows, (out.stop - 1) * self.stride + self.first + self.extent))

    def most(self, out_rows: int) -> int:
        """Upper bound of the input rows of any stripe of ``out_rows`` output rows."""
        return min(self.in_rows, (out_rows - 1) * self.stride + self.extent)


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """``words`` channel words per group, ``rows`` output rows per stripe; the groups are the outer loop or the inner."""

    words: int
    rows: int
    groups_outer: bool


class Layer(Protocol):
    """What the search must know of a layer.

    ``total_words`` channel words are cut in multiples of ``unit_words``, ``total_rows`` output rows anywhere. ``needs`` gives the
    words of each on-chip memory (by the architecture parameter's name) for the largest group of ``words`` words and stripe. ``moved``
    gives about the cycles of transfers for all such groups together, for all stripes of ``rows`` rows together, and for all their
    pairs together, as :func:`transfer` counts them.
    """

    @property
    def total_words(self) -> int: ...

    @property
    def total_rows(self) -> int: ...

    @property
    def unit_words(self) -> int: ...

    def needs(self, words: int, rows: int) -> dict[str, int]: ...

    def moved(self, words: int, rows: int) -> tuple[int, int, int]: ...


SHORT_RUN = 6
"""A run of fewer words takes as long as one of so many: a run is a burst of its own, of which one ends about every six cycles where
eight are in flight and memory answers after 40."""


def transfer(pixels: int, words: int, pitch: int) -> int:
    """About the cycles that it takes to move ``words`` neighbouring words of each of so many pixels that lie ``pitch`` words apart."""
    return pixels * (words if words == pitch else max(words, SHORT_RUN))


def spans(total: int, size: int) -> list[Span]:
    return [Span(start=at, stop=min(at + size, total)) for at in range(0, total, size)]


def tiles(layer: Layer, tiling: Tiling) -> Iterator[tuple[Span, Span]]:
    """(group, stripe) in execution order."""
    groups, stripes = spans(layer.total_words, tiling.words), spans(layer.total_rows, tiling.rows)
    if tiling.groups_outer:
        yield from ((group, stripe) for group in groups for stripe in stripes)
    else:
        yield from ((group, stripe) for stripe in stripes for group in groups)


def choose(layer: Layer, arch: DeformArch) -> Tiling | None:
    """The tiling that spends about the fewest cycles on transfers, then has the fewest tiles; None if nothing fits."""
    best: tuple[tuple[int, int, int], Tiling] | None = None
    for words in range(layer.unit_words, layer.total_words + layer.unit_words, layer.unit_words):
        words = min(words, layer.total_words)
        if not fits(layer, arch, words, 1):
            break
        rows = _balanced(layer.total_rows, _most_rows(layer, arch, words))
        for groups_outer in (True, False):
            tiling = Tiling(words=words, rows=rows, groups_outer=groups_outer)
            cost = _cost(layer, tiling)
            if best is None or cost < best[0]:
                best = cost, tiling
    return None if best is None else best[1]


def fits(layer: Layer, arch: DeformArch, words: int, rows: int) -> bool:
    return all(need <= getattr(arch, memory) for memory, need in layer.needs(words, rows).items())


def too_big(place: str, layer: Layer, arch: DeformArch) -> Problem:
    """Why not even one output row of the smallest group fits."""
    words = min(layer.unit_words, layer.total_words)
    needs = layer.needs(words, 1)
    lacking = {memory: need for memory, need in needs.items() if need > getattr(arch, memory)}
    sizes = ", ".join(f"{need} {memory} (it has {getattr(arch, memory)})" for memory, need in lacking.items())
    return Problem(
        place=place,
        reason=f"one output row of {16 * words} channels needs {sizes}",
        advice=f"raise {' and '.join(lacking)} of the architecture, or make the layer smaller",
    )


def _most_rows(layer: Layer, arch: DeformArch, words: int) -> int:
    """Most rows of a stripe that fit; needs grow with the rows."""
    low, high = 1, layer.total_rows
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(layer, arch, words, middle) else (low, middle - 1)
    return low


def _balanced(total: int, most: int) -> int:
    """Rows of equally high stripes, as many as ``most`` demands."""
    return -(-total // -(-total // most))


def _cost(layer: Layer, tiling: Tiling) -> tuple[int, int, int]:
    groups, stripes = -(-layer.total_words // tiling.words), -(-layer.total_rows // tiling.rows)
    group_data, stripe_data, pair_data = layer.moved(tiling.words, tiling.rows)
    if tiling.groups_outer:
        words = group_data + stripe_data * (groups if stripes > 1 else 1)
    else:
        words = stripe_data + group_data * (stripes if groups > 1 else 1)
    return words + pair_data, groups * stripes, 0 if tiling.groups_outer else 1
