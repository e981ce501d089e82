"""A build with Vivado, with a stand-in that runs the real script: whole, kept by digest, behind the gate, told in words."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import time
from itertools import pairwise
from pathlib import Path

import pytest
from typer.testing import CliRunner

import boards.vivado.run as running
from boards.board import BoardError
from boards.ecp5 import ToolError
from boards.vivado.board import load_vivado_board
from boards.vivado.plan import make_plan
from boards.vivado.run import find_vivado
from hw.spec.deform import DeformArch
from hw.spec.records import DESIGN_FILE, GateRefusal
from hw.spec.sat import SatArch
from sw.cli import app
from sw.flow.build_board import build_board
from tests.boards.fake_vivado import FakeVivado, bit_file
from tests.boards.vivado_workshop import BIT, BOARD, HWH, Workshop, contents, design_record
from tests.e2e.tiny import ARCH

STEPS = ["starting Vivado", "package", "design", "synthesis", "implementation", "checks", "bitstream"]
REPORTS = ["messages.rpt", "timing.rpt", HWH, "utilization.rpt", "vivado.log"]
BIG = DeformArch(rows=16, feature_words=1 << 20)


# the good way ----------------------------------------------------------------------------------------------------------------


def test_a_build_is_whole_and_kept(workshop: Workshop) -> None:
    """Vivado runs once; the same plan is taken from the cache, another core is built anew."""
    first = workshop.build()
    bits = (workshop.out / BIT).read_bytes()
    assert bits == bit_file(BOARD.part) and first["ok"] and first["built"] and not first["cached"] and not first["imported"]
    assert first["bitstream"] == {"file": BIT, "bytes": len(bits), "sha256": hashlib.sha256(bits).hexdigest()}
    assert sorted(first["reports"]) == REPORTS and workshop.emitted == [ARCH]
    assert first["worst_slack_ns"] == {"setup": 0.101, "hold": 0.01, "pulse_width": 0.5} and first["tools"] == {
        "vivado": "2022.1"
    }
    assert (
        first["utilisation"]["BRAM36"] == {"used": 101.5, "available": 216}
        and first["core_utilisation"]["LUT"]["used"] == 31_000
    )
    assert (first["part"], first["clock_mhz"], first["arch_id"]) == (BOARD.part, 250, f"{ARCH.arch_id:016x}")
    assert (first["proven"], first["build_id"]) == (False, "0" * 16) and list(first["seconds"]) == STEPS
    told = json.loads((workshop.out / "manifest.json").read_text())
    assert told.items() <= first.items() and len(told) >= 19
    on_disk = {name: hashlib.sha256(data).hexdigest() for name, data in contents(workshop.out).items()}
    assert first["files"].items() <= on_disk.items() and first["reports"].items() <= on_disk.items()
    assert set(on_disk) == {*first["files"], *first["reports"], BIT, "manifest.json"}
    assert (workshop.out / "core.v").read_text() == workshop.core

    again = workshop.build("elsewhere")
    assert again == {**first, "cached": True, "folder": again["folder"], "bitstream_path": again["bitstream_path"]}
    assert len(workshop.fake.calls) == 1 and (workshop.folder / "elsewhere" / BIT).read_bytes() == bits

    workshop.core += "// another\n"
    assert workshop.build()["plan_sha256"] != first["plan_sha256"] and len(workshop.fake.calls) == 2
    assert len(workshop.kept()) == 2 and not list(workshop.folder.glob("cache/bitloom/vivado/*/project"))


def test_steps_are_told_in_order(workshop: Workshop) -> None:
    workshop.build()
    begun = [step for step, done, _, note in workshop.told if done == 0 and not note]
    ended = [step for step, done, total, note in workshop.told if done == total and not note]
    assert begun == ended == STEPS
    ends = {step: workshop.told.index((step, 1, 1, "")) for step in STEPS}
    assert all(ends[one] < workshop.told.index((other, 0, 1, "")) for one, other in pairwise(STEPS))
    text = "\n".join(workshop.words)
    assert "synthesis begins" in text and "bitstream: done in " in text
    assert f"{BOARD.part}: 40,000 of 70,560 look-up tables, 50,000 of 141,120 flip-flops, 101.5 of 216 block RAMs" in text
    assert "clock 250 MHz met by Vivado 2022.1; worst slacks: setup 0.101 ns, hold 0.01 ns, pulse width 0.5 ns" in text


def test_a_long_step_is_heard_of(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest phase in any log; and how long no log has grown."""
    monkeypatch.setattr(running, "BEAT_SECONDS", 0.05)
    lines = "Starting Routing Task\\nPhase 2 Router Initialization | Checksum: 1b5\\nINFO: \\[Route 35-1\\] x"
    workshop.fake.during = f'put project/bitloom.runs/impl_1/runme.log "{lines}"\nafter 400'
    workshop.fake.put()
    workshop.build()
    notes = {note for step, _, _, note in workshop.told if step == "implementation"}
    assert ": Phase 2 Router Initialization" in notes
    log = workshop.folder / "vivado.log"
    log.write_text("Phase 1 Build RT Design\n")
    os.utime(log, (time.time() - 720, time.time() - 720))
    assert running._phase_words(workshop.folder) == ": Phase 1 Build RT Design, nothing new for 12 min"


@pytest.mark.parametrize(("later", "words"), [(1, ": Phase 1 Build RT Design"), (60, ": at work")])
def test_the_session_log_hides_no_phase(later: int, words: str, tmp_path: Path) -> None:
    """It may be written last without naming one; a phase of a step that is over is not told."""
    run, session = tmp_path / "project" / "bitloom.runs" / "synth_1" / "runme.log", tmp_path / "vivado.log"
    run.parent.mkdir(parents=True)
    assert running._phase_words(tmp_path) == ": at work"
    run.write_text("Phase 1 Build RT Design | Checksum: 1\n")
    session.write_text("BITLOOM STEP implementation 4/6\n")
    now = time.time()
    os.utime(session, (now, now))
    os.utime(run, (now - later, now - later))
    assert running._phase_words(tmp_path) == words
    session.write_text("Starting Placer Task\n")
    assert running._phase_words(tmp_path) == ": Starting Placer Task"


def test_the_digest_depends_on_every_text() -> None:
    plan = make_plan(BOARD, ARCH, "core", build_id=1)
    changed = [dataclasses.replace(plan, files={**plan.files, name: text + " "}) for name, text in plan.files.items()]
    digests = {plan.digest, *(other.digest for other in changed), make_plan(BOARD, ARCH, "core", build_id=2).digest}
    assert len(digests) == len(plan.files) + 2 == 9 and make_plan(BOARD, ARCH, "core", build_id=1).digest == plan.digest
    renamed = {("other.v" if name == "package.tcl" else name): text for name, text in plan.files.items()}
    assert dataclasses.replace(plan, files=renamed).digest not in digests
    with pytest.raises(ValueError, match=r"files must be named without folders, not \['\.\./x'\]"):
        dataclasses.replace(plan, files={**plan.files, "../x": ""})
    with pytest.raises(ValueError, match=r"files must hold core\.v"):
        dataclasses.replace(plan, files={"build.tcl": ""})


def test_a_card(workshop: Workshop) -> None:
    """A card has no hand-off file, and its clock is another."""
    card, arch = load_vivado_board("vcu1525"), SatArch(rows=4, columns=4)
    FakeVivado(here=workshop.folder / "fake", board=card, arch=arch).put()
    result = workshop.build(board="vcu1525", arch=arch)
    assert result["part"] == card.part and "vcu1525.hwh" not in result["reports"] and result["clock_mhz"] == card.clock_mhz
    assert result["utilisation"]["URAM288"] == {"used": 0, "available": 960} and "memory_pins.xdc" in result["files"]


# before anything runs --------------------------------------------------------------------------------------------------------


def test_the_gate_is_asked_with_the_verilog_in_place(workshop: Workshop) -> None:
    """Without a record nothing runs, and the core is left to be proven; with one its build_id is tied off."""
    with pytest.raises(GateRefusal, match="there is no design record"):
        workshop.build(without_proof=False)
    assert list(contents(workshop.out)) == ["core.v"] and workshop.fake.calls == []
    record = design_record(workshop.core)
    record.save(workshop.out / DESIGN_FILE)
    result = workshop.build(without_proof=False)
    assert (result["proven"], result["build_id"]) == (True, f"{record.build_id:016x}") and len(workshop.fake.calls) == 1
    assert f"64'h{record.build_id:016x}" in (workshop.out / "bitloom_deform_core.v").read_text()
    workshop.core += "// changed\n"
    with pytest.raises(GateRefusal, match="SHA-256 of the Verilog"):
        workshop.build(without_proof=False)
    assert not (workshop.out / BIT).exists() and not (workshop.out / "manifest.json").exists() and len(workshop.fake.calls) == 1


def test_what_does_not_fit_is_refused_before_anything_is_written(workshop: Workshop) -> None:
    with pytest.raises(BoardError, match=r"Ultra96-V2: the core does not fit xczu3eg.*BRAM36"):
        workshop.build(arch=BIG)
    assert workshop.emitted == [] and workshop.fake.calls == [] and not workshop.out.exists()


def test_wrong_names(workshop: Workshop) -> None:
    with pytest.raises(BoardError, match="board must be one of u200, ultra96v2, ulx3s, vcu1525, not 'ultra97'"):
        workshop.build(board="ultra97")
    with pytest.raises(BoardError, match="board ulx3s is built with open tools: leave out --vivado"):
        workshop.build(board="ulx3s", vivado=workshop.fake.program)
    with pytest.raises(
        ValueError, match="board ulx3s takes an architecture of core 'deform', the inference core, not of 'sat'"
    ):
        workshop.build(board="ulx3s", arch=SatArch())
    with pytest.raises(ToolError, match="is no program: name the file 'vivado'"):
        workshop.build(vivado=workshop.folder / "nowhere")
    with pytest.raises(BoardError, match="board must be one of"):
        build_board("nowhere", workshop.out)
    assert workshop.emitted == [] and not workshop.out.exists()


def test_vivado_is_found_or_named(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_vivado() == workshop.fake.program
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert find_vivado() is None
    assert workshop.build(vivado=workshop.fake.program)["built"] and len(workshop.fake.calls) == 1
    broken = workshop.folder / "broken"
    broken.write_text("#!/nowhere/sh\n")
    broken.chmod(0o755)
    workshop.core += "// another\n"
    with pytest.raises(ToolError, match="broken cannot be started: "):
        workshop.build(vivado=broken)


# the command -----------------------------------------------------------------------------------------------------------------


def command(workshop: Workshop, *arguments: str) -> tuple[int, str, dict[str, object]]:
    """Exit code, words, and what ``--json`` wrote."""
    report = workshop.folder / "result.json"
    result = CliRunner().invoke(app, ["build", *arguments, "--json", str(report)], env={"COLUMNS": "300"})
    data = json.loads(report.read_text())
    assert data["ok"] == (result.exit_code == 0), result.output
    return result.exit_code, result.output, data


def test_the_command_builds(workshop: Workshop) -> None:
    arch = workshop.folder / "arch.json"
    arch.write_text(json.dumps(ARCH.to_dict()))
    arguments = ("--board", "ultra96v2", "--arch", str(arch), "--out", str(workshop.out))
    code, words, data = command(workshop, *arguments)
    assert code == 1 and "there is no design record" in words and workshop.fake.calls == []
    code, words, data = command(workshop, *arguments, "--without-proof")
    assert code == 0 and data["built"] is True and data["plan_sha256"] and not data["proven"]
    assert re.search(rf"{BIT}: \d+ bytes, timing met at 250 MHz with 0\.101 ns to spare; NOT PROVEN", words)
    workshop.core += "// too slow\n"
    workshop.fake.answers = {"STATS.WNS": "-0.2"}
    workshop.fake.put()
    code, words, data = command(workshop, *arguments, "--without-proof")
    assert code == 1 and "bitloom: timing is missed: set-up slack (WNS) is -0.2 ns" in words and "Traceback" not in words


def test_the_command_prepares_and_takes_back(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Vivado the command succeeds and says that nothing was built."""
    arch, carried = workshop.folder / "arch.json", workshop.folder / "carried"
    arch.write_text(json.dumps(ARCH.to_dict()))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    code, words, data = command(workshop, "--board", "ultra96v2", "--arch", str(arch), "--out", str(carried), "--without-proof")
    assert code == 0 and data["built"] is False and data["command"] == "vivado -mode batch -source build.tcl"
    assert f"{carried}: prepared, not built: there is no Vivado on the PATH" in words
    code, words, data = command(workshop, "--import", str(carried), "--out", str(workshop.out), "--without-proof")
    assert code == 1 and f"{BIT}, {HWH}, timing.rpt" in words and "was not run to its end there" in words
    workshop.run_elsewhere(carried)
    code, words, data = command(workshop, "--import", str(carried), "--out", str(workshop.out), "--without-proof")
    assert code == 0 and data["built"] is True and data["imported"] is True and "timing met at 250 MHz" in words
    assert (workshop.out / BIT).read_bytes() == bit_file(BOARD.part)


def test_the_command_wants_one_of_two(workshop: Workshop) -> None:
    for arguments in ((), ("--board", "ultra96v2", "--import", "x"), ("--import", "x", "--arch", "default")):
        code, words, _ = command(workshop, *arguments, "--out", str(workshop.out))
        assert code == 1 and "name a board, --board u200|ultra96v2|ulx3s|vcu1525, or a folder, --import FOLDER" in words
    help_text = CliRunner().invoke(app, ["build", "--help"], env={"COLUMNS": "300"}).output
    assert "u200, ultra96v2, ulx3s, vcu1525" in help_text and not workshop.out.exists()
    assert find_vivado(Path(workshop.fake.program)) == workshop.fake.program
