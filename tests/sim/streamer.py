"""A core with the port contract that keeps several bursts under way, for the tests of the memory model.

A write to register 0 starts it. Manager 0 then offers four read addresses in a row, one per cycle: `READS` (address,
beats); burst n is instruction n, issued when its address is taken and retired with its last beat. Manager 1 offers the
five data beats of `WRITES` at once and their two addresses only from cycle `ADDRESS_DELAY` after the start.
Registers that can be read: 0x00 first 32 bits of the last read burst, 0x04 and 0x08 the cycles since the start in which
the write responses came, 0x0C the number of read beats.
"""

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tests.sim.copy_engine import LITE, MANAGER, TRACE

READS = ((0x0000, 1), (0x1000, 16), (0x2000, 3), (0x3000, 64))
WRITES = ((0x3000, 4), (0x5010, 1))
ADDRESS_DELAY = 8
FIRST_WORD, ANSWER_0, ANSWER_1, READ_BEATS = range(0, 16, 4)


class Streamer(wiring.Component):
    """Two managers with overlapping bursts; the interrupt rises when all bursts are done."""

    s_axi: In(LITE)
    m_axi_0: Out(MANAGER)
    m_axi_1: Out(MANAGER)
    irq: Out(1)
    build_id: In(64)
    trace: Out(TRACE)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._time = Signal(32)
        self._running = Signal()
        self._results = Array(Signal(32, name=f"result_{index}") for index in range(4))
        self._registers(m)
        reads_done = self._read(m)
        writes_done = self._write(m)
        m.d.comb += self.irq.eq(self._running & reads_done & writes_done)
        with m.If(self._running):
            m.d.sync += self._time.eq(self._time + 1)
        return m

    def _registers(self, m: Module) -> None:
        bus, take = self.s_axi, Signal()
        m.d.comb += [take.eq(bus.awvalid & bus.wvalid & ~bus.bvalid), bus.awready.eq(take), bus.wready.eq(take)]
        m.d.comb += bus.arready.eq(~bus.rvalid)
        with m.If(bus.bready):
            m.d.sync += bus.bvalid.eq(0)
        with m.If(take):
            m.d.sync += [bus.bvalid.eq(1), self._running.eq(1)]
        with m.If(bus.rready):
            m.d.sync += bus.rvalid.eq(0)
        with m.If(bus.arvalid & bus.arready):
            m.d.sync += [bus.rvalid.eq(1), bus.rdata.eq(self._results[bus.araddr[2:4]])]

    def _read(self, m: Module) -> Signal:
        bus, asked, done, beat = self.m_axi_0, Signal(3), Signal(3), Signal(8)
        addresses, lengths = (Array(column) for column in zip(*READS, strict=True))
        issue, retire = bus.arvalid & bus.arready, bus.rvalid & bus.rlast
        m.d.comb += [
            bus.arvalid.eq(self._running & (asked < len(READS))),
            bus.araddr.eq(addresses[asked[:2]]),
            bus.arlen.eq(lengths[asked[:2]] - 1),
            bus.arsize.eq(4),
            bus.arburst.eq(1),
            bus.rready.eq(1),
            self.trace.issue.eq(issue),
            self.trace.retire.eq(retire),
            self.trace.index.eq(Mux(retire, done, asked)),
        ]
        m.d.sync += asked.eq(asked + issue)
        with m.If(bus.rvalid):
            m.d.sync += [self._results[3].eq(self._results[3] + 1), beat.eq(Mux(bus.rlast, 0, beat + 1))]
            m.d.sync += done.eq(done + bus.rlast)
            with m.If(beat == 0):
                m.d.sync += self._results[0].eq(bus.rdata[:32])
        return done == len(READS)

    def _write(self, m: Module) -> Signal:
        bus, asked, beat, answers = self.m_axi_1, Signal(2), Signal(3), Signal(2)
        addresses, lengths = (Array(column) for column in zip(*WRITES, strict=True))
        first, total = WRITES[0][1], WRITES[0][1] + WRITES[1][1]
        m.d.comb += [
            bus.awvalid.eq(self._running & (self._time >= ADDRESS_DELAY) & (asked < len(WRITES))),
            bus.awaddr.eq(addresses[asked[:1]]),
            bus.awlen.eq(lengths[asked[:1]] - 1),
            bus.awsize.eq(4),
            bus.awburst.eq(1),
            bus.wvalid.eq(self._running & (beat < total)),
            bus.wdata.eq(beat + 0x50),
            bus.wstrb.eq(Mux(beat == total - 1, 0x0001, 0xFFFF)),
            bus.wlast.eq((beat == first - 1) | (beat == total - 1)),
            bus.bready.eq(1),
        ]
        m.d.sync += [asked.eq(asked + (bus.awvalid & bus.awready)), beat.eq(beat + (bus.wvalid & bus.wready))]
        with m.If(bus.bvalid):
            m.d.sync += [answers.eq(answers + 1), self._results[1 + answers[:1]].eq(self._time)]
        return answers == len(WRITES)
