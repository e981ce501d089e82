"""On-chip memories of GEMM: activations, pixel table, weights, positions, accumulators. Block RAM with an output register.

Read data comes ``MEMORY_READ`` cycles after ``en``; a write is seen by reads enabled in a later cycle. A port has no
forwarding: reading a word in the cycle in which it is written gives the old or the new one. Contents are not reset.
An enabled access outside the memory raises ``out_of_range`` in the next cycle; such a write does nothing. Writes and reads of LOAD and
STORE are not looked at, because those check each run before it starts.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.rtl.arith.compare import at_least
from hw.rtl.arith.delay import data_register
from hw.rtl.sat.ports import FP16_BITS, FP32_BITS, INDEX_BITS, WORD_BITS, ReadPort, WritePort, read_port, write_port
from hw.spec.sat import FP32_LANES, LANES, SatArch
from hw.spec.sat.latency import MEMORY_READ

LATENCY = 2
"""Array, output register."""

if LATENCY != MEMORY_READ:
    raise AssertionError(f"MEMORY_READ must be {LATENCY}, the on-chip memories' latency, not {MEMORY_READ}")


class _Bank(wiring.Component):
    """``words`` words of ``units`` parts of ``bits`` bits: reads of whole words, ``LATENCY`` cycles, writes of chosen parts."""

    def __init__(self, *, words: int, units: int = 1, bits: int = WORD_BITS) -> None:
        self.words, self.units, self.bits = words, units, bits
        super().__init__({
            "read_en": In(1),
            "read_addr": In(range(words)),
            "read_data": Out(bits * units),
            "write_en": In(units),
            "write_addr": In(range(words)),
            "write_data": In(bits * units),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.array = array = memory.Memory(shape=unsigned(self.bits * self.units), depth=self.words, init=[])
        read, write = array.read_port(), array.write_port(granularity=self.bits)
        m.d.comb += [
            read.en.eq(self.read_en),
            read.addr.eq(self.read_addr),
            write.en.eq(self.write_en),
            write.addr.eq(self.write_addr),
            write.data.eq(self.write_data),
        ]
        m.d.sync += data_register(m, self.read_data).eq(read.data)
        return m


class _CopiedMemory(wiring.Component):
    """``copies`` memories of ``words`` units that hold the same, with a read port each.

    Members: ``read``, one port per copy; ``write``, to all of them; ``out_of_range`` of any read.
    """

    def __init__(self, *, words: int, copies: int) -> None:
        self._words, self._copies = words, copies
        super().__init__({"read": In(ReadPort).array(copies), "write": In(WritePort), "out_of_range": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        missed = []
        for number, read in enumerate(self.read):
            m.submodules[f"copy_{number}"] = bank = _Bank(words=self._words)
            m.d.comb += [
                bank.read_en.eq(read.en),
                bank.read_addr.eq(read.addr),
                read.data.eq(bank.read_data),
                bank.write_en.eq(self.write.en),
                bank.write_addr.eq(self.write.addr),
                bank.write_data.eq(self.write.data),
            ]
            missed.append(read.en & at_least(read.addr, self._words))
        m.d.sync += data_register(m, self.out_of_range).eq(Cat(missed).any())
        return m


class ActivationMemory(_CopiedMemory):
    """Activations: ``arch.act_words`` units in ``arch.copies`` copies."""

    def __init__(self, arch: SatArch) -> None:
        super().__init__(words=arch.act_words, copies=arch.copies)


class TableMemory(_CopiedMemory):
    """Pixel table: ``arch.tbl_words`` units of four entries in ``arch.copies`` copies."""

    def __init__(self, arch: SatArch) -> None:
        super().__init__(words=arch.tbl_words, copies=arch.copies)


class _ColumnMemory(wiring.Component):
    """``arch.wgt_words`` words of ``bits`` bits per column; each takes the lowest ``bits`` of an FP16's place in what is written.

    Members: ``read`` by column word; ``write`` by unit (of eight values); ``out_of_range`` of a read.
    """

    def __init__(self, arch: SatArch, bits: int) -> None:
        self._words, self._columns, self._bits = arch.wgt_words, arch.columns, bits
        super().__init__({"read": In(read_port(bits * arch.columns)), "write": In(WritePort), "out_of_range": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        part = self._bits * LANES
        units, halves = max(self._columns // LANES, 1), max(LANES // self._columns, 1)
        m.submodules.bank = bank = _Bank(words=self._words // halves, units=units, bits=part)
        unit_bits, half_bits = exact_log2(units), exact_log2(halves)
        kept = Cat(self.write.data.word_select(lane, FP16_BITS)[: self._bits] for lane in range(LANES))
        m.d.comb += [
            bank.read_en.eq(self.read.en),
            bank.read_addr.eq(self.read.addr[half_bits:]),
            self.read.data.eq(self._half(m, bank.read_data) if half_bits else bank.read_data),
            bank.write_en.eq(Mux(self.write.en, 1 << self.write.addr[:unit_bits], 0)),
            bank.write_addr.eq(self.write.addr[unit_bits:]),
            bank.write_data.eq(kept.replicate(units)),
        ]
        m.d.sync += data_register(m, self.out_of_range).eq(self.read.en & at_least(self.read.addr, self._words))
        return m

    def _half(self, m: Module, unit: Value) -> Value:
        """A word of four columns is half of a unit."""
        return unit.word_select(_late(m, self.read.addr[0], "half"), self._bits * self._columns)


class WeightMemory(_ColumnMemory):
    """Weights: words of ``arch.columns`` FP16 values."""

    def __init__(self, arch: SatArch) -> None:
        super().__init__(arch, FP16_BITS)


class IndexMemory(_ColumnMemory):
    """Positions: words of ``arch.columns`` values of INDEX_BITS bits."""

    def __init__(self, arch: SatArch) -> None:
        super().__init__(arch, INDEX_BITS)


class AccumulatorMemory(wiring.Component):
    """``arch.acc_words`` words of ``arch.columns`` FP32 values.

    Members: ``read``, ``write`` by word, for GEMM; ``unit_read``, ``unit_write`` by unit (word * units + unit), for STORE and LOAD;
    ``out_of_range`` of a word. At most one read and one write are enabled in a cycle.
    """

    def __init__(self, arch: SatArch) -> None:
        self._words, self._units = arch.acc_words, arch.columns // FP32_LANES
        bits = FP32_BITS * arch.columns
        super().__init__({
            "read": In(read_port(bits)),
            "write": In(write_port(bits)),
            "unit_read": In(ReadPort),
            "unit_write": In(WritePort),
            "out_of_range": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.bank = bank = _Bank(words=self._words, units=self._units)
        place = exact_log2(self._units)
        missed_read, missed_write = (at_least(port.addr, self._words) for port in (self.read, self.write))
        chosen = Mux(self.unit_write.en, 1 << self.unit_write.addr[:place], 0)
        whole = (self.write.en & ~missed_write).replicate(self._units)
        m.d.comb += [
            bank.read_en.eq(self.read.en | self.unit_read.en),
            bank.read_addr.eq(Mux(self.read.en, self.read.addr, self.unit_read.addr[place:])),
            self.read.data.eq(bank.read_data),
            self.unit_read.data.eq(bank.read_data.word_select(_late(m, self.unit_read.addr[:place], "unit"), WORD_BITS)),
            bank.write_en.eq(Mux(self.write.en, whole, chosen)),
            bank.write_addr.eq(Mux(self.write.en, self.write.addr, self.unit_write.addr[place:])),
            bank.write_data.eq(Mux(self.write.en, self.write.data, self.unit_write.data.replicate(self._units))),
        ]
        missed = (self.read.en & missed_read) | (self.write.en & missed_write)
        m.d.sync += data_register(m, self.out_of_range).eq(missed)
        return m


def _late(m: Module, value: Value, name: str) -> Value:
    """What was asked for, beside the data."""
    for number in range(MEMORY_READ):
        register = Signal(len(value), name=f"{name}_{number}", reset_less=True)
        m.d.sync += register.eq(value)
        value = register
    return value
