"""Read master: serves runs of memory words from AXI4."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Const, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.delay import data_register
from hw.rtl.common.axi import SIZE_WORD, axi4_read_manager, constant_attributes
from hw.rtl.common.bursts import Burst, BurstSplitter, connect_splitter, may_issue, window_members
from hw.rtl.common.interfaces import DATA_BITS, ReadRuns
from hw.spec.arch import Arch


class ReadMaster(wiring.Component):
    """Reads runs in order, through the AXI4 manager of each run's region, with up to ``arch.outstanding`` bursts in flight.

    ARVALID rises 4 cycles after a run's request was accepted; a word is on ``runs.data`` in the cycle after its R beat.
    Throughput: a word per cycle, a burst per two cycles. Before a run of another manager starts, all words of the earlier
    runs have arrived, so that order holds. RREADY falls only while ``runs.data`` is held back.

    Members
    -------
    runs : the engine's side (:data:`hw.rtl.common.interfaces.ReadRuns`)
    regions, program : windows of the regions and of region 16, in bytes; still while not idle
    drain : drop all runs, offer no new burst, throw away what the memory still sends; then ``runs.idle``
    axi : read channels of the managers
    beat : a beat was received
    stall : data is expected and can be taken, and none is valid
    """

    def __init__(self, arch: Arch) -> None:
        self._arch = arch
        super().__init__({
            "runs": In(ReadRuns),
            **window_members(arch),
            "drain": In(1),
            "axi": Out(axi4_read_manager()).array(arch.managers),
            "beat": Out(1),
            "stall": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.splitter = splitter = BurstSplitter(self._arch)
        connect_splitter(m, self, splitter)
        in_flight = Signal(range(self._arch.outstanding + 1))
        pending = Signal()
        address = Signal(Burst, reset_less=True)
        issue = Signal()
        retire = Signal()

        offered = splitter.burst.payload
        accepted = Signal()
        selected = address.manager if self._arch.managers > 1 else Const(0)
        ready = Array(port.arready for port in self.axi)[selected]
        m.d.comb += [
            splitter.burst.ready.eq(accepted),
            accepted.eq(~pending & may_issue(self._arch, in_flight, offered.manager, address.manager)),
            issue.eq(splitter.burst.valid & accepted),
            self.runs.idle.eq(~splitter.busy & (in_flight == 0) & ~self.runs.data.valid),
        ]
        with m.If(issue):
            m.d.sync += [pending.eq(1), address.eq(offered)]
        with m.Elif(ready):
            m.d.sync += pending.eq(0)
        m.d.sync += in_flight.eq(in_flight + issue - retire)
        for number, port in enumerate(self.axi):
            constant_attributes(m, port, "ar")
            m.d.comb += [
                port.arvalid.eq(pending & (selected == number)),
                port.araddr[SIZE_WORD:].eq(address.addr),
                port.arlen.eq(address.length),
            ]
        self._receive(m, selected, in_flight != 0, retire)
        return m

    def _receive(self, m: Module, selected: Signal | Const, expected: Signal, retire: Signal) -> None:
        """Register R beats towards the engine, or throw them away."""
        held = Signal()
        word = Signal(DATA_BITS, reset_less=True)
        valid = Signal()
        last = Signal()
        failed = Signal()
        free = Signal()
        m.d.comb += [
            free.eq(~held | self.runs.data.ready | self.drain),
            Cat(valid, last, failed).eq(Array(Cat(p.rvalid, p.rlast, p.rresp[1]) for p in self.axi)[selected]),
            *(port.rready.eq(free & (selected == number)) for number, port in enumerate(self.axi)),
            self.beat.eq(valid & free),
            self.stall.eq(~valid & free & expected),
            retire.eq(self.beat & last),
            self.runs.data.valid.eq(held),
            self.runs.data.payload.eq(word),
        ]
        with m.If(free):
            m.d.sync += [held.eq(valid & ~self.drain), word.eq(Array(p.rdata for p in self.axi)[selected])]
        sticky = data_register(m, self.runs.failed)
        with m.If(self.runs.clear):
            m.d.sync += sticky.eq(0)
        with m.Elif(self.beat & failed):
            m.d.sync += sticky.eq(1)
