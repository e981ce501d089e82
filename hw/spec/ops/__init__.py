"""Golden operations: the one definition of what a fixed-point layer computes.

Every operation is a frozen, validated dataclass whose call maps integer codes to integer codes. Tensors are int64 arrays in
``(N, C, H, W)`` order; the zero point is always 0, so padding is code 0. The networks' formats (where the binary point stands)
are folded into each operation's :class:`Requant`; an operation itself sees integers only.

One file per kind: ``weighted``, ``deform``, ``pooling``, ``elementwise``, ``structure``; ``requant`` is what those with sums end in.

Matrix products run in float64: every operand is an integer, every partial sum stays below 2**53 (checked), so the result is the
exact integer whatever order the library sums in.
"""

from __future__ import annotations

from typing import Any

from hw.spec.ops.deform import OFFSET_MAX, OFFSET_MIN, SQUARE_FRAC_MAX, DeformConv2d, DeformDepthwiseConv2d
from hw.spec.ops.elementwise import Add, Clip, Table
from hw.spec.ops.pooling import AvgPool2d, MaxPool2d
from hw.spec.ops.requant import CORE_ROUNDINGS, Requant, identity_requant, mean_requant, shift_saturating
from hw.spec.ops.structure import Concat, Shuffle, ShuffleJoin, Slice, Upsample2x
from hw.spec.ops.weighted import Conv2d, DepthwiseConv2d, Linear, Scale

__all__ = [
    "CORE_ROUNDINGS",
    "OFFSET_MAX",
    "OFFSET_MIN",
    "OPERATIONS",
    "SQUARE_FRAC_MAX",
    "Add",
    "AvgPool2d",
    "Clip",
    "Concat",
    "Conv2d",
    "DeformConv2d",
    "DeformDepthwiseConv2d",
    "DepthwiseConv2d",
    "Linear",
    "MaxPool2d",
    "Requant",
    "Scale",
    "Shuffle",
    "ShuffleJoin",
    "Slice",
    "Table",
    "Upsample2x",
    "identity_requant",
    "mean_requant",
    "shift_saturating",
]

OPERATIONS: dict[str, Any] = {
    cls.op: cls
    for cls in (
        Conv2d,
        Linear,
        DepthwiseConv2d,
        DeformDepthwiseConv2d,
        MaxPool2d,
        AvgPool2d,
        Slice,
        ShuffleJoin,
        Add,
        Upsample2x,
        Scale,
        Table,
        Clip,
        Concat,
        Shuffle,
        DeformConv2d,
    )
}
"""Operation name to class: what an integer graph may contain."""
