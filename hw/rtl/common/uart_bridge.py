"""Bridge from a serial line to a core's registers and a board's memory: the hardware end of ``hw.spec.uart``."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.common.axi import CONTROL_ADDRESS_BITS, CONTROL_DATA_BITS, axi_lite_subordinate
from hw.rtl.common.axi_ram import RamParameters, host_port
from hw.rtl.common.lite_manager import LiteManager
from hw.rtl.common.uart import UartReceiver, UartTiming, UartTransmitter
from hw.rtl.common.uart_frames import DROPPED_BITS, ReplySender, RequestReceiver
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
        m.submodules.server = server = _Server(p)
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
