"""Are the compared tensors alive? Equal zeros prove little, so each tensor's share of dead codes is reported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sw.graph import IntegerGraph


@dataclass(frozen=True, kw_only=True)
class TensorLife:
    """Fractions (0..1) of one tensor's codes over all images.

    ``saturated`` counts codes at the largest code, and for signed formats at the smallest; ``constant_channels`` the channels
    that hold one code everywhere.
    """

    tensor: str
    codes: int
    zero: float
    saturated: float
    constant_channels: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def tensor_lives(graph: IntegerGraph, trace: Mapping[str, np.ndarray]) -> tuple[TensorLife, ...]:
    """Life of every tensor of a graph, in the graph's order; ``trace`` holds codes (N, C, H, W)."""
    order = [*graph.inputs, *(node.output for node in graph.nodes)]
    return tuple(_life(graph, name, trace[name]) for name in order)


def _life(graph: IntegerGraph, name: str, codes: np.ndarray) -> TensorLife:
    fmt = graph.tensors[name].fmt
    ends = codes == fmt.max_code
    if fmt.signed:
        ends = ends | (codes == fmt.min_code)
    channels = codes.transpose(1, 0, 2, 3).reshape(codes.shape[1], -1)
    return TensorLife(
        tensor=name,
        codes=int(codes.size),
        zero=float((codes == 0).mean()),
        saturated=float(ends.mean()),
        constant_channels=float((channels.min(axis=1) == channels.max(axis=1)).mean()),
    )
