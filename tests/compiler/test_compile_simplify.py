"""Rewritten graphs: 1 x 1 convolutions that read upsampled tensors move before the upsampling, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hw.spec.deform import DeformArch
from hw.spec.ops import Upsample2x
from sw.compiler.simplify import simplified
from sw.graph import IntegerGraph
from tests.compiler.graphs import U8, Builder, compare, random_codes

ARCH = DeformArch(rows=4, feature_words=4096, weight_words=2048, parameter_words=1024)


def heads(build: Builder) -> IntegerGraph:
    """Two heads on an upsampled tensor, one with a table, a depthwise layer and wide weights behind it, one twice pointwise."""
    build.add("up", Upsample2x(), build.conv("body", build.input("x", (20, 5, 6)), 24, kernel=(3, 3), padding=1))
    one = build.conv("one", "up", 18, fmt=U8)
    two = build.conv("two", build.conv("inner", "up", 33), 5, peak=100)
    return build.graph(build.conv("out", build.depthwise("d", build.table("t", one)), 3), two)


def test_heads_move_and_compute_the_same() -> None:
    graph = heads(Builder(3))
    moved = simplified(graph)
    small = {node.name: moved.tensors[node.output].shape for node in moved.nodes if node.name in ("one", "inner", "two")}
    assert small == {"one": (18, 5, 6), "inner": (33, 5, 6), "two": (5, 5, 6)}
    assert [node.name for node in moved.nodes if isinstance(node.operation, Upsample2x)] == ["one upsampled", "two upsampled"]
    assert "up" not in moved.tensors and moved.outputs == graph.outputs and moved.macs() < graph.macs() / 1.5
    inputs = {name: codes[None] for name, codes in random_codes(graph, np.random.default_rng(4)).items()}
    old, new = graph.trace(inputs), moved.trace(inputs)
    compared = 0
    for name in old.keys() & new.keys():
        np.testing.assert_array_equal(new[name], old[name], err_msg=name)
        compared += old[name].size
    assert {"one", "two", "t", "d", "out"} <= old.keys() & new.keys() and compared > 8_000
    program, found = compare(graph, ARCH)
    assert found > 1_000
    rows = {layer: i["out_rows"] for layer, i in zip(program.layers, program.instructions(), strict=True) if i.name == "PW"}
    assert rows["one"] == rows["inner"] == rows["two"] == 5 and rows["out"] == 10


KEPT: dict[str, Callable[[Builder], list[str]]] = {
    "another reader": lambda b: [b.conv("a", "up", 16), b.depthwise("d", "up")],
    "an output": lambda b: [b.conv("a", "up", 16), "up"],
    "a stride": lambda b: [b.conv("a", "up", 16, stride=2)],
    "a padding": lambda b: [b.conv("a", "up", 16, padding=1)],
    "a window": lambda b: [b.conv("a", "up", 16, kernel=(3, 3), padding=1)],
    "a sum": lambda b: [b.sum("s", b.conv("a", "up", 20), "up")],
}


@pytest.mark.parametrize("name", KEPT)
def test_what_does_not_commute_stays(name: str) -> None:
    build = Builder(7)
    build.add("up", Upsample2x(), build.conv("body", build.input("x", (20, 4, 4)), 20))
    graph = build.graph(*KEPT[name](build))
    assert [(node.name, node.inputs) for node in simplified(graph).nodes] == [(node.name, node.inputs) for node in graph.nodes]
    if name != "a padding":  # which the compiler refuses: corners read nothing
        assert compare(graph, ARCH)[1] > 100
