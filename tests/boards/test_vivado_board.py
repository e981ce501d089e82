"""Board files of the Vivado boards: what they say, and that wrong ones are refused in words."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomllib

import boards.vivado.board as module
from boards.board import BoardError, board_names
from boards.fit import check_fits
from boards.synth import PARTS
from boards.vivado.board import load_vivado_arch, load_vivado_board, parse_vivado_board, vivado_board_names
from boards.vivado.parts import ProcessingSystem, Window
from hw.spec.deform import DeformArch
from hw.spec.sat import SatArch
from sw.flow import report_sat

BOARDS = Path(module.__file__).parents[1]


def _data(name: str) -> dict[str, Any]:
    return tomllib.loads((BOARDS / name / "vivado.toml").read_text())


def test_boards_and_their_cores() -> None:
    parts = {name: load_vivado_board(name).part for name in vivado_board_names()}
    assert parts == {"u200": "xcu200-fsgd2104-2-e", "ultra96v2": "xczu3eg-sbva484-1-i", "vcu1525": "xcvu9p-fsgd2104-2L-e"}
    assert "ulx3s" in board_names() and not set(parts) & set(board_names())
    assert isinstance(load_vivado_arch("ultra96v2"), DeformArch) and isinstance(load_vivado_arch("vcu1525"), SatArch)
    for name in parts:
        check_fits(load_vivado_arch(name), PARTS[load_vivado_board(name).fit_part])


def test_the_cards_have_the_reports_core() -> None:
    assert load_vivado_arch("vcu1525") == load_vivado_arch("u200") == report_sat.ARCH


def test_u200_is_data_only() -> None:
    """Two files of data; no code of ours names the card."""
    assert sorted(path.name for path in (BOARDS / "u200").iterdir()) == ["arch.toml", "vivado.toml"]
    assert set(_data("u200")) == {"like", "name", "title", "part", "board_part"}
    assert not [path for path in BOARDS.rglob("*.py") if "u200" in path.read_text().lower()]
    one, other = load_vivado_board("u200"), load_vivado_board("vcu1525")
    assert list(one.sites) == list(other.sites) and one.memories == other.memories and one.title != other.title


def test_clocks_of_the_processing_system() -> None:
    system = ProcessingSystem(reference_mhz=33.333, pll_multiplier=45, properties={})
    assert abs(system.pll_mhz - 1499.985) < 1e-9
    found = {mhz: system.divisors(mhz) for mhz in (300, 250, 187.5, 150, 100)}
    assert found == {300: (5, 1), 250: (6, 1), 187.5: (8, 1), 150: (10, 1), 100: (15, 1)}
    assert all(first * second == 25 for first, second in [system.divisors(60)]) and abs(system.actual_mhz(250) - 249.9975) < 1e-9
    with pytest.raises(BoardError, match=r"clock_mhz must be 1499.98 / \(d0 \* d1\), such as \[.*187.5, 214.3.*\], not 200"):
        system.divisors(200)


def test_windows() -> None:
    window = Window(base=0x1000, bytes=0x1000)
    assert window.end == 0x2000 and not window.overlaps(Window(base=0x2000, bytes=0x1000))
    assert window.overlaps(Window(base=0, bytes=0x2000))
    with pytest.raises(BoardError, match="bytes must be a power of two from 4096, not 2048"):
        Window(base=0, bytes=2048)
    with pytest.raises(BoardError, match="base must be a multiple of 0x2000, not 4096"):
        Window(base=0x1000, bytes=0x2000)
    with pytest.raises(BoardError, match="base must be a multiple"):
        Window(base=1 << 64, bytes=0x1000)


def _set(*path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        for key in path[:-1]:
            data = data[key]
        if value is None:
            del data[path[-1]]
        else:
            data[path[-1]] = value

    return change


BAD = [
    ("ultra96v2", _set("part", value="xczu3eg"), r"part must be written as xczu3eg-sbva484-1-i, not 'xczu3eg'"),
    ("ultra96v2", _set("part", value="xcvu9p-fsgd2104-2L-e"), "part must be of a zynq family"),
    ("ultra96v2", _set("part", value="xczu7ev-ffvc1156-2-e"), "part must be in the package of fit_part xczu3eg-sbva484-1-i"),
    ("ultra96v2", _set("fit_part", value="LFE5U-85F"), r"fit_part must be one of \['xczu3eg"),
    ("ultra96v2", _set("kind", value="versal"), r"kind must be one of \['zynq', 'pcie'\], not 'versal'"),
    ("ultra96v2", _set("kind", value="pcie"), "part must be of a pcie family"),
    ("ultra96v2", _set("clock_mhz", value=200), "clock_mhz must be 1499.98"),
    ("ultra96v2", _set("clock_mhz", value=375), r"clock_mhz must be in 10\.\.333, not 375"),
    ("vcu1525", _set("clock_mhz", value=600), r"clock_mhz must be in 10\.\.500, not 600"),
    ("ultra96v2", _set("name", value=None), "has no entry 'name'"),
    ("ultra96v2", _set("registers", value=None), "has no entry 'registers'"),
    ("ultra96v2", _set("interrupts", value=None), "interrupts must be given for a zynq board, not None"),
    ("ultra96v2", _set("processing_system", value=None), "processing_system must be given for a zynq board"),
    ("ultra96v2", _set("memory", value=None), "memories must be given"),
    ("ultra96v2", _set("interrupts", "base", value=0xA000_0000), "windows of one address space must be apart"),
    ("ultra96v2", _set("outputs", "fan", "sites", value=["A9"]), r"pin of one port only; doubled are, not \['A9'\]"),
    ("ultra96v2", _set("outputs", "fan", "sites", value=["4F"]), r"outputs.fan.sites must be package pins such as AY37, not \['4F'\]"),
    ("ultra96v2", _set("outputs", "led", "shows", value=["irq"]), "outputs.led.sites must be 1 pins, not 2"),
    ("ultra96v2", _set("outputs", "fan", "shows", value=["link"]), r"outputs.fan.shows must be of \['zero', 'one', 'running', 'irq'\]"),
    ("ultra96v2", _set("clocks", value={}), r"has unknown entries \['clocks'\]"),
    ("vcu1525", _set("pcie", value=None), "pcie must be given for a pcie board"),
    ("vcu1525", _set("memories", value=None), "memories must be given|controllers must be given"),
    ("vcu1525", _set("registers", "base", value=0x10_0000), "registers must be within BAR0's 1048576 bytes"),
    ("vcu1525", _set("pcie", "slr", value="1"), "pcie.slr must be a region such as SLR1, not '1'"),
    ("vcu1525", _set("pcie", "refclk", value=["AM11"]), "pcie.refclk must be 2 pins, not 1"),
    ("vcu1525", _set("pcie", "quad", value=None), "missing 1 required keyword-only argument: 'quad'"),
    ("vcu1525", _set("memories", "c1", "base", value=0), "windows of one address space must be apart"),
    ("vcu1525", _set("memories", "c1", "slr", value="SLRX"), "memories.c1.slr must be a region"),
    ("vcu1525", _set("memories", "c1", "pins", "par", value=None), "memories.c1.pins must be given for exactly"),
    ("vcu1525", _set("memories", "c1", "pins", "ba", value="AU24"), "memories.c1.pins.ba must be 2 pins, not 1"),
    ("vcu1525", _set("memories", "c1", "pins", "ba", value="AU24 AU24"), r"doubled are, not \['AU24'\]"),
    ("vcu1525", _set("memories", "c2", "pins", "act_n", value="AN25"), None),
    ("vcu1525", _set("memories", "c2", "pins", "act_n", value="AN24"), r"doubled are, not \['AN24'\]"),
]


@pytest.mark.parametrize(("name", "change", "words"), BAD)
def test_refused_files(name: str, change: Callable[[dict[str, Any]], None], words: str | None) -> None:
    """A file with one entry changed; None where the change does no harm that the file alone can show."""
    data = copy.deepcopy(_data(name))
    change(data)
    if words is None:
        parse_vivado_board(data)
        return
    with pytest.raises(BoardError, match=words):
        parse_vivado_board(data)


def test_unknown_boards_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BoardError, match="board must be one of u200, ultra96v2, vcu1525, not 'ulx3s'"):
        load_vivado_board("ulx3s")
    with pytest.raises(BoardError, match="board must be one of"):
        load_vivado_arch("nowhere")
    monkeypatch.setattr(module, "_ROOT", tmp_path)
    for name, text in {"a": 'like = "b"', "b": 'like = "a"', "c": "= 1"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "vivado.toml").write_text(text)
    with pytest.raises(BoardError, match="board b must not be like itself"):
        load_vivado_board("a")
    with pytest.raises(BoardError, match=r"vivado\.toml is no TOML"):
        load_vivado_board("c")
    with pytest.raises(BoardError, match="write the architecture of its core there"):
        load_vivado_arch("a")
    (tmp_path / "a" / "arch.toml").write_text('core = "deform"\nrows = 99\n')
    with pytest.raises(BoardError, match=r"arch\.toml: architecture parameter rows"):
        load_vivado_arch("a")
