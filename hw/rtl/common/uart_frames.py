"""Frames of the serial protocol (``hw.spec.uart``): requests out of received bytes, replies into bytes to send."""

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.crc import Processor
from amaranth.lib.crc.catalog import CRC32_ISO_HDLC
from amaranth.lib.wiring import In, Out

from hw.spec.uart import CRC_BYTES, REPLY_HEADER_BYTES, REQUEST_HEADER_BYTES, SYNC_REPLY, SYNC_REQUEST, Operation

LENGTH_BITS = 16
RequestHeader = data.StructLayout({"operation": 8, "tag": 8, "address": 32, "length": LENGTH_BITS})
ReplyHeader = data.StructLayout({"operation": 8, "tag": 8, "status": 8, "length": LENGTH_BITS})
DROPPED_BITS = 32


def _crc(m: Module) -> Processor:
    m.submodules.crc = crc = CRC32_ISO_HDLC(data_width=8).create()
    return crc


class RequestReceiver(wiring.Component):
    """Waits for a sync byte, gathers header and payload, and shows the request once its header is right.

    Parameters: ``block_bytes``, longest payload; ``gap_cycles``, longest pause within a frame.

    Members
    -------
    valid, data : a byte, for one cycle; ignored while a request is shown. At least 3 cycles lie between two
    shown : a request is here until ``release``
    header : its header
    payload_good : its payload's CRC is right, or it has none
    index, byte : byte ``index`` of the payload, one cycle later
    release : look for the next request
    dropped : frames with a damaged header or a gap
    """

    def __init__(self, *, block_bytes: int, gap_cycles: int) -> None:
        self._block_bytes, self._gap_cycles = block_bytes, gap_cycles
        super().__init__({
            "valid": In(1),
            "data": In(8),
            "shown": Out(1),
            "header": Out(RequestHeader),
            "payload_good": Out(1),
            "index": In(range(block_bytes)),
            "byte": Out(8),
            "release": In(1),
            "dropped": Out(DROPPED_BITS),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._crc, self._left = _crc(m), Signal(LENGTH_BITS + 1)
        m.d.comb += self._crc.data.eq(self.data)
        gap = self._gap(m)
        bits = Value.cast(self.header)
        with m.FSM():
            with m.State("HUNT"), m.If(self.valid & (self.data == SYNC_REQUEST)):
                self._begin(m, REQUEST_HEADER_BYTES + CRC_BYTES, "HEADER")
            with m.State("HEADER"):
                with m.If(self.valid & (self._left > CRC_BYTES)):
                    m.d.sync += bits.eq(Cat(bits[8:], self.data))
                self._gather(m, gap, "CHECK_HEADER")
            with m.State("CHECK_HEADER"):
                with m.If(~self._crc.match_detected):
                    self._drop(m)
                with m.Elif(self._has_payload):
                    self._begin(m, self.header.length + CRC_BYTES, "PAYLOAD")
                with m.Else():
                    m.d.sync += self.payload_good.eq(1)
                    m.next = "SHOW"
            with m.State("PAYLOAD"):
                self._gather(m, gap, "CHECK_PAYLOAD")
            with m.State("CHECK_PAYLOAD"):
                m.d.sync += self.payload_good.eq(self._crc.match_detected)
                m.next = "SHOW"
            with m.State("SHOW"):
                m.d.comb += self.shown.eq(1)
                with m.If(self.release):
                    m.next = "HUNT"
        self._buffer(m)
        return m

    @property
    def _has_payload(self) -> Value:
        header = self.header
        writes = (header.operation == Operation.WRITE_REGISTER) | (header.operation == Operation.WRITE_MEMORY)
        return writes & (header.length != 0) & (header.length <= self._block_bytes)

    def _gap(self, m: Module) -> Value:
        """Whether no byte has come for too long."""
        pause = Signal(range(self._gap_cycles + 1))
        with m.If(self.valid | self.release):
            m.d.sync += pause.eq(0)
        with m.Elif(pause != self._gap_cycles):
            m.d.sync += pause.eq(pause + 1)
        return pause == self._gap_cycles

    def _begin(self, m: Module, count: Value | int, state: str) -> None:
        m.d.comb += self._crc.start.eq(1)
        m.d.sync += self._left.eq(count)
        m.next = state

    def _gather(self, m: Module, gap: Value, then: str) -> None:
        """Take bytes until none is left."""
        with m.If(self.valid):
            m.d.comb += self._crc.valid.eq(1)
            m.d.sync += self._left.eq(self._left - 1)
            with m.If(self._left == 1):
                m.next = then
        with m.Elif(gap):
            self._drop(m)

    def _drop(self, m: Module) -> None:
        m.d.sync += self.dropped.eq(self.dropped + 1)
        m.next = "HUNT"

    def _buffer(self, m: Module) -> None:
        """The payload, with its CRC cut off where it does not fit. A header's bytes go there too, before the payload's."""
        m.submodules.buffer = buffer = memory.Memory(shape=8, depth=self._block_bytes, init=[])
        write, read = buffer.write_port(), buffer.read_port()
        position = Signal(range(self._block_bytes + 1))
        with m.If(self._crc.start):
            m.d.sync += position.eq(0)
        with m.Elif(self.valid & (position != self._block_bytes)):
            m.d.sync += position.eq(position + 1)
        m.d.comb += [
            write.en.eq(self.valid & ~self.shown & (position != self._block_bytes)),
            write.addr.eq(position),
            write.data.eq(self.data),
            read.addr.eq(self.index),
            self.byte.eq(read.data),
        ]


class ReplySender(wiring.Component):
    """Sends a reply: header, payload, their CRCs.

    Members
    -------
    start, header : begin; taken in this cycle
    i : as many bytes as the header's length says
    o : bytes to send
    done : for one cycle: the last byte was taken
    """

    start: In(1)
    header: In(ReplyHeader)
    i: In(stream.Signature(8))
    o: Out(stream.Signature(8))
    done: Out(1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._crc = crc = _crc(m)
        m.d.comb += crc.data.eq(self.o.payload)
        shift, left, length = Signal(8 * REPLY_HEADER_BYTES), Signal(3), Signal(LENGTH_BITS)
        with m.FSM():
            with m.State("IDLE"), m.If(self.start):
                m.d.sync += [shift.eq(self.header), length.eq(self.header.length), left.eq(REPLY_HEADER_BYTES)]
                m.d.comb += crc.start.eq(1)
                m.next = "SYNC"
            with m.State("SYNC"):
                m.d.comb += [self.o.valid.eq(1), self.o.payload.eq(SYNC_REPLY)]
                with m.If(self.o.ready):
                    m.next = "HEADER"
            with m.State("HEADER"):
                m.d.comb += crc.valid.eq(self.o.ready)
                self._shift_out(m, shift, left, "SEAL")
            with m.State("SEAL"):
                m.d.sync += [shift.eq(crc.crc), left.eq(CRC_BYTES)]
                m.next = "CRC"
            with m.State("CRC"):
                self._shift_out(m, shift, left, "NEXT")
            with m.State("NEXT"):
                m.d.comb += [crc.start.eq(1), self.done.eq(length == 0)]
                m.next = "IDLE"
                with m.If(length != 0):
                    m.next = "PAYLOAD"
            with m.State("PAYLOAD"):
                m.d.comb += [self.o.valid.eq(self.i.valid), self.o.payload.eq(self.i.payload), self.i.ready.eq(self.o.ready)]
                with m.If(self.i.valid & self.o.ready):
                    m.d.comb += crc.valid.eq(1)
                    m.d.sync += length.eq(length - 1)
                    with m.If(length == 1):
                        m.next = "SEAL"
        return m

    def _shift_out(self, m: Module, shift: Signal, left: Signal, then: str) -> None:
        """Send the lowest bytes of a register."""
        m.d.comb += [self.o.valid.eq(1), self.o.payload.eq(shift[:8])]
        with m.If(self.o.ready):
            m.d.sync += [shift.eq(shift >> 8), left.eq(left - 1)]
            with m.If(left == 1):
                m.next = then
