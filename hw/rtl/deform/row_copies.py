"""The row memory without its crossbar: every tap has a whole copy to read.

The crossbar of :class:`hw.rtl.deform.memories.RowMemory` brings nine banks of 128 bits together to three taps, which takes more wires
than a small part has in one place. Three copies take three times the bits and no wires but the write port's; where block RAM is
left over and wires are not, this is the better one. Both compute the same, in the same cycles.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Signal, unsigned
from amaranth.lib import memory
from amaranth.utils import ceil_log2

from hw.rtl.arith.delay import data_register
from hw.rtl.deform.memories import RowMemory
from hw.spec.deform import LANES, ROW_BANKS

_BYTE = 8


class RowCopies(RowMemory):
    """A row memory of three copies; each holds a byte of a word in a memory of its own, which suits block RAM of 9 bits.

    Members: as :class:`RowMemory`. A bank takes up a power of two of addresses.
    """

    def elaborate(self, platform: object) -> Module:
        m = Module()
        taps = range(len(self.read.en))
        for tap in taps:
            for lane in range(LANES):
                self._copy(m, tap, lane)
        missed = [self.read.en[tap] & self._missed(self.read.bank[tap], self.read.addr[tap]) for tap in taps]
        m.d.sync += data_register(m, self.out_of_range).eq(Cat(missed).any())
        return m

    def _copy(self, m: Module, tap: int, lane: int) -> None:
        """One byte of a tap's words, of all banks behind each other."""
        bits = ceil_log2(self._words)
        copy = memory.Memory(shape=unsigned(_BYTE), depth=ROW_BANKS << bits, init=[])
        m.submodules[f"tap{tap}_lane{lane}"] = copy
        read, write = copy.read_port(), copy.write_port()
        register = Signal(_BYTE, reset_less=True)
        m.d.comb += [
            read.en.eq(self.read.en[tap]),
            read.addr.eq(Cat(self.read.addr[tap][:bits], self.read.bank[tap])),
            write.en.eq(self.write.en),
            write.addr.eq(Cat(self.write.addr[:bits], self.write.bank)),
            write.data.eq(self.write.data.word_select(lane, _BYTE)),
            self.read.data[tap].word_select(lane, _BYTE).eq(register),
        ]
        m.d.sync += register.eq(read.data)
