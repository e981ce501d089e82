"""Write master: serves runs of memory words to AXI4."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.delay import data_register
from hw.rtl.common.axi import SIZE_WORD, axi4_write_manager, constant_attributes
from hw.rtl.common.bursts import Burst, BurstSplitter, connect_splitter, may_issue, window_members
from hw.rtl.common.interfaces import DATA_BITS, WriteRuns
from hw.spec.arch import WORD_BYTES, Arch

ALL_BYTES = (1 << WORD_BYTES) - 1


class WriteMaster(wiring.Component):
    """Writes runs in order, through the AXI4 manager of each run's region, with up to ``arch.outstanding`` bursts in flight.

    AWVALID rises 4 cycles after a run's request was accepted; a burst's first word is taken from ``runs.data`` one cycle
    later at the earliest, and is on W in the cycle after that. Throughput: a word per cycle, a burst per two cycles. Before
    a run of another manager starts, all earlier bursts were answered.

    Members
    -------
    runs : the engine's side (:data:`hw.rtl.common.interfaces.WriteRuns`)
    regions, program : windows of the regions and of region 16, in bytes; still while not idle
    drain : drop all runs, offer no new burst, finish addressed ones with no byte strobed; then ``runs.idle``
    axi : write channels of the managers
    beat : a beat was sent
    stall : a beat is valid and the memory is not ready
    """

    def __init__(self, arch: Arch) -> None:
        self._arch = arch
        super().__init__({
            "runs": In(WriteRuns),
            **window_members(arch),
            "drain": In(1),
            "axi": Out(axi4_write_manager()).array(arch.managers),
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
        accepted = Signal()
        retire = Signal()

        offered = splitter.burst.payload
        selected = address.manager if self._arch.managers > 1 else Const(0)
        ready = Array(port.awready for port in self.axi)[selected]
        m.d.comb += [
            splitter.burst.ready.eq(accepted),
            accepted.eq(~pending & may_issue(self._arch, in_flight, offered.manager, address.manager)),
            issue.eq(splitter.burst.valid & accepted),
            self.runs.idle.eq(~splitter.busy & (in_flight == 0)),
        ]
        with m.If(issue):
            m.d.sync += [pending.eq(1), address.eq(offered)]
        with m.Elif(ready):
            m.d.sync += pending.eq(0)
        m.d.sync += in_flight.eq(in_flight + issue - retire)
        for number, port in enumerate(self.axi):
            constant_attributes(m, port, "aw")
            m.d.comb += [
                port.awvalid.eq(pending & (selected == number)),
                port.awaddr[SIZE_WORD:].eq(address.addr),
                port.awlen.eq(address.length),
            ]
        self._send(m, selected, issue, offered.length)
        self._answers(m, selected, retire)
        return m

    def _send(self, m: Module, selected: Signal | Const, issue: Signal, length: Signal) -> None:
        """W beats of the issued bursts, in their order; a queue keeps their lengths."""
        m.submodules.lengths = lengths = SyncFIFO(width=8, depth=self._arch.outstanding)
        active = Signal()
        left = Signal(8, reset_less=True)
        valid = Signal()
        last = Signal(reset_less=True)
        strobed = Signal(reset_less=True)
        word = Signal(DATA_BITS, reset_less=True)
        free = Signal()
        load = Signal()
        m.d.comb += [
            lengths.w_en.eq(issue),
            lengths.w_data.eq(length),
            lengths.r_en.eq(~active | (load & (left == 0))),
            free.eq(active & (~valid | Array(port.wready for port in self.axi)[selected])),
            self.runs.data.ready.eq(free & ~self.drain),
            load.eq(free & (self.runs.data.valid | self.drain)),
        ]
        with m.If(lengths.r_en):
            m.d.sync += [active.eq(lengths.r_rdy), left.eq(lengths.r_data)]
        with m.Elif(load):
            m.d.sync += left.eq(left - 1)
        with m.If(load):
            m.d.sync += [valid.eq(1), word.eq(self.runs.data.payload), last.eq(left == 0), strobed.eq(~self.drain)]
        with m.Elif(self.beat):
            m.d.sync += valid.eq(0)
        for number, port in enumerate(self.axi):
            m.d.comb += [
                port.wvalid.eq(valid & (selected == number)),
                port.wdata.eq(word),
                port.wstrb.eq(Mux(strobed, ALL_BYTES, 0)),
                port.wlast.eq(last),
            ]
        wready = Array(port.wready for port in self.axi)[selected]
        m.d.comb += [self.beat.eq(valid & wready), self.stall.eq(valid & ~wready)]

    def _answers(self, m: Module, selected: Signal | Const, retire: Signal) -> None:
        """B responses: always taken; an error is kept until ``clear``."""
        failed = Signal()
        m.d.comb += [
            Cat(retire, failed).eq(Array(Cat(p.bvalid, p.bresp[1]) for p in self.axi)[selected]),
            *(port.bready.eq(selected == number) for number, port in enumerate(self.axi)),
        ]
        sticky = data_register(m, self.runs.failed)
        with m.If(self.runs.clear):
            m.d.sync += sticky.eq(0)
        with m.Elif(retire & failed):
            m.d.sync += sticky.eq(1)
