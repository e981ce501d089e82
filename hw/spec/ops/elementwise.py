"""Operations on single codes without sums of products: residual sums, limits, tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hw.spec.ops.common import check_same_shape


@dataclass(frozen=True, eq=False, kw_only=True)
class Add:
    """Residual sum of two tensors of one format, saturated to lo..hi. a, b (N, C, H, W)."""

    op: ClassVar[str] = "add"
    lo: int
    hi: int

    def __post_init__(self) -> None:
        if not -256 <= self.lo <= self.hi <= 255:
            raise ValueError(f"add output range must lie in -256..255, not {self.lo}..{self.hi}")

    def __call__(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        check_same_shape(self.op, a, b)
        return np.clip(a + b, self.lo, self.hi)


@dataclass(frozen=True, eq=False, kw_only=True)
class Clip:
    """Codes limited to lo..hi: a ReLU or ReLU6 that no layer before it can take. x (N, C, H, W)."""

    op: ClassVar[str] = "clip"
    lo: int
    hi: int

    def __post_init__(self) -> None:
        if not -256 <= self.lo <= self.hi <= 255:
            raise ValueError(f"clip range must lie in -256..255, not {self.lo}..{self.hi}")

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return np.clip(x, self.lo, self.hi)


@dataclass(frozen=True, eq=False, kw_only=True)
class Table:
    """A function of one code by a table of all its values: sigmoid, tanh, SiLU, leaky ReLU and the like. x (N, C, H, W).

    ``values`` (256,) are output codes in -128..255, indexed by the input code's low byte: codes 0..255 of an unsigned input
    in order; of a signed one 0..127, then -128..-1.
    """

    op: ClassVar[str] = "table"
    values: np.ndarray

    def __post_init__(self) -> None:
        values = np.asarray(self.values, dtype=np.int64)
        if values.shape != (256,):
            raise ValueError(f"table values must be 256, one per byte, not shape {values.shape}")
        if values.min() < -128 or values.max() > 255:
            raise ValueError(f"table values must be in -128..255, not {values.min()}..{values.max()}")
        object.__setattr__(self, "values", values)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        if x.size and (x.min() < -128 or x.max() > 255):
            raise ValueError(f"table expects codes of at most 8 bits, not {x.min()}..{x.max()}")
        return self.values[x & 0xFF]
