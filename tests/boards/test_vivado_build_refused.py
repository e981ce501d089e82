"""Folders that are not taken back: each reason in words, with ``out`` and the folder as they were."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from boards.vivado.carry import ImportRefusal
from boards.vivado.plan import digest_of
from hw.spec.records import DESIGN_FILE, GateRefusal
from tests.boards.fake_vivado import bit_file, fill
from tests.boards.test_vivado_build_import import TEXTS
from tests.boards.test_vivado_failures import CRITICAL, FAILURES
from tests.boards.vivado_workshop import BIT, BOARD, HWH, Workshop, contents, design_record

MANIFEST = b'{"board": "ultra96v2", "plan_sha256": "0123"}'
OLD = {BIT: b"old bits", HWH: b"old", "manifest.json": MANIFEST, "timing.rpt": b"old", "notes.txt": b"the user's own"}


@pytest.fixture
def carried(workshop: Workshop) -> Path:
    """A prepared folder in which a good run was."""
    workshop.prepare()
    folder = workshop.folder / "carried"
    fill(folder, workshop.fake)
    return folder


def refused(shop: Workshop, words: str, kind: type[Exception] = ImportRefusal, **options: Any) -> None:
    """Neither ``out``, with an earlier build in it, nor the folder is changed."""
    shop.out.mkdir(exist_ok=True)
    for name, data in OLD.items():
        (shop.out / name).write_bytes(data)
    before = contents(shop.folder / "carried")
    with pytest.raises(kind, match=words):
        shop.bring_back(**options)
    assert contents(shop.out) == OLD and contents(shop.folder / "carried") == before


def replan(folder: Path, change: Callable[[dict[str, Any]], object], *, forge: bool = False) -> None:
    """Changes plan.json; ``forge`` makes its hashes right again."""
    data = json.loads((folder / "plan.json").read_text())
    change(data)
    if forge:
        data["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in data["files"]}
        data["plan_sha256"] = digest_of(data["files"])
    (folder / "plan.json").write_text(json.dumps(data))


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_that_is_not_the_planned_one(name: str, carried: Path, workshop: Workshop) -> None:
    text = (carried / name).read_bytes()
    for changed in (text + b" ", text.replace(b"\n", b"\r\n"), b""):
        (carried / name).write_bytes(changed)
        refused(workshop, f"is not as it was prepared: {name} changed. What was built is not what was planned: prepare")
    (carried / name).unlink()
    refused(workshop, f"is not as it was prepared: {name} missing")


LEFT = [case for case, (changes, _, _) in FAILURES.items() if {"files", "after_all"} & changes.keys()]


@pytest.mark.parametrize("case", LEFT)
def test_what_a_build_here_refuses(case: str, workshop: Workshop) -> None:
    """Missed timing, another part, a missing or damaged file: the same words."""
    changes, _, words = FAILURES[case]
    workshop.prepare()
    for name, value in changes.items():
        setattr(workshop.fake, name, value)
    workshop.fake.put()
    workshop.run_elsewhere(workshop.folder / "carried")
    refused(workshop, f"cannot be brought back: .*{words}")


RUN: dict[str, tuple[str, bytes, bytes, str]] = {
    "critical warnings": ("messages.rpt", b"CRITICAL WARNING: 0", f"CRITICAL WARNING: 1\n  {CRITICAL}".encode(), "set_false_path"),
    "critical warnings cut off": ("messages.rpt", b"CRITICAL WARNING: 0", b"CRITICAL WARNING: 2", "counts 2 critical .* lists none"),
    "no messages": ("messages.rpt", b"CRITICAL WARNING: 0", b"", "counts no messages"),
    "the script's end": ("vivado.log", b"BITLOOM DONE", b"DONE", "does not say that the script came to its end"),
    "another version": ("vivado.log", b"v2022.1", b"v2023.2", r"of different runs, by Vivado's version: .*vivado\.log 2023\.2"),
    "another timing's part": ("timing.rpt", b"zu3eg-sbva484", b"zu7ev-ffvc1156", "timing.rpt is of zu7ev-ffvc1156, and the board"),
    "a hand-off that is cut": (HWH, b"</MODULES>", b"", f"{HWH} is cut off or damaged"),
    "another core's hand-off": (HWH, b"core:deform_core", b"core:sat_core", "its core is bitloom:core:sat_core"),
    "another address": (HWH, b"0xA0000000", b"0xB0000000", "its core lies at 0xb0000000"),
    "another register": (HWH, b'NAME="BUILD_ID', b'NAME="BUILT_ID', "registers differ from the register table: BUILD_ID"),
    "another part's hand-off": (HWH, b'PACKAGE="sbva484"', b'PACKAGE="sfvc784"',
        f"its part is xczu3egsfvc784, and the board has {BOARD.part}"),
    "another bus": (HWH, b'NAME="m_axi_0"', b'NAME="m_axi_1"', r"its core has the buses \['m_axi_1', 's_axi'\], and this one has"),
    "no core": (HWH, b'INSTANCE="core_0"', b'INSTANCE="core_1"', "has no core: no module of it is core_0"),
}  # fmt: skip


@pytest.mark.parametrize("case", RUN)
def test_a_run_that_is_not_to_be_used(case: str, carried: Path, workshop: Workshop) -> None:
    name, old, new, words = RUN[case]
    data = (carried / name).read_bytes()
    assert old.lower() in data.lower(), case
    exact = old if old in data else old.lower()
    (carried / name).write_bytes(data.replace(exact, new))
    refused(workshop, f"cannot be brought back: (.|\n)*{words}")


def test_folders_that_are_none(carried: Path, workshop: Workshop) -> None:
    with pytest.raises(ImportRefusal, match=r"nowhere has no plan\.json: it must be a folder that 'bitloom build' prepared"):
        workshop.bring_back("nowhere")
    for damaged in (b"", b"{", b"[]", b"3", b"{}", b"\xff", b'{"format": 1}'):
        (carried / "plan.json").write_bytes(damaged)
        refused(workshop, r"plan\.json is damaged.*: prepare the folder again")
    (carried / "plan.json").unlink()
    refused(workshop, r"has no plan\.json")


PLANS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another format": (lambda d: d.update(format=2), r"has format 2, and this version of Bitloom reads 1"),
    "another board": (lambda d: d.update(board="vcu1525"), r"plan\.json was changed"),
    "no Vivado board": (lambda d: d.update(board="../ulx3s"), r"is damaged, .*board must be one of"),
    "another part": (lambda d: d.update(part="xczu7ev-ffvc1156-2-e"), r"plan\.json was changed"),
    "another architecture": (lambda d: d["arch"].update(rows=4), r"plan\.json was changed"),
    "no architecture": (lambda d: d.pop("arch"), r"is damaged"),
    "another identity": (lambda d: d.update(build_id="1" * 16), "another version of Bitloom, whose bitloom_deform_core.v differ"),
    "too wide an identity": (lambda d: d.update(build_id="1" * 40), "a design that this version of Bitloom does not build: build_id"),
    "another digest": (lambda d: d.update(plan_sha256="0" * 64), r"plan\.json was changed"),
    "another hash": (lambda d: d["files"].update({"core.v": "0" * 64}), r"plan\.json was changed"),
    "fewer files": (lambda d: d["files"].pop("pins.tcl"), r"plan\.json was changed"),
    "no list": (lambda d: d.update(files=["core.v"]), "is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("case", PLANS)
def test_a_plan_that_was_changed(case: str, carried: Path, workshop: Workshop) -> None:
    change, words = PLANS[case]
    replan(carried, change)
    refused(workshop, words)


def test_other_scripts_with_right_hashes_are_refused(carried: Path, workshop: Workshop) -> None:
    """A folder of another version, or with a script that checks nothing: what it says was checked is not known here."""
    script = carried / "build.tcl"
    script.write_text(script.read_text().replace("\nbitloom::check_timing", "\n#"))
    replan(carried, lambda data: None, forge=True)
    refused(workshop, r"was prepared by another version of Bitloom, whose build\.tcl differ: prepare the folder again")


def test_files_outside_are_never_opened(carried: Path, workshop: Workshop) -> None:
    (workshop.folder / "secret").write_text("x")
    replan(carried, lambda data: data["files"].update({"../secret": ""}), forge=True)
    refused(workshop, r"another version of Bitloom, whose files differ in \.\./secret")


def test_a_text_that_is_none(carried: Path, workshop: Workshop) -> None:
    (carried / "core.v").write_bytes(b"\xff\xfe")
    replan(carried, lambda data: None, forge=True)
    refused(workshop, "holds a file that is no text .*: prepare the folder again")


def test_the_gate_is_asked_again(workshop: Workshop) -> None:
    """With the folder's own core; the identity must be the one that was prepared, which is tied off in the wrapper."""
    folder = workshop.folder / "carried"
    folder.mkdir()
    record = design_record(workshop.core)
    record.save(folder / DESIGN_FILE)
    workshop.prepare(without_proof=False)
    fill(folder, workshop.fake)
    design_record(workshop.core, verilator="9").save(workshop.folder / "other.json")
    design_record("another core").save(workshop.folder / "foreign.json")
    refused(
        workshop, f"prepared for build_id {record.build_id:016x}, and the design record here gives 0{{16}}", without_proof=True
    )
    refused(workshop, "name the record that it was prepared with", without_proof=False, record=workshop.folder / "other.json")
    refused(workshop, "SHA-256 of the Verilog", GateRefusal, without_proof=False, record=workshop.folder / "foreign.json")
    (folder / DESIGN_FILE).rename(workshop.folder / "right.json")
    refused(workshop, "there is no design record", GateRefusal, without_proof=False)
    result = workshop.bring_back(without_proof=False, record=workshop.folder / "right.json")
    assert result["proven"] and result["design_record_sha256"] == record.digest


def test_a_bitstream_of_another_board_with_the_same_package(carried: Path, workshop: Workshop) -> None:
    for part in ("xczu3cg-sbva484-1-i", "xczu3eg-sfvc784-1-i", "xcvu9p-fsgd2104-2L-e"):
        (carried / BIT).write_bytes(bit_file(part))
        refused(workshop, f"{BIT} is for {part}, and Avnet Ultra96-V2 has {BOARD.part}")
    for part in ("xczu3eg-sbva484-1-i", "xczu3eg-sbva484-1", "xczu3eg-sbva484"):
        (carried / BIT).write_bytes(bit_file(part))
        assert workshop.bring_back()["built"]
