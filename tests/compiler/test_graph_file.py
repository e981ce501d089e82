"""Graph files hold every operation: saved, loaded and saved again they are the same bytes and compute the same codes."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest

from hw.spec.fixed import FixedFormat
from hw.spec.ops import (
    OPERATIONS,
    Concat,
    Conv2d,
    DeformConv2d,
    MaxPool2d,
    Shuffle,
    ShuffleJoin,
    Slice,
    Upsample2x,
    identity_requant,
)
from sw.graph import GRAPH_VERSION, GraphError, IntegerGraph, Node, TensorSpec, node_macs
from tests.compiler.graphs import S8, U8, Builder, random_codes
from tests.compiler.random_graphs import operations


def every_operation() -> IntegerGraph:
    """A graph with each operation at least once."""
    build = Builder(1)
    build.input("x", (12, 6, 6), U8)
    build.conv("conv", "x", 24, kernel=(3, 3), padding=1, groups=4)
    build.depthwise("depthwise", "conv")
    build.deform("deform", "depthwise", build.conv("offset", "depthwise", 1))
    build.add("half", Slice(start=3, stop=15), "deform")
    build.add("other", Slice(start=12, stop=24), "deform")
    build.add("join", ShuffleJoin(), "half", "other")
    build.sum("sum", "join", "deform")
    build.scale("scale", "sum")
    build.table("table", "scale")
    build.clip("clip", "table", -9, 99)
    build.add("cat", Concat(), "clip", "half")
    build.add("mix", Shuffle(groups=6), "cat")
    build.add("pool", MaxPool2d(kernel=2, stride=2), "mix")
    build.add("up", Upsample2x(), "pool")
    build.conv("shifts", "up", 8, fmt=FixedFormat(6, 3))
    weight = build.rng.integers(-7, 8, (4, 18, 2, 2))
    moved = DeformConv2d(weight=weight, requant=build.requant(4, 72), offset_frac=3, padding=1, groups=2, dilation=2)
    build.tensors["fractional"] = TensorSpec(shape=(4, 6, 6), fmt=S8)
    build.nodes.append(Node(name="fractional", operation=moved, inputs=("up", "shifts"), output="fractional"))
    build.linear("head", build.mean("mean", "up", (6, 6)), 10)
    return build.graph("head", "fractional", "up")


def test_every_operation_survives_its_file() -> None:
    graph = every_operation()
    assert set(operations(graph)) == set(OPERATIONS)
    data = graph.to_bytes()
    loaded = IntegerGraph.from_bytes(data)
    assert loaded.to_bytes() == data
    codes = {name: array[None] for name, array in random_codes(graph, np.random.default_rng(0)).items()}
    before, after, compared = graph.trace(codes), loaded.trace(codes), 0
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)
        compared += array.size
    assert compared > 5_000


def changed(graph: IntegerGraph, change: dict[str, object], node: str = "") -> bytes:
    """The graph's file with other entries in its manifest, or in a node's attributes."""
    with zipfile.ZipFile(io.BytesIO(graph.to_bytes())) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(members["manifest.json"])
    entries = {entry["name"]: entry["attributes"] for entry in manifest["nodes"]}
    (entries[node] if node else manifest).update(change)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in {**members, "manifest.json": json.dumps(manifest).encode()}.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("node", "change", "message"),
    [
        ("", {"bitloom_graph": 1}, f"graph version must be {GRAPH_VERSION}, not 1"),
        ("conv", {"groups": 5}, "groups must divide the 24 output channels, not 5"),
        ("conv", {"groups": 4.0}, "groups must be of type int, not 4.0"),
        ("half", {"start": "3"}, "start must be of type int, not '3'"),
        ("half", {"stop": 3}, "must have 0 <= start < stop, not 3..3"),
        ("table", {"values": {"array": "0.weight"}}, "table values must be 256"),
        ("clip", {"lo": True}, "lo must be of type int"),
        ("mix", {"groups": 0}, "groups must be at least 1, not 0"),
        ("mix", {"half": 0}, "unexpected keyword"),
    ],
)
def test_attributes_of_files_are_checked(node: str, change: dict[str, object], message: str) -> None:
    graph = every_operation()
    assert IntegerGraph.from_bytes(changed(graph, {}, node)).to_bytes() == graph.to_bytes()
    with pytest.raises(GraphError, match=message):
        IntegerGraph.from_bytes(changed(graph, change, node))


def test_multiplications_are_those_of_the_groups() -> None:
    """The same shapes in 1, 2 and 4 groups: each group multiplies with its own inputs alone."""
    for groups, expected in ((1, 8 * 4 * 9 * 30), (2, 8 * 2 * 9 * 30), (4, 8 * 9 * 30)):
        weight = np.ones((8, 4 // groups, 3, 3), np.int64)
        conv = Conv2d(weight=weight, requant=identity_requant(8, -128, 127), padding=1, groups=groups)
        node = Node(name="c", operation=conv, inputs=("x",), output="y")
        assert node_macs(node, (8, 5, 6)) == expected
    build = Builder(0)
    build.input("x", (6, 4, 4))
    build.table("t", build.scale("s", "x"))
    build.add("u", Upsample2x(), "t")
    assert build.graph("u").macs() == 6 * 16
