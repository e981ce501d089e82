"""The vector memory: three banks, one read and one write port each, and the users' ports joined.

A bank's words are as wide as what GEMM's drain writes at once: ``units`` 16-byte words, or half of one for an array of four columns.
Latency and ranges: :mod:`hw.rtl.sat.vec_ports`. A read has no forwarding: reading a word in the cycle in which it is written gives
the old or the new one. Contents are not reset.
"""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.rtl.arith.compare import at_least
from hw.rtl.arith.delay import data_register
from hw.rtl.sat.vec_ports import WORD_BITS, OperandPort, PrunedPort, ReadPort, ResultPort, WritePort, column_write_port
from hw.spec.sat.arch import LANES, SatArch
from hw.spec.sat.instructions import BANKS
from hw.spec.sat.latency import VECTOR_READ
from hw.spec.transfer import ADDR_BITS

LATENCY = 2
"""Array, output register with the choice of a unit before it."""

VALUES_BANK, POSITIONS_BANK = 1, 2
"""Banks of PRUNE's results."""

if LATENCY != VECTOR_READ:
    raise AssertionError(f"VECTOR_READ must be {LATENCY}, the memories' latency, not {VECTOR_READ}")


def bank_layout(arch: SatArch) -> tuple[int, int]:
    """16-byte units of a bank's word, and bits that are written or not as a whole."""
    return max(1, arch.columns // LANES), min(WORD_BITS, 16 * arch.columns)


def bank_write(arch: SatArch) -> data.StructLayout:
    """What is written to a bank in a cycle: ``en`` for each part of a word, the word's address, and the word."""
    units, part = bank_layout(arch)
    words = arch.vec_words // units
    return data.StructLayout({"en": units * WORD_BITS // part, "addr": range(words), "data": units * WORD_BITS})


class VecMemory(wiring.Component):
    """Three banks of ``arch.vec_words`` words of 16 bytes.

    Members
    -------
    vec_read : a word of each bank
    prune_read : a word of bank 0
    store_read, load_write : words of all banks, counted through
    vec_write : a word of one bank
    prune_write : words of banks 1 and 2
    gemm_write : a column word
    written : what the banks are given in this cycle (:func:`bank_write`); for simulators
    out_of_range : an access of the cycle before lay outside
    """

    def __init__(self, arch: SatArch) -> None:
        self._arch = arch
        self._units, self._part = bank_layout(arch)
        super().__init__({
            "vec_read": In(OperandPort),
            "prune_read": In(ReadPort),
            "store_read": In(ReadPort),
            "load_write": In(WritePort),
            "vec_write": In(ResultPort),
            "prune_write": In(PrunedPort),
            "gemm_write": In(column_write_port(arch.columns)),
            "written": Out(data.ArrayLayout(bank_write(arch), BANKS)),
            "out_of_range": Out(1),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        missed = [self._missed_linear(port) for port in (self.store_read, self.load_write)]
        missed += [self._missed(en, addr) for en, addr in zip(self.vec_read.en, self.vec_read.addr, strict=True)]
        missed += [self._missed(port.en, port.addr) for port in (self.prune_read, self.vec_write, self.prune_write)]
        missed.append(self.gemm_write.en & self._column_missed())
        m.d.sync += data_register(m, self.out_of_range).eq(Cat(missed).any())
        for number in range(BANKS):
            self._write(m, number)
            self._bank(m, number)
        self._store(m)
        return m

    # Ranges ---------------------------------------------------------------------------------------------------------------

    def _missed(self, en: Value, addr: Value) -> Value:
        return en & at_least(addr, self._arch.vec_words)

    def _missed_linear(self, port: wiring.PureInterface) -> Value:
        return port.en & at_least(port.addr, self._arch.vec_words * BANKS)

    def _column_missed(self) -> Value:
        """A column word is ``units`` words, or half of one."""
        return at_least(self.gemm_write.addr, self._arch.vec_words * LANES // self._arch.columns)

    def _of_bank(self, addr: Value, number: int) -> Value:
        """Whether an address that counts through all banks lies in this one; one that lies beyond them all is taken for any."""
        bits = exact_log2(self._arch.vec_words)
        return addr[bits : bits + 2] == number

    # Reading --------------------------------------------------------------------------------------------------------------

    def _read(self, m: Module, number: int) -> tuple[Signal, Signal]:
        """Enable and address of a bank's read port: of whoever is enabled."""
        store = self.store_read.en & self._of_bank(self.store_read.addr, number)
        users = [(self.vec_read.en[number], self.vec_read.addr[number]), (store, self.store_read.addr)]
        if number == 0:
            users.append((self.prune_read.en, self.prune_read.addr))
        en, addr = Signal(name=f"read_en_{number}"), Signal(ADDR_BITS, name=f"read_addr_{number}")
        m.d.comb += [en.eq(Cat(used for used, _ in users).any()), addr.eq(_joined(users))]
        return en, addr

    def _store(self, m: Module) -> None:
        """STORE sees the bank of its address of two cycles before."""
        bits = exact_log2(self._arch.vec_words)
        bank: Value = self.store_read.addr[bits : bits + 2]
        for stage in range(LATENCY):
            register = Signal(2, name=f"store_bank_{stage}", reset_less=True)
            m.d.sync += register.eq(bank)
            bank = register
        m.d.comb += self.store_read.data.eq(Array(self.vec_read.data)[bank])

    # Writing --------------------------------------------------------------------------------------------------------------

    def _write(self, m: Module, number: int) -> None:
        """What a bank is given: the parts of its word that are enabled, its address, and its data."""
        units, target = self._units, self.written[number]
        places = exact_log2(units)
        words: list[tuple[Value, Value, Value]] = [
            (self._loads(number), self.load_write.addr, self.load_write.data),
            (self._fits(self.vec_write) & (self.vec_write.bank == number), self.vec_write.addr, self.vec_write.data),
        ]
        if number in (VALUES_BANK, POSITIONS_BANK):
            pruned = self.prune_write
            words.append((self._fits(pruned), pruned.addr, pruned.values if number == VALUES_BANK else pruned.positions))
        en, addr = Signal(name=f"write_en_{number}"), Signal(ADDR_BITS, name=f"write_addr_{number}")
        word = Signal(WORD_BITS, name=f"write_word_{number}")
        m.d.comb += [
            en.eq(Cat(used for used, _, _ in words).any()),
            addr.eq(_joined([(used, place) for used, place, _ in words])),
            word.eq(_joined([(used, value) for used, _, value in words])),
        ]
        column = self.gemm_write.en & (self.gemm_write.bank == number) & ~self._column_missed()
        unit = Const(1, 1) if units == 1 else (1 << addr[:places])[:units]
        parts, column_parts, column_addr = self._column(len(target.en))
        m.d.comb += [
            target.en.eq(Mux(column, column_parts, Mux(en, Cat(bit.replicate(parts) for bit in unit), 0))),
            target.addr.eq(Mux(column, column_addr, addr[places:])),
            target.data.eq(Mux(column, self._column_data(), word.replicate(units))),
        ]

    def _column(self, width: int) -> tuple[int, Value, Value]:
        """Parts of a unit; parts of a word that a column word fills; the word's address."""
        if self._part == WORD_BITS:
            return 1, Const((1 << width) - 1, width), self.gemm_write.addr
        halves = WORD_BITS // self._part
        return halves, (1 << self.gemm_write.addr[: exact_log2(halves)])[:width], self.gemm_write.addr[exact_log2(halves) :]

    def _column_data(self) -> Value:
        return self.gemm_write.data.replicate(max(1, WORD_BITS // len(self.gemm_write.data)))

    def _loads(self, number: int) -> Value:
        port = self.load_write
        return port.en & self._of_bank(port.addr, number) & ~self._missed_linear(port)

    def _fits(self, port: wiring.PureInterface) -> Value:
        return port.en & ~self._missed(port.en, port.addr)

    # Banks ----------------------------------------------------------------------------------------------------------------

    def _bank(self, m: Module, number: int) -> None:
        units, places = self._units, exact_log2(self._units)
        write, (read_en, read_addr) = self.written[number], self._read(m, number)
        width, depth = WORD_BITS * units, self._arch.vec_words // units
        m.submodules[f"bank_{number}"] = array = memory.Memory(shape=unsigned(width), depth=depth, init=[])
        reader, writer = array.read_port(), array.write_port(granularity=None if self._part == width else self._part)
        unit, register = Signal(max(places, 1), name=f"unit_{number}", reset_less=True), self.vec_read.data[number]
        chosen = Signal(WORD_BITS, name=f"read_{number}", reset_less=True)
        m.d.comb += [
            reader.en.eq(read_en),
            reader.addr.eq(read_addr[places:]),
            writer.en.eq(write.en),
            writer.addr.eq(write.addr),
            writer.data.eq(write.data),
            register.eq(chosen),
        ]
        if number == 0:
            m.d.comb += self.prune_read.data.eq(chosen)
        m.d.sync += [unit.eq(read_addr[:places]), chosen.eq(reader.data.word_select(unit if places else 0, WORD_BITS))]


def _joined(users: list[tuple[Value, Value]]) -> Value:
    """What the enabled user gives; 0 if none is."""
    result: Value = Const(0)
    for en, value in users:
        result = result | Mux(en, value, 0)
    return result
