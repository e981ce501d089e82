"""The gate of training programs: what a record of theirs holds, which sessions it admits, and what is refused with which words."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hw.sim.build import SimulationBuild
from hw.sim.core import build_core, emit_core
from hw.spec.records import DESIGN_FILE, PROGRAM_FILE, GateRefusal, ProgramRecord, TrainingRecord, load_program_record
from hw.spec.sat import SatArch
from hw.spec.training_program import PROGRAMS, TrainingProgram
from sw.cli import app
from sw.flow.gate import find_proof
from sw.flow.verify_training import HYPER
from sw.runtime import Device, Proof, open_device
from tests.e2e.planted import Fault
from tests.e2e.tiny import Tiny
from tests.runtime.tiny_runs import design_record, proof_of
from tests.sat.small_graphs import random_batch, residual_network

ARCH = SatArch(rows=4, columns=4)
GRAPH = residual_network((2, 8), size=4)
TRUNCATION = Fault(
    name="FP16 is truncated, not rounded",
    module="sat_core.gemm.round_0",
    pattern=r"(\{ field_1, kept_1\[10:1\] \}) \+ [^;]+;",
    replacement=r"\1;",
)


def invoke(*arguments: object, folder: Path) -> tuple[int, dict, str]:
    """Exit code, the JSON and the words of a command."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--json", str(folder / "result.json")])
    return result.exit_code, json.loads((folder / "result.json").read_text()), result.output


def verify(folder: Path, *more: object) -> tuple[int, dict, str]:
    files = ("--graph", folder / "net.traingraph", "--program", folder / "net.training", "--inputs", folder / "data.npz")
    return invoke("verify", *files, *more, folder=folder)


@pytest.fixture(scope="module")
def build() -> SimulationBuild:
    return build_core(ARCH)


@pytest.fixture(scope="module")
def folder(build: SimulationBuild, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Graph, program, data and both records, made by the command; the design record as a proof of this core would leave it."""
    folder = tmp_path_factory.mktemp("training")
    GRAPH.save(folder / "net.traingraph")
    (folder / "arch.json").write_text(json.dumps(ARCH.to_dict()))
    batches = [random_batch(GRAPH, seed) for seed in range(3)]
    np.savez(folder / "data.npz", images=np.concatenate([b[0] for b in batches]), labels=np.concatenate([b[1] for b in batches]))
    code, result, _ = invoke(
        "compile", folder / "net.traingraph", "--arch", folder / "arch.json", "-o", folder / "net.training", folder=folder
    )
    assert code == 0 and result["instructions"] > 300 and result["arch_id"] == f"{ARCH.arch_id:016x}"
    code, result, words = verify(folder, "--images", 2, "--record", folder / PROGRAM_FILE)
    assert code == 0 and result["ok"], words
    assert "2 training steps and an inference" in words and words.count("again: ") == 2
    assert set(result["variants"]) == {"other state at power-up", "random stalls on every channel"}
    dataclasses.replace(design_record(ARCH), verilog_sha256=build.verilog_sha256).save(folder / DESIGN_FILE)
    return folder


@pytest.fixture(scope="module")
def proof(folder: Path) -> Proof:
    return find_proof(folder / "net.training")


@pytest.fixture
def program(folder: Path) -> TrainingProgram:
    return TrainingProgram.load(folder / "net.training")


def proven_core(build: SimulationBuild, proof: Proof) -> Device:
    return open_device("sim", arch=ARCH, build=build, build_id=proof.design.build_id, proof=proof)


def test_a_record_holds_what_was_compared(proof: Proof, program: TrainingProgram, build: SimulationBuild) -> None:
    record = proof.program
    assert isinstance(record, TrainingRecord)
    compared = {link.name: link.compared for link in record.links}
    assert set(compared) == {"graph_machine", "machine_rtl", "memory", "timing"}
    assert compared["graph_machine"]["values"] > 10_000 and compared["machine_rtl"]["bytes"] > 500_000
    # Two steps, and one more in each of two further runs, each of which prepares weights and infers.
    assert record.steps == 4 and record.programs == {"prepare": 3, "forward": 4, "backward": 4, "update": 4, "infer": 3}
    assert record.program_sha256 == program.digest and record.verilog_sha256 == build.verilog_sha256
    assert record.graph_sha256 == GRAPH.structure_sha256 and all(len(link.seeds) == 4 for link in record.links)


def test_the_recorded_program_trains(proof: Proof, program: TrainingProgram, build: SimulationBuild) -> None:
    with proven_core(build, proof) as core:
        session = core.open_session(program, GRAPH.state.arrays())
        assert session.step(random_batch(GRAPH, 7), HYPER).loss > 0 and set(session.launches) == set(PROGRAMS) - {"infer"}


def test_another_program_is_not_opened(proof: Proof, program: TrainingProgram, build: SimulationBuild) -> None:
    layers = {**program.layers, "infer": ("renamed", *program.layers["infer"][1:])}
    other = dataclasses.replace(program, layers=layers)
    with proven_core(build, proof) as core:
        with pytest.raises(GateRefusal, match=f"the record says {program.digest[:12]}.*, here it is {other.digest[:12]}") as refusal:
            core.open_session(other, GRAPH.state.arrays())
        assert [difference.name for difference in refusal.value.differences] == ["SHA-256 of the training program"]
        assert "run 'bitloom verify --graph TRAINING_GRAPH" in str(refusal.value)
        core.open_session(program, GRAPH.state.arrays())


def test_a_record_of_another_design_is_refused(proof: Proof, program: TrainingProgram, build: SimulationBuild) -> None:
    moved = Proof(design=proof.design, program=dataclasses.replace(proof.program, verilog_sha256="b2" * 32))
    with proven_core(build, moved) as core, pytest.raises(GateRefusal, match="SHA-256 of the design's Verilog"):
        core.open_session(program, GRAPH.state.arrays())


def test_records_of_the_other_kind_are_refused(
    proof: Proof, program: TrainingProgram, build: SimulationBuild, tiny: Tiny
) -> None:
    with pytest.raises(GateRefusal, match="the record is of a training program, and this is a program of inference"):
        proof.admit_program(tiny.program)
    inference = Proof(design=proof.design, program=proof_of(tiny).program)
    with proven_core(build, inference) as core, pytest.raises(GateRefusal, match="the record is of a program of inference"):
        core.open_session(program, GRAPH.state.arrays())


def test_a_record_is_read_as_what_it_is(folder: Path, tmp_path: Path, tiny: Tiny) -> None:
    assert isinstance(load_program_record(folder / PROGRAM_FILE), TrainingRecord)
    proof_of(tiny).program.save(tmp_path / PROGRAM_FILE)
    assert isinstance(load_program_record(tmp_path / PROGRAM_FILE), ProgramRecord)
    with pytest.raises(GateRefusal, match="there is no program record"):
        load_program_record(tmp_path / "none.json")


def test_a_planted_fault_makes_no_record_and_takes_the_old_one_away(folder: Path, tmp_path: Path) -> None:
    faulty, record = tmp_path / "faulty.v", tmp_path / PROGRAM_FILE
    faulty.write_text(TRUNCATION.plant(emit_core(ARCH).text))
    record.write_bytes((folder / PROGRAM_FILE).read_bytes())
    code, result, words = verify(folder, "--rtl", faulty, "--record", record)
    assert code == 1 and not result["ok"] and "NOT EQUAL" in words and not record.exists()
    assert result["links"]["graph_machine"]["mismatches"] == 0 < result["links"]["machine_rtl"]["mismatches"]
    assert any("machine_rtl: image 0: instruction" in first for first in result["first_mismatches"])


def test_the_interpreter_alone_proves_nothing(folder: Path) -> None:
    code, result, words = verify(folder, "--interpreter-only", "--images", 1)
    assert code == 0 and set(result["links"]) == {"graph_machine"} and result["links"]["graph_machine"]["compared"] > 2000
    code, result, words = verify(folder, "--interpreter-only", "--record", folder / "none.json")
    assert code == 1 and "leave out --interpreter-only or --record" in words and not (folder / "none.json").exists()


def test_wrong_data_is_refused_in_words(folder: Path, tmp_path: Path) -> None:
    for name in ("net.traingraph", "net.training"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    images, labels = random_batch(GRAPH, 0)
    for arrays, said in (
        ({"images": images}, r"must hold the arrays images.*, not \['images'\]"),
        ({"images": images, "labels": labels.astype(np.float32)}, r"labels must be integers in 0\.\.9, not float32"),
        ({"images": images, "labels": labels + 9}, r"data\.npz: labels must be integers in 0\.\.9, not int64 1\d\.\."),
        ({"images": images * np.float16(np.inf), "labels": labels}, r"data\.npz: images must be finite"),
        ({"images": images.astype(np.float32), "labels": labels}, "as many labels, not float32"),
        ({"images": images, "labels": labels[:1]}, r"and \(1,\)"),
        ({"images": images, "labels": labels}, "must hold 3 batches of 2 images, not 2 images"),
    ):
        np.savez(tmp_path / "data.npz", **arrays)
        code, result, words = verify(tmp_path, *(() if "3 batches" in said else ("--images", 1)))
        assert code == 1, words
        with pytest.raises(ValueError, match=said):
            raise ValueError(result["error"])
    for count in (0, -1):
        code, result, _ = verify(tmp_path, "--images", count)
        assert code == 1 and result["error"] == f"the number of batches must be at least 1, not {count}"
    (tmp_path / "data.npz").write_text("images")
    code, result, _ = verify(tmp_path)
    assert code == 1 and "data.npz is not a .npy or .npz file of numbers (of another kind or damaged)" in result["error"]
    residual_network(size=4, width=16).save(tmp_path / "net.traingraph")
    code, result, _ = verify(tmp_path)
    assert code == 1 and "was compiled from another training graph" in result["error"]


def test_files_of_another_kind_are_told_apart(folder: Path, tiny: Tiny, tmp_path: Path) -> None:
    tiny.graph.save(tmp_path / "tiny.graph")
    for graph, arch, said in (
        (folder / "net.traingraph", "default", "(it is a training graph: its core is the training core, and --arch must name an"),
        (tmp_path / "tiny.graph", folder / "arch.json", "(it is an integer graph: its core is the inference core)"),
        (folder / "arch.json", "default", "(it is no graph, or its beginning is lost)"),
    ):
        code, result, _ = invoke("compile", graph, "--arch", arch, "-o", tmp_path / "none", folder=tmp_path)
        assert code == 1 and said in result["error"] and not (tmp_path / "none").exists(), result
    (tmp_path / "half.graph").write_bytes((tmp_path / "tiny.graph").read_bytes()[:-40])
    code, result, _ = invoke("compile", tmp_path / "half.graph", "-o", tmp_path / "none", folder=tmp_path)
    assert code == 1 and "(it is damaged or truncated)" in result["error"]
    np.save(tmp_path / "x.npy", np.zeros(1, np.int64))
    code, result, _ = invoke("run", folder / "net.training", "--inputs", tmp_path / "x.npy", folder=tmp_path)
    assert code == 1 and "is a training program: it runs in a session of the training core" in result["error"]


def test_a_folder_is_no_file(folder: Path, tmp_path: Path) -> None:
    code, result, _ = invoke("compile", folder / "net.traingraph", "--arch", folder / "arch.json", "-o", tmp_path, folder=folder)
    assert code == 1 and result["error"] == f"{tmp_path}: is a folder: name a file" and not any(tmp_path.iterdir())
    found = CliRunner().invoke(app, ["list", str(folder / "net.training"), "--json", str(tmp_path)])
    assert found.exit_code == 1 and "--json" in found.output and "is a folder: name a file" in found.output


def test_the_listing_shows_every_instruction(folder: Path, program: TrainingProgram) -> None:
    code, result, words = invoke("list", folder / "net.training", folder=folder)
    assert code == 0 and result["instructions"] == {name: len(program.layers[name]) for name in PROGRAMS}
    lines = words.splitlines()
    assert sum(line[:5].strip().isdigit() for line in lines) == sum(result["instructions"].values()) > 300
    assert [line for line in lines if line.startswith("; program ")] == [f"; program {name}" for name in PROGRAMS]
    first = next(i for i in program.program("forward").instructions() if i.name == "GEMM")
    shown = next(line for line in lines if "  GEMM " in line and line.split()[1] == "stem")
    assert f"kernel_h={first['kernel_h']}" in shown and "=0" not in shown.split() and "opcode" not in shown
