"""AXI4-Lite handshakes turned into plain register accesses."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.delay import data_register
from hw.rtl.common.axi import CONTROL_ADDRESS_BITS, CONTROL_DATA_BITS, axi_lite_subordinate

WORD_ADDRESS_BITS = CONTROL_ADDRESS_BITS - 2
STROBE_BITS = CONTROL_DATA_BITS // 8


class LiteEndpoint(wiring.Component):
    """Takes write address and write data in any order, one write and one read at a time; every response is OKAY.

    A write takes 2 cycles where address and data come together, a read 2. The response to a write comes with or after
    its effect; a read that is requested after the response sees it.

    Members
    -------
    s_axi : the bus
    write_en : for one cycle: write the bytes of ``write_data`` that ``write_strobe`` has, to register ``write_index``
    read_en : for one cycle: ``read_data`` must be register ``read_index``'s value in this cycle
    """

    s_axi: Out(axi_lite_subordinate())
    write_en: Out(1)
    write_index: Out(WORD_ADDRESS_BITS)
    write_data: Out(CONTROL_DATA_BITS)
    write_strobe: Out(STROBE_BITS)
    read_en: Out(1)
    read_index: Out(WORD_ADDRESS_BITS)
    read_data: In(CONTROL_DATA_BITS)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._write(m)
        self._read(m)
        return m

    def _write(self, m: Module) -> None:
        bus = self.s_axi
        have_address, have_data = Signal(), Signal()
        index, data, strobe = (data_register(m, port) for port in (self.write_index, self.write_data, self.write_strobe))
        m.d.comb += [
            bus.awready.eq(~have_address),
            bus.wready.eq(~have_data),
            self.write_en.eq(have_address & have_data & (~bus.bvalid | bus.bready)),
        ]
        with m.If(bus.bready):
            m.d.sync += bus.bvalid.eq(0)
        with m.If(bus.awvalid & bus.awready):
            m.d.sync += [have_address.eq(1), index.eq(bus.awaddr[2:])]
        with m.If(bus.wvalid & bus.wready):
            m.d.sync += [have_data.eq(1), data.eq(bus.wdata), strobe.eq(bus.wstrb)]
        with m.If(self.write_en):
            m.d.sync += [have_address.eq(0), have_data.eq(0), bus.bvalid.eq(1)]

    def _read(self, m: Module) -> None:
        bus = self.s_axi
        index, word = data_register(m, self.read_index), data_register(m, bus.rdata)
        m.d.comb += bus.arready.eq(~self.read_en & ~bus.rvalid)
        m.d.sync += self.read_en.eq(bus.arvalid & bus.arready)
        with m.If(bus.arvalid & bus.arready):
            m.d.sync += index.eq(bus.araddr[2:])
        with m.If(bus.rready):
            m.d.sync += bus.rvalid.eq(0)
        with m.If(self.read_en):
            m.d.sync += [bus.rvalid.eq(1), word.eq(self.read_data)]
