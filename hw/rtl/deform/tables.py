"""Table activations: result bytes replaced by entries of a table, one byte per lane and cycle.

Every lane looks up its own byte, so each has a copy of all tables. A copy is a simple dual-port memory of 32 bits: four entries
to a word, read whole, of which the byte's low bits choose one. Eight tables of a lane fill exactly the 512 x 36 of one 18-kbit
block RAM, as would a memory of single bytes; but LOAD's words of 16 bytes are then written in four cycles and not in sixteen, for
a multiplexer of four bytes behind the memory, which shares its register with the choice between entry and byte. Writing whole
words in one cycle would need memories of 128 bits: four block RAMs per lane, or some 200 look-up tables as distributed memory.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.compare import at_least
from hw.rtl.arith.delay import data_register
from hw.rtl.deform.ports import TABLE_FIELD_BITS, WORD_BITS, TableWritePort
from hw.spec.deform import LANES, DeformArch
from hw.spec.deform.instructions import TABLE_BYTES
from hw.spec.deform.latency import TABLE, TABLE_PARTS, result_cycles

PART_BYTES = LANES // TABLE_PARTS
PART_BITS = 8 * PART_BYTES

if result_cycles(DeformArch(tables=1)) - result_cycles(DeformArch(tables=0)) != TABLE:
    raise AssertionError(f"result_cycles must count TABLE = {TABLE} cycles for the tables")


class TableLane(wiring.Component):
    """One lane's copy of the tables, and its lookup in two stages: memory, then entry or byte.

    Parameters: ``tables``, 1 or more.

    Members: ``i``, ``o``: byte and, ``delay`` cycles later, its entry in table ``page``, or the byte itself where not ``active``
    (both hold still); ``write``.
    """

    delay = 2

    def __init__(self, tables: int) -> None:
        self._words = tables * TABLE_BYTES // PART_BYTES
        super().__init__(
            {
                "i": In(8),
                "page": In(range(max(tables, 2))),
                "active": In(1),
                "write": In(TableWritePort),
                "o": Out(8),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.entries = entries = memory.Memory(shape=PART_BITS, depth=self._words, init=[])
        read, write = entries.read_port(), entries.write_port()
        late = Signal(8, reset_less=True)
        byte = Signal(8, reset_less=True)
        inner = (PART_BYTES - 1).bit_length()
        m.d.comb += [
            read.en.eq(Const(1)),
            read.addr.eq(Cat(self.i[inner:], self.page)),
            write.en.eq(self.write.en),
            write.addr.eq(self.write.addr),
            write.data.eq(self.write.data),
            self.o.eq(byte),
        ]
        entry = read.data.word_select(late[:inner], 8)
        m.d.sync += [late.eq(self.i), byte.eq(Mux(self.active, entry, late))]
        return m


class TableLookup(wiring.Component):
    """The tables of an architecture; without any, bytes pass and nothing is built.

    Members
    -------
    table : the running instruction's field, 0 while none runs; it rests before the first byte comes
    i, o : sixteen bytes and, ``latency`` cycles later, what becomes of them
    write : four entries of a table, in every lane
    out_of_range : the instruction names a table that there is not
    """

    def __init__(self, arch: DeformArch) -> None:
        self._tables = arch.tables
        super().__init__(
            {
                "table": In(TABLE_FIELD_BITS),
                "i": In(WORD_BITS),
                "o": Out(WORD_BITS),
                "write": In(TableWritePort),
                "out_of_range": Out(1),
            }
        )

    @property
    def latency(self) -> int:
        return TableLane.delay if self._tables else 0

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if TableLane.delay != TABLE:
            raise ValueError(f"table lookup must have the latency TABLE = {TABLE}, not {TableLane.delay}")
        m.d.sync += data_register(m, self.out_of_range).eq(at_least(self.table, self._tables + 1))
        if not self._tables:
            m.d.comb += self.o.eq(self.i)
            return m
        lanes = [TableLane(self._tables) for _ in range(LANES)]
        page = Signal.like(lanes[0].page, reset_less=True)
        active = Signal(reset_less=True)
        m.d.sync += [page.eq(self.table - 1), active.eq(self.table != 0)]
        for number, lane in enumerate(lanes):
            m.submodules[f"lane_{number}"] = lane
            wiring.connect(m, wiring.flipped(self.write), lane.write)
            m.d.comb += [
                lane.i.eq(self.i.word_select(number, 8)),
                lane.page.eq(page),
                lane.active.eq(active),
                self.o.word_select(number, 8).eq(lane.o),
            ]
        return m
