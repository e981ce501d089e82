"""The proof gate with real records: of a small core that is proven here, and of a small program that is verified on it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hw.rtl.emit import EmittedVerilog
from hw.sim.build import SimulationBuild
from hw.sim.core import build_core
from hw.spec.program import Program, ProgramError
from hw.spec.records import DESIGN_FILE, PROGRAM_FILE, DesignRecord, GateRefusal, ProgramRecord, RecordError
from hw.spec.regs import ErrorCode
from sw.cli import app
from sw.flow.gate import admit_design, program_record, verify_and_record
from sw.flow.prove_design import ProofFailure, prove_design
from sw.flow.verify import Simulation, verify
from sw.runtime import DeviceError, open_device
from sw.runtime.proof import UnprovenWarning
from sw.runtime.sim import SimDevice
from tests.e2e.planted import ROUNDING_BIT
from tests.e2e.proven import Proven
from tests.e2e.tiny import ARCH, Tiny


def test_a_design_record_holds_what_was_done(design: DesignRecord, core_build: SimulationBuild) -> None:
    counts = {check.name: check.compared for check in design.checks}
    assert counts["random programs"]["programs"] > 40 and counts["random programs"]["bytes of memory"] > 1000
    assert counts["stalls"]["stall cycles"] > 1000 and counts["error programs"]["refusals"] > 50
    assert counts["timing"]["instructions"] == 3 * 32 and counts["registers"]["registers"] > 100
    assert design.verilog_sha256 == core_build.verilog_sha256 and design.arch_id == ARCH.arch_id
    endings = {name: count for name, count in design.coverage.items() if name.startswith("ending")}
    assert len(endings) == len(ErrorCode) and len(design.coverage) > 150 and min(design.coverage.values()) > 0


def test_a_program_record_holds_what_was_compared(proven: Proven, tiny: Tiny) -> None:
    record = proven.proof.program
    links = {link.name: link for link in record.links}
    assert set(links) == {"graph_ops", "ops_machine", "machine_rtl", "timing"} and record.images == 4
    assert links["machine_rtl"].compared["bytes"] > 100_000 and len(links["machine_rtl"].seeds) == 4
    assert record.program_sha256 == tiny.program.digest and record.verilog_sha256 == proven.proof.design.verilog_sha256


def test_the_unchanged_is_admitted_and_runs(proven: Proven, tiny: Tiny, core_build: SimulationBuild) -> None:
    admission = admit_design(proven.path("core.v"), ARCH)
    assert admission.proven and admission.build_id == proven.proof.design.build_id != 0
    with open_device("sim", arch=ARCH, build=core_build, build_id=admission.build_id, proof=proven.proof) as core:
        assert isinstance(core, SimDevice) and core.driver.identity.build_id == admission.build_id
        outputs, _ = core.run(tiny.program, tiny.inputs)
    assert np.array_equal(outputs["head"], tiny.graph(tiny.inputs)["head"]) and outputs["head"].size == 40


def test_a_changed_byte_of_verilog_is_refused(proven: Proven, tmp_path: Path) -> None:
    data = bytearray(proven.path("core.v").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "core.v").write_bytes(data)
    with pytest.raises(
        GateRefusal, match=f"SHA-256 of the Verilog: the record says {proven.proof.design.verilog_sha256[:12]}"
    ) as e:
        admit_design(tmp_path / "core.v", ARCH, proven.path(DESIGN_FILE))
    assert [d.name for d in e.value.differences] == ["SHA-256 of the Verilog"] and "bitloom prove" in str(e.value)
    with pytest.raises(GateRefusal, match="there is no design record"):
        admit_design(tmp_path / "core.v", ARCH)
    with pytest.raises(GateRefusal, match="arch_id"):
        admit_design(proven.path("core.v"), dataclasses.replace(ARCH, rows=3))


def test_the_core_must_have_been_built_with_the_record(proven: Proven, core_build: SimulationBuild) -> None:
    wanted = f"{proven.proof.design.build_id:016x}"
    with pytest.raises(GateRefusal, match=f"build_id: the record says {wanted}, here it is 0000000000000005"):
        open_device("sim", arch=ARCH, build=core_build, build_id=5, proof=proven.proof)


def changed_weights(program: Program) -> Program:
    data = bytearray(program.regions[0].data)
    data[len(data) // 2] ^= 1
    return dataclasses.replace(
        program, regions=(dataclasses.replace(program.regions[0], data=bytes(data)), *program.regions[1:])
    )


def changed_layers(program: Program) -> Program:
    return dataclasses.replace(program, layers=("renamed", *program.layers[1:]))


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (changed_weights, ["SHA-256 of the weights (parameter regions)", "SHA-256 of the program"]),
        (changed_layers, ["SHA-256 of the program"]),
    ],
)
def test_a_changed_program_does_not_run(
    proven: Proven, tiny: Tiny, core_build: SimulationBuild, change, names: list[str]
) -> None:
    build_id = proven.proof.design.build_id
    with open_device("sim", arch=ARCH, build=core_build, build_id=build_id, proof=proven.proof) as core:
        with pytest.raises(GateRefusal, match=names[0].replace("(", r"\(").replace(")", r"\)")) as error:
            core.run(change(tiny.program), tiny.inputs)
        assert [difference.name for difference in error.value.differences] == names
        core.run(tiny.program, {"image": tiny.inputs["image"][0]})


def test_a_changed_byte_of_a_file_is_refused(proven: Proven, tmp_path: Path) -> None:
    looked = 0
    for name, load in ((DESIGN_FILE, DesignRecord.load), (PROGRAM_FILE, ProgramRecord.load), ("tiny.program", Program.load)):
        data = proven.path(name).read_bytes()
        for position in range(0, len(data), len(data) // 40):
            (tmp_path / name).write_bytes(data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :])
            with pytest.raises((RecordError, ProgramError), match=r"changed|damaged|not a Bitloom program"):
                load(tmp_path / name)
            looked += 1
    assert looked >= 120


def test_a_verification_with_a_mismatch_makes_no_record(proven: Proven, tiny: Tiny, core_build: SimulationBuild) -> None:
    report = verify(tiny.graph, tiny.program, tiny.inputs, images=1, simulation=Simulation(build=core_build))
    report.links["machine_rtl"].add(0, 1)
    with pytest.raises(RecordError, match="'machine_rtl' must have 0 mismatches to be recorded, not 1"):
        program_record(report, tiny.program)


def test_a_planted_fault_is_not_proven_and_takes_the_old_record_away(
    proven: Proven, separate_verilog: EmittedVerilog, tmp_path: Path
) -> None:
    faulty = tmp_path / "faulty.v"
    faulty.write_text(ROUNDING_BIT.plant(separate_verilog.text))
    with pytest.raises(ProofFailure, match="is not proven") as error:
        prove_design(ARCH, build=build_core(ARCH, faulty), seeds=(1,), programs=20)
    assert any(words.startswith("random programs: seed 1, program ") for words in error.value.failures), error.value.failures
    record = tmp_path / PROGRAM_FILE
    proven.proof.program.save(record)
    files = [proven.path(name) for name in ("tiny.graph", "tiny.program", "inputs.npy")]
    assert not verify_and_record(*files, record, rtl=faulty, images=1).ok
    assert not record.exists()


@pytest.mark.usefixtures("board")
def test_a_board_is_not_opened_without_records(proven: Proven, tiny: Tiny) -> None:
    with pytest.raises(GateRefusal, match="'uart' is a board and runs only what is proven"):
        open_device("uart")
    with pytest.warns(UnprovenWarning, match="NOT PROVEN"), open_device("uart", without_proof=True) as core:
        core.run(changed_layers(tiny.program), tiny.inputs)
    with open_device("uart", proof=proven.proof) as core, pytest.raises(GateRefusal, match="the program is not the one"):
        core.run(changed_layers(tiny.program), tiny.inputs)


def run_on_board(program: Path, proven: Proven, *options: str) -> tuple[int, str, dict, dict | None]:
    """Exit code, words, the command's JSON and the manifest of its output."""
    output, report = proven.path("out.npy"), proven.path("run.json")
    manifest = output.with_name("out.npy.json")
    for path in (output, report, manifest):
        path.unlink(missing_ok=True)
    arguments = ["run", str(program), "--inputs", str(proven.path("inputs.npy")), "--device", "uart", "-o", str(output)]
    result = CliRunner().invoke(app, [*arguments, "--json", str(report), *options])
    found = json.loads(manifest.read_text()) if manifest.exists() else None
    return result.exit_code, result.output, json.loads(report.read_text()), found


@pytest.mark.usefixtures("board")
def test_the_command_marks_what_it_ran(proven: Proven, tmp_path: Path, tiny: Tiny) -> None:
    code, words, data, manifest = run_on_board(proven.path("tiny.program"), proven)
    assert code == 0 and data["proven"] is True and manifest is not None and manifest["proven"] is True, words
    assert "NOT PROVEN" not in words
    lone = tmp_path / "lone.program"
    tiny.program.save(lone)
    code, words, data, manifest = run_on_board(lone, proven)
    assert code == 1 and "there is no design record" in words and not data["ok"] and manifest is None
    way_out = "name the record of the board's core with --design-record FILE, or run 'bitloom prove --arch ARCH --rtl FILE.v"
    assert f"{way_out} -o {tmp_path / DESIGN_FILE}'" in data["error"]
    code, words, data, manifest = run_on_board(lone, proven, "--design-record", str(proven.path(DESIGN_FILE)))
    way_out = f"with --program-record FILE, or run 'bitloom verify --graph GRAPH --program {lone} --inputs INPUTS --rtl FILE.v"
    assert code == 1 and f"{way_out} --record {tmp_path / PROGRAM_FILE}'" in data["error"]
    code, words, data, manifest = run_on_board(lone, proven, "--without-proof")
    assert code == 0 and "NOT PROVEN" in words
    assert data["proven"] is False and manifest is not None and manifest["proven"] is False


def test_a_simulated_run_with_records_goes_through_the_gate(proven: Proven, core_build: SimulationBuild) -> None:
    arguments = ["run", str(proven.path("tiny.program")), "--inputs", str(proven.path("inputs.npy")), "--device", "sim"]
    report = proven.path("sim.json")
    result = CliRunner().invoke(app, [*arguments, "--design-record", str(proven.path(DESIGN_FILE)), "--json", str(report)])
    data = json.loads(report.read_text())
    assert result.exit_code == 0 and data["proven"] is True and data["counters"]["RETIRED"] > 0, result.output


def test_a_build_without_proof_is_marked(proven: Proven) -> None:
    told: list[str] = []
    admission = admit_design(proven.path("core.v"), ARCH, without_proof=True, warn=told.append)
    assert admission.to_dict() == {"proven": False, "build_id": "0" * 16, "design_record_sha256": ""}
    assert len(told) == 1 and told[0].startswith("NOT PROVEN")


def test_interpreter_and_simulator_need_no_records(proven: Proven, tiny: Tiny, core_build: SimulationBuild) -> None:
    wanted = tiny.graph(tiny.inputs)["head"]
    for device in (open_device("interpreter"), open_device("sim", arch=ARCH, build=core_build)):
        outputs, _ = device.run(changed_layers(tiny.program), tiny.inputs)
        assert np.array_equal(outputs["head"], wanted) and wanted.size == 40
        device.close()
    with pytest.raises(DeviceError, match="leave the proof out"):
        open_device("interpreter", proof=proven.proof)
