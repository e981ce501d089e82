"""On-chip memory behind an AXI4 manager, with a byte-wide port for a host's bridge: for boards without memory of their own."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Const, Module, Mux, Signal, Value
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.rtl.common.axi import BURST_INCR, SIZE_WORD, axi4_manager
from hw.rtl.common.interfaces import DATA_BITS
from hw.spec.arch import WORD_BYTES

PAGE_BYTES = 4096
SLVERR, DECERR = 0b10, 0b11


@dataclass(frozen=True, kw_only=True)
class RamParameters:
    """Window of a memory: ``size`` bytes from ``base``, within the first 4 GB.

    The size must be a power of two of at least a page of 4 KB, which no burst crosses, and the base a multiple of it: then a burst
    lies inside if its first byte does.
    """

    base: int
    size: int

    def __post_init__(self) -> None:
        if self.size < PAGE_BYTES or self.size & (self.size - 1):
            raise ValueError(f"memory size must be a power of two of at least {PAGE_BYTES}, not {self.size}")
        if self.base < 0 or self.base % self.size or self.base + self.size > 1 << 32:
            raise ValueError(f"memory base must be a multiple of its size {self.size} below 2**32, not {self.base:#x}")

    @property
    def words(self) -> int:
        return self.size // WORD_BYTES

    @property
    def offset_bits(self) -> int:
        """Bits of an address within the memory."""
        return exact_log2(self.size)

    def holds(self, addr: Value) -> Value:
        """Whether an address of any width of at least 32 bits lies in the window."""
        return addr[self.offset_bits :] == self.base >> self.offset_bits


def host_port(ram: RamParameters) -> wiring.Signature:
    """Bytes of the memory, seen from a host: ``read`` or ``write`` is held, with ``addr`` (from the memory's first byte) and
    ``write_data``, until ``ready``. ``read_data`` is there in the cycle after that, for one cycle."""
    return wiring.Signature({
        "addr": Out(ram.offset_bits),
        "write": Out(1),
        "write_data": Out(8),
        "read": Out(1),
        "ready": In(1),
        "read_data": In(8),
    })


class AxiRam(wiring.Component):
    """The memory: one read and one write port of 16 bytes in block RAM, not cleared by reset.

    AXI bursts must be INCR of full beats (else SLVERR) inside the window (else DECERR); a refused write changes nothing, a refused
    read gives any data. One burst of each direction at a time, a beat per cycle; read latency 2 cycles from address to first beat,
    write response 1 cycle after the last beat. The host's write goes before the core's; its read waits for the burst under way. What
    is read while it is written is the old or the new word.

    Members: ``axi``, ``host``.
    """

    def __init__(self, ram: RamParameters) -> None:
        self._ram = ram
        super().__init__({"axi": In(axi4_manager()), "host": In(host_port(ram))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.array = array = memory.Memory(shape=DATA_BITS, depth=self._ram.words, init=[])
        wrote, read = self._write(m, array), self._read(m, array)
        m.d.comb += self.host.ready.eq(wrote | read)
        return m

    @property
    def _lane_bits(self) -> int:
        return exact_log2(WORD_BYTES)

    def _response(self, prefix: str) -> Value:
        """What the burst on the address channel is answered."""
        addr, size, burst = (getattr(self.axi, f"{prefix}{name}") for name in ("addr", "size", "burst"))
        supported = (size == SIZE_WORD) & (burst == BURST_INCR)
        return Mux(~self._ram.holds(addr), Const(DECERR, 2), Mux(supported, Const(0, 2), Const(SLVERR, 2)))

    def _word(self, addr: Value) -> Value:
        """Index of the word that holds a byte."""
        return addr[self._lane_bits : self._ram.offset_bits]

    def _write(self, m: Module, array: memory.Memory) -> Value:
        """The write channels; returns whether the host's write is done."""
        axi, host = self.axi, self.host
        port = array.write_port(granularity=8)
        active, word, answer = Signal(), Signal(range(self._ram.words)), Signal(2)
        beat = axi.wvalid & axi.wready
        lane = Const(1, WORD_BYTES) << host.addr[: self._lane_bits]
        m.d.comb += [
            axi.awready.eq(~active & ~axi.bvalid),
            axi.wready.eq(active & ~host.write),
            axi.bresp.eq(answer),
            port.addr.eq(Mux(host.write, self._word(host.addr), word)),
            port.data.eq(Mux(host.write, host.write_data.replicate(WORD_BYTES), axi.wdata)),
            port.en.eq(Mux(host.write, lane, Mux(beat & (answer == 0), axi.wstrb, 0))),
        ]
        with m.If(axi.awvalid & axi.awready):
            m.d.sync += [active.eq(1), word.eq(self._word(axi.awaddr)), answer.eq(self._response("aw")), axi.bid.eq(axi.awid)]
        with m.If(beat):
            m.d.sync += [word.eq(word + 1), active.eq(~axi.wlast), axi.bvalid.eq(axi.wlast)]
        with m.If(axi.bvalid & axi.bready):
            m.d.sync += axi.bvalid.eq(0)
        return host.write

    def _read(self, m: Module, array: memory.Memory) -> Value:
        """The read channels; returns whether the host's read is accepted. The array's output holds a beat until it is taken."""
        axi, host = self.axi, self.host
        port = array.read_port()
        active, word, left, answer = Signal(), Signal(range(self._ram.words)), Signal(8), Signal(2)
        idle, fetch = Signal(), Signal()
        lane = Signal(self._lane_bits)
        m.d.comb += [
            idle.eq(~active & ~axi.rvalid),
            fetch.eq(active & (~axi.rvalid | axi.rready)),
            axi.arready.eq(idle & ~host.read),
            axi.rdata.eq(port.data),
            axi.rresp.eq(answer),
            port.en.eq(fetch | (idle & host.read)),
            port.addr.eq(Mux(active, word, self._word(host.addr))),
            host.read_data.eq(port.data.word_select(lane, 8)),
        ]
        m.d.sync += lane.eq(host.addr[: self._lane_bits])
        with m.If(axi.arvalid & axi.arready):
            m.d.sync += [active.eq(1), word.eq(self._word(axi.araddr)), left.eq(axi.arlen)]
            m.d.sync += [answer.eq(self._response("ar")), axi.rid.eq(axi.arid)]
        with m.If(axi.rready):
            m.d.sync += axi.rvalid.eq(0)
        with m.If(fetch):
            m.d.sync += [axi.rvalid.eq(1), axi.rlast.eq(left == 0), left.eq(left - 1), word.eq(word + 1), active.eq(left != 0)]
        return idle & host.read


__all__ = ["AxiRam", "RamParameters", "host_port"]
