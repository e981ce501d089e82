"""Pins against tables of the boards' public constraint files, written here a second time, in another form."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from boards.vivado.board import load_vivado_arch, load_vivado_board
from boards.vivado.project import project_files

# Sources: Corundum's constraints and the vendor's board file for the VCU1525; they agree on every pin, and so do those of the U200.
DDR4 = """
C0: clk300 p/n AY37/AY38
 adr[0..16]: AT36 AV36 AV37 AW35 AW36 AY36 AY35 BA40 BA37 BB37 AR35 BA39 BB40 AN36 AP35 AP36 AR36
 ba[0..1] AT35 AT34 | bg[0..1] BC37 BC39 | ck_t[0..1] AV38 AU34 | ck_c[0..1] AW38 AU35
 cke[0..1] BC38 BC40 | cs_n[0..3] AR33 AP33 AN33 AM34 | odt[0..1] AP34 AN34 | act_n BB39 | par AU36 | reset_n AU31
 dq[0..71]:
  [0..7] AW28 AW29 BA28 BA27 BB29 BA29 BC27 BB27
  [8..15] BE28 BF28 BE30 BD30 BF27 BE27 BF30 BF29
  [16..23] BB31 BB32 AY32 AY33 BC32 BC33 BB34 BC34
  [24..31] AV31 AV32 AV34 AW34 AW31 AY31 BA35 BA34
  [32..39] AL30 AM30 AU32 AT32 AN31 AN32 AR32 AR31
  [40..47] AP29 AP28 AN27 AM27 AN29 AM29 AR27 AR28
  [48..55] AT28 AV27 AU27 AT27 AV29 AY30 AW30 AV28
  [56..63] BD34 BD33 BE33 BD35 BF32 BF33 BF34 BF35
  [64..71] BD40 BD39 BF43 BF42 BF37 BE37 BE40 BF41
 dqs_t[0..17]: BA30 BB26 BD28 BD26 BB35 BC31 AV33 BA32 AM31 AP30 AL28 AR30 AU29 AY27 BE35 BE31 BE38 BF39
 dqs_c[0..17]: BB30 BC26 BD29 BE26 BB36 BD31 AW33 BA33 AM32 AP31 AL29 AT30 AU30 AY28 BE36 BE32 BF38 BF40
C1: clk300 p/n AW20/AW19
 adr[0..16]: AN24 AT24 AW24 AN26 AY22 AY23 AV24 BA22 AY25 BA23 AM26 BA25 BB22 AL24 AL25 AM25 AN23
 ba[0..1] AU24 AP26 | bg[0..1] BC22 AW26 | ck_t[0..1] AT25 AU26 | ck_c[0..1] AU25 AV26
 cke[0..1] BB25 BB24 | cs_n[0..3] AV23 AP25 AR23 AP23 | odt[0..1] AW23 AP24 | act_n AW25 | par AT23 | reset_n AR17
 dq[0..71]:
  [0..7] BD9 BD7 BC7 BD8 BD10 BE10 BE7 BF7
  [8..15] AU13 AV13 AW13 AW14 AU14 AY11 AV14 BA11
  [16..23] BA12 BB12 BA13 BA14 BC9 BB9 BA7 BA8
  [24..31] AN13 AR13 AM13 AP13 AM14 AR15 AL14 AT15
  [32..39] BE13 BD14 BF12 BD13 BD15 BD16 BF14 BF13
  [40..47] AY17 BA17 AY18 BA18 BA15 BB15 BC11 BD11
  [48..55] AV16 AV17 AU16 AU17 BB17 BB16 AT18 AT17
  [56..63] AM15 AL15 AN17 AN16 AR18 AP18 AL17 AL16
  [64..71] BF25 BF24 BD25 BE25 BD23 BC23 BF23 BE23
 dqs_t[0..17]: BF10 BE8 AW15 AY13 BB11 BA10 AT14 AN14 BE12 BE15 BC13 BB14 AV18 AW16 AP16 AM17 BC24 BE22
 dqs_c[0..17]: BF9 BF8 AY15 AY12 BB10 BA9 AT13 AP14 BE11 BF15 BC12 BC14 AW18 AY16 AR16 AM16 BD24 BF22
C2: clk300 p/n F32/E32
 adr[0..16]: L29 A33 C33 J29 H31 G31 C32 B32 A32 D31 A34 E31 M30 F33 A35 G32 K30
 ba[0..1] D33 B36 | bg[0..1] C31 J30 | ck_t[0..1] C34 D34 | ck_c[0..1] B34 D35
 cke[0..1] G30 E30 | cs_n[0..3] B35 J31 L30 K31 | odt[0..1] E33 F34 | act_n B31 | par M29 | reset_n D36
 dq[0..71]:
  [0..7] R25 P25 M25 L25 P26 R26 N27 N28
  [8..15] J28 H29 H28 G29 K25 L27 K26 K27
  [16..23] F27 E27 E28 D28 G27 G26 F28 F29
  [24..31] D26 C26 B27 B26 A29 A30 C27 C28
  [32..39] F35 E38 D38 E35 E36 E37 F38 G38
  [40..47] P30 R30 P29 N29 L32 M32 P31 N32
  [48..55] J35 K35 L33 K33 J34 J33 N34 P34
  [56..63] H36 G36 H37 J36 K37 K38 G35 G34
  [64..71] C36 B37 A37 A38 C39 D39 A40 B40
 dqs_t[0..17]: N26 R28 J25 M27 D29 H26 A27 C29 E39 G37 N31 T30 L35 M34 J38 H33 B39 C37
 dqs_c[0..17]: M26 P28 J26 L28 D30 H27 A28 B29 E40 F37 M31 R31 L36 L34 H38 H34 A39 C38
C3: clk300 p/n J16/H16
 adr[0..16]: K15 B15 F14 A15 C14 A14 B14 E13 F13 A13 D14 C13 B13 K16 D15 E15 F15
 ba[0..1] J15 H14 | bg[0..1] D13 J13 | ck_t[0..1] L14 G14 | ck_c[0..1] L13 G13
 cke[0..1] K13 L15 | cs_n[0..3] B16 D16 M14 M13 | odt[0..1] C16 E16 | act_n H13 | par J14 | reset_n D21
 dq[0..71]:
  [0..7] P24 N24 T24 R23 N23 P21 P23 R21
  [8..15] J24 J23 H24 G24 L24 L23 K22 K21
  [16..23] G20 H17 F19 G17 J20 L19 L18 J19
  [24..31] M19 M20 R18 R17 R20 T20 N18 N19
  [32..39] A23 A22 B24 B25 B22 C22 C24 C23
  [40..47] C19 C18 C21 B21 A18 A17 A20 B20
  [48..55] E17 F20 E18 E20 D19 D20 H18 J18
  [56..63] F22 E22 G22 G21 F24 E25 F25 G25
  [64..71] M16 N16 N13 N14 T15 R15 P13 P14
 dqs_t[0..17]: T22 N22 J21 M22 L20 K18 P19 N17 A25 D24 C17 B19 F18 H19 F23 H23 R16 T13
 dqs_c[0..17]: R22 N21 H21 L22 K20 K17 P18 M17 A24 D23 B17 A19 F17 G19 E23 H22 P15 R13
"""

LANES = """
0 AF2/AF1 AF7/AF6  1 AG4/AG3 AG9/AG8  2 AH2/AH1 AH7/AH6  3 AJ4/AJ3 AJ9/AJ8  4 AK2/AK1 AK7/AK6  5 AL4/AL3 AL9/AL8
6 AM2/AM1 AM7/AM6  7 AN4/AN3 AN9/AN8  8 AP2/AP1 AP7/AP6  9 AR4/AR3 AR9/AR8  10 AT2/AT1 AT7/AT6  11 AU4/AU3 AU9/AU8
12 AV2/AV1 AV7/AV6  13 AW4/AW3 BB5/BB4  14 BA2/BA1 BD5/BD4  15 BC2/BC1 BF5/BF4
"""

SCALARS = ("act_n", "par", "reset_n")


def _ddr4_pins() -> Iterator[tuple[str, str]]:
    """(port, site) of the table: an item is a name, a range of bits in brackets or none, and the sites."""
    card = ""
    for line in DDR4.strip().splitlines():
        if start := re.match(r"(C\d): clk300 p/n (\w+)/(\w+)", line):
            card = start[1].lower()
            yield f"clk300_{card}_clk_p", start[2]
            yield f"clk300_{card}_clk_n", start[3]
            continue
        for item in line.strip().split(" | "):
            name, first, sites = re.fullmatch(r"([a-z_]*)(?:\[(\d+)\.\.\d+\])?:? ?((?:[A-Z]+\d+ ?)*)", item).groups()
            for i, site in enumerate(sites.split()):
                signal = name or "dq"
                yield f"ddr4_{card}_{signal}" + ("" if signal in SCALARS else f"[{int(first or 0) + i}]"), site


def _lanes() -> Iterator[tuple[str, str]]:
    for lane, rxp, rxn, txp, txn in re.findall(r"(\d+) (\w+)/(\w+) (\w+)/(\w+)", LANES):
        yield from ((f"pcie_{pin}[{lane}]", site) for pin, site in zip(("rxp", "rxn", "txp", "txn"), (rxp, rxn, txp, txn), strict=True))


CARD = {
    "led_0": "BC21", "led_1": "BB21", "led_2": "BA20", "ddr4_reset_gate": "AU21", "pcie_perst_n": "BD21",
    "pcie_refclk_clk_p": "AM11", "pcie_refclk_clk_n": "AM10", **dict(_lanes()), **dict(_ddr4_pins()),
}  # fmt: skip
ULTRA96 = {"led_0": "A9", "led_1": "B9", "fan": "F4"}


def _files(name: str) -> dict[str, str]:
    return project_files(load_vivado_board(name), load_vivado_arch(name), build_id=1)


def _table(text: str) -> dict[str, str]:
    return dict(re.findall(r"^  \{(\S+)\} (\w+)$", text, re.MULTILINE))


def _located(text: str) -> dict[str, tuple[str, str | None]]:
    """Port to (site, standard) of a constraint file; a port of one bit may have a star."""
    pattern = r"PACKAGE_PIN (\w+)(?: IOSTANDARD (\w+)\})? \[get_ports (?:-quiet )?\{([^}*]+)\*?\}\]"
    found = re.findall(pattern, text)
    assert len(found) == text.count("PACKAGE_PIN") == len({port for _, _, port in found})
    return {port: (site, standard or None) for site, standard, port in found}


@pytest.mark.parametrize("name", ["vcu1525", "u200"])
def test_all_pins_of_the_cards(name: str) -> None:
    files = _files(name)
    assert len(CARD) == 576 + 8 + 64 + 7 and _table(files["pins.tcl"]) == CARD
    memory, rest = _located(files["memory_pins.xdc"]), _located(files["constraints.xdc"])
    assert len(memory) == 576 + 8 and {port: CARD[port] for port in memory} == {port: site for port, (site, _) in memory.items()}
    assert {port: site for port, (site, _) in rest.items()} == {p: s for p, s in CARD.items() if p not in memory and "x" not in p[5:7]}
    assert "create_clock -name pcie_refclk -period 10 [get_ports {pcie_refclk_clk_p*}]" in files["constraints.xdc"]


def test_standards_of_the_memories_pins() -> None:
    standards = {port: standard for port, (_, standard) in _located(_files("vcu1525")["memory_pins.xdc"]).items()}
    groups = {
        "DIFF_SSTL12_DCI": r"_ck_[tc]\[", "DIFF_POD12_DCI": r"_dqs_[tc]\[", "POD12_DCI": r"_dq\[", "LVCMOS12": "_reset_n$",
        "DIFF_SSTL12": "^clk300", "SSTL12_DCI": r"_(adr|ba|bg|cke|cs_n|odt)\[|_(act_n|par)$",
    }  # fmt: skip
    counts = {"DIFF_SSTL12_DCI": 16, "DIFF_POD12_DCI": 144, "POD12_DCI": 288, "LVCMOS12": 4, "DIFF_SSTL12": 8, "SSTL12_DCI": 124}
    assert sum(counts.values()) == 584
    for standard, pattern in groups.items():
        ports = {port for port in standards if re.search(pattern, port)}
        assert len(ports) == counts[standard] and {standards[port] for port in ports} == {standard}, standard


def test_only_pins_beyond_one_rank_are_quiet() -> None:
    """A controller for modules of one rank has no port for seven pins of a slot; a wrong name of another must not pass unseen."""
    lines = _files("vcu1525")["memory_pins.xdc"].splitlines()
    quiet = [re.search(r"\{(ddr4_c\d)_(\S+)\}\]", line)[2] for line in lines if "-quiet" in line]
    assert sorted(quiet) == sorted(["ck_t[1]", "ck_c[1]", "cke[1]", "cs_n[1]", "cs_n[2]", "cs_n[3]", "odt[1]"] * 4)


def test_configuration_of_the_cards() -> None:
    text = _files("vcu1525")["constraints.xdc"]
    for line in (
        "CONFIG_VOLTAGE 1.8", "CFGBVS GND", "BITSTREAM.CONFIG.SPI_BUSWIDTH 4", "BITSTREAM.CONFIG.SPI_32BIT_ADDR YES",
        "BITSTREAM.CONFIG.SPI_FALL_EDGE YES", "BITSTREAM.CONFIG.CONFIGRATE 63.8", "BITSTREAM.GENERAL.COMPRESS TRUE",
        "BITSTREAM.CONFIG.OVERTEMPSHUTDOWN Enable",
    ):  # fmt: skip
        assert f"set_property {line} [current_design]" in text.splitlines()
    assert "set_property PULLTYPE PULLUP [get_ports {pcie_perst_n}]" in text and "LVCMOS12" in text
    assert "set_false_path -to [get_pins -hierarchical -filter {NAME =~ */irq_first_reg/D}]" in text


def test_pins_of_the_ultra96() -> None:
    files = _files("ultra96v2")
    assert _table(files["pins.tcl"]) == ULTRA96 and "memory_pins.xdc" not in files
    assert _located(files["constraints.xdc"]) == {"led_0": ("A9", "LVCMOS18"), "led_1": ("B9", "LVCMOS18"), "fan": ("F4", "LVCMOS12")}
