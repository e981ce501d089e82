"""Runs to bursts: the part that read and write masters share.

A run is checked against its region as a whole before its first burst, in arithmetic that is wide enough not to wrap. Bursts are
as long as the run, ``burst_beats`` and the next 4 KB boundary allow.
"""

from __future__ import annotations

from amaranth.hdl import Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.rtl.arith.compare import at_least
from hw.rtl.arith.delay import data_register
from hw.rtl.common.axi import ADDRESS_BITS, BOUNDARY_WORDS, SIZE_WORD
from hw.rtl.common.interfaces import PROGRAM_REGION, Run
from hw.spec.arch import Arch

MANAGER_BITS = 2
WORD_ADDRESS_BITS = ADDRESS_BITS - SIZE_WORD

Window = data.StructLayout({"base": ADDRESS_BITS, "size": ADDRESS_BITS})
"""A region as the registers hold it, in bytes. The low four bits of both are ignored; size 0 is a closed region."""

LocatedRun = data.StructLayout({
    "offset": 32, "words": 16, "last": 33, "base": WORD_ADDRESS_BITS, "size": WORD_ADDRESS_BITS, "manager": MANAGER_BITS,
})  # fmt: skip
"""A run (``last``: its last word's offset) with its region's window in 16-byte words, and the manager that reaches it."""

Burst = data.StructLayout({"addr": WORD_ADDRESS_BITS, "length": 8, "manager": MANAGER_BITS})
"""``length`` + 1 beats from 16-byte word ``addr`` of the address space."""


def window_members(arch: Arch) -> dict[str, wiring.Member]:
    """Ports through which a master learns where the regions are: ``regions`` and, as region 16, ``program``."""
    return {"regions": In(data.ArrayLayout(Window, arch.regions)), "program": In(Window)}


class RunLookup(wiring.Component):
    """One place for the next run, in which it finds its region. An unknown region has size 0. Latency 1, a run per cycle.

    Members
    -------
    i : runs
    o : the same with their windows
    flush : drop the run and accept none
    """

    def __init__(self, arch: Arch) -> None:
        self._managers = arch.region_manager
        super().__init__({
            "i": In(stream.Signature(Run)),
            "o": Out(stream.Signature(LocatedRun)),
            **window_members(arch),
            "flush": In(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        window = Signal(Window)
        manager = Signal(MANAGER_BITS)
        with m.Switch(self.i.payload.region):
            for region, number in enumerate(self._managers):
                with m.Case(region):
                    m.d.comb += [window.eq(self.regions[region]), manager.eq(number)]
            with m.Case(PROGRAM_REGION):
                m.d.comb += window.eq(self.program)

        full = Signal()
        located = Signal(LocatedRun, reset_less=True)
        m.d.comb += [
            self.i.ready.eq(~self.flush & (~full | self.o.ready)),
            self.o.valid.eq(full & ~self.flush),
            self.o.payload.eq(located),
        ]
        with m.If(self.o.ready | self.flush):
            m.d.sync += full.eq(0)
        with m.If(self.i.valid & self.i.ready):
            run = self.i.payload
            m.d.sync += [
                full.eq(1),
                located.offset.eq(run.offset),
                located.words.eq(run.words),
                located.last.eq(run.offset + (run.words - 1)[:16]),
                located.base.eq(window.base[SIZE_WORD:]),
                located.size.eq(window.size[SIZE_WORD:]),
                located.manager.eq(manager),
            ]
        return m


class BurstSplitter(wiring.Component):
    """Checks runs and splits them into bursts, in order.

    A run's first burst is offered 3 cycles after the run was accepted, then one burst every 2 cycles, across runs too: the
    next run is accepted and looked up while the last is split.

    Members
    -------
    request : runs
    burst : bursts of the runs that were not refused
    regions, program : windows of the regions and of region 16
    clear : forget ``refused``
    cancel : drop all runs and accept none; ``burst.valid`` may drop
    refused : a run did not lie in its region; all later ones are dropped, and none is accepted, until ``clear``
    busy : a run is not yet split
    """

    def __init__(self, arch: Arch) -> None:
        self._arch = arch
        super().__init__({
            "request": In(stream.Signature(Run)),
            "burst": Out(stream.Signature(Burst)),
            **window_members(arch),
            "clear": In(1),
            "cancel": In(1),
            "refused": Out(1),
            "busy": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.lookup = lookup = RunLookup(self._arch)
        burst, refused = data_register(m, self.burst.payload), data_register(m, self.refused)
        measure = Signal()
        offer = Signal()
        left = Signal(16, reset_less=True)
        beats = Signal(9, reset_less=True)
        inside = Signal(reset_less=True)
        final = Signal(reset_less=True)
        issued = Signal()
        take = Signal()
        m.d.comb += [
            lookup.i.valid.eq(self.request.valid),
            lookup.i.payload.eq(self.request.payload),
            self.request.ready.eq(lookup.i.ready),
            *(lookup.regions[i].eq(window) for i, window in enumerate(self.regions)),
            lookup.program.eq(self.program),
            lookup.flush.eq(refused | self.cancel),
            self.busy.eq(lookup.o.valid | measure | offer),
            self.burst.valid.eq(offer & ~self.cancel),
            issued.eq(self.burst.valid & self.burst.ready),
            lookup.o.ready.eq((~measure & ~offer) | (issued & final)),
            take.eq(lookup.o.valid & lookup.o.ready),
        ]
        length, ends, lessened = self._length(m, burst.addr, left)
        fits = self._fits(m, lookup.o.payload)
        with m.If(measure):
            m.d.sync += [final.eq(ends), beats.eq(length), burst.length.eq(lessened)]
            m.d.sync += [measure.eq(0), offer.eq(inside), refused.eq(~inside)]
        with m.If(issued):
            m.d.sync += [burst.addr.eq(burst.addr + beats), left.eq(left - beats), offer.eq(0), measure.eq(~final)]
        with m.If(take):
            m.d.sync += [measure.eq(1), inside.eq(fits)]
            m.d.sync += [burst.addr.eq(lookup.o.payload.base + lookup.o.payload.offset), left.eq(lookup.o.payload.words)]
            m.d.sync += burst.manager.eq(lookup.o.payload.manager)
        with m.If(self.cancel):
            m.d.sync += [measure.eq(0), offer.eq(0)]
        with m.If(self.clear):
            m.d.sync += refused.eq(0)
        return m

    def _length(self, m: Module, start: Value, left: Signal) -> tuple[Signal, Value, Signal]:
        """The next burst's beats, whether it ends the run, and the beats less one.

        Less than the longest burst fits below the boundary exactly if the address is in the boundary's last such stretch, but not
        at its beginning.
        """
        bits = exact_log2(self._arch.burst_beats)
        addr = start[: exact_log2(BOUNDARY_WORDS)]
        most, length, lessened = Signal(bits + 1), Signal(bits + 1), Signal(max(bits, 1))
        short, ends, beyond = Signal(), Signal(), Signal(range((2 << bits) + (1 << bits)))
        m.d.comb += [
            short.eq((addr[bits:].all() if bits < len(addr) else Const(1)) & addr[:bits].any()),
            most.eq(Mux(short, (-addr[:bits])[:bits], self._arch.burst_beats)),
            # As far as a short run's end lies beyond the beginning of that stretch: compared beside ``short``, not after it.
            beyond.eq(left[: bits + 1] + addr[:bits]),
            ends.eq(~at_least(left, self._arch.burst_beats + 1) & ~(short & at_least(beyond, self._arch.burst_beats + 1))),
            length.eq(Mux(ends, left, most)),
            lessened.eq(Mux(ends, left - 1, Mux(short, ~addr[:bits], self._arch.burst_beats - 1))),
        ]
        return length, ends, lessened

    def _fits(self, m: Module, run: data.View) -> Value:
        """Whether the run's last word lies in the region and in the address space."""
        end = Signal(WORD_ADDRESS_BITS + 1)
        m.d.comb += end.eq(run.base + run.last)
        return (run.last < run.size) & ~end[-1]


def connect_splitter(m: Module, master: wiring.Component, splitter: BurstSplitter) -> None:
    """A master's requests, windows, drain and clear to its splitter; bursts are left to the master."""
    m.d.comb += [
        splitter.request.valid.eq(master.runs.request.valid),
        splitter.request.payload.eq(master.runs.request.payload),
        master.runs.request.ready.eq(splitter.request.ready),
        master.runs.refused.eq(splitter.refused),
        splitter.clear.eq(master.runs.clear),
        splitter.cancel.eq(master.drain),
        splitter.program.eq(master.program),
        *(splitter.regions[i].eq(window) for i, window in enumerate(master.regions)),
    ]


def may_issue(arch: Arch, in_flight: Value, manager: Value, current: Value) -> Value:
    """Whether one more burst may be in flight; bursts of two managers never are at once, so that order holds."""
    same = (manager == current) | (in_flight == 0) if arch.managers > 1 else Const(1)
    return (in_flight != arch.outstanding) & same
