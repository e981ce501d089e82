"""Sizes, views, slices and pieces of tensors in a model's forward, as what they mean for channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sw.quant.spans import Bound, Chunk, Share, Size, Slice

__all__ = ["Grouped", "Pieces", "Sizes", "pieces", "reshape", "slice_of", "transpose"]


@dataclass(frozen=True)
class Sizes:
    """What ``size()`` of a tensor returns."""

    def at(self, index: Any) -> Any:
        """One size, or several; None for an index that is neither number nor slice."""
        if isinstance(index, slice):
            return [Size(axis) for axis in range(4)[index]]
        return Size(range(4)[index]) if isinstance(index, int) and -4 <= index < 4 else None


@dataclass(frozen=True)
class Pieces:
    """A tensor cut along its channels: all pieces of one size, or of given sizes, or so many chunks."""

    tensor: str
    size: int | Size = 0
    sizes: tuple[int, ...] = ()
    chunks: int = 0

    def span(self, index: int) -> Slice | Chunk | None:
        """The channels of one piece; None if there is surely none of this index."""
        count = self.chunks or len(self.sizes)
        if count:
            if not -count <= index < count:
                return None
            index %= count
        if index < 0:
            return None
        if self.chunks:
            return Chunk(index, self.chunks)
        if self.sizes:
            return Slice(sum(self.sizes[:index]), sum(self.sizes[: index + 1]))
        return Slice(_times(self.size, index), _times(self.size, index + 1))


def _times(size: int | Size, count: int) -> Bound:
    return Share(size.times, size.over, count) if isinstance(size, Size) else size * count


@dataclass(frozen=True)
class Grouped:
    """A tensor seen as (N, groups, C / groups, H, W), or with those two axes exchanged."""

    tensor: str
    groups: int
    swapped: bool = False


def pieces(tensor: str, sizes: Any) -> Pieces | None:
    """What ``split(sizes, 1)`` makes; None where the sizes are not of channels."""
    if (isinstance(sizes, int) and sizes > 0) or (isinstance(sizes, Size) and sizes.axis == 1):
        return Pieces(tensor, size=sizes)
    if isinstance(sizes, (tuple, list)) and sizes and all(isinstance(s, int) and s > 0 for s in sizes):
        return Pieces(tensor, sizes=tuple(sizes))
    return None


def slice_of(index: Any) -> Slice | None:
    """The channels that ``x[index]`` picks: ``x[:, a:b]``, with more full slices or ``...``; None for anything else."""
    if not isinstance(index, tuple) or not 2 <= len(index) <= 4:
        return None
    full, picked, rest = index[0], index[1], index[2:]
    if any(other not in (slice(None), ...) for other in (full, *rest)) or full is ... or not isinstance(picked, slice):
        return None
    ends = [_bound(picked.start), _bound(picked.stop)]
    return None if picked.step not in (None, 1) or "unknown" in ends else Slice(*ends)  # type: ignore[arg-type]


def _bound(value: Any) -> Bound | str:
    if value is None or isinstance(value, int):
        return value
    return Share(value.times, value.over) if isinstance(value, Size) and value.axis == 1 else "unknown"


def transpose(value: Grouped, axes: Sequence[Any]) -> Grouped | None:
    """``value`` with two axes exchanged, or permuted; None unless these are the groups and the channels of a group."""
    named = [a % 5 if isinstance(a, int) else None for a in axes]
    exchanged = named in ([1, 2], [2, 1], [0, 2, 1, 3, 4])
    return Grouped(value.tensor, value.groups, not value.swapped) if exchanged else None


def reshape(value: str | Grouped, sizes: Sequence[Any]) -> Grouped | str | None:
    """What a ``view`` or ``reshape`` is: "flat", "map" (axes as before), a grouped tensor, or None for anything else."""
    batch = bool(sizes) and (_is(sizes[0], 0) or sizes[0] == -1)
    if isinstance(value, Grouped):
        return "map" if batch and len(sizes) == 4 and _channels(sizes[1]) and _image(sizes[2:]) else None
    if not batch:
        return None
    if len(sizes) == 2 and (sizes[1] == -1 or isinstance(sizes[1], int) or _is(sizes[1], 1)) and list(sizes) != [-1, -1]:
        return "flat"
    if len(sizes) == 4 and _channels(sizes[1]) and _image(sizes[2:]):
        return "map"
    if len(sizes) == 5 and isinstance(sizes[1], int) and sizes[1] > 0 and _image(sizes[3:]):
        return Grouped(value, sizes[1]) if _group_channels(sizes[2], sizes[1]) else None
    return None


def _is(value: Any, axis: int) -> bool:
    return Size(axis).same(value)


def _channels(value: Any) -> bool:
    return _is(value, 1) or value == -1


def _image(sizes: Sequence[Any]) -> bool:
    return all(_is(value, axis) for value, axis in zip(sizes, (2, 3), strict=True))


def _group_channels(value: Any, groups: int) -> bool:
    return value == -1 or isinstance(value, int) or Size(1, 1, groups).same(value)
