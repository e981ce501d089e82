"""A fault planted in the Verilog turns `bitloom verify --rtl` red, and is named where it shows first."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hw.rtl.emit import EmittedVerilog
from hw.sim.core import build_core
from sw.cli import app
from tests.e2e.planted import ADDRESS_CARRY, DROPPED_TAP, FAULTS, ROUNDING_BIT, Fault
from tests.e2e.tiny import ARCH, Tiny

SHOWS_IN = {ROUNDING_BIT: "fm word", DROPPED_TAP: "(DW, layer ", ADDRESS_CARRY: "BLOB_CRC"}
"""Words of the first difference: a wrong byte of feature memory, a depthwise layer, the check of a blob that wrapped at 4 KB."""


@dataclass(frozen=True)
class Files:
    """Artefacts on disk, as a user has them."""

    folder: Path

    def arguments(self, rtl: Path) -> list[str]:
        files = {"graph": "tiny.graph", "program": "tiny.program", "inputs": "inputs.npy"}
        named = [item for option, name in files.items() for item in (f"--{option}", str(self.folder / name))]
        return ["verify", *named, "--rtl", str(rtl), "--images", "2"]


@pytest.fixture(scope="module")
def files(
    tiny: Tiny, core_verilog: EmittedVerilog, separate_verilog: EmittedVerilog, tmp_path_factory: pytest.TempPathFactory
) -> Files:
    folder = tmp_path_factory.mktemp("planted")
    tiny.graph.save(folder / "tiny.graph")
    tiny.program.save(folder / "tiny.program")
    np.save(folder / "inputs.npy", tiny.inputs["image"])
    (folder / "good.v").write_text(core_verilog.text)
    for fault in FAULTS:
        _path(folder, fault).write_text(fault.plant(separate_verilog.text))
    with ThreadPoolExecutor(2) as pool:
        builds = list(pool.map(lambda fault: build_core(ARCH, _path(folder, fault)), FAULTS))
    assert len({build.verilog_sha256 for build in builds}) == len(FAULTS) == 3
    return Files(folder)


def _path(folder: Path, fault: Fault) -> Path:
    return folder / f"{fault.name.replace(' ', '_')}.v"


def test_the_generated_file_is_green(files: Files):
    result = CliRunner().invoke(app, [*files.arguments(files.folder / "good.v"), "--json", str(files.folder / "good.json")])
    data = json.loads((files.folder / "good.json").read_text())
    assert result.exit_code == 0 and data["ok"] and data["links"]["machine_rtl"]["compared"] > 10_000, result.output


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_red(files: Files, fault: Fault):
    report = files.folder / f"{fault.name}.json"
    result = CliRunner().invoke(app, [*files.arguments(_path(files.folder, fault)), "--json", str(report)])
    data = json.loads(report.read_text())
    assert result.exit_code == 1 and "NOT EQUAL" in result.output
    assert data["links"]["machine_rtl"]["mismatches"] > 0 and data["links"]["ops_machine"]["mismatches"] == 0
    assert SHOWS_IN[fault] in " ".join(data["first_mismatches"]), data["first_mismatches"]


@pytest.mark.parametrize("change", [{"module": "deform_core.nothing"}, {"pattern": "not there"}, {"pattern": "assign"}])
def test_a_fault_that_does_not_find_its_place_is_refused(core_verilog: EmittedVerilog, change):
    with pytest.raises(ValueError, match="must be"):
        Fault(**{**vars(ROUNDING_BIT), **change}).plant(core_verilog.text)
