"""The whole demo with a training of two epochs and a small core: every artefact, every key, every hash."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

import sw.flow.demo_digits as module
from hw.sim.build import SimulationBuild
from hw.spec.deform import DeformArch
from hw.spec.program import Program
from sw.flow.demo_digits import DigitsResult, Tell, demo_digits
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
    names = {"digits.graph", "digits.program", "core.v", "arch.json", "inputs.npy", "report.html"}
    assert set(manifest["files"]) == names == {path.name for path in out.iterdir()} - {"manifest.json"}
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == digest, name
    assert Program.load(out / "digits.program").digest == result.program.digest == manifest["result"]["hashes"]["program"]
    assert manifest["files"]["core.v"] == manifest["result"]["hashes"]["verilog"]
    assert DeformArch.from_dict(json.loads((out / "arch.json").read_text())) == ARCH
    scores = IntegerGraph.load(out / "digits.graph")({"input": np.load(out / "inputs.npy")})["head"]
    assert np.array_equal(scores.reshape(IMAGES, 10).argmax(axis=1), result.predictions)


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
