"""Layers cut to small memories: stripes with halos, groups of channels, both loop orders; results stay equal."""

from __future__ import annotations

import numpy as np
import pytest

from hw.spec.deform import DeformArch
from hw.spec.ops import MaxPool2d, ShuffleJoin
from sw.compiler.tiling import Span, Window, choose, fits, spans, tiles
from tests.compiler.graphs import U8, Builder, compare, operations


def small(**sizes: int) -> DeformArch:
    return DeformArch(**{"rows": 3, "feature_words": 128, "row_words": 64, "weight_words": 320, "parameter_words": 48, **sizes})


@pytest.mark.parametrize("peak", [7, 127])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [((3, 3), 1, 1), ((1, 1), 1, 0), ((5, 3), 2, 2), ((1, 1), 3, 0), ((2, 2), 2, 0)]
)
def test_convolution_in_stripes_and_groups(kernel: tuple[int, int], stride: int, padding: int, peak: int) -> None:
    build = Builder(stride)
    build.input("x", (10, 13, 7), U8)
    build.conv("c", "x", 90, kernel=kernel, stride=stride, padding=padding, peak=peak)
    program, _ = compare(build.graph("c"), small(feature_words=72))
    steps = [i for i in program.instructions() if i.name == "PW"]
    assert len(steps) > 2
    assert sum(i["out_words"] * i["out_rows"] for i in steps) == 6 * build.tensors["c"].shape[1]


def test_both_loop_orders_of_a_convolution() -> None:
    """Weights stay while stripes pass where weights are the larger part, and the other way round."""
    orders = []
    for shape, channels, arch in (((64, 4, 4), 192, small()), ((16, 16, 8), 64, small(feature_words=300, parameter_words=16))):
        build = Builder(1)
        build.input("x", shape)
        build.conv("c", "x", channels)
        program, _ = compare(build.graph("c"), arch)
        loads = [i for i in program.instructions() if i.name == "LOAD"]
        weights, stripes = (sum(i["space"] == space for i in loads) for space in (2, 0))
        orders.append(weights > stripes)
    assert orders == [False, True]


def test_zip_in_stripes_and_groups() -> None:
    build = Builder(2)
    build.input("x", (96, 9, 5))
    left, right = (build.half(f"half{i}", "x", i) for i in (0, 1))
    build.conv("c", right, 48, kernel=(3, 3), padding=1)
    build.add("join", ShuffleJoin(), left, "c")
    program, _ = compare(build.graph("join"), small(feature_words=160, weight_words=500))
    assert operations(program).count("PW") > 3


@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, 1), (3, 2), (1, 0)])
def test_depthwise_in_stripes_and_slices(stride: int, padding: int) -> None:
    build = Builder(stride)
    build.input("x", (70, 31, 6))
    build.depthwise("d", "x", stride=stride, padding=padding)
    program, _ = compare(build.graph("d"), small(row_words=16))
    steps = [i for i in program.instructions() if i.name == "DW"]
    assert len(steps) > 5
    assert any(i["row0"] > 0 for i in steps)


@pytest.mark.parametrize("stride", [1, 2])
def test_deformable_in_stripes_and_slices(stride: int) -> None:
    """Stripes carry eight rows of halo on each side, clipped at the image."""
    build = Builder(stride)
    build.input("x", (40, 41, 5))
    build.input("s", (1, -(-41 // stride), -(-5 // stride)))
    build.deform("d", "x", "s", stride=stride)
    program, _ = compare(build.graph("d"), small(row_words=16, feature_words=64))
    steps = [i for i in program.instructions() if i.name == "DW"]
    assert len(steps) > 3
    assert {i["row0"] for i in steps} >= {0, 8}


def test_pooling_in_stripes_and_slices() -> None:
    build = Builder(3)
    build.input("x", (50, 29, 9), U8)
    build.add("m", MaxPool2d(kernel=3, stride=2, padding=1), "x")
    build.mean("a", "m", (4, 2), stride=2)
    program, _ = compare(build.graph("m", "a"), small(row_words=18))
    assert operations(program).count("DW") > 6


def test_a_random_network_on_many_memory_sizes() -> None:
    counts = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        sizes = {"feature_words": int(rng.integers(56, 130)), "row_words": int(rng.integers(16, 60)),
                 "weight_words": int(rng.integers(150, 400)), "parameter_words": int(rng.integers(18, 60))}
        build = Builder(seed)
        build.input("x", (3, 12, 11), U8)
        build.conv("stem", "x", 2 * int(rng.integers(9, 40)), kernel=(3, 3), stride=2, padding=1)
        left, right = (build.half(f"half{i}", "stem", i) for i in (0, 1))
        build.depthwise("d", right)
        build.conv("c", "d", build.tensors[left].shape[0], peak=127)
        build.add("join", ShuffleJoin(), left, "c")
        build.conv("s", "join", 1)
        build.deform("deform", "join", "s")
        build.mean("mean", "deform", (6, 6))
        build.linear("head", "mean", 10)
        program, _ = compare(build.graph("head", "deform"), small(**sizes), seed)
        counts.append(program.instruction_count)
    assert len(set(counts)) > 3


class _Plain:
    """A layer whose needs are simple products."""

    total_words, total_rows, unit_words = 10, 20, 4

    def needs(self, words: int, rows: int) -> dict[str, int]:
        return {"feature_words": words * rows, "weight_words": 30 * words}

    def moved(self, words: int, rows: int) -> tuple[int, int, int]:
        return 1000, 100, 0


def test_the_chosen_tiling_fits_and_covers_every_tile_once() -> None:
    for features in (16, 40, 100, 2000):
        arch = small(feature_words=features)
        tiling = choose(_Plain(), arch)
        assert tiling is not None
        assert fits(_Plain(), arch, tiling.words, tiling.rows)
        seen = [(w, r) for g, s in tiles(_Plain(), tiling) for w in range(g.start, g.stop) for r in range(s.start, s.stop)]
        assert len(seen) == len(set(seen)) == 200
    assert choose(_Plain(), small(weight_words=100)) is None


def test_window_rows_are_those_that_its_taps_reach() -> None:
    checked = 0
    for in_rows, stride, first, extent in ((9, 1, -1, 3), (9, 2, -2, 5), (20, 3, -8, 17), (6, 3, 0, 1)):
        window = Window(in_rows=in_rows, stride=stride, first=first, extent=extent)
        out_rows = (in_rows - 1) // stride + 1
        for size in range(1, out_rows + 1):
            for span in spans(out_rows, size):
                taps = {r * stride + first + k for r in range(span.start, span.stop) for k in range(extent)}
                real = [t for t in taps if 0 <= t < in_rows]
                assert window.rows(span) == Span(start=min(real), stop=max(real) + 1)
                assert window.rows(span).size <= window.most(size)
                checked += 1
    assert checked > 50
