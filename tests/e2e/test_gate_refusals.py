"""What the gate refuses, as users meet it: one changed byte of an artefact, records of runs that failed or never ended, another core.

Each refusal names what differs with both values, and the command that makes a record that fits.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hw.sim.build import SimulationBuild
from hw.spec.deform import DeformArch
from hw.spec.isa import INSTRUCTION_BYTES, seal
from hw.spec.program import Program
from hw.spec.records import DESIGN_FILE, PROGRAM_FILE, DesignRecord, GateRefusal, RecordError
from sw.cli import app
from sw.flow.gate import admit_design, prove_file
from sw.runtime import open_device
from tests.e2e.proven import Proven
from tests.e2e.tiny import ARCH, Tiny

OTHER = DeformArch(**{**{k: v for k, v in vars(ARCH).items()}, "row_words": ARCH.row_words + 1})
"""An architecture that only differs in a size."""


@pytest.fixture
def folder(proven: Proven, tmp_path: Path) -> Path:
    """A copy of everything that is proven."""
    return Path(shutil.copytree(proven.folder, tmp_path / "artefacts"))


def run(folder: Path) -> tuple[int, str]:
    """Exit code and words of a run on the board, which looks for the records beside the program."""
    arguments = ["run", str(folder / "tiny.program"), "--inputs", str(folder / "inputs.npy"), "--device", "uart"]
    result = CliRunner().invoke(app, [*arguments, "--json", str(folder / "run.json")])
    data = json.loads((folder / "run.json").read_text())
    assert data["ok"] == (result.exit_code == 0) and data.get("error", "") in result.output, result.output
    return result.exit_code, result.output


def changed_byte(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def named(words: str, name: str, recorded: str, found: str) -> bool:
    """Whether a refusal names a hash with both of its values."""
    return f"{name}: the record says {recorded[:12]}" in words and f"here it is {found[:12]}" in words


# one byte -------------------------------------------------------------------------------------------------------------------


def test_nothing_changed_runs(folder: Path, board: None) -> None:
    code, words = run(folder)
    assert code == 0 and "RETIRED" in words


def test_a_byte_of_the_verilog_is_refused(folder: Path, proven: Proven, core_build: SimulationBuild) -> None:
    data = (folder / "core.v").read_bytes()
    recorded, refused = hashlib.sha256(data).hexdigest(), 0
    for at in range(0, len(data), len(data) // 20):
        (folder / "core.v").write_bytes(changed_byte(data, at))
        found = hashlib.sha256(changed_byte(data, at)).hexdigest()
        with pytest.raises(GateRefusal, match="run 'bitloom prove") as error:
            admit_design(folder / "core.v", ARCH)
        assert named(str(error.value), "SHA-256 of the Verilog", recorded, found)
        refused += 1
    assert refused >= 20
    other, build_id = dataclasses.replace(core_build, verilog_sha256=found), proven.proof.design.build_id
    with pytest.raises(GateRefusal, match="SHA-256 of the Verilog") as error:
        open_device("sim", arch=ARCH, build=other, build_id=build_id, proof=proven.proof)
    assert named(str(error.value), "SHA-256 of the Verilog", recorded, found)


def changed_instruction(program: Program) -> Program:
    """One byte of the last instruction of the image, and its CRC made right: a legal program that stores to another place."""
    line = bytearray(program.image[-INSTRUCTION_BYTES:-4])
    line[program.arch.instructions.operation("STORE").offsets["offset"] // 8] ^= 1
    return dataclasses.replace(program, image=program.image[:-INSTRUCTION_BYTES] + seal(bytes(line)))


def changed_weight(program: Program) -> Program:
    region = next(region for region in program.regions if region.kind == "parameters")
    other = dataclasses.replace(region, data=changed_byte(region.data, len(region.data) // 3))
    return dataclasses.replace(program, regions=tuple(other if each is region else each for each in program.regions))


def test_a_byte_of_the_program_is_refused(folder: Path, tiny: Tiny, board: None) -> None:
    assert tiny.program.instructions()[-1].name == "STORE"
    other = changed_instruction(tiny.program)
    assert sum(a != b for a, b in zip(other.image[:-4], tiny.program.image[:-4], strict=True)) == 1
    other.save(folder / "tiny.program")
    code, words = run(folder)
    assert code == 1 and named(words, "SHA-256 of the program", tiny.program.digest, other.digest)
    assert "weights" not in words and "run 'bitloom verify" in words


def test_a_byte_of_the_weights_is_refused(folder: Path, proven: Proven, tiny: Tiny, board: None) -> None:
    other = changed_weight(tiny.program)
    other.save(folder / "tiny.program")
    code, words = run(folder)
    assert code == 1 and f"weights (parameter regions): the record says {proven.proof.program.parameters_sha256[:12]}" in words
    assert named(words, "SHA-256 of the program", tiny.program.digest, other.digest) and "run 'bitloom verify" in words


def test_a_byte_of_the_programs_file_is_refused(folder: Path, board: None) -> None:
    data = (folder / "tiny.program").read_bytes()
    (folder / "tiny.program").write_bytes(changed_byte(data, len(data) // 2))
    code, words = run(folder)
    assert code == 1 and "damaged or truncated (CRC-32 differs); compile it again" in words


@pytest.mark.parametrize(("name", "command"), [(DESIGN_FILE, "prove"), (PROGRAM_FILE, "verify")])
def test_a_byte_of_a_record_is_refused(folder: Path, name: str, command: str, board: None) -> None:
    data = (folder / name).read_bytes()
    digit = re.search(rb'": (\d+)[,\n]', data)
    assert digit is not None
    (folder / name).write_bytes(changed_byte(data, digit.end(1) - 1))
    code, words = run(folder)
    digest = json.loads(data)["digest"]
    assert code == 1 and f"was changed after it was written (SHA-256 of the record: it says {digest[:12]}" in words
    assert "its content gives " in words and f"run 'bitloom {command}" in words


# runs that failed or never ended --------------------------------------------------------------------------------------------


def rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """The record with other content and a digest that fits: what no run of ours writes."""
    content = json.loads(path.read_bytes())
    del content["digest"]
    change(content)
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    path.write_bytes((json.dumps({**content, "digest": digest}, sort_keys=True, indent=1) + "\n").encode())


def _set(*keys: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        inner: Any = content
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value

    return change


UNFIT = {
    "a check that failed": (DESIGN_FILE, _set("checks", 0, "mismatches", value=1), "must have 0 mismatches to be recorded, not 1"),
    "a check that compared nothing": (DESIGN_FILE, _set("checks", 2, "compared", value={}), "must have compared something"),
    "a kind that was never compared": (DESIGN_FILE, _set("checks", 0, "compared", "programs", value=0), "something of each kind"),
    "a run that ended before its last check": (DESIGN_FILE, lambda c: c["checks"].pop(), "there is no ['bus protocol']"),
    "an empty coverage bin": (DESIGN_FILE, _set("coverage", "ending NONE", value=0), "no empty coverage bin"),
    "a link that failed": (PROGRAM_FILE, _set("links", 2, "mismatches", value=3), "must have 0 mismatches to be recorded, not 3"),
    "no simulation": (PROGRAM_FILE, lambda c: c["links"].__delitem__(slice(2, None)), "there is no ['machine_rtl']"),
    "no image": (PROGRAM_FILE, _set("images", value=0), "at least 1 image"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_the_record_of_a_run_that_failed_or_never_ended_is_refused(folder: Path, case: str, board: None) -> None:
    name, change, words = UNFIT[case]
    rewritten(folder / name, lambda content: None)
    assert run(folder)[0] == 0  # so that it is not the rewriting that is refused
    rewritten(folder / name, change)
    code, output = run(folder)
    assert code == 1 and f"{name} does not hold a valid record" in output and words in output
    assert f"run 'bitloom {'prove' if name == DESIGN_FILE else 'verify'}" in output


@pytest.mark.parametrize("name", [DESIGN_FILE, PROGRAM_FILE])
@pytest.mark.parametrize("kept", [0, 1, 500, -1])
def test_a_record_that_was_not_written_whole_is_refused(folder: Path, name: str, kept: int, board: None) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:kept])
    code, words = run(folder)
    assert code == 1 and f"run 'bitloom {'prove' if name == DESIGN_FILE else 'verify'}" in words
    assert ("was changed after it was written" if kept == -1 else "is not a record, or is damaged") in words


def test_a_proof_that_is_interrupted_writes_no_record(core_build: SimulationBuild, tmp_path: Path) -> None:
    seen: list[int] = []

    def interrupt(check: str, done: int, total: int) -> None:
        seen.append(done)
        if (check, done) == ("checks", 4):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prove_file(ARCH, tmp_path / DESIGN_FILE, seeds=(1,), programs=10, progress=interrupt)
    assert len(seen) > 4 and list(tmp_path.iterdir()) == []


# another core's records -----------------------------------------------------------------------------------------------------


def test_a_design_record_of_another_architecture_is_refused(folder: Path, proven: Proven, board: None) -> None:
    record = dataclasses.replace(proven.proof.design, arch_id=OTHER.arch_id)
    record.save(folder / DESIGN_FILE)
    with pytest.raises(GateRefusal, match="run 'bitloom prove") as error:
        admit_design(folder / "core.v", ARCH)
    assert [each.name for each in error.value.differences] == ["arch_id"]
    code, words = run(folder)
    assert code == 1 and f"arch_id: the record says {OTHER.arch_id:016x}, here it is {ARCH.arch_id:016x}" in words


def test_a_program_record_of_another_architecture_is_refused(folder: Path, proven: Proven, board: None) -> None:
    dataclasses.replace(proven.proof.program, arch_id=OTHER.arch_id).save(folder / PROGRAM_FILE)
    code, words = run(folder)
    assert code == 1 and f"arch_id of the program: the record says {OTHER.arch_id:016x}" in words
    assert "run 'bitloom verify" in words


def test_a_program_record_of_another_design_is_refused(folder: Path, proven: Proven, board: None) -> None:
    dataclasses.replace(proven.proof.program, verilog_sha256="5a" * 32).save(folder / PROGRAM_FILE)
    code, words = run(folder)
    recorded = proven.proof.design.verilog_sha256
    assert code == 1 and named(words, "SHA-256 of the design's Verilog", "5a" * 32, recorded) and "run 'bitloom verify" in words


def test_a_record_of_the_other_kind_is_refused(folder: Path, board: None) -> None:
    shutil.copy(folder / PROGRAM_FILE, folder / DESIGN_FILE)
    with pytest.raises(RecordError, match="must be a design record, not 'program': run 'bitloom prove"):
        DesignRecord.load(folder / DESIGN_FILE)
    assert run(folder)[0] == 1
