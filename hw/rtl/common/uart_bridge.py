"""Bridge from a serial line to a core's registers and a board's memory: the hardware end of ``hw.spec.uart``."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from hw.rtl.common.axi import CONTROL_ADDRESS_BITS, CONTROL_DATA_BITS, axi_lite_subordinate
from hw.rtl.common.axi_ram import RamParameters, host_port
from hw.rtl.common.lite_manager import LiteManager
from hw.rtl.common.uart import UartReceiver, UartTiming, UartTransmitter
from hw.rtl.common.uart_frames import DROPPED_BITS, LENGTH_BITS, ReplySender, RequestHeader, RequestReceiver
from hw.spec.regs import BY_NAME, STATUS_BITS
from hw.spec.uart import IDENTITY_BYTES, PROTOCOL_VERSION, REGISTER_BYTES, BridgeIdentity, Operation, Status


@dataclass(frozen=True, kw_only=True)
class BridgeParameters:
    """A bridge.

    Parameters
    ----------
    timing : of the line
    ram : the memory behind the bridge
    block_bytes : most bytes of one memory access, a power of two in 64..4096
    gap_cycles : longest pause within a request, in clock cycles
    poll_cycles : pause between two reads of the core's STATUS register, in clock cycles
    """

    timing: UartTiming
    ram: RamParameters
    block_bytes: int = 1024
    gap_cycles: int = 1 << 20
    poll_cycles: int = 1 << 16

    def __post_init__(self) -> None:
        if self.block_bytes not in [1 << i for i in range(6, 13)]:
            raise ValueError(f"block_bytes must be a power of two in 64..4096, not {self.block_bytes}")
        if self.gap_cycles < 20 * self.timing.divisor:
            raise ValueError(f"gap_cycles must be at least two bytes' time, {20 * self.timing.divisor}, not {self.gap_cycles}")
        if self.poll_cycles < 16:
            raise ValueError(f"poll_cycles must be at least 16, not {self.poll_cycles}")

    @property
    def identity(self) -> BridgeIdentity:
        return BridgeIdentity(
            version=PROTOCOL_VERSION, block_bytes=self.block_bytes, memory_base=self.ram.base, memory_bytes=self.ram.size
        )


class RequestServer(wiring.Component):
    """Does what a request asks for and says what to reply.

    Members
    -------
    shown, header, payload_good, index, byte, dropped : the request, see :class:`RequestReceiver`
    reply : for one cycle: send ``answer`` (a ``Status``) and ``length`` bytes of ``payload``
    replied : for one cycle: the reply is sent
    lite, host, status : see :class:`UartBridge`
    """

    def __init__(self, parameters: BridgeParameters) -> None:
        self._parameters = parameters
        super().__init__({
            "shown": In(1),
            "header": In(RequestHeader),
            "payload_good": In(1),
            "index": Out(range(parameters.block_bytes)),
            "byte": In(8),
            "dropped": In(DROPPED_BITS),
            "reply": Out(1),
            "answer": Out(8),
            "length": Out(LENGTH_BITS),
            "payload": Out(stream.Signature(8)),
            "replied": In(1),
            "lite": In(axi_lite_subordinate()),
            "host": Out(host_port(parameters.ram)),
            "status": Out(len(STATUS_BITS)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.lite = self._lite = lite = LiteManager()
        wiring.connect(m, wiring.flipped(self.lite), lite.bus)
        self._count, self._word = Signal(LENGTH_BITS), Signal(CONTROL_DATA_BITS)
        poll = Signal(range(self._parameters.poll_cycles + 1))
        m.d.comb += [lite.addr.eq(self.header.address), lite.data.eq(self._word), self.index.eq(self._count)]
        m.d.comb += self.host.addr.eq(self.header.address + self._count)
        refusal = self._refusal(m)
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [self._count.eq(0), poll.eq(poll + 1)]
                with m.If(self.shown):
                    m.next = "CHECK"
                with m.Elif(poll == self._parameters.poll_cycles):
                    m.d.sync += poll.eq(0)
                    m.d.comb += [lite.start.eq(1), lite.addr.eq(BY_NAME["STATUS"].offset)]
                    m.next = "POLL"
            with m.State("POLL"), m.If(lite.done):
                m.d.sync += self.status.eq(lite.read_data)
                m.next = "IDLE"
            with m.State("CHECK"):  # the refusal's register takes a cycle
                m.next = "DISPATCH"
            with m.State("DISPATCH"):
                self._dispatch(m, refusal)
            self._store(m)
            self._access_register(m)
            with m.State("REPLY"):
                m.d.comb += self.reply.eq(1)
                m.d.sync += self._count.eq(0)
                m.next = "SEND"
            self._send(m)
        return m

    def _refusal(self, m: Module) -> Signal:
        """Why a request is not served, one cycle after it is shown; OK where it is."""
        header, ram = self.header, self._parameters.ram
        operation = header.operation
        memory = (operation == Operation.READ_MEMORY) | (operation == Operation.WRITE_MEMORY)
        register = (operation == Operation.READ_REGISTER) | (operation == Operation.WRITE_REGISTER)
        block = (header.length != 0) & (header.length <= self._parameters.block_bytes)
        fits = Mux(memory, block, header.length == Mux(register, REGISTER_BYTES, 0))
        overrun = header.address[: ram.offset_bits] + header.length > ram.size
        outside = memory & (~ram.holds(header.address) | overrun)
        misplaced = register & (header.address[:2].any() | header.address[CONTROL_ADDRESS_BITS:].any())
        refusal = Signal(8)
        reasons = (
            (~memory & ~register & (operation != Operation.IDENTIFY), Status.BAD_OPERATION),
            (~fits, Status.BAD_LENGTH),
            (outside | misplaced, Status.BAD_ADDRESS),
            (~self.payload_good, Status.BAD_PAYLOAD),
        )
        reason: Value = Const(Status.OK, 8)
        for wrong, status in reversed(reasons):
            reason = Mux(wrong, status, reason)
        m.d.sync += refusal.eq(reason)
        return refusal

    def _dispatch(self, m: Module, refusal: Value) -> None:
        """To what the request needs first. A write that comes again is answered as it was."""
        last_tag, last_valid, last_answer = Signal(8), Signal(), Signal(8)
        operation = self.header.operation
        again = last_valid & (self.header.tag == last_tag)
        self._last = last_tag, last_valid, last_answer
        m.d.sync += [self.answer.eq(refusal), self.length.eq(0)]
        with m.If((self.header.tag != last_tag) | (operation == Operation.IDENTIFY)):
            m.d.sync += last_valid.eq(0)
        m.next = "REPLY"
        with m.If(refusal == Status.OK):
            with m.Switch(operation):
                with m.Case(Operation.IDENTIFY):
                    m.d.sync += self.length.eq(IDENTITY_BYTES)
                with m.Case(Operation.READ_MEMORY):
                    m.d.sync += self.length.eq(self.header.length)
                with m.Case(Operation.READ_REGISTER):
                    m.d.comb += self._lite.start.eq(1)
                    m.next = "ACCESS"
                with m.Default():
                    with m.If(again):
                        m.d.sync += self.answer.eq(last_answer)
                    with m.Else():
                        m.next = "FETCH"

    def _store(self, m: Module) -> None:
        """A write's payload, byte by byte, to the memory or into the word for a register."""
        register = self.header.operation == Operation.WRITE_REGISTER
        last = self._count + 1 == self.header.length
        with m.State("FETCH"):
            m.next = "STORE"
        with m.State("STORE"):
            m.d.comb += [self.host.write.eq(~register), self.host.write_data.eq(self.byte)]
            with m.If(register | self.host.ready):
                m.d.sync += [self._count.eq(self._count + 1), self._word.eq(Cat(self._word[8:], self.byte))]
                m.next = "FETCH"
                with m.If(last):
                    m.next = "WRITTEN"
        with m.State("WRITTEN"):
            m.d.comb += [self._lite.start.eq(register), self._lite.write.eq(1)]
            self._remember(m, Status.OK)
            m.next = "REPLY"
            with m.If(register):
                m.next = "ACCESS"

    def _access_register(self, m: Module) -> None:
        writes = self.header.operation == Operation.WRITE_REGISTER
        with m.State("ACCESS"), m.If(self._lite.done):
            m.d.sync += self._word.eq(self._lite.read_data)
            with m.If(self._lite.failed):
                m.d.sync += self.answer.eq(Status.BUS_ERROR)
                with m.If(writes):
                    self._remember(m, Status.BUS_ERROR)
            with m.Elif(~writes):
                m.d.sync += self.length.eq(REGISTER_BYTES)
            m.next = "REPLY"

    def _remember(self, m: Module, answer: Status) -> None:
        last_tag, last_valid, last_answer = self._last
        m.d.sync += [last_tag.eq(self.header.tag), last_valid.eq(1), last_answer.eq(answer)]

    def _send(self, m: Module) -> None:
        """The reply's payload: the identity, a register's word, or bytes of the memory, read one by one."""
        memory = self.header.operation == Operation.READ_MEMORY
        identity = Const(int.from_bytes(self._parameters.identity.encode(), "little"), 8 * IDENTITY_BYTES)
        known = Cat(identity[:-DROPPED_BITS], self.dropped)
        fixed = Mux(self.header.operation == Operation.IDENTIFY, known, self._word)
        held = Signal(8)
        m.d.comb += self.payload.payload.eq(held)
        with m.State("SEND"):
            m.d.comb += self.host.read.eq(memory & (self._count != self.length))
            with m.If(self.replied):
                m.next = "IDLE"
            with m.Elif(self._count == self.length):
                m.next = "SEND"
            with m.Elif(memory):
                with m.If(self.host.ready):
                    m.next = "TAKE"
            with m.Else():
                m.d.sync += held.eq(fixed.word_select(self._count[: bits_for(IDENTITY_BYTES - 1)], 8))
                m.next = "OFFER"
        with m.State("TAKE"):
            m.d.sync += held.eq(self.host.read_data)
            m.next = "OFFER"
        with m.State("OFFER"):
            m.d.comb += self.payload.valid.eq(1)
            with m.If(self.payload.ready):
                m.d.sync += self._count.eq(self._count + 1)
                m.next = "SEND"


class UartBridge(wiring.Component):
    """Serves one request after the other; between them it reads the core's STATUS, for lamps.

    Members
    -------
    rx, tx : the line
    lite : the core's registers
    host : the memory
    status : the last STATUS that was read, bits as in ``hw.spec.regs``
    receiving, sending : for one cycle: a byte comes or goes
    """

    def __init__(self, parameters: BridgeParameters) -> None:
        self._parameters = parameters
        super().__init__({
            "rx": In(1),
            "tx": Out(1, init=1),
            "lite": In(axi_lite_subordinate()),
            "host": Out(host_port(parameters.ram)),
            "status": Out(len(STATUS_BITS)),
            "receiving": Out(1),
            "sending": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        p = self._parameters
        m.submodules.receiver = receiver = UartReceiver(p.timing.divisor)
        m.submodules.transmitter = transmitter = UartTransmitter(p.timing.divisor)
        m.submodules.requests = requests = RequestReceiver(block_bytes=p.block_bytes, gap_cycles=p.gap_cycles)
        m.submodules.replies = replies = ReplySender()
        m.submodules.server = server = RequestServer(p)
        wiring.connect(m, wiring.flipped(self.lite), server.lite)
        wiring.connect(m, wiring.flipped(self.host), server.host)
        wiring.connect(m, replies.o, transmitter.i)
        wiring.connect(m, server.payload, replies.i)
        m.d.comb += [
            receiver.rx.eq(self.rx),
            self.tx.eq(transmitter.tx),
            requests.valid.eq(receiver.valid),
            requests.data.eq(receiver.data),
            server.shown.eq(requests.shown),
            server.header.eq(requests.header),
            server.payload_good.eq(requests.payload_good),
            server.byte.eq(requests.byte),
            server.dropped.eq(requests.dropped),
            requests.index.eq(server.index),
            requests.release.eq(replies.done),
            replies.start.eq(server.reply),
            replies.header.eq(Cat(requests.header.operation, requests.header.tag, server.answer, server.length)),
            server.replied.eq(replies.done),
            self.status.eq(server.status),
            self.receiving.eq(receiver.valid),
            self.sending.eq(transmitter.i.valid & transmitter.i.ready),
        ]
        return m
