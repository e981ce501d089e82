"""Longest paths of netlists made by hand, whose levels can be added up by eye."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from boards.cells import ADD_IN_DSP, BLOCK_RAM, CARRY, LUT, MULTIPLY
from boards.levels import longest_paths

OUTPUTS = {"O", "Q", "CO", "P", "DOUTADOUT", "DOA", "S0", "S1", "COUT", "F", "Z"}


class Netlist:
    """Builds the JSON of one module: nets by name, cells by type and nets."""

    def __init__(self) -> None:
        self.bits: dict[str, int] = {}
        self.cells: dict[str, Any] = {}
        self.ports: dict[str, Any] = {}
        self.hidden: set[str] = set()

    def bit(self, name: str) -> int:
        return self.bits.setdefault(name, len(self.bits) + 2)

    def cell(self, kind: str, parameters: dict[str, str] | None = None, **pins: str | list[str]) -> Netlist:
        lists = {pin: [nets] if isinstance(nets, str) else nets for pin, nets in pins.items()}
        self.cells[f"$cell${len(self.cells)}"] = {
            "type": kind,
            "parameters": parameters or {},
            "port_directions": {pin: "output" if pin in OUTPUTS else "input" for pin in pins},
            "connections": {pin: [net if net in ("0", "1") else self.bit(net) for net in nets] for pin, nets in lists.items()},
        }
        return self

    def port(self, name: str, direction: str) -> Netlist:
        self.ports[name] = {"direction": direction, "bits": [self.bit(name)]}
        return self

    def module(self) -> dict[str, Any]:
        names = {name: {"hide_name": int(name in self.hidden), "bits": [bit]} for name, bit in self.bits.items()}
        return {"ports": self.ports, "cells": self.cells, "netnames": names}


def levels(netlist: Netlist, family: str = "xcup") -> float:
    found = longest_paths(netlist.module(), family).registers
    return found[0].levels


def test_a_chain_of_tables_is_counted_and_told():
    netlist = Netlist().cell("FDRE", C="clk", CE="1", D="in", R="0", Q="a").cell("FDRE", C="clk", CE="1", D="z", R="0", Q="b")
    netlist.cell("LUT1", I0="a", O="x").cell("LUT2", I0="x", I1="a", O="y").cell("LUT2", I0="y", I1="b", O="z")
    netlist.hidden.add("x")
    path = longest_paths(netlist.module(), "xcup").registers[0]
    assert (path.levels, path.start, path.end, path.pin) == (3 * LUT, "a", "b", "D")
    assert path.words() == "a -> LUT1 -> LUT2 (y) -> LUT2 (z) -> b.D"


def test_clocks_constants_and_resets():
    """A clock ends no path, a constant begins none, an enable or reset ends one."""
    netlist = Netlist().cell("FDRE", C="gated", CE="1", D="0", R="r", Q="a").cell("LUT1", I0="a", O="gated")
    assert longest_paths(netlist.module(), "xcup").registers == ()
    assert levels(netlist.cell("LUT1", I0="a", O="r")) == LUT


def test_a_carry_chain_weighs_a_tenth_per_cell():
    netlist = Netlist().cell("FDRE", C="clk", CE="1", D="s4", R="0", Q="a").cell("LUT2", I0="a", I1="a", O="p")
    one, two = ["w0", "w1", "w2", "w3"], ["s4", "s5", "s6", "s7"]
    netlist.cell("CARRY4", CI="0", CYINIT="0", S=["p", "0", "0", "0"], DI=["0"] * 4, O=one, CO=["c0", "c1", "c2", "c3"])
    netlist.cell("CARRY4", CI="c3", CYINIT="0", S=["0"] * 4, DI=["0"] * 4, O=two, CO=["d0", "d1", "d2", "d3"])
    assert levels(netlist) == pytest.approx(LUT + 2 * CARRY)


def test_a_carry_chain_is_no_loop_where_a_low_sum_feeds_a_high_bit():
    netlist = Netlist().cell("FDRE", C="clk", CE="1", D="o3", R="0", Q="a").cell("LUT1", I0="o0", O="p")
    netlist.cell("CARRY4", CI="0", CYINIT="0", S=["a", "0", "0", "p"], DI=["0"] * 4, O=["o0", "o1", "o2", "o3"])
    assert levels(netlist) == pytest.approx(LUT + CARRY + LUT + CARRY)  # a enters through the table beside its bit


def test_a_sum_that_enters_the_next_chain_passes_a_table():
    netlist = Netlist().cell("FDRE", C="clk", CE="1", D="s", R="0", Q="a").cell("LUT1", I0="a", O="p")
    for entering, sum_ in (("p", "q"), ("q", "s")):
        netlist.cell("CARRY4", CI="0", CYINIT="0", S=[entering], DI=["0"], O=[sum_])
    assert levels(netlist) == pytest.approx(LUT + CARRY + LUT + CARRY)


@pytest.mark.parametrize(
    ("registers", "into", "out"),
    [
        ((), MULTIPLY, MULTIPLY),  # combinational: both belong to one path
        (("PREG",), MULTIPLY, 0.0),
        (("MREG",), MULTIPLY, ADD_IN_DSP),
        (("AREG", "PREG"), 0.0, 0.0),
        (("AREG", "MREG", "PREG"), 0.0, 0.0),
        (("AREG",), 0.0, MULTIPLY),
    ],
)
def test_a_multiplier_block(registers: tuple[str, ...], into: float, out: float):
    parameters = {name: "1" if name in registers else "0" for name in ("AREG", "BREG", "CREG", "DREG", "MREG", "PREG")}
    netlist = Netlist().cell("FDRE", C="clk", CE="1", D="i", R="0", Q="a").cell("LUT1", I0="a", O="x").cell("LUT1", I0="p", O="y")
    netlist.cell("DSP48E2", parameters, A=["x"], P=["p"], CLK="clk").cell("FDRE", C="clk", CE="1", D="y", R="0", Q="end")
    found = {path.end: path.levels for path in longest_paths(netlist.module(), "xcup").registers}
    if registers:
        assert found == {"p": LUT + into, "end": out + LUT}
    else:
        assert found == {"end": LUT + MULTIPLY + LUT}


@pytest.mark.parametrize(("register", "begins"), [("0", BLOCK_RAM), ("1", 0.0)])
def test_a_block_ram_begins_and_ends_paths(register: str, begins: float):
    parameters = {"DOA_REG": register, "DOB_REG": "0" * 32}
    netlist = Netlist().cell("RAMB36E2", parameters, DOUTADOUT=["d"], ADDRARDADDR=["x"], CLKARDCLK="clk")
    netlist.cell("LUT1", I0="d", O="x")
    assert levels(netlist) == begins + LUT


def test_a_memory_of_tables_reads_in_a_level_and_writes_in_a_clock():
    netlist = Netlist().cell("FDRE", C="clk", CE="1", D="d", R="0", Q="a")
    netlist.cell("RAM32M", ADDRA=["a"], DOA=["d"], DIA=["w"], ADDRD=["v"], WCLK="clk", WE="1").cell("LUT1", I0="d", O="w")
    assert levels(netlist) == 2 * LUT  # read, then the table to the memory's own input


def test_ports_are_kept_apart():
    netlist = Netlist().port("i", "input").port("O_pin", "output")
    netlist.cell("LUT1", I0="i", O="x").cell("LUT1", I0="x", O="y").cell("FDRE", C="clk", CE="1", D="y", R="0", Q="a")
    netlist.cell("LUT1", I0="a", O="O_pin")
    report = longest_paths(netlist.module(), "xcup")
    assert report.registers == ()
    assert [(path.start, path.end, path.levels) for path in report.ports] == [("i", "a", 2.0), ("a", "O_pin", 1.0)]


def test_each_vector_is_told_once_longest_first_and_lanes_as_one():
    netlist = Netlist()
    for lane in ("lane1.x", "lane2.x"):
        netlist.cell("FDRE", C="clk", CE="1", D="e", R="0", Q=lane)
    for index in range(3):
        netlist.cell("FDRE", C="clk", CE="1", D=f"d[{index}]", R="0", Q=f"short[{index}]")
        netlist.cell("LUT1", I0=f"short[{index}]", O=f"d[{index}]")
    netlist.cell("LUT1", I0="d[0]", O="e").cell("FDRE", C="clk", CE="1", D="e", R="0", Q="long")
    report = longest_paths(netlist.module(), "xcup")
    assert [(path.end, path.levels) for path in report.registers] == [("lane1.x", 2.0), ("long", 2.0), ("short", 1.0)]
    assert len(longest_paths(netlist.module(), "xcup", count=1).registers) == 1


def test_ecp5_adders_begin_with_a_table():
    netlist = Netlist().cell("TRELLIS_FF", CLK="clk", DI="s", Q="a")
    netlist.cell("CCU2C", A0="a", A1="0", CIN="0", COUT="c").cell("CCU2C", A0="0", A1="0", CIN="c", S1="s")
    assert levels(netlist, "ecp5") == pytest.approx(LUT + CARRY)


def test_unknown_cells_and_loops_are_refused():
    with pytest.raises(ValueError, match=r"cell type \$add has no model in family xcup"):
        longest_paths(Netlist().cell("$add", A="a", O="b").module(), "xcup")
    looped = Netlist().cell("LUT1", I0="a", O="b").cell("LUT1", I0="b", O="a")
    with pytest.raises(ValueError, match="no combinational loop; one runs through a, b"):
        longest_paths(looped.module(), "xcup")


def test_paths_through_a_block():
    """From a register through the block to a register, into the block, out of it, and between its own registers."""
    inner = Netlist().port("i", "input").port("j", "input").port("o", "output").port("q", "output")
    inner.cell("LUT2", I0="i", I1="j", O="x").cell("LUT1", I0="x", O="o")  # i and j to o: 2
    inner.cell("LUT1", I0="j", O="d").cell("FDRE", C="clk", CE="1", D="d", R="0", Q="held")  # j to held: 1
    inner.cell("LUT1", I0="held", O="e").cell("LUT1", I0="e", O="f").cell("LUT1", I0="f", O="g")
    inner.cell("FDRE", C="clk", CE="1", D="g", R="0", Q="last").cell("LUT1", I0="last", O="q")  # held to last: 3; last to q: 1
    whole = Netlist().cell("FDRE", C="clk", CE="1", D="r", R="0", Q="a").cell("LUT1", I0="a", O="b")
    whole.cell("unit", i="a", j="b", O="o", Q="s").cell("LUT1", I0="o", O="p")
    whole.cell("FDRE", C="clk", CE="1", D="p", R="0", Q="z").cell("LUT2", I0="s", I1="s", O="r")
    (unit,) = (cell for cell in whole.cells.values() if cell["type"] == "unit")
    for old, new in (("O", "o"), ("Q", "q")):
        unit["connections"][new], unit["port_directions"][new] = unit["connections"].pop(old), unit["port_directions"].pop(old)
    found = longest_paths(whole.module(), "xcup", blocks={"unit": inner.module()}).registers
    assert {path.end: path.levels for path in found} == {"z": 1 + 2 + 1, "$cell$2": 1 + 1, "a": 1 + 1, "$cell$2.last": 3}
    assert [path.levels for path in found] == [4, 3, 2, 2]


def test_levels_do_not_depend_on_what_is_a_block():
    """A row of equal modules, each with random tables between its ports and registers, flat and as blocks."""
    random = Random(5)
    for _ in range(20):
        inner = Netlist().port("i0", "input").port("i1", "input").port("o0", "output").port("o1", "output")
        nets = ["i0", "i1", "r"]
        for number in range(6):
            inner.cell("LUT2", I0=random.choice(nets), I1=random.choice(nets), O=f"n{number}")
            nets.append(f"n{number}")
        inner.cell("FDRE", C="clk", CE="1", D=nets[-1], R=random.choice(nets), Q="r")
        inner.cell("LUT1", I0=random.choice(nets), O="o0").cell("LUT1", I0=random.choice(nets), O="o1")
        assert _best(_row(inner, flat=True), {}) == _best(_row(inner, flat=False), {"unit": inner.module()}) > 0


def _row(inner: Netlist, *, flat: bool) -> Netlist:
    """Three of the modules between registers."""
    whole = Netlist()
    for side in "01":
        whole.cell("FDRE", C="clk", CE="1", D=f"x{side}", R="0", Q=f"0.o{side}")
        whole.cell("FDRE", C="clk", CE="1", D=f"3.o{side}", R="0", Q=f"z{side}")
    for number in range(3):
        names = {f"i{side}": f"{number}.o{side}" for side in "01"} | {f"o{side}": f"{number + 1}.o{side}" for side in "01"}
        if flat:
            back = {bit: net for net, bit in inner.bits.items()}
            for cell in inner.cells.values():
                pins = {pin: [names.get(back[b], f"{number}.{back[b]}") if isinstance(b, int) else b for b in bits]
                        for pin, bits in cell["connections"].items()}  # fmt: skip
                whole.cell(cell["type"], **pins)
        else:
            whole.cell("unit", **names)
            unit = list(whole.cells.values())[-1]
            unit["port_directions"] = {pin: "output" if pin[0] == "o" else "input" for pin in names}
    return whole


def _best(netlist: Netlist, blocks: dict[str, Any]) -> float:
    return longest_paths(netlist.module(), "xcup", blocks=blocks).registers[0].levels
