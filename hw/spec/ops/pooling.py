"""Maximum and mean of windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hw.spec.ops.common import check_geometry, windows
from hw.spec.ops.requant import Requant


@dataclass(frozen=True, eq=False, kw_only=True)
class MaxPool2d:
    """Largest code of a window; padding never wins (it counts as the smallest code). x (N, C, H, W)."""

    op: ClassVar[str] = "max_pool2d"
    kernel: int
    stride: int
    padding: int = 0

    def __post_init__(self) -> None:
        check_geometry(self.op, self.stride, self.padding)
        if not 0 <= self.padding <= self.kernel // 2:
            raise ValueError(f"max_pool2d padding must be at most half of the window {self.kernel}, not {self.padding}")

    def __call__(self, x: np.ndarray) -> np.ndarray:
        lowest = np.iinfo(np.int64).min
        return windows(x, (self.kernel, self.kernel), self.stride, self.padding, lowest).max(axis=(4, 5))


@dataclass(frozen=True, eq=False, kw_only=True)
class AvgPool2d:
    """Mean of a window, padding counted as zeros; the reciprocal is in ``requant`` (:func:`mean_requant`). x (N, C, H, W).

    ``kernel`` (KH, KW); global average pooling is a window as large as the image.
    """

    op: ClassVar[str] = "avg_pool2d"
    kernel: tuple[int, int]
    requant: Requant
    stride: int = 1
    padding: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "kernel", tuple(int(k) for k in self.kernel))
        check_geometry(self.op, self.stride, self.padding)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self.requant(windows(x, self.kernel, self.stride, self.padding).sum(axis=(4, 5)))
