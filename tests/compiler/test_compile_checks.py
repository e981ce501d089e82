"""Everything that a graph asks for and the core lacks is named at once, with its place and a way out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hw.spec.deform import DeformArch
from hw.spec.fixed import FixedFormat
from hw.spec.ops import Add, Conv2d, DeformDepthwiseConv2d, MaxPool2d, ShuffleJoin, Split, Upsample2x
from sw.compiler import CompileError, check_graph, compile_graph
from sw.compiler.shapes import output_shape
from sw.graph import IntegerGraph, Node, TensorSpec
from tests.compiler.graphs import S8, U8, Builder, random_codes

ARCH = DeformArch()


def places(graph: IntegerGraph, arch: DeformArch = ARCH) -> list[str]:
    return [problem.place for problem in check_graph(graph, arch)]


def one_problem(graph: IntegerGraph, arch: DeformArch = ARCH) -> str:
    (problem,) = check_graph(graph, arch)
    with pytest.raises(CompileError) as caught:
        compile_graph(graph, arch)
    assert caught.value.problems == (problem,)
    return str(problem)


def test_three_unsupported_layers_are_all_named() -> None:
    build = Builder(0)
    build.input("x", (16, 6, 6))
    build.conv("good", "x", 16)
    build.add("sum", Add(lo=-128, hi=127), "x", "good")
    build.add("up", Upsample2x(), "sum")
    build.conv("fast", "up", 16, stride=9)
    build.conv("last", "fast", 3)
    graph = build.graph("last")
    assert places(graph) == ["sum", "up", "fast"]
    with pytest.raises(CompileError) as caught:
        compile_graph(graph, ARCH)
    message = str(caught.value)
    assert "3 problems" in message
    for text in ("sum: add is not in this core yet", "up: upsample2x is not in this core yet", "fast: stride 9 is above 8"):
        assert text in message


def test_a_split_off_word_boundaries_says_so() -> None:
    """A half of 12 channels lies in one word, so that its own halves cannot start at words."""
    build = Builder(0)
    build.input("x", (24, 2, 2))
    build.add("half", Split(half=0), "x")
    build.add("pool", MaxPool2d(kernel=1, stride=1), "half")
    build.add("third", Split(half=1), "pool")
    text = one_problem(build.graph("third"))
    assert text.startswith("third: the halves of 6 channels do not fall on 16-channel words; make each half a multiple of 16")


def test_a_layer_that_does_not_fit_names_the_sizes() -> None:
    build = Builder(0)
    build.input("x", (64, 5, 100))
    build.conv("c", "x", 16, kernel=(3, 3))
    build.depthwise("d", "x")
    found = check_graph(build.graph("c", "d"), replace(ARCH, feature_words=256, row_words=64))
    assert [p.place for p in found] == ["c", "d"]
    assert "one output row of 16 channels needs 1298 feature_words (it has 256)" in found[0].reason
    assert "100 row_words (it has 64)" in found[1].reason
    assert "raise row_words of the architecture" in found[1].advice


def test_formats_that_the_core_cannot_hold() -> None:
    build = Builder(0)
    build.input("x", (16, 4, 4), FixedFormat(9, 0))
    build.conv("c", "x", 16)
    build.nodes[-1] = replace(build.nodes[-1], operation=clipped(build.nodes[-1].operation, -200, 127))
    assert [p.place for p in check_graph(build.graph("c"), ARCH)] == ["x", "c"]
    assert "beyond s8f0 (-128..127)" in check_graph(build.graph("c"), ARCH)[1].reason


def clipped(operation: Conv2d, lo: int, hi: int) -> Conv2d:
    return replace(operation, requant=replace(operation.requant, lo=lo, hi=hi))


def test_pads_need_a_clip_range_with_zero() -> None:
    for channels, expected in ((16, []), (15, ["c"])):
        build = Builder(0)
        build.input("x", (16, 4, 4))
        build.conv("c", "x", channels)
        build.nodes[-1] = replace(build.nodes[-1], operation=clipped(build.nodes[-1].operation, 3, 127))
        assert places(build.graph("c")) == expected


def test_offsets_must_be_signed_bytes() -> None:
    build = Builder(0)
    build.input("x", (16, 4, 4))
    build.input("s", (1, 4, 4), U8)
    build.deform("d", "x", "s")
    assert "offsets must be signed bytes" in one_problem(build.graph("d"))


def test_formats_must_be_kept_by_operations_that_move_codes() -> None:
    build = Builder(0)
    build.input("x", (32, 4, 4))
    build.add("half", Split(half=0), "x", fmt=U8)
    build.add("pool", MaxPool2d(kernel=2, stride=2), "x", fmt=U8)
    build.input("y", (32, 4, 4), U8)
    build.add("join", ShuffleJoin(), "x", "y")
    assert places(build.graph("half", "pool", "join")) == ["half", "pool", "join"]


def test_padding_that_leaves_a_window_empty() -> None:
    build = Builder(0)
    build.input("x", (16, 4, 4))
    build.conv("c", "x", 16, kernel=(1, 3), padding=1)
    assert "padding 1 leaves windows of 1x3 without any input" in one_problem(build.graph("c"))


def test_shapes_that_do_not_follow_from_the_operation() -> None:
    build = Builder(0)
    build.input("x", (16, 4, 4))
    build.conv("c", "x", 16)
    build.tensors["c"] = TensorSpec(shape=(16, 4, 5), fmt=S8)
    assert "its result is (16, 4, 4), but tensor c is (16, 4, 5)" in one_problem(build.graph("c"))
    operation = build.nodes[0].operation
    with pytest.raises(ValueError, match="expects 16 input channels, not 3"):
        output_shape(operation, [(3, 4, 4)])
    with pytest.raises(ValueError, match="does not fit an input of 2x2"):
        output_shape(MaxPool2d(kernel=3, stride=1), [(3, 2, 2)])


def test_names_must_be_distinct() -> None:
    build = Builder(0)
    build.input("x", (16, 4, 4))
    build.conv("c", "x", 16)
    build.nodes.append(Node(name="c", operation=build.nodes[0].operation, inputs=("c",), output="d"))
    build.tensors["d"] = build.tensors["c"]
    assert "2 nodes have this name" in one_problem(build.graph("d"))


def test_too_few_regions() -> None:
    build = Builder(0)
    build.input("x", (16, 4, 4))
    build.conv("c", "x", 16)
    assert "needs 4 memory regions, it has 3" in one_problem(build.graph("c"), DeformArch(regions=3, region_manager=(0, 0, 0)))


def test_shapes_agree_with_the_operations() -> None:
    build = Builder(7)
    build.input("x", (16, 11, 9))
    build.conv("c", "x", 5, kernel=(3, 2), stride=2, padding=1)
    build.depthwise("d", "x", stride=3)
    build.conv("s", "x", 1, stride=2)
    build.deform("f", "x", "s", stride=2)
    build.mean("m", "x", (4, 3), stride=2, padding=1)
    build.add("p", MaxPool2d(kernel=3, stride=2, padding=1), "x")
    build.add("j", ShuffleJoin(), "x", "x")
    build.add("h", Split(half=1), "j")
    build.add("u", Upsample2x(), "h")
    graph = build.graph("c", "d", "s", "f", "m", "p", "j", "h", "u")
    codes = {name: array[None] for name, array in random_codes(graph, np.random.default_rng(0)).items()}
    results = graph(codes)
    assert len(results) == 9
    for node in graph.nodes:
        shape = output_shape(node.operation, [graph.tensors[t].shape for t in node.inputs])
        assert results[node.output].shape[1:] == shape
    assert any(isinstance(node.operation, DeformDepthwiseConv2d) for node in graph.nodes)
