"""Everything that a graph asks for and the core lacks is named at once, with its place and a way out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hw.spec.deform import DeformArch
from hw.spec.fixed import FixedFormat
from hw.spec.ops import (
    OPERATIONS,
    Add,
    Clip,
    Concat,
    Conv2d,
    DeformDepthwiseConv2d,
    MaxPool2d,
    Shuffle,
    ShuffleJoin,
    Slice,
    Table,
    Upsample2x,
)
from sw.compiler import CompileError, check_graph, compile_graph, shapes
from sw.compiler.shapes import output_shape
from sw.graph import IntegerGraph, Node, TensorSpec
from tests.compiler.graphs import S8, U8, Builder, compare, random_codes

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
    build.input("x", (16, 12, 12))
    build.table("sigmoid", build.conv("good", "x", 16))
    build.conv("fast", "sigmoid", 16, stride=9)
    build.add("sum", Add(lo=-128, hi=200), "fast", "fast")
    build.conv("last", "sum", 3)
    graph, arch = build.graph("last"), replace(ARCH, tables=0)
    assert places(graph, arch) == ["sigmoid", "fast", "sum"]
    with pytest.raises(CompileError) as caught:
        compile_graph(graph, arch)
    message = str(caught.value)
    assert "3 problems" in message
    for text in (
        "sigmoid: the core has no table memory; set tables",
        "fast: stride 9 is above 8",
        "sum: its codes are in -128..200, beyond s8f0 (-128..127)",
    ):
        assert text in message


def test_an_operation_that_the_core_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """All operations have a way to the core; one that is added without it is refused like any obstacle."""
    assert set(shapes._RULES) == set(OPERATIONS.values())
    build = Builder(0)
    build.input("x", (2, 4, 4))
    build.conv("last", build.clip("d", "x", 0, 9), 3)
    monkeypatch.delitem(shapes._RULES, Clip)
    assert "d: clip is not an operation of this core" in one_problem(build.graph("last"))


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


def test_pads_may_hold_anything() -> None:
    """Clips that leave out 0 and a table that moves it write something into pads; no channel sees it."""
    build = Builder(0)
    build.input("x", (16, 4, 4))
    build.conv("c", "x", 15)
    build.nodes[-1] = replace(build.nodes[-1], operation=clipped(build.nodes[-1].operation, 3, 127))
    build.table("t", "c")
    build.conv("d", "t", 5, kernel=(3, 3), padding=1)
    build.depthwise("e", "t")
    compare(build.graph("t", "d", "e"), ARCH)


def test_offsets_must_be_signed_bytes() -> None:
    build = Builder(0)
    build.input("x", (16, 4, 4))
    build.input("s", (1, 4, 4), U8)
    build.deform("d", "x", "s")
    assert "offsets must be signed bytes" in one_problem(build.graph("d"))


def test_formats_must_be_kept_by_operations_that_move_codes() -> None:
    build = Builder(0)
    build.input("x", (32, 4, 4))
    build.add("half", Slice(start=0, stop=16), "x", fmt=U8)
    build.add("pool", MaxPool2d(kernel=2, stride=2), "x", fmt=U8)
    build.input("y", (32, 4, 4), U8)
    build.add("join", ShuffleJoin(), "x", "y")
    build.add("cat", Concat(), "x", "y")
    build.add("mix", Shuffle(groups=2), "y", fmt=S8)
    build.add("up", Upsample2x(), "y", fmt=S8)
    build.add("sum", Add(lo=0, hi=9), "x", "y")
    names = ["half", "pool", "join", "cat", "mix", "up", "sum"]
    assert places(build.graph(*names)) == names
    assert "sum: add needs one format, not s8f0 and u8f0" in str(check_graph(build.graph(*names), ARCH)[-1])


def test_codes_of_tables_and_limits_must_fit_their_formats() -> None:
    """Only what the input's codes can reach counts."""
    build = Builder(0)
    build.input("x", (16, 4, 4), FixedFormat(4, 0))
    for name, fmt in (("good", FixedFormat(5, 0, False)), ("bad", FixedFormat(3, 0, False))):
        build.add(name, Table(values=np.where(np.arange(256) < 8, np.arange(256), 8)), "x", fmt=fmt)
    for name, lo in (("positive", 0), ("negative", -200)):
        build.clip(name, "x", lo, 3, FixedFormat(3, 0, False))
    names = ["good", "bad", "positive", "negative"]
    assert places(build.graph(*names)) == ["bad", "negative"]
    assert "its codes are in -8..3, beyond u3f0 (0..7)" in check_graph(build.graph(*names), ARCH)[1].reason


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


def test_nodes_with_too_few_or_too_many_inputs_are_named() -> None:
    build = Builder(0)
    build.input("x", (16, 4, 4))
    build.add("cat", Concat(), "x", "x")
    build.half("half", build.add("mix", Shuffle(groups=2), "cat"), 0)
    graph = build.graph("half")
    for name, inputs in (("mix", ("cat", "x")), ("mix", ()), ("cat", ()), ("cat", ("x",)), ("half", ())):
        nodes = tuple(replace(node, inputs=inputs) if node.name == name else node for node in graph.nodes)
        assert name in places(replace(graph, nodes=nodes)), (name, inputs)


def test_names_must_be_distinct() -> None:
    build = Builder(0)
    build.input("x", (16, 4, 4))
    build.conv("c", "x", 16)
    build.nodes.append(Node(name="c", operation=build.nodes[0].operation, inputs=("c",), output="d"))
    build.tensors["d"] = build.tensors["c"]
    assert "2 nodes have this name" in one_problem(build.graph("d"))


def test_names_of_copies_are_taken() -> None:
    build = Builder(0)
    build.input("x", (16, 4, 4))
    build.conv("output x", "x", 16)
    assert "output x: this is what the compiler calls the copy" in one_problem(build.graph("output x", "x"))
    assert places(build.graph("output x")) == []


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
    build.half("h", "j", 1)
    build.add("u", Upsample2x(), "h")
    build.conv("g", "x", 24, groups=8, kernel=(1, 3), stride=2)
    build.scale("l", "x")
    build.table("t", "x")
    build.clip("i", "x", -3, 99)
    build.add("k", Concat(), "x", "j", "x")
    build.add("w", Shuffle(groups=4), "k")
    build.sum("a", "w", "k")
    graph = build.graph("c", "d", "s", "f", "m", "p", "j", "h", "u", "g", "l", "t", "i", "k", "w", "a")
    codes = {name: array[None] for name, array in random_codes(graph, np.random.default_rng(0)).items()}
    results = graph(codes)
    assert len(results) == 16
    for node in graph.nodes:
        shape = output_shape(node.operation, [graph.tensors[t].shape for t in node.inputs])
        assert results[node.output].shape[1:] == shape
    assert any(isinstance(node.operation, DeformDepthwiseConv2d) for node in graph.nodes)
