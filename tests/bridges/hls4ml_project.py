"""Projects of hls4ml: linked and compiled by hls4ml itself, run, compared with the graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import hls4ml
import numpy as np

from sw.bridges.hls4ml import predict, save_hls4ml, to_hls4ml
from sw.graph import IntegerGraph

Codes = Mapping[str, np.ndarray]


def run(graph: IntegerGraph, inputs: Codes, folder: Path, **options: object) -> dict[str, np.ndarray]:
    """What hls4ml's C simulation of a written folder gives: codes (N, C, H, W) of every output."""
    save_hls4ml(graph, folder, inputs=inputs, **options)
    model = hls4ml.converters.link_existing_project(str(folder))
    model.compile()
    return predict(to_hls4ml(graph), model, inputs)


def mismatches(graph: IntegerGraph, inputs: Codes, folder: Path, **options: object) -> tuple[int, int]:
    """Codes that differ from the graph's, and codes that were compared."""
    found, expected = run(graph, inputs, folder, **options), graph(inputs)
    assert set(found) == set(expected) and all(found[name].shape == codes.shape for name, codes in expected.items())
    different = sum(int((found[name] != codes).sum()) for name, codes in expected.items())
    return different, sum(codes.size for codes in expected.values())


def compared(graph: IntegerGraph, inputs: Codes, folder: Path, **options: object) -> int:
    """Compile, run and compare every code of every output; returns how many were equal, which is all of them."""
    different, count = mismatches(graph, inputs, folder, **options)
    assert different == 0 and count > 0
    return count
