"""What a build for the ULX3S refuses before anything is written: somebody else's folder, a core that the part is too small for."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from boards.board import BoardError, load_board_arch
from boards.build import bridge_parameters, check_suits
from boards.ecp5 import ToolError
from boards.fit_ecp5 import block_rams, board_needs
from hw.spec.deform import DeformArch
from hw.spec.records import GateRefusal
from tests.boards.ulx3s_workshop import BOARD, Workshop, open_workshop
from tests.boards.vivado_workshop import design_record

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    return open_workshop(tmp_path, monkeypatch)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_folder_of_another_command_is_left_as_it_is(workshop: Workshop) -> None:
    out = workshop.folder / "digits"
    out.mkdir()
    for name, text in {
        "manifest.json": '{"artefact": "demo digits"}',
        "core.v": "module deform_core(); endmodule",
        "a": "b",
    }.items():
        (out / name).write_text(text)
    before = contents(out)
    with pytest.raises(
        BoardError, match=r"digits belongs to another command: its manifest\.json .*: name another folder with --out"
    ):
        workshop.build("digits")
    (out / "manifest.json").rename(out / "report.json")
    with pytest.raises(BoardError, match=r"digits holds report\.json, which no board's build left there"):
        workshop.build("digits")
    assert sorted(contents(out).values()) == sorted(before.values())
    assert workshop.runs() == [] and workshop.words == []


def test_what_a_build_that_failed_left_is_its_own(workshop: Workshop) -> None:
    """Its logs are accounted for, so that the next build goes to the same folder, of another board too."""
    workshop.tools(fails=3)
    for _ in range(2):
        with pytest.raises(ToolError, match="packing failed"):
            workshop.build()
    failed = json.loads((workshop.folder / "out" / "failed.json").read_text())
    assert failed["board"] == "ulx3s" and failed["built"] is False and failed["error"].startswith("packing failed")
    workshop.tools()
    assert workshop.build()["ok"] and not (workshop.folder / "out" / "failed.json").exists()


def test_a_core_that_the_part_is_too_small_for(workshop: Workshop) -> None:
    """Eight rows, those of the demo: multipliers and block RAMs are counted before the Verilog is written."""
    words = (
        r"the core does not fit LFE5U-85F: DP16KD: 211 needed .*, 208 there; MULT18X18D: 208 needed \(128 array .*, 156 there"
    )
    with pytest.raises(BoardError, match=words):
        workshop.build(arch=DeformArch())
    assert not (workshop.folder / "out").exists() and workshop.words == []


def test_the_own_core_is_counted_as_nextpnr_counts_it() -> None:
    """147 block RAMs and 118 multipliers (docs/ulx3s.md), six of those for addresses."""
    arch, bridge = load_board_arch("ulx3s"), bridge_parameters(BOARD)
    rams, multipliers = board_needs(BOARD, arch, bridge)
    assert sum(rams.values()) == 147 and sum(multipliers.values()) == 118 - 6
    banks = board_needs(dataclasses.replace(BOARD, row_memory="banks"), arch, bridge)[0]
    assert rams["row"] == 3 * 16 and banks["row"] == 9 * 4 and banks["feature"] == rams["feature"] == 15
    sizes = [(2048, 128), (1152, 128), (512, 128), (8192, 128), (32, 128), (64, 128), (256, 32), (4096, 128)]
    assert [block_rams(*size) for size in sizes] == [15, 12, 4, 60, 0, 4, 1, 30]  # as yosys 0.60 does
    check_suits(BOARD, dataclasses.replace(arch, rows=4))
    with pytest.raises(BoardError, match=r"boards/synth\.py does not say how much LFE5U-45F has"):
        check_suits(dataclasses.replace(BOARD, part="LFE5U-45F"), arch)


def test_a_core_larger_than_the_own_one_is_told_of(workshop: Workshop) -> None:
    """Four rows fit by the numbers and were never routed."""
    workshop.build()
    assert not any("larger" in words for words in workshop.words)
    workshop.build("four", arch=dataclasses.replace(load_board_arch("ulx3s"), rows=4))
    assert any(
        words.startswith("this core is larger than the board's own (144 multipliers, not 112), the only one that is known")
        for words in workshop.words
    )


def test_the_refusal_names_the_command_that_helps(workshop: Workshop) -> None:
    out = workshop.folder / "out"
    words = (
        f"there is no design record {out}/design.record.json: name the record of this core with --record FILE, or run "
        f"'bitloom prove --arch {{}}boards/ulx3s/arch.toml --rtl {out}/core.v -o {out}/design.record.json'"
    )
    with pytest.raises(GateRefusal) as error:
        workshop.build(without_proof=False)
    here = "" if Path.cwd() == ROOT else f"{ROOT}/"
    assert str(error.value) == words.format(here)


def test_a_record_of_another_architecture_is_refused_before_the_verilog(workshop: Workshop) -> None:
    record = workshop.folder / "r.json"
    design_record(workshop.core).save(record)
    with pytest.raises(GateRefusal, match=r"the design record is of another architecture .* with --record FILE, or with --arch FILE"):
        workshop.build(without_proof=False, record=record)
    assert not (workshop.folder / "out").exists() and workshop.words == []
