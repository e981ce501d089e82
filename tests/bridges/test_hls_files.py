"""What is written for HLS, what is refused, and what the project's own parts refuse."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from hw.spec.fixed import FixedFormat, Rounding
from hw.spec.ops import OPERATIONS, Add, Clip, Linear, Requant, Table
from sw.bridges.errors import BridgeError
from sw.bridges.hls import cpp, hls_files, plan, ranges, save_hls, source
from sw.bridges.hls.names import RESERVED, check_top
from sw.flow.bridges_hls import export_hls
from sw.graph import IntegerGraph, Node, TensorSpec
from tests.bridges.hls_project import compared, images, make, project
from tests.compiler.graphs import S8, U8, Builder
from tests.e2e.test_operations import network


def small(name: str = "y") -> IntegerGraph:
    b = Builder(1)
    return b.graph(b.linear(name, b.input("x", (4, 1, 1), U8), 3))


# --- refusals


def test_every_operation_has_a_function() -> None:
    assert set(source._MAKERS) == set(OPERATIONS) == plan.EXPRESSED


def test_all_layers_without_cpp_are_listed_before_anything_is_written(tmp_path: Path) -> None:
    b = Builder(1)
    x, wide = b.input("x", (2, 2, 2), U8), b.input("wide", (2, 2, 2), FixedFormat(12, 0))
    far, heavy = b.input("far", (1, 2, 2), FixedFormat(20, 0)), b.input("heavy", (4, 1, 1), FixedFormat(32, 0))
    b.table("looked", x)
    b.nodes.append(Node(name="looked at", operation=Table(values=np.zeros(256)), inputs=(wide,), output="t"))
    b.tensors["t"] = TensorSpec(shape=(2, 2, 2), fmt=S8)
    b.add("sum", Add(lo=-128, hi=255), x, x, fmt=S8)
    b.deform("bent", x, far)
    ones = np.ones(3, np.int64)
    requant = Requant(bias=ones, multiplier=ones, shift=ones * 31, rounding=Rounding.TRN, lo=-128, hi=127)
    b.add("large", Linear(weight=np.full((3, 4), 100), requant=requant), heavy, fmt=S8)
    b.tensors["large"] = TensorSpec(shape=(3, 1, 1), fmt=S8)
    b.add("clip", Clip(lo=0, hi=255), x, fmt=FixedFormat(4, 0, False))
    graph = b.graph("looked", "t", "sum", "bent", "large", "clip", "clip")
    with pytest.raises(BridgeError) as caught:
        save_hls(graph, tmp_path / "out")
    found = {problem.place: problem for problem in caught.value.problems}
    assert list(found) == ["looked at", "sum", "bent", "large", "clip"] and not list(tmp_path.iterdir())
    assert all(problem.advice and str(problem) in str(caught.value) for problem in caught.value.problems)
    words = {"looked at": "at most 8 bits", "sum": "0..255", "bent": "wider than 16 bits", "large": "33 bits", "clip": "0..255"}
    assert all(any(p.place == place and text in p.reason for p in caught.value.problems) for place, text in words.items())
    assert "more than once" in caught.value.problems[-1].reason


def test_a_graph_that_contradicts_itself_is_refused() -> None:
    graph = small()
    wrong = IntegerGraph(tensors={**graph.tensors, "y": TensorSpec(shape=(5, 1, 1), fmt=S8)}, inputs=graph.inputs,
                         outputs=graph.outputs, nodes=graph.nodes)
    with pytest.raises(BridgeError, match=r"y: linear gives a tensor of \(3, 1, 1\), and the graph says \(5, 1, 1\)"):
        hls_files(wrong)
    wrong = IntegerGraph(tensors={**graph.tensors, "x": TensorSpec(shape=(5, 1, 1), fmt=U8)}, inputs=graph.inputs,
                         outputs=graph.outputs, nodes=graph.nodes)
    with pytest.raises(BridgeError, match="does not take its inputs"):
        hls_files(wrong)
    nothing = IntegerGraph(tensors=graph.tensors, inputs=("x",), outputs=(), nodes=())
    with pytest.raises(BridgeError, match="no input or no output"):
        hls_files(nothing)


NO_NAMES = ["", "Net", "2d", "a b", "a__b", "a_", "int", "ap_net", "hls_net", "t0_x", "pixel", "x" * 41, "a\n", "a/b", None]


@pytest.mark.parametrize("name", NO_NAMES)
def test_names_that_cpp_or_a_file_system_would_not_take_are_refused(name: str) -> None:
    with pytest.raises(BridgeError, match="name must be"):
        hls_files(small(), name=name)


def test_options_are_checked() -> None:
    for options in ({"part": "x; exit"}, {"period": 0}, {"period": float("nan")}, {"parallel": 0}, {"parallel": 1.5}):
        with pytest.raises(BridgeError, match=next(iter(options))):
            hls_files(small(), **options)
    with pytest.raises(BridgeError, match="missing"):
        hls_files(small(), inputs={})
    with pytest.raises(BridgeError, match="at least one"):
        hls_files(small(), inputs={"x": np.zeros((0, 4, 1, 1), np.int64)})


def test_every_helper_s_name_is_reserved() -> None:
    assert {"from_code", "code_of", "limit", "pixel", "bilinear"} <= RESERVED
    assert check_top("network_2") == "network_2"


# --- names of tensors


def test_names_of_any_kind_compile(tmp_path: Path) -> None:
    b = Builder(3)
    x = b.input("int", (2, 2, 2), U8)
    names = ["a*/b", "a//b\\", "ä", "class", "a.b", "a_b", "line\nbreak", "| cell `", "", "_t", "%s\"'", "x" * 200]
    for name in names:
        x = b.add(name, Clip(lo=0, hi=255), x)
    graph = b.graph(*names, "int")
    assert compared(graph, images(graph, 5), tmp_path / "names") == 5 * 8 * (len(names) + 1)


def test_an_unread_input_and_a_graph_without_layers_compile(tmp_path: Path) -> None:
    b = Builder(3)
    b.input("unread", (1, 1, 3))
    graph = b.graph(b.input("x", (2, 1, 1), FixedFormat(40, 50)))
    assert compared(graph, images(graph, 6), tmp_path / "bare", name="bare") == 12


# --- the folder


def test_equal_graphs_give_equal_files_that_the_manifest_names() -> None:
    files, again = hls_files(small()), hls_files(small())
    assert files == again
    manifest = json.loads(files["manifest.json"])
    assert set(manifest["files"]) | {"manifest.json"} == set(files) and manifest["top"] == "network"
    assert files["network.cpp"].isascii() and "/work" not in "".join(files.values())


def test_a_folder_is_written_whole(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    save_hls(small(), out)
    assert {path.name for path in out.iterdir()} == set(hls_files(small())) and [out] == list(out.parent.iterdir())


def test_an_interrupted_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *paths: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError, match="full"):
            save_hls(small(), tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_more_at_once_than_any_sum_has_is_refused() -> None:
    b = Builder(1)
    large = b.graph(b.conv("wide", b.input("x", (4, 3, 3), U8), 3, kernel=(3, 3)))
    assert hls_files(large, parallel=36) and hls_files(small(), parallel=16)
    with pytest.raises(BridgeError, match="at most 36, not 37: the largest sum of any layer, of 'wide', has 36"):
        hls_files(large, parallel=37)
    with pytest.raises(BridgeError, match="at most 16, not 100000: the largest sum of any layer, of 'y', has 4"):
        hls_files(small(), parallel=100000)
    b = Builder(1)
    with pytest.raises(BridgeError, match="at most 16, not 17: no layer has a sum"):
        hls_files(b.graph(b.clip("y", b.input("x", (4, 1, 1), U8), 0, 9)), parallel=17)


def test_export_hls_writes_a_graph_s_file(tmp_path: Path) -> None:
    small().save(tmp_path / "graph.bitgraph")
    result = export_hls(tmp_path / "graph.bitgraph", tmp_path / "out", name="digits")
    assert result["ok"] and result["top"] == "digits" and result["layers"] == 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*result["files"], "manifest.json"}
    json.dumps(result)


# --- the project's own parts


def test_the_bench_refuses_what_is_no_code_and_sees_every_difference(tmp_path: Path) -> None:
    graph = small()
    folder = project(graph, images(graph, 5), tmp_path / "out")
    assert make(folder).returncode == 0
    program, good, expected = folder / "network_test", (folder / "input.txt").read_text(), (folder / "expected.txt").read_text()

    def run(given: str, wanted: str) -> tuple[int, str]:
        (folder / "given").write_text(given), (folder / "wanted").write_text(wanted)
        ran = subprocess.run([program, "given", "output.txt", "wanted"], cwd=folder, capture_output=True, text=True)
        return ran.returncode, ran.stdout + ran.stderr

    assert run(good, expected)[0] == 0
    for given in (good.replace("\n", " 256\n", 1), good + "1 2", good + " -1 1 1 1", good + "x", good.replace(" ", " 1.5 ", 1)):
        assert run(given, expected)[0] == 2
    first = expected.split()[0]
    assert run(good, expected.replace(first, str(int(first) ^ 1), 1))[1].endswith("15 codes compared, 1 mismatches\n")
    for wanted in (expected + " 0", expected.rsplit("\n", 2)[0], "", expected + " x"):
        assert run(good, wanted)[0] == 1
    assert run("", "")[0] == 1, "nothing compared is no success"
    assert subprocess.run([program], capture_output=True).returncode == 2
    assert subprocess.run([program, "none", "output.txt"], cwd=folder, capture_output=True).returncode == 2


def test_make_without_headers_says_what_is_missing(tmp_path: Path) -> None:
    ran = subprocess.run(["make", "test"], cwd=save_hls(small(), tmp_path / "out"), capture_output=True, text=True)
    assert ran.returncode != 0 and "AP_INCLUDE must name the folder" in ran.stderr


STUBS = """
proc say {args} { puts [join $args " "] }
foreach name {open_project set_top add_files open_solution set_part create_clock csim_design csynth_design export_design} {
    proc $name args "puts \\"$name \\$args\\""
}
"""


@pytest.mark.skipif(shutil.which("tclsh") is None, reason="no tclsh to read the script")
def test_the_script_for_vitis_hls_is_tcl_that_takes_a_part(tmp_path: Path) -> None:
    out = save_hls(small(), tmp_path / "a b", part="xcvu9p-fsgd2104-2L-e")
    (tmp_path / "run.tcl").write_text(STUBS + f'source "{out / "project.tcl"}"\n')

    def run(*arguments: str) -> list[str]:
        command = ["tclsh", str(tmp_path / "run.tcl"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()

    plain, chosen = run(), run("part=xc7z020clg400-1 period=4 csim=0", "export=1")
    assert "set_part xcvu9p-fsgd2104-2L-e" in plain and "set_top network" in plain and any("csim_design" in line for line in plain)
    assert "set_part xc7z020clg400-1" in chosen and "create_clock -period 4 -name default" in chosen
    assert not any("csim_design" in line for line in chosen) and chosen[-1].startswith("export_design")


# --- pieces


def test_bits_are_the_fewest() -> None:
    for low, high, width in [(0, 0, 1), (-1, 0, 1), (0, 1, 2), (-2, 1, 2), (-128, 127, 8), (0, 128, 9), (-129, 0, 9)]:
        assert cpp.bits(low, high) == width


def test_a_range_is_what_random_codes_reach_and_no_less() -> None:
    graph = network()
    made = {t.name: t.reach for t in plan.plan(graph).tensors}
    trace = graph.trace(images(graph, 20, 1))
    for name, codes in trace.items():
        assert made[name][0] <= codes.min() and codes.max() <= made[name][1], name
    assert made["sigmoid"][0] >= 0 and made["relu"] == (-20, 127)
    conv = next(node.operation for node in graph.nodes if node.name == "stem")
    low, high = ranges.accumulator(conv, (0, 255))
    for channel in range(conv.weight.shape[0]):
        weight = conv.weight[channel]
        assert (low[channel], high[channel]) == (255 * weight[weight < 0].sum(), 255 * weight[weight > 0].sum())
