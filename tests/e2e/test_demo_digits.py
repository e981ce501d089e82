"""The whole demo with a training of two epochs and a small core: every artefact, every key, every hash."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

import sw.flow.demo_digits as module
from hw.sim.build import SimulationBuild
from hw.spec.deform import DeformArch
from hw.spec.program import Program
from hw.spec.records import DESIGN_FILE, PROGRAM_FILE, DesignRecord, ProgramRecord, require_program
from sw.cli import app
from sw.flow.demo_digits import DigitsResult, Tell, demo_digits, show_records
from sw.flow.gate import admit_design
from sw.graph import IntegerGraph
from sw.quant.train import TrainConfig
from tests.e2e.tiny import ARCH

IMAGES = 5


@pytest.fixture(scope="module")
def demo(core_build: SimulationBuild, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DigitsResult, list[str]]:
    # The simulator comes from the cache, where core_build has put it.
    out, told = tmp_path_factory.mktemp("demo") / "out", []
    tell = Tell(say=told.append, epoch=lambda p: told.append(p.phase), images=lambda step, done, total: told.append(step))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ARCH", ARCH)
        patch.setattr(module, "SEEDS", (1,))
        patch.setattr(module, "PROGRAMS", 20)
        config = TrainConfig(float_epochs=1, fixed_epochs=1, calibration_images=128)
        result = demo_digits(out, images=IMAGES, config=config, tell=tell)
    assert result.report.hashes["verilog"] == core_build.verilog_sha256
    return out, result, told


def test_every_link_is_equal(demo):
    _, result, _ = demo
    report = result.report
    assert result.ok and report.first == []
    assert set(report.links) == {"torch_graph", "graph_ops", "ops_machine", "machine_rtl"}
    assert all(link.compared > 0 for link in report.links.values())
    assert report.timing.compared == IMAGES * result.program.instruction_count
    assert report.variants["random stalls on every channel"]["stall_cycles"] > 100


def test_the_json_has_the_promised_keys(demo):
    _, result, _ = demo
    data = result.to_dict()
    promised = {"float_accuracy", "fixed_accuracy", "links", "cycles", "macs", "mac_utilisation", "simulated_cycles_per_second",
                "seconds"}  # fmt: skip
    assert promised <= set(data) and json.loads(json.dumps(data)) == data
    assert 0 < data["fixed_accuracy"] < 1 and 0 < data["float_accuracy"] < 1
    assert data["macs"] == result.graph.macs()
    assert data["mac_utilisation"] == pytest.approx(data["macs"] / data["cycles"] / (ARCH.rows * ARCH.columns), rel=1e-3)
    assert sum(layer["macs"] for layer in data["layers"]) == data["macs"]
    parts = sum(layer[part] for layer in data["layers"] for part in ("load", "compute", "store"))
    assert 0.5 * data["cycles"] < parts < data["cycles"]


def test_the_artefacts_are_those_of_the_result(demo):
    out, result, _ = demo
    manifest = json.loads((out / "manifest.json").read_text())
    names = {"digits.graph", "digits.program", "core.v", "arch.json", "inputs.npy", "labels.npy", "report.html",
             DESIGN_FILE, PROGRAM_FILE}
    assert set(manifest["files"]) == names == {path.name for path in out.iterdir()} - {"manifest.json"}
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest, name
    assert Program.load(out / "digits.program").digest == result.program.digest == manifest["result"]["hashes"]["program"]
    assert manifest["files"]["core.v"] == manifest["result"]["hashes"]["verilog"]
    assert DeformArch.from_dict(json.loads((out / "arch.json").read_text())) == ARCH
    scores = IntegerGraph.load(out / "digits.graph")({"input": np.load(out / "inputs.npy")})["head"]
    assert np.array_equal(scores.reshape(IMAGES, 10).argmax(axis=1), result.predictions)


def test_the_records_let_the_program_run(demo, tmp_path: Path):
    out, result, _ = demo
    design, program = DesignRecord.load(out / DESIGN_FILE), ProgramRecord.load(out / PROGRAM_FILE)
    assert (design, program) == (result.design, result.recorded) and program.images == IMAGES
    assert admit_design(out / "core.v", ARCH).build_id == design.build_id
    require_program(program, Program.load(out / "digits.program"), design)
    listed = json.loads((out / "manifest.json").read_text())["result"]["records"]
    assert listed == {DESIGN_FILE: {"sha256": design.digest}, PROGRAM_FILE: {"sha256": program.digest}}
    arguments = ["run", str(out / "digits.program"), "--inputs", str(out / "inputs.npy"), "--device", "sim"]
    arguments += ["--design-record", str(out / DESIGN_FILE), "--json", str(tmp_path / "run.json"), "-o", str(tmp_path / "out.npy")]
    ran = CliRunner().invoke(app, arguments)
    found = json.loads((tmp_path / "run.json").read_text())
    assert ran.exit_code == 0 and found["proven"] is True and "NOT PROVEN" not in ran.output, ran.output
    scores = np.load(tmp_path / "out.npy").reshape(IMAGES, 10)
    assert np.array_equal(scores.argmax(axis=1), result.predictions) and scores.size == 10 * IMAGES


def test_the_records_are_told_in_one_line_each(demo):
    out, result, _ = demo
    console = Console(width=400, file=io.StringIO())
    show_records(console, out, result)
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 2 and f"{out / DESIGN_FILE}, build_id {result.design.build_id:016x}; 10 checks" in lines[0]
    assert f"{out / PROGRAM_FILE}; 5 links, {IMAGES} images, 0 mismatches" in lines[1]


def test_what_is_not_proven_has_no_record(demo, tmp_path: Path):
    out, result, _ = demo
    shutil.copytree(out, tmp_path / "out")
    failed = dataclasses.replace(result, design=None, design_failures=("timing: other cycles",), recorded=None)
    module._write(tmp_path / "out", failed)
    assert not (tmp_path / "out" / DESIGN_FILE).exists() and not (tmp_path / "out" / PROGRAM_FILE).exists()
    assert not failed.ok and failed.to_dict()["ok"] is False and failed.to_dict()["records"] == {}
    console = Console(width=400, file=io.StringIO())
    show_records(console, out, failed)
    assert console.file.getvalue() == "the core is not proven, timing: other cycles\n"


def test_the_report_is_one_file_that_needs_nothing_else(demo):
    out, _, _ = demo
    page = (out / "report.html").read_text()
    links = re.findall(r'(?:href|src)="([^"]*)"', page)
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in links) and links
    assert page.count("<svg") == 2 and page.count("data:image/png") == 2 and "<script" not in page
    assert "NOT EQUAL" not in page and page.count(">equal<") == 7


def test_progress_is_told(demo):
    _, _, told = demo
    assert [t for t in told if t in ("float", "fixed")] == ["float", "fixed"] and "all images" in told


@pytest.mark.parametrize("images", [0, 451])
def test_a_number_of_images_that_is_not_there_is_refused(tmp_path: Path, images: int):
    with pytest.raises(ValueError, match=r"must be in 1\.\.450"):
        demo_digits(tmp_path, images=images)
