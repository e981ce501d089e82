"""Address walkers of the PW engine: counters and adders in place of multiplications and divisions, all modulo 2**20."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.delay import data_register
from hw.rtl.common.decode import INSTRUCTION_BITS, view
from hw.spec.deform import LANES, DeformArch
from hw.spec.deform.instructions import ADDR_BITS, PW

POSITION_BITS = 21
"""A signed input row or column: up to 65,534 * 8 + 510, down to -255."""

Pixel = data.StructLayout({
    "addr": ADDR_BITS,
    "row_addr": ADDR_BITS,
    "row": signed(POSITION_BITS),
    "col": signed(POSITION_BITS),
    "ox": 16,
    "oy": 16,
    "last_col": 1,
    "last_row": 1,
    "real": 1,
})
"""An output pixel: word of its first tap and of the first tap of its output row, input row and column of that tap, its place in the
output, whether that is in the last column and in the last row, and whether the pixel exists."""


class TapWalker(wiring.Component):
    """Reads the activations of one pixel tile after the other: per slot of 16 K-steps one word of each of ``arch.rows`` pixels.

    Members
    ----------
    instruction : a PW instruction; holds still
    init : begin with output pixel 0 (before the first ``run``)
    run : a K-step; ``tile_end`` (same cycle): it is the last of its pixel tile, ``rows`` pixels of which are real, and with
        ``final`` no pixel follows
    fm_en, fm_addr : the read of the word of row ``K-step mod 16``, one cycle after ``run``; not enabled for rows that do not exist
        and for taps outside the input
    step, load, first, last, last_final : one cycle after ``run``: a K-step; the first of a slot; the first and the last of a pixel
        tile; the last of the last pixel tile
    """

    latency = 1

    def __init__(self, arch: DeformArch) -> None:
        self.arch = arch
        super().__init__({
            "instruction": In(INSTRUCTION_BITS),
            "init": In(1),
            "run": In(1),
            "tile_end": Out(1),
            "rows": Out(range(arch.rows + 1)),
            "final": Out(1),
            "fm_en": Out(1),
            "fm_addr": Out(ADDR_BITS),
            "step": Out(1),
            "load": Out(1),
            "first": Out(1),
            "last": Out(1),
            "last_final": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self.i = view(PW, self.instruction)
        self.position = Signal(range(LANES), reset_less=True)
        self.in_row = Signal()
        slot_end, last_slot = Signal(), Signal()
        m.d.comb += [
            self.in_row.eq(self.position < self.arch.rows),
            slot_end.eq(self.run & (self.position == LANES - 1)),
            self.tile_end.eq(slot_end & last_slot),
        ]
        m.d.sync += self.position.eq(Mux(self.init, 0, self.position + self.run))
        tap = self._walk_taps(m, slot_end, last_slot)
        pixel = self._walk_pixels(m, slot_end)
        self._count_rows(m, pixel)
        self._read(m, pixel, tap)
        self._flags(m, tap)
        return m

    def _walk_taps(self, m: Module, slot_end: Value, last_slot: Value) -> dict[str, Signal]:
        """Kernel row and column and the channel word of the slot, and their distance from the pixel's first tap."""
        i = self.i
        tap = {name: Signal(width, name=f"tap_{name}", reset_less=True) for name, width in
               (("ky", 8), ("kx", 8), ("word", 16), ("offset", ADDR_BITS), ("kx_offset", ADDR_BITS), ("ky_offset", ADDR_BITS))}
        # Registers: they are used at a slot's end, and what they look at changes at its beginning.
        ends = [Signal(name=f"{name}_end", reset_less=True) for name in ("word", "kx", "ky")]
        next_kx, next_ky = tap["kx_offset"] + i.kx_step, tap["ky_offset"] + i.ky_step
        m.d.sync += [
            ends[0].eq(tap["word"] + 1 == i.in_words),
            ends[1].eq(tap["kx"] + 1 == i.kernel_w),
            ends[2].eq(tap["ky"] + 1 == i.kernel_h),
        ]
        m.d.comb += last_slot.eq(ends[0] & ends[1] & ends[2])
        with m.If(self.init | (slot_end & last_slot)):
            m.d.sync += [register.eq(0) for register in tap.values()]
        with m.Elif(slot_end & ends[0] & ends[1]):
            m.d.sync += [tap["word"].eq(0), tap["kx"].eq(0), tap["ky"].eq(tap["ky"] + 1)]
            m.d.sync += [tap[name].eq(next_ky) for name in ("offset", "kx_offset", "ky_offset")]
        with m.Elif(slot_end & ends[0]):
            m.d.sync += [tap["word"].eq(0), tap["kx"].eq(tap["kx"] + 1)]
            m.d.sync += [tap[name].eq(next_kx) for name in ("offset", "kx_offset")]
        with m.Elif(slot_end):
            m.d.sync += [tap["word"].eq(tap["word"] + 1), tap["offset"].eq(tap["offset"] + 1)]
        return tap

    def _walk_pixels(self, m: Module, slot_end: Value) -> data.View:
        """The pixel of the current row; each slot walks from the tile's first pixel again."""
        first, pixel = (Signal(Pixel, name=name, reset_less=True) for name in ("first_pixel", "pixel"))
        after = Signal(Pixel)
        # Constants of the instruction; with one column or row they wrap, and no place is equal.
        before_last = (Signal(16, name="col_before_last", reset_less=True), Signal(16, name="row_before_last", reset_less=True))
        m.d.sync += [before_last[0].eq(self.i.out_cols - 2), before_last[1].eq(self.i.out_rows - 2)]
        m.d.comb += after.eq(pixel)
        with m.If(self.in_row):
            self._next_pixel(m, after, pixel, before_last)
        with m.If(self.init):
            self._first_pixel(m, first, pixel)
        with m.Elif(self.tile_end):
            m.d.sync += [first.eq(after), pixel.eq(after)]
        with m.Elif(slot_end):
            m.d.sync += pixel.eq(first)
        with m.Elif(self.run):
            m.d.sync += pixel.eq(after)
        m.d.comb += self.final.eq(~after.real)
        return pixel

    def _first_pixel(self, m: Module, *pixels: data.View) -> None:
        i = self.i
        for p in pixels:
            m.d.sync += [p.addr.eq(i.in_addr), p.row_addr.eq(i.in_addr), p.row.eq(-i.pad_top), p.col.eq(-i.pad_left)]
            m.d.sync += [p.ox.eq(0), p.oy.eq(0), p.real.eq(1)]
            m.d.sync += [p.last_col.eq(i.out_cols == 1), p.last_row.eq(i.out_rows == 1)]

    def _next_pixel(self, m: Module, after: data.View, pixel: data.View, before_last: tuple[Signal, Signal]) -> None:
        i = self.i
        next_row = pixel.row_addr + i.row_step
        with m.If(pixel.last_col):
            m.d.comb += [after.addr.eq(next_row), after.row_addr.eq(next_row)]
            m.d.comb += [after.row.eq(pixel.row + i.stride), after.col.eq(-i.pad_left), after.ox.eq(0)]
            m.d.comb += [after.oy.eq(pixel.oy + 1), after.real.eq(pixel.real & ~pixel.last_row)]
            m.d.comb += [after.last_col.eq(i.out_cols == 1), after.last_row.eq(pixel.oy == before_last[1])]
        with m.Else():
            m.d.comb += [after.addr.eq(pixel.addr + i.pixel_step), after.col.eq(pixel.col + i.stride), after.ox.eq(pixel.ox + 1)]
            m.d.comb += after.last_col.eq(pixel.ox == before_last[0])

    def _count_rows(self, m: Module, pixel: data.View) -> None:
        """Real rows of the tile so far; the count starts anew in each slot."""
        count = Signal.like(self.rows, name="row_count", reset_less=True)
        m.d.comb += self.rows.eq(Mux(self.position == 0, 0, count) + (self.in_row & pixel.real))
        with m.If(self.run):
            m.d.sync += count.eq(self.rows)

    def _read(self, m: Module, pixel: data.View, tap: dict[str, Signal]) -> None:
        row, col = (Signal(POSITION_BITS, name=f"tap_{name}") for name in ("row", "col"))
        inside = Signal()
        m.d.comb += [
            row.eq(pixel.row + tap["ky"]),
            col.eq(pixel.col + tap["kx"]),
            # As unsigned numbers, rows and columns before the first are above every size.
            inside.eq((row < self.i.in_rows) & (col < self.i.in_cols)),
        ]
        wanted = self.run & self.in_row & pixel.real & inside
        en, addr = data_register(m, self.fm_en), data_register(m, self.fm_addr)
        m.d.sync += [en.eq(wanted), addr.eq(pixel.addr + tap["offset"])]

    def _flags(self, m: Module, tap: dict[str, Signal]) -> None:
        tile_begin = (tap["ky"] == 0) & (tap["kx"] == 0) & (tap["word"] == 0)
        begins = self.run & (self.position == 0)
        flags = {"step": self.run, "load": begins, "first": begins & tile_begin, "last": self.tile_end,
                 "last_final": self.tile_end & self.final}  # fmt: skip
        for name, flag in flags.items():
            m.d.sync += data_register(m, getattr(self, name)).eq(flag)


class WeightWalker(wiring.Component):
    """Reads one weight word per K-step; a tile of output words starts from its first weight word again for each pixel tile.

    Members: ``init`` with ``base`` (first word of the instruction); ``step``, ``last``, ``last_final`` as of :class:`TapWalker`;
    ``en``, ``addr`` one cycle later.
    """

    latency = 1

    def __init__(self) -> None:
        super().__init__({
            "init": In(1),
            "base": In(ADDR_BITS),
            "step": In(1),
            "last": In(1),
            "last_final": In(1),
            "en": Out(1),
            "addr": Out(ADDR_BITS),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        tile, following = Signal(ADDR_BITS, reset_less=True), Signal(ADDR_BITS, reset_less=True)
        en, addr = data_register(m, self.en), data_register(m, self.addr)
        m.d.sync += [en.eq(self.step), addr.eq(following)]
        with m.If(self.init):
            m.d.sync += [tile.eq(self.base), following.eq(self.base)]
        with m.Elif(self.last_final):
            m.d.sync += [tile.eq(following + 1), following.eq(following + 1)]
        with m.Elif(self.last):
            m.d.sync += following.eq(tile)
        with m.Elif(self.step):
            m.d.sync += following.eq(following + 1)
        return m


class OutputWalker(wiring.Component):
    """Word addresses of a tile of output words, pixel after pixel, for what is written or merged.

    Members
    ----------
    init, base : before the first tile: the first tile's first word
    begin : before each tile: walk from pixel 0
    step, pixel_end, pitch : ``addr`` is used; go to the next word, with ``pixel_end`` to the first word of the next pixel. Without
        ``step``, ``pixel_end`` leaves an address that is not used
    finish, words : after each tile: the next one begins ``words`` words on
    addr : the current word
    """

    def __init__(self, words_max: int) -> None:
        super().__init__({
            "init": In(1),
            "base": In(ADDR_BITS),
            "begin": In(1),
            "step": In(1),
            "pixel_end": In(1),
            "pitch": In(ADDR_BITS),
            "finish": In(1),
            "words": In(range(words_max + 1)),
            "addr": Out(ADDR_BITS),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        tile, pixel = Signal(ADDR_BITS, reset_less=True), Signal(ADDR_BITS, reset_less=True)
        addr, next_pixel = data_register(m, self.addr), Signal(ADDR_BITS)
        m.d.comb += next_pixel.eq(pixel + self.pitch)
        with m.If(self.init):
            m.d.sync += tile.eq(self.base)
        with m.Elif(self.finish):
            m.d.sync += tile.eq(tile + self.words)
        with m.If(self.begin):
            m.d.sync += [pixel.eq(tile), addr.eq(tile)]
        with m.Elif(self.pixel_end):
            m.d.sync += [pixel.eq(next_pixel), addr.eq(next_pixel)]
        with m.Elif(self.step):
            m.d.sync += addr.eq(addr + 1)
        return m
