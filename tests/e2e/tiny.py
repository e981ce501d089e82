"""A network small enough for a core of two rows, with every kind of layer, and the two put together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hw.spec.deform import DeformArch
from hw.spec.fixed import FixedFormat
from hw.spec.ops import MaxPool2d, ShuffleJoin, Slice
from hw.spec.program import Program
from sw.compiler import compile_graph
from sw.graph import IntegerGraph
from tests.compiler.graphs import U8, Builder

ARCH = DeformArch(rows=2, feature_words=512, row_words=64, weight_words=512, parameter_words=256, burst_beats=16)


@dataclass(frozen=True, kw_only=True, eq=False)
class Tiny:
    """Network, program and a few inputs (N, C, H, W)."""

    graph: IntegerGraph
    program: Program
    inputs: dict[str, np.ndarray]


def tiny_graph() -> IntegerGraph:
    """(3, 6, 6) to (10, 1, 1): wide and narrow weights, zip, stride, deformable, both poolings, linear."""
    b = Builder(7)
    stem = b.conv("stem", b.input("image", (3, 6, 6), U8), 32, kernel=(3, 3), padding=1, peak=127, fmt=U8)
    left, right = b.add("left", Slice(start=0, stop=16), stem), b.add("right", Slice(start=16, stop=32), stem)
    branch = b.conv("branch.2", b.depthwise("branch.1", b.conv("branch.0", right, 16, fmt=U8)), 16, fmt=U8)
    down = b.depthwise("down", b.add("join", ShuffleJoin(), left, branch), stride=2)
    middle = b.conv("middle", down, 24)
    offset = b.conv("offset", middle, 1, fmt=FixedFormat(8, 0))
    deform = b.conv("mix", b.deform("deform", middle, offset), 40, fmt=U8)
    pool = b.add("pool", MaxPool2d(kernel=2, stride=1), deform)
    return b.graph(b.linear("head", b.mean("mean", pool, (2, 2)), 10))


def make_tiny(images: int = 4) -> Tiny:
    graph = tiny_graph()
    rng = np.random.default_rng(11)
    codes = rng.integers(0, 256, (images, 3, 6, 6))
    codes[0, :, :3] = 255
    codes[1, :, 3:] = 0
    return Tiny(graph=graph, program=compile_graph(graph, ARCH), inputs={"image": codes})
