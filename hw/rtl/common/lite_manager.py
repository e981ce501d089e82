"""One access at a time to an AXI4-Lite subordinate."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.common.axi import CONTROL_ADDRESS_BITS, CONTROL_DATA_BITS, axi_lite_subordinate


class LiteManager(wiring.Component):
    """Starts reads and writes of 32-bit registers; the next one may start in the cycle after ``done``.

    Members
    -------
    bus : the subordinate's port
    start : for one cycle: begin; ``write``, ``addr`` (bytes) and ``data`` are taken in this cycle
    done : for one cycle: the answer is there; ``failed``, if it was an error, and ``read_data`` hold in this cycle
    """

    bus: In(axi_lite_subordinate())
    start: In(1)
    write: In(1)
    addr: In(CONTROL_ADDRESS_BITS)
    data: In(CONTROL_DATA_BITS)
    done: Out(1)
    failed: Out(1)
    read_data: Out(CONTROL_DATA_BITS)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        bus = self.bus
        addr = Signal(CONTROL_ADDRESS_BITS, reset_less=True)
        m.d.comb += [
            bus.awaddr.eq(addr),
            bus.araddr.eq(addr),
            bus.wstrb.eq(~0),
            bus.bready.eq(1),
            bus.rready.eq(1),
            self.done.eq(bus.bvalid | bus.rvalid),
            self.failed.eq((bus.bvalid & bus.bresp[1]) | (bus.rvalid & bus.rresp[1])),
            self.read_data.eq(bus.rdata),
        ]
        for valid, ready in ((bus.awvalid, bus.awready), (bus.wvalid, bus.wready), (bus.arvalid, bus.arready)):
            with m.If(valid & ready):
                m.d.sync += valid.eq(0)
        with m.If(self.start):
            m.d.sync += [addr.eq(self.addr), bus.wdata.eq(self.data)]
            m.d.sync += [bus.awvalid.eq(self.write), bus.wvalid.eq(self.write), bus.arvalid.eq(~self.write)]
        return m
