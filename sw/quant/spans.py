"""Runs of channels and sizes of axes, before the number of channels is known: what a model's forward says of them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Bound", "Chunk", "Share", "Size", "Slice"]


@dataclass(frozen=True)
class Size:
    """The size of ``axis`` of some tensor, times ``times``, divided by ``over``, rounded down."""

    axis: int
    times: int = 1
    over: int = 1

    def same(self, other: object) -> bool:
        """Whether both are surely equal, if every division is without a rest."""
        return isinstance(other, Size) and self.axis == other.axis and self.times * other.over == other.times * self.over

    def floordiv(self, number: int) -> Size:
        return Size(self.axis, self.times, self.over * number)

    def mul(self, number: int) -> Size:
        """Exact where the division before had no rest, as in a channel shuffle."""
        return Size(self.axis, self.times * number, self.over)


@dataclass(frozen=True)
class Share:
    """``count`` times ``channels * times // over`` channels."""

    times: int
    over: int
    count: int = 1

    def of(self, channels: int) -> int:
        return channels * self.times // self.over * self.count


Bound = int | Share | None


@dataclass(frozen=True)
class Slice:
    """Channels ``start:stop`` as Python counts them: negative from the end, None is the end."""

    start: Bound
    stop: Bound

    def resolve(self, channels: int) -> tuple[int, int]:
        """First channel and the one behind the last; ValueError where none is left."""
        start, stop = (b.of(channels) if isinstance(b, Share) else b for b in (self.start, self.stop))
        found = range(channels)[start:stop]
        if not found:
            raise ValueError(f"channels {start}:{stop} of {channels} are none")
        return found.start, found.stop


@dataclass(frozen=True)
class Chunk:
    """Piece ``index`` of ``count`` as `torch.chunk` makes them: all of one size but the last."""

    index: int
    count: int

    def resolve(self, channels: int) -> tuple[int, int]:
        """First channel and the one behind the last; ValueError where this piece does not exist."""
        size = -(-channels // self.count)
        start, stop = self.index * size, min((self.index + 1) * size, channels)
        if start >= stop:
            raise ValueError(f"{channels} channels in {self.count} pieces leave nothing for piece {self.index}")
        return start, stop
