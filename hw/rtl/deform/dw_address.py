"""Addresses of the depthwise engine: from tap columns to three row memory reads a cycle, without dividers.

Row y lies in bank ``y mod 9``. The walks and the taps reach every position from another by at most nine rows, so a bank number
needs one correction and the address within the bank one addition of ``row_pitch``; a sample's offset goes farther and is taken apart
by :class:`hw.rtl.deform.dw_offset.RowShift`. All of it is a pipeline without stalls:

====== ==================================================================================================================
stage  registers
====== ==================================================================================================================
1      address of the offset map (deformable mode, samples)
S - 1  offsets; the centre row's bank and number before its shift. S = 3 + MEMORY_READ
S      the centre row's bank and number, turns of the banks that it is away; column number and address
S + 1  per tap: bank, correction, row number; the centre row's address; column number with offset, and its and the turns' words
S + 2  per tap: row address, row inside; column and turns' address, column inside
S + 3  the row memory's port
====== ==================================================================================================================
"""

from amaranth.hdl import Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.delay import data_register, later
from hw.rtl.common.decode import view
from hw.rtl.common.interfaces import INSTRUCTION_BITS
from hw.rtl.deform.dw_control import Step
from hw.rtl.deform.dw_offset import BYTE, OFFSET, POSITION, TURNS, Fraction, OffsetFetch, RowShift
from hw.rtl.deform.dw_walk import BankWalker, Walk, Walker, walk
from hw.rtl.deform.ports import ReadPort, RowReadPort
from hw.spec.deform import ROW_BANKS
from hw.spec.deform.instructions import ADDR_BITS, DW, DW_DEFORM, DW_SAMPLE

TAPS = 3


class TapRow(wiring.Component):
    """One of the three rows of a tap column: from the centre row and the offset to a row memory read, in three stages.

    Parameters: ``tap``: -1 for the row an offset above the centre, 0 for the centre, 1 for the row an offset below.

    Members
    -------
    bank, row, offset : of the centre row; how far away the others are (stage S)
    base : address of the centre row at channel word c (stage S + 1)
    column_addr, enabled : address of the column; tap in the window and column inside (stage S + 2)
    o_en, o_bank, o_addr : the read (stage S + 3); not enabled for a tap that is masked or outside
    """

    instruction: In(INSTRUCTION_BITS)
    bank: In(4)
    row: In(POSITION)
    offset: In(OFFSET)
    base: In(ADDR_BITS)
    column_addr: In(ADDR_BITS)
    enabled: In(1)
    o_en: Out(1)
    o_bank: Out(4)
    o_addr: Out(ADDR_BITS)

    delay = 3

    def __init__(self, tap: int) -> None:
        self._tap = tap
        super().__init__()

    def _moved(self, centre: Value) -> Value:
        """One addition or subtraction."""
        return (centre - self.offset, centre, centre + self.offset)[self._tap + 1]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fields = view(DW, self.instruction)
        # S -> S + 1
        reach = Signal(signed(6))
        bank, above, below, row = (Signal(shape, reset_less=True) for shape in (4, 1, 1, POSITION))
        leaves = (reach < 0, reach >= ROW_BANKS) if self._tap else (Const(0), Const(0))  # the centre is where it is
        m.d.comb += reach.eq(self._moved(self.bank))
        m.d.sync += [
            above.eq(leaves[0]),
            below.eq(leaves[1]),
            bank.eq(Mux(leaves[0], reach + ROW_BANKS, Mux(leaves[1], reach - ROW_BANKS, reach))),
            row.eq(self._moved(self.row)),
        ]
        # S + 1 -> S + 2
        bank2, base2, inside = (Signal(shape, reset_less=True) for shape in (4, ADDR_BITS, 1))
        turn = Mux(above, ~fields.row_pitch, Mux(below, fields.row_pitch, 0))
        m.d.sync += [
            bank2.eq(bank),
            base2.eq(self.base + turn + above),
            inside.eq(row.as_unsigned() < fields.in_rows),  # a negative number is a large one
        ]
        # S + 2 -> S + 3
        en, o_bank, addr = (data_register(m, output) for output in (self.o_en, self.o_bank, self.o_addr))
        m.d.sync += [en.eq(inside & self.enabled), o_bank.eq(bank2), addr.eq(base2 + self.column_addr)]
        return m


class TapColumn(wiring.Component):
    """Column of a tap column: where the walk stands, plus -s, 0 or s (deformable mode) or a sample's shift; then whether it is inside.

    Members
    -------
    walk : to the tap column that is at stage S in the next cycle
    cols, column : offset of the window or between its columns; column of the window (stage S)
    turns : of the banks, by which the centre row is shifted (stage S)
    o_addr, o_inside : address within a row, the turns included; column inside (stage S + 2)
    """

    instruction: In(INSTRUCTION_BITS)
    walk: In(Walk)
    cols: In(BYTE)
    column: In(2)
    turns: In(TURNS)
    o_addr: Out(ADDR_BITS)
    o_inside: Out(1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fields = view(DW, self.instruction)
        m.submodules.number = number = Walker(POSITION, holds=False)
        m.submodules.addr = addr = Walker(unsigned(ADDR_BITS), holds=False)
        deform, sample = fields.mode == DW_DEFORM, fields.mode == DW_SAMPLE
        # Constants of the instruction: registered twice or once while the first parameters load.
        start, stride_pitch = Signal(ADDR_BITS, reset_less=True), Signal(ADDR_BITS, reset_less=True)
        col0, pitch, row_pitch = (Signal(shape, reset_less=True) for shape in (signed(16), ADDR_BITS, ADDR_BITS))
        m.d.sync += [
            col0.eq(fields.col0),
            pitch.eq(fields.pitch),
            row_pitch.eq(fields.row_pitch),
            start.eq(col0 * pitch),
            stride_pitch.eq(fields.stride * pitch),
        ]
        m.d.comb += [
            number.walk.eq(self.walk),
            number.origin.eq(fields.col0),
            number.outer_step.eq(fields.stride),
            number.inner_step.eq(~deform),
            addr.walk.eq(self.walk),
            addr.origin.eq(start),
            addr.outer_step.eq(stride_pitch),
            addr.inner_step.eq(Mux(deform, 0, pitch)),
        ]
        left, right = Signal(), Signal()
        m.d.comb += [left.eq(deform & (self.column == 0)), right.eq((deform & (self.column == 2)) | sample)]
        # S -> S + 1
        shapes = (POSITION, ADDR_BITS, ADDR_BITS, ADDR_BITS, 1, 1)
        number1, addr1, reach, away, left1, right1 = (Signal(shape, reset_less=True) for shape in shapes)
        m.d.sync += [
            number1.eq(number.value + Mux(left, -self.cols, Mux(right, self.cols, 0))),
            addr1.eq(addr.value),
            reach.eq(self.cols * pitch),
            away.eq(self.turns * row_pitch),
            left1.eq(left),
            right1.eq(right),
        ]
        # S + 1 -> S + 2
        o_addr, inside = data_register(m, self.o_addr), data_register(m, self.o_inside)
        m.d.sync += [
            o_addr.eq(addr1 + Mux(left1, ~reach, Mux(right1, reach, 0)) + left1 + away),
            inside.eq(number1.as_unsigned() < fields.in_cols),
        ]
        return m


class AddressGenerator(wiring.Component):
    """Tap columns to row memory reads, ``delay`` cycles later; one per cycle.

    Members
    -------
    start : an instruction begins; ``instruction`` holds still from then on
    step : the tap column issued in this cycle
    fm : feature memory, for the offsets
    row : row memory; ``data`` is not used here
    o_step, o_fraction : the tap column that ``row`` reads in this cycle, and the fraction of its pixel's offsets
    """

    start: In(1)
    instruction: In(INSTRUCTION_BITS)
    step: In(Step)
    fm: Out(ReadPort)
    row: Out(RowReadPort)
    o_step: Out(Step)
    o_fraction: Out(Fraction)

    delay = OffsetFetch.delay + RowShift.delay + TapRow.delay

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fields = view(DW, self.instruction)
        m.submodules.fetch = fetch = OffsetFetch()
        wiring.connect(m, wiring.flipped(self.fm), fetch.fm)
        m.d.comb += [fetch.instruction.eq(self.instruction), fetch.step.eq(self.step)]

        ahead = later(m, self.step, fetch.delay - 2)
        before = later(m, ahead, 2)  # stage S - 1
        centre = later(m, before, RowShift.delay)
        base_step = later(m, centre, 2)
        m.d.comb += self.o_step.eq(later(m, base_step, 1))
        self._fraction(m, fetch.offsets, before.column)
        offsets = later(m, fetch.offsets, RowShift.delay, reset_less=True)
        shift, base = self._rows(m, fields, ahead, fetch.offsets.rows)
        m.submodules.column = column = TapColumn()
        m.d.comb += [
            column.instruction.eq(self.instruction),
            column.walk.eq(later(m, column_walk(m, ahead), 2, reset_less=True)),
            column.cols.eq(offsets.cols),
            column.column.eq(centre.column),
            column.turns.eq(shift.turns),
        ]
        for tap in range(TAPS):
            m.submodules[f"row{tap}"] = taken = TapRow(tap - 1)
            m.d.comb += [
                taken.instruction.eq(self.instruction),
                taken.bank.eq(shift.bank),
                taken.row.eq(shift.row),
                taken.offset.eq(offsets.spread),
                taken.base.eq(base),
                taken.column_addr.eq(column.o_addr),
                taken.enabled.eq(column.o_inside & base_step.rows[tap]),
                self.row.en[tap].eq(taken.o_en),
                self.row.bank[tap].eq(taken.o_bank),
                self.row.addr[tap].eq(taken.o_addr),
            ]
        return m

    def _fraction(self, m: Module, offsets: data.View, column: Value) -> None:
        """The fraction beside each tap column, from stage S - 1 on."""
        fraction = Signal(Fraction)
        m.d.comb += [fraction.down.eq(offsets.down), fraction.right.eq(offsets.right), fraction.second.eq(column[0])]
        m.d.comb += self.o_fraction.eq(later(m, fraction, RowShift.delay + TapRow.delay, reset_less=True))

    def _rows(self, m: Module, fields: data.View, ahead: data.View, rows: Value) -> tuple[RowShift, Signal]:
        """The centre row, shifted by ``rows``, at stage S, and the address before the shift at S + 1; from the tap column of S - 3."""
        m.submodules.bank = bank = BankWalker()
        m.submodules.number = number = Walker(POSITION)
        m.submodules.base = base = Walker(unsigned(ADDR_BITS))
        m.submodules.shift = shift = RowShift()
        word_base, turn = Signal(ADDR_BITS, reset_less=True), Signal(ADDR_BITS)
        m.d.comb += turn.eq(Mux(later(m, bank.wrapped, 1, reset_less=True), fields.row_pitch, 0))
        begins = walk(m, ahead.word_first, ahead.row_first, ahead.pixel_first, ahead.group_first)
        row_walk = later(m, begins, 1, reset_less=True)
        base_walk = later(m, row_walk, 2, reset_less=True)
        with m.If(self.start):
            m.d.sync += word_base.eq(fields.row0_addr)
        with m.Elif(base_walk == Walk.RESTART):
            m.d.sync += word_base.eq(word_base + 1)
        for walker, steps in ((bank, (fields.bank0, fields.stride, 3)), (number, (fields.row0, fields.stride, 3))):
            m.d.comb += [walker.walk.eq(row_walk), walker.origin.eq(steps[0])]
            m.d.comb += [walker.outer_step.eq(steps[1]), walker.inner_step.eq(steps[2])]
        m.d.comb += [base.walk.eq(base_walk), base.origin.eq(word_base)]
        m.d.comb += [base.outer_step.eq(turn), base.inner_step.eq(turn)]
        m.d.comb += [shift.i_bank.eq(bank.value), shift.i_row.eq(number.value), shift.rows.eq(rows)]
        return shift, base.value


def column_walk(m: Module, step: data.View) -> Signal:
    """The column's loops: output row, output pixel, group of window rows, column of the window."""
    return walk(m, step.row_first, step.pixel_first, step.group_first, step.valid)
