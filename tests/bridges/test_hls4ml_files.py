"""What is written for hls4ml, what is refused, and the folder."""

from __future__ import annotations

import builtins
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hw.spec.fixed import FixedFormat, Overflow, Rounding
from hw.spec.ops import Clip
from sw.bridges.errors import BridgeError
from sw.bridges.hls4ml import convert, formats, lower, save_hls4ml, to_hls4ml, values
from sw.bridges.hls4ml.formats import ApFixed
from sw.bridges.hls4ml.lower import HlsNetwork, Port
from sw.flow.bridges_hls4ml import export_hls4ml
from sw.graph import IntegerGraph
from tests.bridges.hls_project import images
from tests.compiler.graphs import S8, U8, Builder
from tests.e2e.test_operations import network


def small() -> IntegerGraph:
    b = Builder(1)
    return b.graph(b.linear("y", b.input("x", (4, 1, 1), U8), 3))


# --- refusals


def test_all_layers_that_hls4ml_does_not_compute_are_listed_before_anything_is_written(tmp_path: Path) -> None:
    b = Builder(1)
    x, offset = b.input("x", (2, 3, 3), FixedFormat(8, 3)), b.input("o", (1, 3, 3), S8)
    b.input("wide", (2, 3, 3), FixedFormat(30, 3))
    b.deform("bent", x, offset)
    b.deform_conv("free", x, b.input("offsets", (18, 3, 3), S8), 4)
    b.clip("moved", x, 0, 9, FixedFormat(4, 1, False))
    b.sum("sum", x, offset_like := b.input("other", (2, 3, 3), FixedFormat(8, 2)))
    b.clip("narrow", x, 0, 255, FixedFormat(4, 3, False))
    graph = b.graph("bent", "free", "moved", "sum", "narrow")
    with pytest.raises(BridgeError) as caught:
        save_hls4ml(graph, tmp_path / "out")
    found = {problem.place: problem.reason for problem in caught.value.problems}
    assert set(found) == {"bent", "free", "moved", "sum", "narrow", "wide"} and not list(tmp_path.iterdir())
    assert "no layer" in found["bent"] and "no layer" in found["free"] and "30" in found["wide"]
    assert "s8f3" in found["moved"] and offset_like in found["sum"] and "0..127" in found["narrow"]
    assert all(problem.advice and str(problem) in str(caught.value) for problem in caught.value.problems)


def test_the_network_of_every_operation_is_refused_for_its_deformable_layers_alone() -> None:
    with pytest.raises(BridgeError) as caught:
        to_hls4ml(network())
    assert {problem.kind for problem in caught.value.problems} == {"deform_conv2d", "deform_depthwise_conv2d"}


def test_without_hls4ml_the_words_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def none(name: str, *given: Any, **options: Any) -> Any:
        if name.split(".")[0] == "hls4ml":
            raise ModuleNotFoundError("No module named 'hls4ml'")
        return imported(name, *given, **options)

    monkeypatch.setattr(builtins, "__import__", none)
    assert to_hls4ml(small()).layers
    with pytest.raises(BridgeError, match=r"pip install 'bitloom\[hls4ml\]'"):
        save_hls4ml(small(), tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("options", "told"), [
    ({"name": "nnet"}, "hls4ml uses itself"), ({"name": "result_t"}, "hls4ml uses itself"), ({"name": "w2"}, "hls4ml uses itself"),
    ({"name": "a b"}, "C\\+\\+ identifier"), ({"part": "zynq"}, "part must be"), ({"part": "xc7z020-1; exit"}, "part must be"),
    ({"period": 0}, "period must be"), ({"period": float("inf")}, "period must be"), ({"period": float("nan")}, "period must be"),
    ({"reuse": 13}, "at most 12, not 13: the largest layer, t1_y_sums, has 12 weights"), ({"inputs": {}}, "missing"),
    ({"reuse": 0}, "reuse factor must be"), ({"reuse": True}, "reuse factor must be"), ({"reuse": 1.5}, "reuse factor must be"),
])  # fmt: skip
def test_options_are_checked(tmp_path: Path, options: dict[str, Any], told: str) -> None:
    with pytest.raises(BridgeError, match=told):
        save_hls4ml(small(), tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


# --- what hls4ml makes of it


def test_a_layer_that_hls4ml_leaves_out_is_seen() -> None:
    """Its passes drop a linear activation between equal types; were it to drop one that matters, numbers would differ."""
    whole = to_hls4ml(small())
    last, kind = whole.layers[-1], whole.outputs[0].type
    idle = replace(last, name="idle", kind="Activation", inputs=(last.name,), types={"result": kind},
                   attributes={"activation": "linear", "n_in": 3})
    added = HlsNetwork(layers=(*whole.layers, idle), inputs=whole.inputs, outputs=(replace(whole.outputs[0], layer="idle"),))
    options = {"name": "network", "folder": "nowhere", "part": "xc7z020clg400-1", "period": 5.0, "reuse": 1}
    assert convert.convert(whole, **options) is not None
    with pytest.raises(BridgeError, match=r"changes what it was told.*layers are .*stands for idle"):
        convert.convert(added, **options)


def test_a_type_that_hls4ml_changes_is_seen() -> None:
    whole = to_hls4ml(small())
    options = {"name": "network", "folder": "nowhere", "part": "xc7z020clg400-1", "period": 5.0, "reuse": 1}
    model = convert.convert(whole, **options)
    assert not list(convert._differences(whole, model))
    for layer in whole.layers:
        for what, kind in layer.types.items():
            for other in (replace(kind, frac=kind.frac + 1), replace(kind, width=kind.width + 1), replace(kind, signed=not kind.signed),
                          replace(kind, rounding=Rounding.RND_ZERO), replace(kind, overflow=Overflow.SAT_ZERO)):
                types = {**layer.types, what: other}
                changed = tuple(replace(each, types=types) if each is layer else each for each in whole.layers)
                (told,) = convert._differences(replace(whole, layers=changed), model)
                assert f"{layer.name} has {what} " in told and told.endswith(str(other))


def test_values_become_codes_only_where_they_are() -> None:
    port = Port(tensor="x", layer="t0_x", shape=(2, 1, 3), type=ApFixed(8, 3, True))
    codes = np.arange(-12, 0).reshape(2, 2, 1, 3)
    assert values.values_of(port, codes).shape == (2, 1, 3, 2)
    assert (values.codes_of(port, values.values_of(port, codes)) == codes).all()
    with pytest.raises(BridgeError, match=r"x: values of hls4ml must be multiples of 2\*\*-3, and 1 are not"):
        values.codes_of(port, values.values_of(port, codes) + np.eye(12)[5].reshape(2, 1, 3, 2) / 16)


# --- the folder


def test_a_folder_is_whole_and_says_what_its_ports_are(tmp_path: Path) -> None:
    graph = small()
    inputs = images(graph, 5)
    graph.save(tmp_path / "graph.bitgraph")
    np.save(tmp_path / "codes.npy", inputs["x"])
    result = export_hls4ml(tmp_path / "graph.bitgraph", tmp_path / "out", name="digits", inputs=tmp_path / "codes.npy",
                           part="xc7z020clg400-1", period=4.5, reuse=2)
    json.dumps(result)
    assert result["top"] == "digits" and result["inputs"][0] == {
        "tensor": "x", "layer": "t0_x", "shape": [1, 1, 4], "type": "ap_ufixed<8,8,AP_TRN,AP_WRAP>", "frac": 0}
    out = tmp_path / "out"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["codes.npy", "graph.bitgraph", "out"]
    assert "set part \"xc7z020clg400-1\"" in (text := (out / "project.tcl").read_text()) and "set clock_period 4.5" in text
    assert (out / "firmware" / "digits.cpp").exists() and "ReuseFactor: 2" in (out / "hls4ml_config.yml").read_text()
    assert np.array_equal(np.loadtxt(out / "tb_data" / "tb_input_features.dat"), inputs["x"].reshape(5, 4))
    assert np.array_equal(np.loadtxt(out / "tb_data" / "tb_output_predictions.dat"), graph(inputs)["y"].reshape(5, 3))


def test_equal_graphs_give_equal_files_without_a_trace_of_where_they_were_made(tmp_path: Path) -> None:
    one, two = save_hls4ml(small(), tmp_path / "one"), save_hls4ml(small(), tmp_path / "two")
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert len(files) > 50 and files == sorted(path.relative_to(two) for path in two.rglob("*") if path.is_file())
    different = [str(file) for file in files if (one / file).read_bytes() != (two / file).read_bytes()]
    assert different == ["bitloom.json", "hls4ml_config.yml"], "it names its folder, for hls4ml, and the manifest has its hash"
    assert (one / different[1]).read_text().replace(str(one), str(two)) == (two / different[1]).read_text()
    assert set(json.loads((one / "bitloom.json").read_text())["files"]) | {"bitloom.json"} == {file.as_posix() for file in files}
    assert not any(b"/.one-" in (one / file).read_bytes() for file in files)


def test_what_hls4ml_cannot_do_after_all_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hls4ml.model.graph import ModelGraph

    def fails(self: Any) -> None:
        raise Exception("no room")

    monkeypatch.setattr(ModelGraph, "write", fails)
    with pytest.raises(BridgeError, match=r"hls4ml 1\.3\.0 cannot make the project \(Exception: no room\)"):
        save_hls4ml(small(), tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_hls4ml_s_own_test_bench_gives_the_results_beside_it(tmp_path: Path) -> None:
    """What C simulation in Vitis HLS runs, compiled with g++: its printed results are the expected values."""
    b = Builder(4)
    x = b.input("x", (2, 5, 5), FixedFormat(6, 4))
    graph = b.graph(b.linear("y", b.mean("mean", b.conv("conv", x, 6, kernel=(3, 3)), (3, 3)), 5), "conv")
    out = save_hls4ml(graph, tmp_path / "out", inputs=images(graph, 7))
    command = ["g++", "-std=c++14", "-O1", "-Ifirmware/ap_types", "-o", "bench", "firmware/network.cpp", "network_test.cpp",
               f'-DWEIGHTS_DIR="{out}/firmware/weights"']
    subprocess.run(command, cwd=out, check=True, capture_output=True)
    subprocess.run(["./bench"], cwd=out, check=True, capture_output=True)
    found = np.array((out / "tb_data" / "csim_results.log").read_text().split(), float)
    expected = np.array((out / "tb_data" / "tb_output_predictions.dat").read_text().split(), float)
    assert found.size == 7 * (5 + 6 * 9) and np.array_equal(found, expected) and len(np.unique(found)) > 20


def blocks(folder: Path, language: str) -> list[str]:
    """What the README says to run."""
    return re.findall(rf"^```{language}\n(.*?)^```$", (folder / "README.md").read_text(), re.MULTILINE | re.DOTALL)


def test_the_readme_s_commands_work(tmp_path: Path) -> None:
    """Run by the shell as they stand there: the results are the graph's, and what they write does not count as added."""
    out = save_hls4ml(small(), tmp_path / "a b", inputs=images(small(), 7))
    compiling, comparing = blocks(out, "sh")
    assert "g++" in compiling and "WEIGHTS_DIR" in compiling and str(tmp_path) not in (out / "README.md").read_text()
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for command, told in ((compiling, "Quantized predictions"), (comparing, "21 values, 0 differ")):
        ran = subprocess.run(command, shell=True, cwd=out, env=environment, capture_output=True, text=True)
        assert ran.returncode == 0 and told in ran.stdout, ran.stdout + ran.stderr
    log = out / "tb_data" / "csim_results.log"
    log.write_text(log.read_text().replace(log.read_text().split()[0], "999", 1))
    ran = subprocess.run(comparing, shell=True, cwd=out, env=environment, capture_output=True, text=True)
    assert ran.stdout == "21 values, 1 differ\n", ran.stdout + ran.stderr
    save_hls4ml(small(), out)
    assert not log.exists() and not (out / "network_test").exists()


@pytest.mark.slow
def test_the_readme_s_python_works(tmp_path: Path) -> None:
    out = save_hls4ml(small(), tmp_path / "out")
    small().save(tmp_path / "graph")
    (script,) = blocks(out, "python")
    script = script.replace('"FILE"', repr(str(tmp_path / "graph")))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ran = subprocess.run([sys.executable, "-c", script], cwd=out, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0 and "'y': array" in ran.stdout, ran.stdout + ran.stderr
    (library,) = (out / "firmware").glob("*.so")
    save_hls4ml(small(), out)
    assert not library.exists()


# --- types


def test_a_type_is_the_narrowest_that_limits() -> None:
    cases = {
        (0, 127): ("ap_ufixed<7,3,AP_RND,AP_SAT>", True), (-128, 127): ("ap_fixed<8,4,AP_RND,AP_SAT>", True),
        (-127, 127): ("ap_fixed<8,4,AP_RND,AP_SAT_SYM>", True), (0, 96): ("ap_ufixed<7,3,AP_RND,AP_SAT>", False),
        (-3, 255): ("ap_fixed<9,5,AP_RND,AP_SAT>", False), (0, 0): ("ap_ufixed<1,-3,AP_RND,AP_SAT>", False),
    }  # fmt: skip
    for (low, high), (text, exact) in cases.items():
        found, enough = formats.limiting((-256, 255), low, high, 4, Rounding.RND)
        assert (str(found), enough) == (text, exact) and found.low <= low <= high <= found.high
    assert formats.limiting((-2, 90), -3, 96, 0, Rounding.TRN) == (ApFixed(8, 0, True, Rounding.TRN, Overflow.SAT), True)


def test_a_type_of_constants_holds_them_and_no_less() -> None:
    assert formats.holding([0, 0], 5) == ApFixed(1, 5, False) and formats.holding([8, -24], 5) == ApFixed(3, 2, True)
    for codes in ([1, 2, 255], [-1], [-128, 64], [1 << 60, 3 << 50]):
        found = formats.holding(codes, 0)
        assert all(found.low * 2**-found.frac <= code <= found.high * 2**-found.frac for code in codes)
    assert lower.INPUT_BITS == 24 and Clip(lo=0, hi=1).op in lower._KEEP_POINT
