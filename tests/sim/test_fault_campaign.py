"""Planted faults: the text tools on a small design, and a small campaign on the whole core. The full one: bench/fault_campaign.py."""

import random
import re

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.emit import emit
from hw.sim.build import build_simulation
from hw.sim.campaign_netlist import CONSTANT, Netlist
from hw.sim.campaign_proof import prove_equal
from hw.sim.core import emit_core
from hw.sim.mutants import MOST, ORIGINAL, Mutant, choose, family, instrument, plant, select_pins, variants
from tests.sim.core_bench import ARCH
from tests.sim.fault_suite import examine, result_stages, stages


class Counter(wiring.Component):
    """Counts steps while enabled, up to a bound; `dead` is looked at by nobody."""

    en: In(1)
    step: In(4)
    o: Out(8)
    build_id: In(64)

    def elaborate(self, platform):
        m = Module()
        total, inner = Signal(8), Inner()
        m.submodules.inner = inner
        m.d.comb += [inner.i.eq(total + self.step), self.o.eq(total)]
        with m.If(self.en & (inner.o < 200)):
            m.d.sync += total.eq(inner.o)
        return m


class Inner(wiring.Component):
    i: In(8)
    o: Out(8)
    dead: Out(8)

    def elaborate(self, platform):
        m = Module()
        held = Signal(8)
        m.d.sync += held.eq(self.i)
        m.d.comb += [self.o.eq(self.i ^ 0x55), self.dead.eq(held + 1)]
        return m


@pytest.fixture(scope="module")
def counter() -> Netlist:
    return Netlist(emit(Counter(), "counter"))


def test_sites_are_what_can_be_seen(counter: Netlist) -> None:
    inner = [site for site in counter.sites("counter.inner") if site.role != "port"]
    assert sum(site.width for site in inner) == 8 and all(site.target.count("o[") for site in inner), inner
    assert all(site.live == (1 << site.width) - 1 for site in inner)
    assert {site.role for site in counter.sites("counter")} >= {"wire", "register", "reset"}


def test_a_site_is_the_text_at_its_place(counter: Netlist) -> None:
    sites = [site for module in counter.modules for site in counter.sites(module)]
    assert len(sites) > 8
    for site in sites:
        assert counter.lines[site.line][site.start : site.end] == site.expression
        for _, mutated in variants(site, {}, random.Random(1)):
            assert mutated.strip() != site.expression.strip()


def test_no_mutants_leave_the_text_but_for_the_selector(counter: Netlist) -> None:
    text = instrument(counter, []).text.split("\n")
    added = [line for line in text if "fault_select" in line]
    assert len(added) == 2 and [line for line in text if line not in added] == counter.lines


def test_choosing_is_repeatable_and_reaches_every_module(counter: Netlist) -> None:
    chosen = choose(counter, 20, seed=4)
    assert chosen == choose(counter, 20, seed=4) != choose(counter, 20, seed=5)
    assert [mutant.number for mutant in chosen] == list(range(1, 21))
    assert {mutant.site.module for mutant in chosen} == set(counter.modules)
    assert len({(mutant.site, mutant.mutated) for mutant in chosen}) == 20


def test_a_planted_fault_is_proven_to_be_one_or_not(counter: Netlist) -> None:
    faults = [mutant for mutant in choose(counter, 30, seed=1) if mutant.kind in ("wrong operator", "off by one", "swapped operands")]
    assert len(faults) >= 2
    for fault in faults[:2]:
        assert len(plant(counter, fault).split("\n")) == len(counter.lines) + 4
        assert not prove_equal(counter, fault), fault.words
    same = Mutant(number=1, site=faults[0].site, kind="none", mutated=f"~(~{ORIGINAL})")
    assert prove_equal(counter, same)


@pytest.mark.parametrize("number", [0, 1, 300, MOST])
@pytest.mark.parametrize("build_id", [0, 0x0123_4567_89AB_CDEF])
def test_pins_select_and_leave_the_rest(number: int, build_id: int) -> None:
    pins = select_pins(number, build_id)
    assert pins >> 48 ^ pins >> 32 & MOST == number and pins & (1 << 48) - 1 == build_id & (1 << 48) - 1


def test_bad_numbers_are_refused(counter: Netlist) -> None:
    with pytest.raises(ValueError, match="must be 0 to 65535"):
        select_pins(MOST + 1)
    with pytest.raises(ValueError, match="must be 1 to 65535"):
        choose(counter, 0, seed=1)


def test_families_join_replicas() -> None:
    assert family("deform_core.pw.array.cell_1_15") == family("deform_core.pw.array.cell_0_0") == "deform_core.pw.array.cell_#"
    assert family("deform_core.dw.lanes.lane3") == "deform_core.dw.lanes.lane#"


SURE = (
    ("dw.lanes.lane3", "total_acc"), ("dw.writer", "next_word"), ("load.loop.walker", "runs_left"), ("parameter.bank", "read_data"),
    ("pw.array.cell_1_4", "product"), ("pw.drain.out", "addr"), ("requantise.lane_9", "total_1"), ("row.bank2", "read_data"),
    ("shell.read.splitter", "left"), ("shell.write", "address"), ("shell.registers.endpoint", "s_axi__rdata"),
    ("shell.sequencer.fetcher", "bits"), ("store.loop.walker", "planes_left"), ("weight.bank", "read_data"),
    ("pw.drain.add.lane_12", "total"), ("tables.lane_6", "late"), ("load", "table__data"),
)  # fmt: skip
"""Vectors that matter to every program, in shell, address generators, arithmetic and memories."""


PLANTED = {
    "a sum without carries": ("pw.drain.add.lane_3", r" \+ ", " ^ "),
    "a sum one below the lower clip": ("pw.drain.add.lane_3", r"(total\) <) (\$signed\(lo\))", r"\1 (\2 - 10'sd1)"),
    "a sum one above the upper clip": ("pw.drain.add.lane_3", r"(total\) >) (\$signed\(hi\))", r"\1 (\2 + 10'sd1)"),
    "clips that cross": ("pw.drain.add.lane_3", r"^\$signed\(hi\) < \$signed\(lo\)", "1'h0"),
    "an unsigned byte with a sign": ("pw.drain.add.lane_3", r"^a\[7\] & .*", "a[7]"),
    "the upper clip of the requantise unit": ("pw.drain.add", r"^instruction\[462:454\]", "instruction[439:431]"),
    "the step from residual to residual": ("pw.drain.left", r"^pixel \+ ", "pixel + 1'h1 + "),
    "no residual read": ("pw.drain", r"^zipped \| added", "zipped"),
    "a sum written a cycle late": ("pw.drain", r"^added \? written_10", "added ? written_11"),
    "the next table": ("tables", r"- 1'h1", "- 1'h0"),
    "a table where there is none": ("tables", r"^\| \\table", "1'h1 | \\\\table"),
    "a table that there is not": ("tables", r"^\\table \[2\] & .*", "1'h0"),
    "an index bit stuck": ("tables.lane_5", r"^\{ page, i\[7:2\] \}", "{ page, i[7:3], 1'h0 }"),
    "the low index of the next byte": ("tables.lane_5", r"late\[1:0\]", "i[1:0]"),
    "an entry in its neighbour's place": ("tables.lane_5", r"^write__data", "{ write__data[31:8], write__data[15:8] }"),
    "an upper half that is never written": ("tables.lane_5", r"(write__addr\S*) \[7:0\]", r"\1 [6:0]"),
    "the bytes of another part": ("load", r"^(\S+ +>> \{ )table__addr", r"\1~table__addr"),
    "two words in one place": ("load", r"\{ addr\[6:0\], part \}", "{ addr[6:1], 1'h0, part }"),
    "a word taken before its last part": ("load", r"^& part", "part[1]"),
}
"""Faults in residual sums, tables and their loads: module, and what to replace in its one expression that matches."""


def test_a_small_campaign_on_the_core_finds_every_fault() -> None:
    emitted = emit_core(ARCH, merge=False)
    netlist = Netlist(emitted)
    sure = [_inverted_bit(netlist, number, module, net) for number, (module, net) in enumerate(SURE, start=1)]
    planted = [_planted(netlist, number, *fault) for number, fault in enumerate(PLANTED.values(), start=len(SURE) + 1)]
    build = build_simulation(instrument(netlist, [*sure, *planted]), random_state=True)
    survivors: list[object] = []
    for suite, faults, names in ((stages()[:1], sure, list(SURE)), (result_stages(), planted, list(PLANTED))):
        assert examine(build, 0, suite).stage is None
        survivors += [name for name, fault in zip(names, faults, strict=True) if examine(build, fault.number, suite).stage is None]
    assert len(sure) + len(planted) >= 30 and not survivors, survivors


def _planted(netlist: Netlist, number: int, module: str, pattern: str, replacement: str) -> Mutant:
    """The fault in the expression of a module that matches."""
    sites = [site for site in netlist.sites(f"{netlist.top}.{module}") if re.search(pattern, site.expression.strip())]
    assert sites, f"{module} must have an expression {pattern}: choose another in PLANTED"
    expression = sites[0].expression.strip()
    mutated = re.sub(pattern, replacement, expression, count=1)
    assert mutated != expression
    return Mutant(number=number, site=sites[0], kind="planted", mutated=f"{mutated} ")  # a name with a backslash ends with a space


def _inverted_bit(netlist: Netlist, number: int, module: str, net: str) -> Mutant:
    """The lowest bit of what is assigned to a net, inverted."""
    sites = [site for site in netlist.sites(f"{netlist.top}.{module}") if site.role in ("register", "wire") and site.target == net]
    sites = [site for site in sites if not re.fullmatch(CONSTANT, site.expression.strip())]
    assert sites, f"{module} must have a net {net}: choose another in SURE"
    site = sites[0]
    return Mutant(number=number, site=site, kind="inverted bit", mutated=f"{ORIGINAL} ^ {site.width}'h1")
