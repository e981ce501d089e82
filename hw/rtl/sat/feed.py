"""Control of the operands' feed: which pixel-table entry and which activation word each row takes, chunk after chunk.

Counters and adders in place of multiplications; activation words are modulo 2**16, entries modulo 2**20. It says what row 0 does;
row r does the same r cycles later.
"""

from __future__ import annotations

from amaranth.hdl import Array as Choice
from amaranth.hdl import C, Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.rtl.arith.delay import data_register
from hw.rtl.common.decode import INSTRUCTION_BITS, view
from hw.rtl.sat.edges import RowControl
from hw.rtl.sat.ports import ADDR_BITS
from hw.spec.sat import LANES, SatArch
from hw.spec.sat.instructions import GEMM

ACT_BITS = 16
TAP_BITS = 3

WordRequest = data.StructLayout({"en": 1, "entry": ADDR_BITS, "offset": ACT_BITS, "row": TAP_BITS, "col": TAP_BITS, "upper": 1})
"""An activation word: the pixel-table ``entry`` that has its base and its masks, the ``offset`` from the base, the bits of the masks
that decide, and whether the rows take the word's upper half (weight gradients on four rows)."""


class TapWalker(wiring.Component):
    """Walks over the chunks of a kernel: rows, columns, parts of each tap.

    Members: ``instruction``, holds still; ``init``, begin; ``step``, last cycle of a chunk; ``last``: it is the last one; ``offset``,
    ``row``, ``col`` as of :obj:`WordRequest`, of the chunk's first word. A chunk has two cycles at least.
    """

    def __init__(self) -> None:
        super().__init__({
            "instruction": In(INSTRUCTION_BITS),
            "init": In(1),
            "step": In(1),
            "last": Out(1),
            "offset": Out(ACT_BITS),
            "row": Out(TAP_BITS),
            "col": Out(TAP_BITS),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        i = view(GEMM, self.instruction)
        widths = {"part": 16, "row": TAP_BITS, "col": TAP_BITS, "col_offset": ACT_BITS, "row_offset": ACT_BITS}
        at = {name: Signal(width, name=name, reset_less=True) for name, width in widths.items()}
        offset = data_register(m, self.offset)
        # Registers: they are used at a chunk's end, and what they look at changes at its beginning.
        ends = {name: Signal(name=f"{name}_end", reset_less=True) for name in ("part", "col", "row")}
        m.d.sync += [
            ends["part"].eq(at["part"] + 1 == i.chunks),
            ends["col"].eq(at["col"] + 1 == i.kernel_w),
            ends["row"].eq(at["row"] + 1 == i.kernel_h),
        ]
        m.d.comb += [
            self.last.eq(Cat(ends.values()).all()),
            self.row.eq(i.tap_row + at["row"]),
            self.col.eq(i.tap_col + at["col"]),
        ]
        next_row, next_col = (Signal(ACT_BITS, name=f"next_{name}") for name in ("row", "col"))
        m.d.comb += [next_row.eq(at["row_offset"] + i.row_step), next_col.eq(at["col_offset"] + i.col_step)]
        with m.If(self.init):
            m.d.sync += [at[name].eq(0) for name in ("part", "row", "col")]
            m.d.sync += [value.eq(i.act_addr) for value in (offset, at["col_offset"], at["row_offset"])]
        with m.Elif(self.step & ends["part"] & ends["col"]):
            m.d.sync += [at["part"].eq(0), at["col"].eq(0), at["row"].eq(at["row"] + 1)]
            m.d.sync += [value.eq(next_row) for value in (offset, at["col_offset"], at["row_offset"])]
        with m.Elif(self.step & ends["part"]):
            m.d.sync += [at["part"].eq(0), at["col"].eq(at["col"] + 1)]
            m.d.sync += [value.eq(next_col) for value in (offset, at["col_offset"])]
        with m.Elif(self.step):
            m.d.sync += at["part"].eq(at["part"] + 1)
            with m.If(~i.channels):
                m.d.sync += offset.eq(offset + (1 << i.chunk_log2))
        return m


class FeedControl(wiring.Component):
    """Feeds chunks as long as there is room for one.

    Members
    ----------
    start, instruction : the instruction holds still from ``start`` on
    room : half of the operand stores is free, or being filled
    feeding : there are operands to come; ``chunk_end`` the last cycle of a chunk
    request : a cycle later the word that copy 0 reads
    control : what row 0's queue does, before the delay of the memories
    """

    def __init__(self, arch: SatArch) -> None:
        self.arch = arch
        super().__init__({
            "start": In(1),
            "instruction": In(INSTRUCTION_BITS),
            "room": In(1),
            "feeding": Out(1),
            "chunk_end": Out(1),
            "request": Out(WordRequest),
            "control": Out(RowControl),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        i = view(GEMM, self.instruction)
        m.submodules.taps = taps = TapWalker()
        run, number, half = Signal(), Signal(5, reset_less=True), Signal(reset_less=True)
        word_end, output_end = self._ends(m, i, number)
        m.d.comb += [
            taps.instruction.eq(self.instruction),
            taps.init.eq(self.start),
            taps.step.eq(self.chunk_end),
            run.eq(self.feeding & self.room),
            self.chunk_end.eq(run & word_end & (number[3:] == Choice([0, 1, 3])[i.a_log2 + i.chunk_log2])),
        ]
        with m.If(self.start):
            m.d.sync += [self.feeding.eq(1), number.eq(0), half.eq(0)]
        with m.Elif(self.chunk_end):
            m.d.sync += [self.feeding.eq(~taps.last), number.eq(0), half.eq(~half)]
        with m.Elif(run):
            m.d.sync += number.eq(number + Mux(i.channels, 1, self.arch.feed))
        self._request(m, i, run, number, taps, self._entries(m, i, run & output_end))
        self._control(m, i, number, half)
        return m

    def _ends(self, m: Module, i: data.View, number: Value) -> tuple[Value, Value]:
        """Last value of a word of eight, and of an output row. ``number`` counts the chunk's operands of a row of the array."""
        last = number[1:3].all() & (number[0] | ((self.arch.feed == 2) & ~i.channels))
        return last, last & (number[3] | ~i.chunk_log2)

    def _entries(self, m: Module, i: data.View, output_end: Value) -> Signal:
        """First entry: of the output rows' interleave, from the first one again in each chunk; or of the chunk's values of k."""
        entry = Signal(ADDR_BITS, reset_less=True)
        restart = self.start | (self.chunk_end & ~i.channels)
        with m.If(restart):
            m.d.sync += entry.eq(i.table_addr)
        with m.Elif(Mux(i.channels, self.chunk_end, output_end)):
            m.d.sync += entry.eq(entry + Mux(i.channels, LANES, self.arch.rows))
        return entry

    def _request(self, m: Module, i: data.View, run: Value, number: Value, taps: TapWalker, entry: Value) -> None:
        """Row p of a copy reads in cycle p of a word's time: with fewer rows than cycles there are cycles without a read."""
        within = Mux(i.channels, number[:3], number[self.arch.feed - 1 : 3])
        idle = C(0, 1)
        if self.arch.rows_per_copy < LANES // self.arch.feed:
            idle = ~i.channels & (within >= self.arch.rows_per_copy)
        rows_log2 = exact_log2(self.arch.rows)
        channel_word = (number[3:] << rows_log2)[3:]
        en = Signal()
        request = Signal(WordRequest, name="request_register", reset_less=True)
        m.d.sync += [
            en.eq(run & ~idle),
            request.entry.eq(entry + within),
            request.offset.eq(taps.offset + Mux(i.channels, channel_word, number[3] & i.chunk_log2)),
            request.row.eq(taps.row),
            request.col.eq(taps.col),
            request.upper.eq(number[3]),
        ]
        for name in WordRequest.members:
            m.d.comb += self.request[name].eq(en if name == "en" else request[name])

    def _control(self, m: Module, i: data.View, number: Value, half: Value) -> None:
        """With two memories a weight gradient's value goes to one of them."""
        run = self.feeding & self.room
        chosen = Mux(i.channels & (self.arch.feed == 2), Cat(~number[0], number[0]), 3)
        m.d.comb += [
            self.control.load.eq(i.channels | (number[:3] == 0)),
            self.control.address.eq(Cat(number, half)),
            self.control.en.eq(Mux(run, chosen, 0)),
        ]
