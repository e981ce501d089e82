"""Offsets of the depthwise engine's output pixels: fetched, split into whole pixels and fractions, rows into turns of the banks."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.delay import data_register, later
from hw.rtl.common.decode import view
from hw.rtl.common.interfaces import INSTRUCTION_BITS
from hw.rtl.deform.dw_control import Step
from hw.rtl.deform.ports import ReadPort
from hw.spec.deform import ROW_BANKS
from hw.spec.deform.instructions import ADDR_BITS, DW, DW_DEFORM, DW_SAMPLE, OFFSET_PAIRS
from hw.spec.deform.latency import MEMORY_READ
from hw.spec.ops import OFFSET_MAX, OFFSET_MIN

OFFSET = signed(5)
BYTE = signed(8)
TURNS = signed(5)
"""A shift of -128..127 rows passes bank 8 up to 15 times either way."""

FRACTION_BITS = 7
POSITION = signed(21)
"""Row and column numbers: -32768 - 128 to 32767 + 65534 * 8 + 254 + 127."""

Offsets = data.StructLayout({"spread": OFFSET, "rows": BYTE, "cols": BYTE, "down": FRACTION_BITS, "right": FRACTION_BITS})
"""What an output pixel's offsets do to its window. ``spread``: rows between its taps; ``rows``, ``cols``: whole pixels by which it is
shifted (cols in deformable mode: columns between its taps); ``down``, ``right``: the rest, in units of 2 ** -offset_frac."""

Fraction = data.StructLayout({"down": FRACTION_BITS, "right": FRACTION_BITS, "second": 1})
"""Where a sample lies between its pixels; ``second``: the right one of its tap columns is meant."""


class OffsetFetch(wiring.Component):
    """Reads the offsets of each output pixel: one that is saturated to -7..8, or a sample's pair; in the other modes none.

    Members
    -------
    step : the tap column issued in this cycle
    fm : feature memory; lane 0 of a word is the offset, lanes 2p and 2p + 1 are pair p
    offsets : of the pixel, from ``delay`` cycles after the pixel's first tap column on
    """

    instruction: In(INSTRUCTION_BITS)
    step: In(Step)
    fm: Out(ReadPort)
    offsets: Out(Offsets)

    delay = 1 + MEMORY_READ + 1

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fields = view(DW, self.instruction)
        deform, sample, fetch = Signal(), Signal(), Signal()
        following, addr = Signal(ADDR_BITS, reset_less=True), Signal(ADDR_BITS)
        en, place = data_register(m, self.fm.en), data_register(m, self.fm.addr)
        m.d.comb += [
            deform.eq(fields.mode == DW_DEFORM),
            sample.eq(fields.mode == DW_SAMPLE),
            fetch.eq(self.step.pixel_first & (deform | sample)),
            addr.eq(Mux(self.step.word_first, fields.offset_addr, following)),
        ]
        m.d.sync += [en.eq(fetch), place.eq(addr)]
        with m.If(fetch):
            m.d.sync += following.eq(addr + fields.offset_pitch)
        arrived = self._offsets(m, fields, deform, sample)
        offsets = data_register(m, self.offsets)
        with m.If(later(m, self.step, self.delay - 1, reset_less=True).pixel_first):
            m.d.sync += offsets.eq(arrived)
        return m

    def _offsets(self, m: Module, fields: data.View, deform: Signal, sample: Signal) -> data.View:
        """The word that arrives, as the mode reads it."""
        offsets = Signal(Offsets)
        code = self.fm.data[:8].as_signed()
        saturated = Mux(code > OFFSET_MAX, OFFSET_MAX, Mux(code < OFFSET_MIN, OFFSET_MIN, code))
        pair = self.fm.data.word_select(fields.offset_pair, len(self.fm.data) // OFFSET_PAIRS)
        down, right = pair[:8].as_signed(), pair[8:].as_signed()
        frac, fraction = fields.offset_frac, Signal(FRACTION_BITS)
        m.d.comb += fraction.eq(Cat(frac > bit for bit in range(FRACTION_BITS)))
        m.d.comb += [
            offsets.spread.eq(Mux(deform, saturated, 1)),
            offsets.rows.eq(Mux(sample, down >> frac, 0)),
            offsets.cols.eq(Mux(sample, right >> frac, saturated)),
            offsets.down.eq(down & fraction),
            offsets.right.eq(right & fraction),
        ]
        return offsets


class RowShift(wiring.Component):
    """The centre row, -128 to 127 rows away: its bank and number in the next cycle, and how many turns of the banks it is away.

    Members
    -------
    i_bank, i_row, rows : a row and how far to go
    bank, row : the row there
    turns : its address within its bank is so many ``row_pitch`` from that of the first
    """

    i_bank: In(4)
    i_row: In(POSITION)
    rows: In(BYTE)
    bank: Out(4)
    row: Out(POSITION)
    turns: Out(TURNS)

    delay = 1

    def elaborate(self, platform: object) -> Module:
        m = Module()
        # Tables of eight bits: shallower than a division by constants.
        parts = [divmod((code ^ 128) - 128, ROW_BANKS) for code in range(256)]
        step, turns, more = Signal(4), Signal(TURNS), Signal(TURNS)
        raw = self.rows.as_unsigned()
        sums = [(code & 15) + (code >> 4) for code in range(256)]
        both = Cat(self.i_bank, step)
        wrapped = Signal()
        m.d.comb += [
            step.eq(Array(Const(rest, 4) for _, rest in parts)[raw]),
            turns.eq(Array(Const(turn, TURNS) for turn, _ in parts)[raw]),
            more.eq(Array(Const(turn + 1, TURNS) for turn, _ in parts)[raw]),
            wrapped.eq(Array(Const(total >= ROW_BANKS, 1) for total in sums)[both]),
        ]
        bank, row, away = (data_register(m, output) for output in (self.bank, self.row, self.turns))
        m.d.sync += [
            bank.eq(Array(Const(total % ROW_BANKS, 4) for total in sums)[both]),
            row.eq(self.i_row + self.rows),
            away.eq(Mux(wrapped, more, turns)),
        ]
        return m


