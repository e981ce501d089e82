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
from tests.sim.fault_suite import examine, stages


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
)  # fmt: skip
"""Vectors that matter to every program, in shell, address generators, arithmetic and memories."""


def test_a_small_campaign_on_the_core_finds_every_fault() -> None:
    emitted = emit_core(ARCH)
    netlist = Netlist(emitted)
    mutants = [_inverted_bit(netlist, number, module, net) for number, (module, net) in enumerate(SURE, start=1)]
    build = build_simulation(instrument(netlist, mutants), random_state=True)
    suite = stages()[:1]
    assert examine(build, 0, suite).stage is None
    survivors = [place for place, mutant in zip(SURE, mutants, strict=True) if examine(build, mutant.number, suite).stage is None]
    assert len(mutants) == len(SURE) >= 12 and not survivors, survivors


def _inverted_bit(netlist: Netlist, number: int, module: str, net: str) -> Mutant:
    """The lowest bit of what is assigned to a net, inverted."""
    sites = [site for site in netlist.sites(f"{netlist.top}.{module}") if site.role in ("register", "wire") and site.target == net]
    sites = [site for site in sites if not re.fullmatch(CONSTANT, site.expression.strip())]
    assert sites, f"{module} must have a net {net}: choose another in SURE"
    site = sites[0]
    return Mutant(number=number, site=site, kind="inverted bit", mutated=f"{ORIGINAL} ^ {site.width}'h1")
