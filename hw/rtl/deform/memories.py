"""On-chip memories of the inference core: block RAM with an output register, one read and one write port each.

Read data comes ``MEMORY_READ`` cycles after ``en``; a write is seen by reads enabled in a later cycle. A port has no
forwarding: reading a word in the cycle in which it is written gives the old or the new one. Contents are not reset.
An enabled access outside the memory raises ``out_of_range`` in the next cycle; such a write does nothing. Memories that LOAD
alone writes look at reads only, because LOAD checks each run before it starts.
"""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.rtl.arith.compare import at_least
from hw.rtl.arith.delay import data_register
from hw.rtl.deform.ports import WORD_BITS, ReadPort, RowReadPort, WritePort, weight_read_port
from hw.spec.deform import ROW_BANKS, DeformArch
from hw.spec.deform.instructions import ADDR_BITS
from hw.spec.deform.latency import MEMORY_READ

LATENCY = 2
"""Array, output register. In the row memory the crossbar's inputs lie before the array, its outputs before the register."""

RowWritePort = wiring.Signature({"en": Out(1), "bank": Out(4), "addr": Out(ADDR_BITS), "data": Out(WORD_BITS)})
"""One word of one bank of the row memory; seen from an engine."""

if LATENCY != MEMORY_READ:
    raise AssertionError(f"MEMORY_READ must be {LATENCY}, the on-chip memories' latency, not {MEMORY_READ}")


class _Bank(wiring.Component):
    """``words`` words of ``units`` 16-byte units: synchronous read (latency 1), writes of one unit."""

    def __init__(self, *, words: int, units: int = 1) -> None:
        self.words, self.units = words, units
        super().__init__({
            "read_en": In(1),
            "read_addr": In(range(words)),
            "read_data": Out(WORD_BITS * units),
            "write_en": In(units),
            "write_addr": In(range(words)),
            "write_data": In(WORD_BITS),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.array = array = memory.Memory(shape=unsigned(WORD_BITS * self.units), depth=self.words, init=[])
        read, write = array.read_port(), array.write_port(granularity=WORD_BITS)
        m.d.comb += [
            read.en.eq(self.read_en),
            read.addr.eq(self.read_addr),
            self.read_data.eq(read.data),
            write.en.eq(self.write_en),
            write.addr.eq(self.write_addr),
            write.data.eq(self.write_data.replicate(self.units)),
        ]
        return m


class _WordMemory(wiring.Component):
    """A memory of ``words`` words of ``units`` units; reads whole words, writes units (word times ``units`` plus unit).

    ``guarded``: writes are looked at as well as reads.
    """

    def __init__(self, *, words: int, units: int = 1, guarded: bool = False) -> None:
        self._words, self._units, self._guarded = words, units, guarded
        port = ReadPort if units == 1 else weight_read_port(units)
        super().__init__({"read": In(port), "write": In(WritePort), "out_of_range": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.bank = bank = _Bank(words=self._words, units=self._units)
        unit_bits = exact_log2(self._units)
        register = Signal(WORD_BITS * self._units, reset_less=True)
        missed = at_least(self.write.addr, self._words * self._units) if self._guarded else Const(0)
        missed_reads = self.read.en & at_least(self.read.addr, self._words)
        m.d.comb += [
            bank.read_en.eq(self.read.en),
            bank.read_addr.eq(self.read.addr),
            self.read.data.eq(register),
            bank.write_en.eq(Mux(self.write.en & ~missed, 1 << self.write.addr[:unit_bits], 0)),
            bank.write_addr.eq(self.write.addr[unit_bits:]),
            bank.write_data.eq(self.write.data),
        ]
        m.d.sync += register.eq(bank.read_data)
        m.d.sync += data_register(m, self.out_of_range).eq(missed_reads | (self.write.en & missed))
        return m


class FeatureMemory(_WordMemory):
    """Activations: ``arch.feature_words`` words of 16 channels.

    Members: ``read``, ``write``, ``out_of_range``.
    """

    def __init__(self, arch: DeformArch) -> None:
        super().__init__(words=arch.feature_words, guarded=True)


class ParameterMemory(_WordMemory):
    """Requantise records and depthwise weights: ``arch.parameter_words`` words.

    Members: ``read``, ``write``, ``out_of_range``.
    """

    def __init__(self, arch: DeformArch) -> None:
        super().__init__(words=arch.parameter_words)


class WeightMemory(_WordMemory):
    """Weights of the array: ``arch.weight_words`` words of ``arch.weight_word_units`` units.

    Members: ``read`` by word, ``write`` by unit, ``out_of_range``.
    """

    def __init__(self, arch: DeformArch) -> None:
        super().__init__(words=arch.weight_words, units=arch.weight_word_units)


class RowMemory(wiring.Component):
    """Nine banks of ``arch.row_words`` words; three words of different banks, or the same word, are read at once.

    Members: ``read``, ``write``, ``out_of_range`` (of a read's address within its bank, or of a bank above 8).
    """

    def __init__(self, arch: DeformArch) -> None:
        self._words = arch.row_words
        super().__init__({"read": In(RowReadPort), "write": In(RowWritePort), "out_of_range": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        banks = [_Bank(words=self._words) for _ in range(ROW_BANKS)]
        for number, bank in enumerate(banks):
            m.submodules[f"bank{number}"] = bank
            self._address(m, bank, number)
        words = Array(bank.read_data for bank in banks)
        for tap in range(len(self.read.en)):
            picked = Signal(4, reset_less=True)
            register = Signal(WORD_BITS, reset_less=True)
            m.d.sync += [picked.eq(self.read.bank[tap]), register.eq(words[picked])]
            m.d.comb += self.read.data[tap].eq(register)
        missed = [self.read.en[tap] & self._missed(self.read.bank[tap], self.read.addr[tap]) for tap in range(len(self.read.en))]
        m.d.sync += data_register(m, self.out_of_range).eq(Cat(missed).any())
        return m

    def _missed(self, bank: Value, addr: Value) -> Value:
        return (bank >= ROW_BANKS) | at_least(addr, self._words)

    def _address(self, m: Module, bank: _Bank, number: int) -> None:
        """Give a bank the address of a tap that names it: taps of one bank have one address, whether they are enabled or not."""
        read = self.read
        named = [read.bank[tap] == number for tap in range(len(read.en))]
        addr: Value = read.addr[-1]
        for tap in reversed(range(len(named) - 1)):
            addr = Mux(named[tap], read.addr[tap], addr)
        m.d.comb += [
            bank.read_en.eq(Cat(named[tap] & read.en[tap] for tap in range(len(named))).any()),
            bank.read_addr.eq(addr),
            bank.write_en.eq(self.write.en & (self.write.bank == number)),
            bank.write_addr.eq(self.write.addr),
            bank.write_data.eq(self.write.data),
        ]
