"""A folder that is prepared here, run elsewhere and brought back: it equals a build here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from boards.board import BoardError
from boards.vivado.board import load_vivado_arch, load_vivado_board
from boards.vivado.plan import make_plan
from hw.spec.records import DESIGN_FILE, GateRefusal
from tests.boards.fake_vivado import FakeVivado, fill
from tests.boards.vivado_workshop import BIT, BOARD, HWH, Workshop, contents, design_record
from tests.e2e.tiny import ARCH

TEXTS = ("core.v", "bitloom_deform_core.v", "package.tcl", "design.tcl", "constraints.xdc", "pins.tcl", "build.tcl")


@pytest.fixture
def carried(workshop: Workshop) -> Path:
    """A prepared folder in which a good run was."""
    workshop.prepare()
    folder = workshop.folder / "carried"
    fill(folder, workshop.fake)
    return folder


def test_a_prepared_folder_is_whole(workshop: Workshop) -> None:
    result, plan = workshop.prepare(), make_plan(BOARD, ARCH, workshop.core, build_id=0)
    found = contents(workshop.folder / "carried")
    assert set(found) == {*TEXTS, "README.txt", "plan.json"} and workshop.fake.calls == [] and workshop.kept() == []
    assert result["ok"] and result["built"] is False and "prepared, not built" in result["words"]
    assert {name: found[name].decode() for name in TEXTS} == plan.files
    told = json.loads(found["plan.json"])
    assert (told["plan_sha256"], told["files"]) == (plan.digest, plan.hashes) and told.items() <= result.items()
    wanted = ("ultra96v2", BOARD.part, f"{ARCH.arch_id:016x}", "0" * 16, False, "")
    assert tuple(told[key] for key in ("board", "part", "arch_id", "build_id", "proven", "design_record_sha256")) == wanted
    readme = found["README.txt"].decode()
    for words in (f"\n    {told['command']}\n", "bitloom build --import FOLDER --out OUT --without-proof", plan.digest, BIT, HWH):
        assert words in readme


def test_the_gate_comes_before_a_folder(workshop: Workshop) -> None:
    with pytest.raises(GateRefusal, match="there is no design record"):
        workshop.prepare(without_proof=False)
    assert list(contents(workshop.folder / "carried")) == ["core.v"]


@pytest.mark.parametrize("proven", [False, True])
def test_brought_back_it_equals_a_build_here(proven: bool, workshop: Workshop) -> None:
    for name in ("carried", "here"):
        (workshop.folder / name).mkdir()
        if proven:
            design_record(workshop.core).save(workshop.folder / name / DESIGN_FILE)
    workshop.prepare(without_proof=not proven)
    workshop.run_elsewhere(workshop.folder / "carried")
    there = workshop.bring_back(without_proof=not proven)
    here = workshop.build("here", without_proof=not proven)
    differing = {key for key in there.keys() | here.keys() if there.get(key) != here.get(key)}
    assert differing == {"imported", "seconds", "folder", "bitstream_path"} and there["proven"] is here["proven"] is proven
    assert there["imported"] and there["seconds"] == {"session": 3600.0} and len(workshop.fake.calls) == 2
    delivered, wanted = contents(workshop.out), contents(workshop.folder / "here")
    for files in (delivered, wanted):
        assert json.loads(files.pop("manifest.json")).keys() <= here.keys()
    wanted.pop(DESIGN_FILE, None)
    assert delivered == wanted and (len(delivered), BIT in delivered) == (len(TEXTS) + 6, True)


@pytest.mark.parametrize("name", ["vcu1525", "u200"])
def test_a_card_is_brought_back_without_a_hand_off_file(name: str, workshop: Workshop) -> None:
    """Numbers of a large part are told in full."""
    board, arch = load_vivado_board(name), load_vivado_arch(name)
    workshop.prepare(board=name, arch=arch)
    fill(workshop.folder / "carried", FakeVivado(here=workshop.folder / "card", board=board, arch=arch))
    result = workshop.bring_back()
    assert result["built"] and result["board"] == name and not list(workshop.out.glob("*.hwh"))
    assert "40,000 of 1,182,240 look-up tables, 50,000 of 2,364,480 flip-flops, 101.5 of 2,160" in "\n".join(workshop.words)


def test_it_can_be_brought_back_in_place_and_again(carried: Path, workshop: Workshop) -> None:
    assert workshop.bring_back(out="carried")["built"] and (carried / "manifest.json").is_file()
    assert workshop.bring_back()["bitstream"] == workshop.bring_back(out="third")["bitstream"]


def test_a_run_that_was_not_brought_back_is_kept(carried: Path, workshop: Workshop) -> None:
    """It may have taken hours."""
    before = contents(carried)
    for build in (workshop.build, workshop.prepare):
        with pytest.raises(BoardError, match="run there and never brought back: do so with 'bitloom build --import"):
            build("carried")
    assert contents(carried) == before


def test_a_build_and_a_folder_replace_each_other(workshop: Workshop) -> None:
    workshop.prepare("out")
    assert workshop.build()["built"] and not {"plan.json", "README.txt"} & set(contents(workshop.out))
    assert workshop.prepare("out")["cached"]  # no Vivado is needed for what is kept
    workshop.core += "// another\n"
    assert not workshop.prepare("out")["built"] and set(contents(workshop.out)) == {*TEXTS, "README.txt", "plan.json"}
