"""Codes for a bridge's test bench from a file that the user names."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sw.bridges.hls.bench import check_images
from sw.flow.files import load_inputs
from sw.graph import GraphError, IntegerGraph

__all__ = ["load_bench"]

_CURE = "'bitloom export --inputs' writes such codes"


def load_bench(path: Path | None, graph: IntegerGraph) -> dict[str, np.ndarray] | None:
    """Codes (N, C, H, W) of every input of a graph; None without a file. Refusals name the file, what it holds and what is wanted."""
    if path is None:
        return None
    codes = load_inputs(path, graph.inputs)
    check_images(graph.inputs, codes, str(path))
    for name in graph.inputs:
        spec, array = graph.tensors[name], codes[name]
        low, high = spec.fmt.min_code, spec.fmt.max_code
        wanted = f"{path}: {name!r} must be integer codes in {low}..{high} of the shape (N, {', '.join(map(str, spec.shape))})"
        if array.dtype.kind not in "iu" or array.shape[1:] != spec.shape:
            raise GraphError(f"{wanted}, and it is {array.dtype} of the shape {array.shape}: {_CURE}")
        if array.min() < low or array.max() > high:
            raise GraphError(f"{wanted}, and it has {array.min()}..{array.max()}: {_CURE}")
    return codes
