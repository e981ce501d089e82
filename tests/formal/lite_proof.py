"""The AXI4-Lite endpoint: each access of the host happens once, with what it sent, and is answered once."""

from __future__ import annotations

from types import ModuleType

from amaranth.hdl import Cat, Signal, Value

from hw.rtl.formal import Harness

HOST = ("awaddr", "awprot", "awvalid", "wdata", "wstrb", "wvalid", "bready", "araddr", "arprot", "arvalid", "rready")


class LiteProof(Harness):
    """``LiteEndpoint`` with a host that may do anything, register values too.

    The model holds at most one address and one word of data that were taken and not written, and counts what awaits its answer.
    Checks: ``write``, it happens only with both, with their index, data and strobes; ``write_room``, each is taken exactly while
    none is held; ``read``, exactly in the cycle after an address was taken, and ``index``, of that register; ``b_answers`` and
    ``r_answers``, one B for each write and one R for each read, never two owed; ``data``, R has the value of the cycle of its read;
    ``holds``, answers stay unchanged until ready; ``okay``; ``pace``, held address and data are written as soon as the last
    answer is gone.
    """

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def describe(self) -> None:
        m, dut = self.m, self._module.LiteEndpoint()
        self.part(dut)
        self.bus, self.dut, bus = dut.s_axi, dut, dut.s_axi
        for name in HOST:
            m.d.comb += getattr(bus, name).eq(self.any(len(getattr(bus, name)), name))
        m.d.comb += dut.read_data.eq(self.any(len(dut.read_data), "value"))
        held = self._write()
        self._read()
        self.check("okay", (bus.bresp == 0) & (bus.rresp == 0))
        self.check("holds", self._holds("b", bus.bresp) & self._holds("r", Cat(bus.rdata, bus.rresp)))
        self.cover("data_first", dut.write_en & self.past(held[1] & ~held[0], "waited") & (dut.write_strobe == 5))
        self.cover("answer_refused", bus.bvalid & ~bus.bready & bus.rvalid & ~bus.rready & held[0] & held[1])

    def _write(self) -> tuple[Signal, Signal]:
        m, bus, dut = self.m, self.bus, self.dut
        address, data = (bus.awvalid, bus.awready, bus.awaddr[2:]), (bus.wvalid, bus.wready, Cat(bus.wdata, bus.wstrb))
        held, contents, room = [], [], []
        for name, (valid, ready, content) in (("address", address), ("data", data)):
            there, kept = Signal(name=f"{name}_there"), Signal(len(content), name=f"{name}_kept")
            m.d.sync += there.eq((valid & ready) | (there & ~dut.write_en))
            with m.If(valid & ready):
                m.d.sync += kept.eq(content)
            held.append(there)
            contents.append(kept)
            room.append(ready == ~there)
        written = Cat(dut.write_index, dut.write_data, dut.write_strobe)
        self.check("write", ~dut.write_en | (held[0] & held[1] & (written == Cat(*contents))))
        same = dut.write_index == contents[0], Cat(dut.write_data, dut.write_strobe) == contents[1]
        self.invariant("kept", (~held[0] | same[0]) & (~held[1] | same[1]))
        self.check("write_room", Cat(room).all())
        owed = self._owed("b", dut.write_en)
        self.check("pace", ~(held[0] & held[1]) | dut.write_en | (owed & ~bus.bready))
        return held[0], held[1]

    def _read(self) -> None:
        bus, dut = self.bus, self.dut
        takes, later = bus.arvalid & bus.arready, self.since_reset(1)
        self.check("read", ~later | (dut.read_en == self.past(takes, "asked")))
        self.check("index", ~(later & dut.read_en) | (dut.read_index == self.past(bus.araddr[2:], "register")))
        self._owed("r", dut.read_en)
        fresh = later & self.past(dut.read_en, "did_read")
        self.check("data", ~fresh | (bus.rdata == self.past(dut.read_data, "was_read")))
        self.invariant("one_read", ~(dut.read_en & bus.rvalid))

    def _owed(self, channel: str, done: Value) -> Signal:
        """Whether an answer is owed, checked against the channel's valid."""
        valid, ready = (getattr(self.bus, f"{channel}{wire}") for wire in ("valid", "ready"))
        owed = Signal(2, name=f"{channel}_owed")
        self.m.d.sync += owed.eq(owed + done - (valid & ready))
        self.check(f"{channel}_answers", (owed == valid) & ~(done & valid & ~ready))
        return owed != 0

    def _holds(self, channel: str, payload: Value) -> Value:
        valid, ready = (getattr(self.bus, f"{channel}{wire}") for wire in ("valid", "ready"))
        stayed = self.since_reset(1) & self.past(valid & ~ready, f"{channel}_stayed")
        return ~stayed | (valid & (payload == self.past(payload, f"{channel}_payload")))
