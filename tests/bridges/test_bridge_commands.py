"""The commands of the bridges: a graph out and back is the same, and what cannot be is told without a traceback."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from hw.spec.fixed import FixedFormat, Rounding
from sw.bridges.hls.names import DEFAULT_PART
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
    code, output, data = call(tmp_path, "hls", "@a.graph", "-o", "@cpp", "--name", "tiny")
    assert code == 0 and data["ok"] and (tmp_path / "cpp" / "Makefile").exists()
    assert data["part"] == DEFAULT_PART and data["period"] == 5 and f"for {DEFAULT_PART} at 5 ns" in output
    code, _, data = call(tmp_path, "hls", "@a.graph", "-o", "@other", "--part", "xc7z020clg400-1", "--period", "3.3")
    script = (tmp_path / "other" / "project.tcl").read_text()
    assert code == 0 and data["part"] == "xc7z020clg400-1" and "set part xc7z020clg400-1\nset period 3.3\n" in script


def test_hls4ml(tmp_path: Path) -> None:
    graph_of(Rounding.RND).save(tmp_path / "a.graph")
    code, output, data = call(tmp_path, "hls4ml", "@a.graph", "-o", "@made", "--part", "xc7z020clg400-1", "--period", "4")
    assert code == 0 and data["hls4ml"] == "1.3.0" and "hls4ml 1.3.0 for xc7z020clg400-1 at 4 ns" in output
    assert 'set part "xc7z020clg400-1"' in (tmp_path / "made" / "project.tcl").read_text()
    assert call(tmp_path, "hls4ml", "@a.graph", "-o", "@made", "--name", "other")[0] == 0


@pytest.mark.parametrize("command", ["hls", "hls4ml"])
@pytest.mark.parametrize(("words", "told"), [
    (("--period", "0"), "period must be"), (("--period", "-1"), "period must be"), (("--period", "inf"), "period must be"),
    (("--period", "nan"), "period must be"), (("--period", "1e9"), "period must be"), (("--part", "ultra96"), "part must be"),
    (("--part", ""), "part must be"), (("--part", "xczu3eg"), "part must be"), (("--part", "xczu3eg-sbva484-1; exit"), "part must be"),
])  # fmt: skip
def test_a_part_and_a_period_are_checked(tmp_path: Path, command: str, words: tuple[str, ...], told: str) -> None:
    graph_of(Rounding.TRN).save(tmp_path / "a.graph")
    code, output, _ = call(tmp_path, command, "@a.graph", "-o", "@x", *words)
    assert code == 1 and told in output and "Traceback" not in output and not (tmp_path / "x").exists()


@pytest.mark.parametrize("command", ["hls", "hls4ml"])
def test_codes_for_the_bench_are_checked_with_the_file_s_name(tmp_path: Path, command: str) -> None:
    graph_of(Rounding.TRN).save(tmp_path / "a.graph")
    path, shape = tmp_path / "digits.npz", (2, 3, 4, 4)
    for arrays, told in (
        ({"images": np.zeros(shape, int), "labels": np.zeros(2)},
         "named 'x', and it holds arrays named 'images', 'labels': 'x' is missing"),
        ({}, "it holds nothing: 'x' is missing"), ({"x": np.zeros(())}, "at least one"), ({"x": np.zeros((0, 3))}, "at least one"),
        ({"x": np.zeros(shape)}, "0..255 of the shape (N, 3, 4, 4), and it is float64"),
        ({"x": np.zeros((2, 48), int)}, "and it is int64 of the shape (2, 48)"), ({"x": np.full(shape, 256)}, "and it has 256..256"),
    ):  # fmt: skip
        np.savez(path, **arrays)
        code, output, _ = call(tmp_path, command, "@a.graph", "-o", "@x", "--inputs", "@digits.npz")
        assert code == 1 and output.startswith(f"bitloom: {path}") and told in output and not (tmp_path / "x").exists(), output
    np.savez(path, x=np.ones(shape, int), more=np.zeros(2))
    assert call(tmp_path, command, "@a.graph", "-o", "@x", "--inputs", "@digits.npz")[0] == 0


@pytest.mark.parametrize("words", [("import", "@none"), ("onnx", "@none"), ("hls", "@none"), ("hls4ml", "@none")])
def test_a_file_that_is_not_there_is_told_alike(tmp_path: Path, words: tuple[str, ...]) -> None:
    code, output, _ = call(tmp_path, *words, "-o", "@x")
    assert code == 1 and output == f"bitloom: {tmp_path / 'none'}: No such file or directory\n"


def test_a_qcdq_model_is_told_once(tmp_path: Path) -> None:
    graph_of(Rounding.RND).save(tmp_path / "a.graph")
    assert call(tmp_path, "onnx", "@a.graph", "-o", "@q.onnx", "--form", "qcdq")[0] == 0
    code, output, _ = call(tmp_path, "import", "@q.onnx", "-o", "@x")
    assert code == 1 and len(output.splitlines()) == 1 and output.count("QCDQ model") == 1 and " more)" in output
    assert "without --form qcdq" in output and not (tmp_path / "x").exists()


@pytest.mark.parametrize(("words", "told"), [
    (("onnx", "@wide.graph", "-o", "@x"), "12"), (("onnx", "@rnd.graph", "-o", "@x", "--form", "keras"), "must be one of"),
    (("hls", "@rnd.graph", "-o", "@x", "--parallel", "100000"), "at most 27"),
    (("hls4ml", "@rnd.graph", "-o", "@x", "--reuse", "1000000"), "at most 135"),
    (("import", "@rnd.graph", "-o", "@x"), "ONNX"), (("hls", "@none", "-o", "@x"), "No such file"),
    (("hls4ml", "@none", "-o", "@x"), "No such file"), (("hls4ml", "@bent.graph", "-o", "@x"), "bent: deform_depthwise_conv2d"),
])  # fmt: skip
def test_what_cannot_be_is_told(tmp_path: Path, words: tuple[str, ...], told: str) -> None:
    graph_of(Rounding.RND).save(tmp_path / "rnd.graph")
    build = Builder(1)
    build.graph(build.linear("y", build.input("x", (3, 1, 1), FixedFormat(12, 0)), 2)).save(tmp_path / "wide.graph")
    build = Builder(1)
    build.graph(build.deform("bent", build.input("x", (2, 3, 3), U8), build.input("o", (1, 3, 3)))).save(tmp_path / "bent.graph")
    code, output, _ = call(tmp_path, *words)
    assert code == 1 and told in output and "Traceback" not in output and not (tmp_path / "x").exists()
