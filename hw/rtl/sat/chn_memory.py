"""The memory of channel records: one read and one write port, and the users' ports joined.

Latency and ranges: :mod:`hw.rtl.sat.vec_ports`. A read has no forwarding. Contents are not reset.
"""

from collections.abc import Sequence
from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.compare import at_least
from hw.rtl.arith.delay import data_register
from hw.rtl.sat.vec_ports import WORD_BITS, ReadPort, WritePort
from hw.spec.sat.arch import SatArch
from hw.spec.sat.latency import VECTOR_READ

LATENCY = 2
"""Array, output register."""

if LATENCY != VECTOR_READ:
    raise AssertionError(f"VECTOR_READ must be {LATENCY}, the memories' latency, not {VECTOR_READ}")


class ChnMemory(wiring.Component):
    """``arch.chn_words`` words of 16 bytes.

    Members
    -------
    store_read, vec_read, chn_read : readers
    load_write, vec_write, chn_write : writers
    written : what is written in this cycle; for simulators
    out_of_range : an access of the cycle before lay outside
    """

    store_read: In(ReadPort)
    vec_read: In(ReadPort)
    chn_read: In(ReadPort)
    load_write: In(WritePort)
    vec_write: In(WritePort)
    chn_write: In(WritePort)
    written: Out(WritePort)
    out_of_range: Out(1)

    def __init__(self, arch: SatArch) -> None:
        self._words = arch.chn_words
        super().__init__()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        readers, writers = (self.store_read, self.vec_read, self.chn_read), (self.load_write, self.vec_write, self.chn_write)
        m.submodules.array = array = memory.Memory(shape=unsigned(WORD_BITS), depth=self._words, init=[])
        read, write = array.read_port(), array.write_port()
        reading, writing = Cat(port.en for port in readers).any(), Cat(port.en for port in writers).any()
        read_addr, register = _joined(readers, "addr"), Signal(WORD_BITS, reset_less=True)
        missed_write = at_least(self.written.addr, self._words)
        m.d.comb += [
            self.written.en.eq(writing & ~missed_write),
            self.written.addr.eq(_joined(writers, "addr")),
            self.written.data.eq(_joined(writers, "data")),
            read.en.eq(reading),
            read.addr.eq(read_addr),
            write.en.eq(self.written.en),
            write.addr.eq(self.written.addr),
            write.data.eq(self.written.data),
            *(port.data.eq(register) for port in readers),
        ]
        m.d.sync += register.eq(read.data)
        missed = (reading & at_least(read_addr, self._words)) | (writing & missed_write)
        m.d.sync += data_register(m, self.out_of_range).eq(missed)
        return m


def _joined(ports: Sequence[wiring.PureInterface], name: str) -> Value:
    """What the enabled engine drives; 0 if none is."""
    return reduce(or_, (Mux(port.en, getattr(port, name), 0) for port in ports))
