"""`bitloom demo sparse`, small: every link compared something and is equal, and the artefacts are whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hw.spec.records import PROGRAM_FILE, TrainingRecord
from hw.spec.sat import SatArch
from hw.spec.training_program import TrainingProgram
from sw.data.digits import load_digits
from sw.flow.commands import file_sha256
from sw.flow.demo_sparse import LINKS, SparseConfig, SparseResult, _write, demo_sparse
from sw.training_graph import TrainingGraph

SMALL = SparseConfig(steps=6, core_steps=2, batch=4, width=8)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SparseResult]:
    out = tmp_path_factory.mktemp("sparse")
    return out, demo_sparse(out, config=SMALL, arch=SatArch(rows=4, columns=4))


def test_every_link_is_equal(demo: tuple[Path, SparseResult]) -> None:
    data = demo[1].to_dict()
    assert demo[1].ok and data["ok"], data["first_mismatches"]
    for links in (data["links"], data["dense_links"]):
        assert set(links) == set(LINKS)
        assert all(link["compared"] > 200 and link["mismatches"] == 0 for link in links.values())


def test_the_core_trains_as_the_emulator(demo: tuple[Path, SparseResult]) -> None:
    losses = demo[1].to_dict()["losses"]
    assert len(losses["torch"]) == len(losses["emulator"]) == 6
    assert losses["core"] == losses["emulator"][:2]
    # Float32 and FP16 training begin alike and go apart.
    assert losses["torch"][0] == pytest.approx(losses["emulator"][0], rel=0.01)
    assert losses["torch"] != losses["emulator"]


def test_sparse_training_takes_fewer_cycles_of_the_array(demo: tuple[Path, SparseResult]) -> None:
    data = demo[1].to_dict()
    assert 1 < data["array_speedup"] and 1 < data["speedup"]
    assert data["cycles"] == sum(layer["array"] + layer["transfer"] + layer["other"] for layer in data["layers"]["sparse"])
    assert 0 < data["mac_utilisation"] < 1


def test_artefacts_are_whole(demo: tuple[Path, SparseResult]) -> None:
    out, result = demo
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["artefact"] == "demo sparse" and manifest["result"]["ok"]
    names = ("digits.training", "digits.traingraph", "arch.json", "digits.npz", "report.html", PROGRAM_FILE)
    assert manifest["files"] == {name: file_sha256(out / name) for name in names}
    with np.load(out / "digits.npz") as data:
        assert data["train_images"].shape == (1347, 8, 8, 1) and data["train_images"].dtype == np.float16
        assert {name: len(data[name]) for name in data.files} == {
            "train_images": 1347, "train_labels": 1347, "test_images": 450, "test_labels": 450}  # fmt: skip
    assert TrainingProgram.load(out / "digits.training").digest == result.program.digest
    record = TrainingRecord.load(out / PROGRAM_FILE)
    assert record.program_sha256 == result.program.digest and record.verilog_sha256 == result.proof.verilog_sha256
    assert record.steps == 4 and record.programs == {"prepare": 3, "forward": 4, "backward": 4, "update": 4, "infer": 3}
    assert TrainingGraph.load(out / "digits.traingraph").to_bytes() == result.graph.to_bytes()
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 2 and page.count("data:image/png") == 1 and "NOT EQUAL" not in page


def test_what_is_not_equal_leaves_no_record(demo: tuple[Path, SparseResult], tmp_path: Path) -> None:
    out, result = demo
    (tmp_path / PROGRAM_FILE).write_bytes((out / PROGRAM_FILE).read_bytes())
    variant = next(iter(result.proof.variants.values()))
    variant.links["memory"].add(1, 1)
    try:
        _write(tmp_path, result, load_digits())
    finally:
        variant.links["memory"].mismatches = 0
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert not manifest["result"]["ok"] and PROGRAM_FILE not in manifest["files"] and not (tmp_path / PROGRAM_FILE).exists()


def test_more_steps_on_the_core_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match=r"core_steps must be in 1\.\.steps \(5\), not 6"):
        SparseConfig(steps=5, core_steps=6)
