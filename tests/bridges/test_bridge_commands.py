"""The commands of the bridges: a graph out and back is the same, and what cannot be is told without a traceback."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hw.spec.fixed import Rounding
from sw.bridges.qonnx import same_graph
from sw.cli import app
from sw.graph import IntegerGraph
from tests.compiler.graphs import U8, Builder


def graph_of(rounding: Rounding) -> IntegerGraph:
    """A convolution and a linear layer with weights of 4 bits and powers of two as scales."""
    build = Builder(3)
    build.linear("head", build.mean("mean", build.conv("conv", build.input("x", (3, 4, 4), U8), 5, kernel=(3, 3)), (2, 2)), 4)
    graph = build.graph("head")
    nodes = []
    for node in graph.nodes:
        requant = replace(node.operation.requant, multiplier=node.operation.requant.multiplier * 0 + 1, rounding=rounding)
        nodes.append(replace(node, operation=replace(node.operation, requant=requant)))
    return replace(graph, nodes=tuple(nodes))


def call(folder: Path, *words: str) -> tuple[int, str, dict[str, Any]]:
    """Exit code, output and JSON of a command; words that begin with @ are files of the folder."""
    given = [str(folder / word[1:]) if word.startswith("@") else word for word in words]
    result = CliRunner().invoke(app, [*given, "--json", str(folder / "result.json")])
    path = folder / "result.json"
    return result.exit_code, result.output, json.loads(path.read_text()) if path.exists() else {}


def test_out_and_back(tmp_path: Path) -> None:
    graph_of(Rounding.RND_CONV).save(tmp_path / "a.graph")
    code, output, data = call(tmp_path, "onnx", "@a.graph", "-o", "@a.onnx")
    assert code == 0 and data["form"] == "qonnx" and "3 layers" in output
    code, output, data = call(tmp_path, "import", "@a.onnx", "-o", "@b.graph")
    assert code == 0 and data["exact"] and "exact" in output
    assert same_graph(IntegerGraph.load(tmp_path / "a.graph"), IntegerGraph.load(tmp_path / "b.graph"))
    assert call(tmp_path, "onnx", "@a.graph", "-o", "@q.onnx", "--form", "qcdq")[0] == 0 and (tmp_path / "q.onnx").stat().st_size > 500


def test_hls(tmp_path: Path) -> None:
    graph_of(Rounding.TRN).save(tmp_path / "a.graph")
    code, _, data = call(tmp_path, "hls", "@a.graph", "-o", "@cpp", "--name", "tiny")
    assert code == 0 and data["ok"] and (tmp_path / "cpp" / "Makefile").exists()


@pytest.mark.parametrize(("words", "told"), [
    (("onnx", "@rnd.graph", "-o", "@x"), "RND_CONV"), (("onnx", "@rnd.graph", "-o", "@x", "--form", "keras"), "must be one of"),
    (("import", "@rnd.graph", "-o", "@x"), "ONNX"), (("hls", "@none", "-o", "@x"), "No such file"),
])  # fmt: skip
def test_what_cannot_be_is_told(tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    graph_of(Rounding.RND).save(tmp_path / "rnd.graph")
    code, output, _ = call(tmp_path, *words)
    assert code == 1 and told in output and "Traceback" not in output and not (tmp_path / "x").exists()
