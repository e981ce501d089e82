"""Whose the files in a build's folder are: somebody else's are refused as they are, a bitstream that was not brought back too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from boards.board import BoardError
from boards.folder import check_free
from boards.vivado.board import load_vivado_arch, load_vivado_board
from hw.rtl.emit import EmittedVerilog
from hw.spec.arch import Arch
from hw.spec.records import DESIGN_FILE, GateRefusal
from hw.spec.sat import SatArch
from sw.flow.build_board import build_board
from tests.boards.fake_vivado import FakeVivado, fill
from tests.boards.test_vivado_build_import import TEXTS
from tests.boards.vivado_workshop import BIT, Workshop, contents, design_record
from tests.e2e.tiny import ARCH

DEMO = {
    "manifest.json": '{"artefact": "demo digits", "files": {"core.v": "00"}}',
    "core.v": "module deform_core(clk);\nendmodule\n",
    "digits.program": "program",
}


def folder_of(shop: Workshop, files: dict[str, str], name: str = "demo") -> Path:
    folder = shop.folder / name
    folder.mkdir()
    for file, text in files.items():
        (folder / file).write_text(text)
    return folder


def test_the_folder_of_another_command_is_left_as_it_is(workshop: Workshop) -> None:
    """Here, prepared, and at --import: all that the demo's folder holds is still there."""
    demo = folder_of(workshop, DEMO)
    workshop.prepare()
    fill(workshop.folder / "carried", workshop.fake)
    before, workshop.emitted[:] = contents(demo), []
    words = r"demo belongs to another command: its manifest\.json is not of a board's build.*: name another folder with --out"
    for act in (workshop.build, workshop.prepare, lambda out: workshop.bring_back(out=out)):
        with pytest.raises(BoardError, match=words):
            act("demo")
        assert contents(demo) == before
    assert workshop.emitted == [] and workshop.fake.calls == []


@pytest.mark.parametrize(
    "name", ["plan.json", "failed.json", "manifest.json", "vivado.log", "timing.rpt", "build.tcl", BIT, "core.v", "README.txt"]
)
def test_no_file_of_somebody_else_is_replaced(name: str, workshop: Workshop) -> None:
    folder = folder_of(workshop, {name: '{"board": 3}', "other.txt": "x"})
    with pytest.raises(
        BoardError, match=rf"demo (holds {name}, which no board's|belongs to another command: its {name}).* --out"
    ):
        workshop.prepare("demo")
    assert contents(folder) == {name: b'{"board": 3}', "other.txt": b"x"} and workshop.emitted == []


def test_a_manifest_that_leads_elsewhere_removes_nothing_there(workshop: Workshop) -> None:
    mark = {"board": "ultra96v2", "plan_sha256": "0", "files": {"../secret": "", "/etc/hosts": "", ".profile": "", "old.v": ""}}
    folder = folder_of(workshop, {"manifest.json": json.dumps(mark), ".profile": "x", "old.v": "x"})
    (workshop.folder / "secret").write_text("x")
    assert workshop.build("demo")["built"]
    assert (workshop.folder / "secret").exists() and (folder / ".profile").exists() and not (folder / "old.v").exists()


def test_what_a_build_left_is_replaced(workshop: Workshop) -> None:
    """Whole, refused by the gate after that, failed and prepared: each leaves a folder that the next one takes."""
    workshop.build()
    workshop.core = "module deform_core; endmodule // another\n"
    with pytest.raises(GateRefusal):
        workshop.build(without_proof=False)
    assert list(contents(workshop.out)) == ["core.v"]
    workshop.fake.answers = {"STATS.WNS": "-0.2"}
    workshop.fake.put()
    for _ in range(2):
        with pytest.raises(Exception, match="timing is missed"):
            workshop.build()
        failed = json.loads((workshop.out / "failed.json").read_text())
        assert failed["board"] == "ultra96v2" and not failed["built"] and failed["error"].startswith("timing is missed")
    workshop.prepare("out")
    assert set(contents(workshop.out)) == {*TEXTS, "README.txt", "plan.json"}


def test_another_boards_bitstream_is_not_left_behind(workshop: Workshop) -> None:
    workshop.build()
    card, arch = load_vivado_board("vcu1525"), SatArch(rows=4, columns=4)
    FakeVivado(here=workshop.folder / "fake", board=card, arch=arch).put()
    workshop.build(board="vcu1525", arch=arch)
    assert [path.name for path in workshop.out.glob("*.bit")] == ["vcu1525.bit"] and not list(workshop.out.glob("*.hwh"))


def test_the_run_of_another_board_is_kept(workshop: Workshop) -> None:
    """A prepared U200 folder with its bitstream in it is not prepared for the VCU1525."""
    board, arch = load_vivado_board("u200"), load_vivado_arch("u200")
    workshop.prepare(board="u200", arch=arch)
    carried = workshop.folder / "carried"
    fill(carried, FakeVivado(here=workshop.folder / "card", board=board, arch=arch))
    before = contents(carried)
    for make in (workshop.build, workshop.prepare):
        with pytest.raises(
            BoardError, match=r"carried holds u200\.bit of a prepared plan that was run there and never brought back"
        ):
            make("carried", board="vcu1525", arch=arch)
    assert contents(carried) == before and workshop.bring_back()["board"] == "u200"


def test_out_must_be_a_folder(workshop: Workshop) -> None:
    file = workshop.folder / "README.md"
    file.write_text("mine")
    workshop.prepare()
    fill(workshop.folder / "carried", workshop.fake)
    for out in ("README.md", "README.md/further/down"):
        for act in (workshop.build, lambda name: workshop.bring_back(out=name)):
            with pytest.raises(BoardError, match=r"--out must be a folder, and .*/README\.md is a file: name another folder"):
                act(out)
        with pytest.raises(BoardError, match="--out must be a folder"):
            build_board("ulx3s", workshop.folder / out, without_proof=True)
    check_free(Path("nowhere"), ["a"], ["b"])
    assert file.read_text() == "mine"


# the design record -----------------------------------------------------------------------------------------------------------


def proven(shop: Workshop, name: str, **tools: str) -> Path:
    path = shop.folder / name
    design_record(shop.core, **tools).save(path)
    return path


def test_a_prepared_folder_holds_its_record(workshop: Workshop) -> None:
    """The printed command brings it back as it stands."""
    record = proven(workshop, "r.json")
    workshop.prepare(without_proof=False, record=record)
    carried = workshop.folder / "carried"
    assert (carried / DESIGN_FILE).read_bytes() == record.read_bytes()
    readme = (carried / "README.txt").read_text()
    assert (
        "\n    bitloom build --import FOLDER --out OUT\n" in readme
        and "plan.json, every file that it names, design.record.json and what" in readme
    )
    assert max(map(len, readme.splitlines())) <= 110
    fill(carried, workshop.fake)
    assert workshop.bring_back(without_proof=False)["proven"]


def test_a_copied_record_is_replaced_and_the_users_own_is_not(workshop: Workshop) -> None:
    first, second = proven(workshop, "r.json"), proven(workshop, "s.json", verilator="9")
    for record in (first, second, first):
        workshop.prepare(without_proof=False, record=record)
        assert (workshop.folder / "carried" / DESIGN_FILE).read_bytes() == record.read_bytes()
    own = folder_of(workshop, {}, "own")
    design_record("an older core").save(own / DESIGN_FILE)
    before = (own / DESIGN_FILE).read_bytes()
    for _ in range(2):
        workshop.prepare("own", without_proof=False, record=first)
        assert (own / DESIGN_FILE).read_bytes() == before
        assert f"bitloom build --import FOLDER --out OUT --record {first}\n" in (own / "README.txt").read_text()
    fill(own, workshop.fake)
    assert workshop.bring_back("own", without_proof=False, record=first)["proven"]


def test_a_record_of_another_architecture_is_refused_before_the_verilog(workshop: Workshop) -> None:
    record = proven(workshop, "r.json")
    other = SatArch(rows=4, columns=4)
    with pytest.raises(
        GateRefusal, match=rf"of another architecture \(arch_id: the record says {ARCH.arch_id:016x}.* --record FILE"
    ):
        workshop.build(board="vcu1525", arch=other, without_proof=False, record=record)
    with pytest.raises(
        GateRefusal, match=r"there is no design record .*nowhere\.json: name the record of this core with --record"
    ):
        workshop.build(without_proof=False, record=workshop.folder / "nowhere.json")
    assert workshop.emitted == [] and not workshop.out.exists()
    workshop.out.mkdir()
    record.rename(workshop.out / DESIGN_FILE)
    with pytest.raises(
        GateRefusal, match=r"is of another architecture .*: with --arch FILE name the architecture that it is of"
    ):
        workshop.build(board="vcu1525", arch=other, without_proof=False)
    assert workshop.emitted == [] and list(contents(workshop.out)) == [DESIGN_FILE]


def test_a_large_core_is_announced(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    def emit(arch: Arch, *, progress: Callable[[str], None]) -> EmittedVerilog:
        progress("writing")
        return workshop.emit(arch, progress=progress)

    monkeypatch.setattr("boards.vivado.plan.emit_core", emit)
    workshop.prepare(board="vcu1525", arch=load_vivado_arch("vcu1525"))
    assert "writing: a core of 1,024 multipliers takes minutes, the first time" in workshop.words
    workshop.prepare("small")
    assert "writing" in workshop.words


def test_refusals_name_what_helps(workshop: Workshop) -> None:
    """At a build another record or a proof to where it looks; at --import the record that the folder was prepared with."""
    with pytest.raises(GateRefusal) as error:
        workshop.build(without_proof=False)
    place = workshop.out / DESIGN_FILE
    prove = f"'bitloom prove --arch ARCH --rtl {workshop.out / 'core.v'} -o {place}' (ARCH: the architecture's file)"
    name = "name the record of this core with --record FILE, or run "
    assert str(error.value) == f"there is no design record {place}: {name}{prove}"
    foreign = workshop.folder / "foreign.json"
    design_record("another core").save(foreign)
    with pytest.raises(
        GateRefusal, match=r"SHA-256 of the Verilog: .* --record FILE, or run .* and build again without --record$"
    ):
        workshop.build(without_proof=False, record=foreign)
    workshop.prepare()
    fill(workshop.folder / "carried", workshop.fake)
    for record in (None, foreign):
        with pytest.raises(GateRefusal, match="name the record that the folder was prepared with, --record FILE") as error:
            workshop.bring_back(without_proof=False, record=record)
        assert "bitloom prove" not in str(error.value)
