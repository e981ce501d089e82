"""Walks over a tile's sums, in the order in which the array's chains give and take them."""

from __future__ import annotations

from amaranth.hdl import Array as Choice
from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.rtl.arith.delay import data_register
from hw.rtl.common.decode import INSTRUCTION_BITS, view
from hw.rtl.sat.pe import SLOT_BITS
from hw.rtl.sat.ports import ADDR_BITS
from hw.spec.sat import SatArch
from hw.spec.sat.instructions import GEMM, INTERLEAVE_LOG2


class TileWalker(wiring.Component):
    """Slot after slot (row interleave, within it column interleave), the array's rows of each; a word per cycle.

    Members
    ----------
    instruction : holds still
    init : begin anew, at ``base``; ``pitch`` is the distance of two output rows, and holds still while walking
    step : a word; the following belong to it
    slot, first, last : the slot, and whether the word is that of the uppermost or of the lowest row of the array
    row, column : output row ai * rows + r, and column interleave bi
    addr : base + row * pitch + column, modulo 2**20
    end : the tile's last word
    """

    def __init__(self, arch: SatArch) -> None:
        self.rows = arch.rows
        super().__init__({
            "instruction": In(INSTRUCTION_BITS),
            "init": In(1),
            "base": In(ADDR_BITS),
            "pitch": In(ADDR_BITS),
            "step": In(1),
            "slot": Out(SLOT_BITS),
            "first": Out(1),
            "last": Out(1),
            "row": Out(exact_log2(arch.rows) + 2),
            "column": Out(INTERLEAVE_LOG2),
            "addr": Out(ADDR_BITS),
            "end": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        i = view(GEMM, self.instruction)
        masks = Choice([(1 << log2) - 1 for log2 in range(INTERLEAVE_LOG2 + 1)])
        row, column, group = (Signal(n, reset_less=True) for n in (range(self.rows), INTERLEAVE_LOG2, 2))
        slot = data_register(m, self.slot)
        columns_end = Signal()
        m.d.comb += [
            self.first.eq(row == 0),
            self.last.eq(row == self.rows - 1),
            columns_end.eq(self.last & (column == masks[i.b_log2])),
            self.end.eq(self.last & (slot == masks[i.a_log2 + i.b_log2])),
            self.row.eq(Cat(row, group)),
            self.column.eq(column),
        ]
        with m.If(self.init):
            m.d.sync += [value.eq(0) for value in (row, column, group, slot)]
        with m.Elif(self.step):
            m.d.sync += [row.eq(row + 1), slot.eq(slot + self.last), group.eq(group + columns_end)]
            with m.If(self.last):
                m.d.sync += column.eq(column + 1)
            with m.If(columns_end):
                m.d.sync += column.eq(0)
        self._address(m, column == 0, columns_end)
        return m

    def _address(self, m: Module, first_column: Signal, columns_end: Signal) -> None:
        """The rows of the first column lead to where the next group of rows begins, which is kept until the last column's end."""
        column, following = (Signal(ADDR_BITS, name=name, reset_less=True) for name in ("column_addr", "following"))
        below, next_group = (Signal(ADDR_BITS, name=name) for name in ("below", "next_group"))
        addr = data_register(m, self.addr)
        m.d.comb += [below.eq(addr + self.pitch), next_group.eq(Mux(first_column, below, following))]
        with m.If(self.init):
            m.d.sync += [value.eq(self.base) for value in (addr, column)]
        with m.Elif(self.step & columns_end):
            m.d.sync += [addr.eq(next_group), column.eq(next_group)]
        with m.Elif(self.step & self.last):
            m.d.sync += [addr.eq(column + 1), column.eq(column + 1)]
        with m.Elif(self.step):
            m.d.sync += addr.eq(below)
        with m.If(self.step & self.last & first_column):
            m.d.sync += following.eq(below)

