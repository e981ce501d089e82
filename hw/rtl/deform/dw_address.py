"""Addresses of the depthwise engine: from tap columns to three row memory reads a cycle, without multipliers in the loop or dividers.

Row y lies in bank ``y mod 9``. Every position is reached from another by at most nine rows, so a bank number needs one correction
and the address within the bank one addition of ``row_pitch``. All of it is a pipeline without stalls:

====== ==================================================================================================================
stage  registers
====== ==================================================================================================================
1      address of the offset map (deformable mode)
S      offset s; the centre row's bank and number; column number and address. S = 2 + MEMORY_READ
S + 1  per tap: bank, correction, row number; the centre row's address; column number with s, and s * pitch
S + 2  per tap: row address, row inside; column address, column inside
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
from hw.rtl.deform.dw_walk import BankWalker, Walk, Walker, walk
from hw.rtl.deform.ports import ReadPort, RowReadPort
from hw.spec.deform import ROW_BANKS
from hw.spec.deform.instructions import ADDR_BITS, DW, DW_DEFORM
from hw.spec.deform.latency import MEMORY_READ
from hw.spec.ops import OFFSET_MAX, OFFSET_MIN

OFFSET = signed(5)
TAPS = 3
POSITION = signed(21)
"""Row and column numbers: -32768 - 8 to 32767 + 65534 * 8 + 254 + 8."""


class OffsetFetch(wiring.Component):
    """Reads the offset of each output pixel and saturates it to -7..8; in the other modes the offset is 1.

    Members
    -------
    step : the tap column issued in this cycle
    fm : feature memory; lane 0 of a word is the offset
    offset : of the pixel, from ``delay`` cycles after the pixel's first tap column on
    """

    instruction: In(INSTRUCTION_BITS)
    step: In(Step)
    fm: Out(ReadPort)
    offset: Out(OFFSET)

    delay = 1 + MEMORY_READ + 1

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fields = view(DW, self.instruction)
        deform, fetch = Signal(), Signal()
        following, addr = Signal(ADDR_BITS, reset_less=True), Signal(ADDR_BITS)
        en, place = data_register(m, self.fm.en), data_register(m, self.fm.addr)
        offset = data_register(m, self.offset)
        m.d.comb += [
            deform.eq(fields.mode == DW_DEFORM),
            fetch.eq(self.step.pixel_first & deform),
            addr.eq(Mux(self.step.word_first, fields.offset_addr, following)),
        ]
        m.d.sync += [en.eq(fetch), place.eq(addr)]
        with m.If(fetch):
            m.d.sync += following.eq(addr + fields.offset_pitch)

        code = self.fm.data[:8].as_signed()
        with m.If(later(m, self.step, self.delay - 1, reset_less=True).pixel_first):
            m.d.sync += offset.eq(1)
            with m.If(deform):
                saturated = Mux(code > OFFSET_MAX, OFFSET_MAX, Mux(code < OFFSET_MIN, OFFSET_MIN, code))
                m.d.sync += offset.eq(saturated)
        return m


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
    """Column of a tap column: where the walk stands, plus in deformable mode -s, 0 or s; then whether it is inside.

    Members
    -------
    walk : to the tap column that is at stage S in the next cycle
    offset, column : offset and column of the window (stage S)
    o_addr, o_inside : address within a row, column inside (stage S + 2)
    """

    instruction: In(INSTRUCTION_BITS)
    walk: In(Walk)
    offset: In(OFFSET)
    column: In(2)
    o_addr: Out(ADDR_BITS)
    o_inside: Out(1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fields = view(DW, self.instruction)
        m.submodules.number = number = Walker(POSITION, holds=False)
        m.submodules.addr = addr = Walker(unsigned(ADDR_BITS), holds=False)
        deform = fields.mode == DW_DEFORM
        # Constants of the instruction: registered twice or once while the first parameters load.
        start, stride_pitch = Signal(ADDR_BITS, reset_less=True), Signal(ADDR_BITS, reset_less=True)
        col0, pitch = Signal(signed(16), reset_less=True), Signal(ADDR_BITS, reset_less=True)
        m.d.sync += [
            col0.eq(fields.col0),
            pitch.eq(fields.pitch),
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
        m.d.comb += [left.eq(deform & (self.column == 0)), right.eq(deform & (self.column == 2))]
        # S -> S + 1
        shapes = (POSITION, ADDR_BITS, ADDR_BITS, 1, 1)
        number1, addr1, reach, left1, right1 = (Signal(shape, reset_less=True) for shape in shapes)
        m.d.sync += [
            number1.eq(number.value + Mux(left, -self.offset, Mux(right, self.offset, 0))),
            addr1.eq(addr.value),
            reach.eq(self.offset * pitch),
            left1.eq(left),
            right1.eq(right),
        ]
        # S + 1 -> S + 2
        o_addr, inside = data_register(m, self.o_addr), data_register(m, self.o_inside)
        m.d.sync += [
            o_addr.eq(addr1 + Mux(left1, ~reach, Mux(right1, reach, 0)) + left1),
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
    o_step : the tap column that ``row`` reads in this cycle
    """

    start: In(1)
    instruction: In(INSTRUCTION_BITS)
    step: In(Step)
    fm: Out(ReadPort)
    row: Out(RowReadPort)
    o_step: Out(Step)

    delay = OffsetFetch.delay + TapRow.delay

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fields = view(DW, self.instruction)
        m.submodules.offsets = offsets = OffsetFetch()
        wiring.connect(m, wiring.flipped(self.fm), offsets.fm)
        m.d.comb += [offsets.instruction.eq(self.instruction), offsets.step.eq(self.step)]

        ahead = later(m, self.step, offsets.delay - 2)
        before = later(m, ahead, 1)  # stage S - 1: sets the walks of stage S, which are encoded a cycle earlier
        centre = later(m, before, 1)
        base_step = later(m, centre, 2)
        m.d.comb += self.o_step.eq(later(m, base_step, 1))
        bank, number, base = self._rows(m, fields, ahead)
        m.submodules.column = column = TapColumn()
        m.d.comb += [
            column.instruction.eq(self.instruction),
            column.walk.eq(later(m, column_walk(m, ahead), 1, reset_less=True)),
            column.offset.eq(offsets.offset),
            column.column.eq(centre.column),
        ]
        for tap in range(TAPS):
            m.submodules[f"row{tap}"] = taken = TapRow(tap - 1)
            m.d.comb += [
                taken.instruction.eq(self.instruction),
                taken.bank.eq(bank),
                taken.row.eq(number),
                taken.offset.eq(offsets.offset),
                taken.base.eq(base),
                taken.column_addr.eq(column.o_addr),
                taken.enabled.eq(column.o_inside & base_step.rows[tap]),
                self.row.en[tap].eq(taken.o_en),
                self.row.bank[tap].eq(taken.o_bank),
                self.row.addr[tap].eq(taken.o_addr),
            ]
        return m

    def _rows(self, m: Module, fields: data.View, ahead: data.View) -> tuple[Signal, ...]:
        """Bank and number of the centre row at stage S, its address at S + 1, from the tap column of stage S - 2."""
        m.submodules.bank = bank = BankWalker()
        m.submodules.number = number = Walker(POSITION)
        m.submodules.base = base = Walker(unsigned(ADDR_BITS))
        word_base, turn = Signal(ADDR_BITS, reset_less=True), Signal(ADDR_BITS)
        m.d.comb += turn.eq(Mux(bank.wrapped, fields.row_pitch, 0))
        begins = walk(m, ahead.word_first, ahead.row_first, ahead.pixel_first, ahead.group_first)
        row_walk = later(m, begins, 1, reset_less=True)
        base_walk = later(m, row_walk, 1, reset_less=True)
        with m.If(self.start):
            m.d.sync += word_base.eq(fields.row0_addr)
        with m.Elif(base_walk == Walk.RESTART):
            m.d.sync += word_base.eq(word_base + 1)
        for walker, steps in ((bank, (fields.bank0, fields.stride, 3)), (number, (fields.row0, fields.stride, 3))):
            m.d.comb += [walker.walk.eq(row_walk), walker.origin.eq(steps[0])]
            m.d.comb += [walker.outer_step.eq(steps[1]), walker.inner_step.eq(steps[2])]
        m.d.comb += [base.walk.eq(base_walk), base.origin.eq(word_base)]
        m.d.comb += [base.outer_step.eq(turn), base.inner_step.eq(turn)]
        return bank.value, number.value, base.value


def column_walk(m: Module, step: data.View) -> Signal:
    """The column's loops: output row, output pixel, group of window rows, column of the window."""
    return walk(m, step.row_first, step.pixel_first, step.group_first, step.valid)
