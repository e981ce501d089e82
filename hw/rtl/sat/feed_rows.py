"""Operands from the copies of pixel table and activation memory to the rows of the array."""

from __future__ import annotations

from amaranth.hdl import Array as Choice
from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.delay import delayed, later
from hw.rtl.sat.edges import RowControl, RowEdge, finite
from hw.rtl.sat.feed import ACT_BITS, WordRequest
from hw.rtl.sat.pe import operand_write
from hw.rtl.sat.ports import FP16_BITS, WORD_BITS, ReadPort
from hw.spec.sat import LANES, SatArch
from hw.spec.sat.instructions import TABLE_ENTRIES
from hw.spec.sat.latency import MEMORY_READ
from hw.spec.sat.timing.gemm import ENTRY, QUEUE

ENTRY_BITS = 32


class WordReader(wiring.Component):
    """Entry, address, activation word: of one copy of the memories.

    Members: ``request``; ``table``, ``act``: the memories; ``word``, ``latency`` cycles after the request: eight FP16, finite;
    zeros where the masks say that there is no word, which is not read then.
    """

    latency = 2 * MEMORY_READ + 2

    def __init__(self) -> None:
        ports = {"table": Out(ReadPort), "act": Out(ReadPort)}
        super().__init__({"request": In(WordRequest), **ports, "word": Out(WORD_BITS)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if (found := self.latency - 2 * MEMORY_READ) != ENTRY:
            raise ValueError(f"the word reader must take ENTRY = {ENTRY} cycles between its reads, not {found}")
        m.d.comb += [self.table.en.eq(self.request.en), self.table.addr.eq(self.request.entry[2:])]
        late = later(m, self.request, MEMORY_READ, reset_less=True)
        en = delayed(m, self.request.en, MEMORY_READ + 1, "en")[-1]
        entry = Signal(ENTRY_BITS, reset_less=True)
        words = Choice(self.table.data.word_select(n, ENTRY_BITS) for n in range(TABLE_ENTRIES))
        m.d.sync += entry.eq(words[late.entry[:2]])
        exists = self._address(m, later(m, late, 1, reset_less=True), entry, en)
        present = delayed(m, exists, MEMORY_READ, "present", reset_less=True)[-1]
        for lane in range(LANES):
            value = finite(self.act.data.word_select(lane, FP16_BITS))
            m.d.comb += self.word.word_select(lane, FP16_BITS).eq(Mux(present, value, 0))
        return m

    def _address(self, m: Module, request: data.View, entry: Value, en: Value) -> Signal:
        """The read of the activation; whether it is one."""
        read, addr = Signal(), Signal(ACT_BITS, reset_less=True)
        rows, cols = entry[16:24], entry[24:]
        m.d.sync += [
            read.eq(en & rows.bit_select(request.row, 1) & cols.bit_select(request.col, 1)),
            addr.eq(entry[:16] + request.offset),
        ]
        m.d.comb += [self.act.en.eq(read), self.act.addr.eq(addr)]
        return read


class FeedRows(wiring.Component):
    """All rows' operands.

    Members
    ----------
    request, control : of row 0, as :class:`hw.rtl.sat.feed.FeedControl` gives them
    channels : the instruction's, holds still
    table, act : the copies
    operands : of each row; those of row r come r cycles after those of row 0, which come OPERAND - 2 cycles after the control
    """

    def __init__(self, arch: SatArch) -> None:
        self.arch = arch
        super().__init__({
            "request": In(WordRequest),
            "control": In(RowControl),
            "channels": In(1),
            "table": Out(ReadPort).array(arch.copies),
            "act": Out(ReadPort).array(arch.copies),
            "operands": Out(data.ArrayLayout(operand_write(arch.feed), arch.rows)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        if RowEdge.latency != QUEUE:
            raise ValueError(f"the rows' queues must have the latency QUEUE = {QUEUE}, not {RowEdge.latency}")
        request, control = self.request, later(m, self.control, 1 + WordReader.latency, reset_less=True)
        for copy in range(self.arch.copies):
            m.submodules[f"reader_{copy}"] = reader = WordReader()
            wiring.connect(m, reader.table, wiring.flipped(self.table[copy]))
            wiring.connect(m, reader.act, wiring.flipped(self.act[copy]))
            m.d.comb += reader.request.eq(request)
            upper = later(m, request.upper, WordReader.latency, reset_less=True)
            control = self._rows(m, copy, reader.word, upper, control)
            if copy + 1 < self.arch.copies:
                request = self._next_copy(m, copy, request)
        return m

    def _next_copy(self, m: Module, copy: int, request: data.View) -> Signal:
        """The request of the next copy's first row: later by a copy's rows, of another entry, or of another channel word."""
        rows = self.arch.rows_per_copy
        late = later(m, request, rows - 1, reset_less=True)
        following = Signal(WordRequest, reset_less=True)
        words = (copy + 1) * rows // LANES - copy * rows // LANES
        m.d.sync += [
            following.eq(late),
            following.entry.eq(late.entry + Mux(self.channels, 0, rows)),
            following.offset.eq(late.offset + Mux(self.channels, words, 0)),
        ]
        out = Signal(WordRequest)
        m.d.comb += [out.eq(following), out.en.eq(delayed(m, request.en, rows, f"en_{copy}")[-1])]
        return out

    def _rows(self, m: Module, copy: int, word: Value, upper: Value, control: data.View) -> data.View:
        """The rows of a copy. Returns the control of the next copy's first row."""
        rows = self.arch.rows_per_copy
        for number in range(rows):
            m.submodules[f"row_{copy * rows + number}"] = row = RowEdge(self.arch.feed)
            lane = self._lane(word, upper, copy * rows + number)
            m.d.comb += [
                row.control.eq(control),
                row.word.eq(word),
                row.lane.eq(delayed(m, lane, number, f"lane_{copy * rows + number}", reset_less=True)[-1]),
                row.channels.eq(self.channels),
                self.operands[copy * rows + number].eq(row.operands),
            ]
            control = later(m, control, 1, reset_less=True)
        return control

    def _lane(self, word: Value, upper: Value, row: int) -> Value:
        """The row's channel of a channel word; four rows take a word's halves in turn."""
        lane = word.word_select(row % LANES, FP16_BITS)
        if self.arch.rows >= LANES:
            return lane
        return Mux(upper, word.word_select(row + self.arch.rows, FP16_BITS), lane)


