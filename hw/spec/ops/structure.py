"""Operations that move channels and pixels and compute nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hw.spec.ops.common import check_same_shape


@dataclass(frozen=True, eq=False, kw_only=True)
class Slice:
    """Channels start..stop-1: one part of a split. x (N, C, H, W) to (N, stop - start, H, W)."""

    op: ClassVar[str] = "slice"
    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop:
            raise ValueError(f"slice must have 0 <= start < stop, not {self.start}..{self.stop}")

    def __call__(self, x: np.ndarray) -> np.ndarray:
        if x.shape[1] < self.stop:
            raise ValueError(f"slice of channels {self.start}..{self.stop - 1} needs {self.stop} channels, not {x.shape[1]}")
        return x[:, self.start : self.stop]


@dataclass(frozen=True, eq=False)
class Concat:
    """Channels of two or more tensors of one format behind each other. xs (N, C_i, H, W) to (N, sum of C_i, H, W)."""

    op: ClassVar[str] = "concat"

    def __call__(self, *xs: np.ndarray) -> np.ndarray:
        if len(xs) < 2 or len({(x.shape[0], *x.shape[2:]) for x in xs}) != 1:
            raise ValueError(f"concat needs two or more tensors of one height and width, not {[x.shape for x in xs]}")
        return np.concatenate(xs, axis=1)


@dataclass(frozen=True, eq=False, kw_only=True)
class Shuffle:
    """Channel shuffle: of C = groups * k channels, output channel i * groups + g is input channel g * k + i. x (N, C, H, W)."""

    op: ClassVar[str] = "shuffle"
    groups: int

    def __post_init__(self) -> None:
        if self.groups < 1:
            raise ValueError(f"shuffle groups must be at least 1, not {self.groups}")

    def order(self, channels: int) -> np.ndarray:
        """The input channel of each output channel."""
        if channels % self.groups:
            raise ValueError(f"shuffle in {self.groups} groups does not divide {channels} channels")
        return np.arange(channels).reshape(self.groups, -1).T.reshape(-1)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return x[:, self.order(x.shape[1])]


@dataclass(frozen=True, eq=False)
class ShuffleJoin:
    """Concatenate two tensors and shuffle their channels in two groups: out[2i] = left[i], out[2i+1] = right[i].

    Both inputs and the output share one format. left, right (N, C, H, W) to (N, 2C, H, W).
    """

    op: ClassVar[str] = "shuffle_join"

    def __call__(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        check_same_shape(self.op, left, right)
        n, c, h, w = left.shape
        return np.stack([left, right], axis=2).reshape(n, 2 * c, h, w)


@dataclass(frozen=True, eq=False)
class Upsample2x:
    """Nearest-neighbour upsampling by two. x (N, C, H, W) to (N, C, 2H, 2W)."""

    op: ClassVar[str] = "upsample2x"

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return x.repeat(2, axis=2).repeat(2, axis=3)
