"""Integer graphs as projects of hls4ml, compiled by hls4ml itself: every code is the graph's."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from hw.spec.fixed import FixedFormat
from hw.spec.ops import (
    CORE_ROUNDINGS,
    OPERATIONS,
    AvgPool2d,
    Concat,
    Conv2d,
    MaxPool2d,
    Requant,
    Shuffle,
    ShuffleJoin,
    Upsample2x,
)
from sw.bridges.hls4ml import lower
from sw.graph import IntegerGraph
from tests.bridges.hls4ml_project import compared
from tests.bridges.hls_project import images
from tests.bridges.test_hls import drawn_graphs, extremes, formats_graph
from tests.compiler.graphs import U8, Builder, assert_alive
from tests.compiler.random_graphs import operations

REFUSED = {"deform_conv2d", "deform_depthwise_conv2d"}


def everything() -> IntegerGraph:
    """Each operation that hls4ml has, unsigned codes under pads, three at once to join, linear layers before images; all tensors and
    an input as outputs."""
    b = Builder(1)
    b.input("x", (4, 7, 6))
    b.conv("conv", "x", 8, kernel=(3, 3), padding=1)
    b.conv("grouped", "conv", 8, kernel=(1, 3), groups=4, fmt=FixedFormat(4, 0))
    b.depthwise("depthwise", "conv", stride=2, fmt=FixedFormat(8, 0, False))
    b.add("unsigned_max", MaxPool2d(kernel=3, stride=2, padding=1), "depthwise")
    b.table("table", b.scale("scale", "depthwise"))
    b.sum("add", b.clip("clip", "table", -50, 60), "table")
    b.add("join", ShuffleJoin(), b.half("left", "add", 0), b.half("right", "add", 1))
    b.add("concat", Concat(), b.add("shuffle", Shuffle(groups=4), "join"), "join", "left")
    b.add("up", Upsample2x(), b.add("max", MaxPool2d(kernel=3, stride=2, padding=1), "concat"))
    b.mean("odd_mean", "up", (3, 3), stride=2, padding=1)
    b.mean("mean", "odd_mean", b.tensors["odd_mean"].shape[1:])
    b.linear("second", b.linear("linear", "mean", 10), 6)
    b.add("last", Shuffle(groups=3), "second")
    graph = b.graph("last")
    return IntegerGraph(tensors=graph.tensors, inputs=graph.inputs, nodes=graph.nodes,
                        outputs=(*(node.output for node in graph.nodes), "x"))


def test_every_operation_but_the_deformable_ones_has_layers() -> None:
    assert set(lower._MAKERS) == set(OPERATIONS) - REFUSED == {node.operation.op for node in everything().nodes}


@pytest.mark.slow
def test_every_operation_is_exact(tmp_path: Path) -> None:
    graph = everything()
    inputs = images(graph, 6)
    for name, codes in graph(inputs).items():
        assert_alive(name, codes)
    assert compared(graph, inputs, tmp_path / "every") == 6 * sum(int(np.prod(graph.tensors[t].shape)) for t in graph.outputs) > 10_000


@pytest.mark.slow
def test_every_rounding_multiplier_and_format_is_exact_for_all_codes(tmp_path: Path) -> None:
    graph, inputs = formats_graph(), {}
    for name in graph.inputs:
        fmt = graph.tensors[name].fmt
        inputs[name] = np.broadcast_to(np.arange(fmt.min_code, fmt.max_code + 1), (1, *graph.tensors[name].shape)).astype(np.int64)
    assert compared(graph, inputs, tmp_path / "formats") == 3 * 8 * (256 + 256 + 64 + 16 + 256)


def limits_graph() -> tuple[IntegerGraph, dict[str, np.ndarray]]:
    """All 256 codes through limits of every kind, by layers with shifts of their own for each channel, left ones too: unsigned, one
    bit, symmetric, ReLU6-like, one-sided, a single code, and a signed type that holds only codes above 0."""
    b = Builder(5)
    x = b.input("x", (4, 1, 256), FixedFormat(8, 3))
    shift = np.array([-1, 0, 2, 5])
    made = []
    for k, (lo, hi) in enumerate([(0, 127), (0, 1), (-127, 127), (0, 96), (-256, 255), (-3, 255), (-1, 0), (5, 5), (0, 0), (10, 200)]):
        requant = Requant(bias=np.array([7, -3, 20, 100 * k]), multiplier=np.array([1, 2, 4, 1]), shift=shift,
                          rounding=CORE_ROUNDINGS[k % 3], lo=lo, hi=hi)
        conv = Conv2d(weight=np.diag([1, -1, 3, 5])[:, :, None, None], requant=requant)
        made.append(b.add(f"y{k}", conv, x, fmt=FixedFormat(9, 4)))
    made.append(b.clip("held", x, -20, 100))
    made.append(b.clip("relu", x, 0, 255))
    made.append(b.add("unsigned_most", MaxPool2d(kernel=2, stride=1, padding=1), b.clip("unsigned", x, 0, 127)))
    made.append(b.sum("both", x, "unsigned"))
    graph = b.graph(*made)
    return graph, {x: np.broadcast_to(np.arange(-128, 128), (1, 4, 1, 256)).astype(np.int64)}


@pytest.mark.slow
def test_limits_of_every_kind_are_exact_for_all_codes(tmp_path: Path) -> None:
    graph, inputs = limits_graph()
    assert compared(graph, inputs, tmp_path / "limits") > 13_000


def test_an_accumulator_holds_what_its_weights_can_reach(tmp_path: Path) -> None:
    """Images that drive channels to both ends of what they can reach."""
    graph, inputs = extremes()
    (conv,) = [layer for layer in lower.to_hls4ml(graph).layers if layer.kind == "Conv2D"]
    assert conv.types["accum"].width == 13
    assert compared(graph, inputs, tmp_path / "extremes") == 3 * 4


@pytest.mark.slow
def test_windows_and_strides_that_leave_rows_over_are_exact(tmp_path: Path) -> None:
    """Two inputs, kernels that are not square, strides beyond the kernel, pads on one side only by what windows reach; eleven and more
    layers, so that names of ports do not sort by their numbers."""
    b = Builder(9)
    image, other = b.input("image", (3, 7, 5), U8), b.input("other", (3, 8, 9), FixedFormat(5, 0))
    made = [b.conv(f"k{k}", source, 3, kernel=kernel, stride=stride, padding=padding)
            for k, (source, kernel, stride, padding) in enumerate([
                (image, (3, 2), 2, 1), (other, (1, 1), 3, 0), (image, (1, 3), 2, 0), (other, (2, 2), 3, 1), (image, (7, 5), 1, 0),
                (other, (3, 1), 4, 2)])]  # fmt: skip
    made += [b.depthwise(f"d{s}", source, stride=s, padding=p) for s, p, source in [(1, 0, image), (2, 1, other), (3, 2, image)]]
    for s, p, source in [(2, 0, image), (3, 1, other), (1, 1, image)]:
        made.append(b.add(f"m{s}", MaxPool2d(kernel=3, stride=s, padding=p), source))
        made.append(b.mean(f"a{s}", source, (2, 3), stride=s, padding=p))
    graph = b.graph(*made)
    assert any(isinstance(node.operation, AvgPool2d) for node in graph.nodes)
    assert compared(graph, images(graph, 10), tmp_path / "windows") > 5_000


@pytest.mark.slow
def test_names_of_any_kind_an_unread_input_and_a_graph_without_layers_compile(tmp_path: Path) -> None:
    b = Builder(3)
    x = b.input("int", (2, 2, 2), U8)
    b.input("unread", (1, 1, 3))
    for name in ["a*/b", "ä", "class", "input", "INPUT", "line\nbreak", "", "_t", "%s\"'", "x" * 200]:
        x = b.clip(name, x, 0, 254)
    graph = b.graph(*b.tensors)
    assert compared(graph, images(graph, 5), tmp_path / "names", name="digits", reuse=3) == 5 * (8 * 11 + 3)
    bare = Builder(3)
    graph = bare.graph(bare.input("x", (2, 1, 1), FixedFormat(20, 50)))
    assert compared(graph, images(graph, 6), tmp_path / "bare") == 12


@pytest.mark.slow
def test_many_random_graphs_are_exact(tmp_path: Path) -> None:
    """All of thirty random graphs that have no deformable operation."""
    seen: Counter[str] = Counter()
    for k, drawn in enumerate(drawn_graphs(30)):
        if not REFUSED & set(operations(drawn.graph)) and drawn.graph.macs() < 60_000:
            assert compared(drawn.graph, images(drawn.graph, 3, drawn.seed), tmp_path / f"random{k}") > 0
            seen.update(operations(drawn.graph))
    assert len(seen) >= 10
