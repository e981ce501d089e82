"""Drain of the PW engine: sums of a finished pixel tile through the requantise unit and the tables to feature memory, alone, zipped
with a left half or added to a residual."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth.hdl import Array as Choice
from amaranth.hdl import C, Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.add_clip import AddClip
from hw.rtl.arith.delay import delayed
from hw.rtl.cells.mac2 import DIGIT_BITS, PACKED_BITS
from hw.rtl.common.decode import INSTRUCTION_BITS, view
from hw.rtl.deform.ports import ACC_BITS, WORD_BITS, ReadPort, WritePort
from hw.rtl.deform.pw_walker import OutputWalker
from hw.spec.deform import LANES, DeformArch
from hw.spec.deform.instructions import MERGE_ADD, MERGE_ZIP, PW
from hw.spec.deform.latency import result_cycles
from hw.spec.deform.timing.pw import ACCUMULATED, SELECT, merge_read, words_per_tile


def interleave(left: Value, right: Value) -> Value:
    """Bytes of two equally long values in turn, left first."""
    count = len(left) // 8
    return Cat(part.word_select(byte, 8) for byte in range(count) for part in (left, right))


class Unpack(wiring.Component):
    """Sixteen packed accumulators to sixteen accumulators: of the lower or the upper weights, or of both as digits of one weight.

    Parameters: ``field_bits``; ``apart``: the upper sum stands above the lower one as it is, without the lower one's borrow
    (``hw.rtl.cells.shift_add``).

    Members: ``packed``; ``high``, ``wide`` (wins over ``high``); ``en``; ``acc`` a cycle later, zero without ``en``.
    """

    def __init__(self, field_bits: int, *, apart: bool = False) -> None:
        self.field_bits, self.apart = field_bits, apart
        super().__init__({
            "packed": In(data.ArrayLayout(signed(PACKED_BITS), LANES)),
            "high": In(1),
            "wide": In(1),
            "en": In(1),
            "acc": Out(data.ArrayLayout(signed(ACC_BITS), LANES)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for lane in range(LANES):
            packed = Value.cast(self.packed[lane])
            low = packed[: self.field_bits].as_signed()
            high = Signal(signed(PACKED_BITS - self.field_bits + 1), name=f"high_{lane}")
            m.d.comb += high.eq(packed[self.field_bits :].as_signed() + (0 if self.apart else low[-1]))
            both = Cat(C(0, DIGIT_BITS), high).as_signed() + low
            acc = Signal(signed(ACC_BITS), name=f"acc_{lane}", reset_less=True)
            m.d.sync += acc.eq(Mux(self.en, Mux(self.wide, both, Mux(self.high, high, low)), 0))
            m.d.comb += self.acc[lane].eq(acc)
        return m


class AddWord(wiring.Component):
    """Sixteen residual additions: bytes of ``y`` and ``residual`` to ``o``, ``delay`` cycles later.

    Members: ``instruction``, which tells clips and signedness and holds still; the rest are words.
    """

    delay = AddClip.delay

    def __init__(self) -> None:
        words = {"y": In(WORD_BITS), "residual": In(WORD_BITS), "o": Out(WORD_BITS)}
        super().__init__({"instruction": In(INSTRUCTION_BITS), **words})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        i = view(PW, self.instruction)
        unsigned = Signal(reset_less=True)
        lo, hi = (Signal(signed(9), name=name, reset_less=True) for name in ("lo", "hi"))
        m.d.sync += [unsigned.eq(i.merge_unsigned), lo.eq(i.merge_lo), hi.eq(i.merge_hi)]
        for number in range(LANES):
            m.submodules[f"lane_{number}"] = lane = AddClip()
            m.d.comb += [
                lane.a.eq(self.y.word_select(number, 8)),
                lane.b.eq(self.residual.word_select(number, 8)),
                lane.unsigned.eq(unsigned),
                lane.lo.eq(lo),
                lane.hi.eq(hi),
                self.o.word_select(number, 8).eq(lane.o),
            ]
        return m


class RowSequence(wiring.Component):
    """Asks for the words of a tile's rows: row after row, a word per cycle, with ``slow`` every other cycle.

    Members: ``launch`` with ``rows`` and ``final`` a cycle before the first word (it may coincide with the last word of the tile
    before); ``words``; then ``en`` with ``row``, ``word``, ``pixel_end`` (last word of its row) and ``final_end`` (last word of the
    final tile).
    """

    def __init__(self, rows: int, words_max: int) -> None:
        super().__init__({
            "launch": In(1),
            "rows": In(range(rows + 1)),
            "final": In(1),
            "words": In(range(words_max + 1)),
            "slow": In(1),
            "en": Out(1),
            "row": Out(range(max(rows, 2))),
            "word": Out(range(words_max)),
            "pixel_end": Out(1),
            "final_end": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        active, pause, final = Signal(), Signal(reset_less=True), Signal(reset_less=True)
        rows = Signal.like(self.rows, name="tile_rows", reset_less=True)
        tile_end = self.pixel_end & (self.row + 1 == rows)
        m.d.comb += [
            self.en.eq(active & ~pause),
            self.pixel_end.eq(self.en & (self.word + 1 == self.words)),
            self.final_end.eq(tile_end & final),
        ]
        m.d.sync += pause.eq(self.en & self.slow)
        with m.If(self.en):
            m.d.sync += self.word.eq(Mux(self.pixel_end, 0, self.word + 1))
        with m.If(self.pixel_end):
            m.d.sync += self.row.eq(Mux(tile_end, 0, self.row + 1))
        with m.If(self.launch):
            m.d.sync += [active.eq(1), rows.eq(self.rows), final.eq(self.final)]
        with m.Elif(tile_end):
            m.d.sync += active.eq(0)
        return m


class PwDrain(wiring.Component):
    """The drain.

    Members
    ----------
    instruction, init, begin, words : see :class:`hw.rtl.deform.pw_control.PwControl` (``init`` is its ``start``)
    tile_end, rows, final : see :class:`hw.rtl.deform.pw_walker.TapWalker`; the tile's first row is read ACCUMULATED cycles later
    row, group, packed : the array's read side
    rq_set, rq_acc, rq_data : the requantise unit, with the tables behind it
    merge : reads the left halves or residuals; never in a cycle in which the walker reads
    fm : the writes; ``finish`` with the last one of a tile of output words
    """

    def __init__(self, arch: DeformArch) -> None:
        self.arch = arch
        self.groups = arch.cells // LANES
        self.words_max = words_per_tile(arch, wide=False)
        super().__init__({
            "instruction": In(INSTRUCTION_BITS),
            "init": In(1),
            "begin": In(1),
            "words": In(range(self.words_max + 1)),
            "tile_end": In(1),
            "rows": In(range(arch.rows + 1)),
            "final": In(1),
            "row": Out(range(max(arch.rows, 2))),
            "group": Out(range(max(self.groups, 2))),
            "packed": In(data.ArrayLayout(signed(PACKED_BITS), LANES)),
            "rq_set": Out(2),
            "rq_acc": Out(data.ArrayLayout(signed(ACC_BITS), LANES)),
            "rq_data": In(WORD_BITS),
            "merge": Out(ReadPort),
            "fm": Out(WritePort),
            "finish": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        i = view(PW, self.instruction)
        zipped = Signal(reset_less=True)
        added = Signal(reset_less=True)
        m.d.sync += [zipped.eq(i.merge == MERGE_ZIP), added.eq(i.merge == MERGE_ADD)]
        sequence = self._sequence(m, zipped)
        self._select(m, sequence, i.wide_weights)
        cycles = SELECT + result_cycles(self.arch) + AddWord.delay
        written = delayed(m, sequence.en, cycles, "written")
        ends = delayed(m, Cat(sequence.pixel_end, sequence.final_end), cycles, "ends", reset_less=True)
        late = [Cat(*flags) for flags in zip(written, ends, strict=True)]
        self._read_merged(m, i, late[merge_read(self.arch)], zipped | added)
        self._write(m, i, late, zipped, added)
        return m

    def _sequence(self, m: Module, zipped: Value) -> RowSequence:
        m.submodules.sequence = sequence = RowSequence(self.arch.rows, self.words_max)
        rows, final = Signal.like(self.rows, name="tile_rows", reset_less=True), Signal(name="tile_final", reset_less=True)
        with m.If(self.tile_end):
            m.d.sync += [rows.eq(self.rows), final.eq(self.final)]
        m.d.comb += [
            sequence.launch.eq(delayed(m, self.tile_end, ACCUMULATED - 1, "tile_end")[-1]),
            sequence.rows.eq(rows),
            sequence.final.eq(final),
            sequence.words.eq(self.words),
            sequence.slow.eq(zipped),
            self.row.eq(sequence.row),
        ]
        return sequence

    def _select(self, m: Module, sequence: RowSequence, wide: Value) -> None:
        """The words of a row: groups of sixteen cells, with 4-bit weights first their lower, then their upper sums."""
        m.submodules.unpack = unpack = Unpack(self.arch.field_bits, apart=self.arch.weight_terms > 0)
        stages = delayed(m, Cat(sequence.en, sequence.word), SELECT, "select", reset_less=True)
        m.d.comb += [
            self.group.eq(sequence.word % self.groups),
            unpack.packed.eq(self.packed),
            unpack.en.eq(stages[1][0]),
            unpack.high.eq(stages[1][1:] >= self.groups),
            unpack.wide.eq(wide),
            self.rq_acc.eq(unpack.acc),
            self.rq_set.eq(stages[SELECT][1:]),
        ]

    def _read_merged(self, m: Module, i: data.View, flags: Value, merging: Value) -> None:
        m.submodules.left = left = OutputWalker(self.words_max)
        m.d.comb += [
            left.init.eq(self.init),
            left.base.eq(i.merge_addr),
            left.begin.eq(self.begin),
            left.step.eq(flags[0] & merging),
            left.pixel_end.eq(flags[1]),
            left.pitch.eq(i.merge_pitch),
            left.finish.eq(self.finish),
            left.words.eq(self.words),
            self.merge.en.eq(left.step),
            self.merge.addr.eq(left.addr),
        ]

    def _write(self, m: Module, i: data.View, late: Sequence[Value], zipped: Value, added: Value) -> None:
        """One write per word, or two in consecutive cycles with ``zipped``: the upper half waits in a register.

        ``late``: the word's flags 0, 1, .. cycles after it was asked for; it comes ``AddWord.delay`` cycles before the last.
        """
        come, summed = len(late) - 1 - AddWord.delay, len(late) - 1
        en = Signal()
        m.d.sync += en.eq(Mux(added, late[summed - 1][0], late[come - 1][0] | (zipped & late[come][0])))
        m.submodules.out = out = OutputWalker(2 * self.words_max)
        second = delayed(m, Mux(zipped, late[come], 0), 1, "second", reset_less=True)[-1]
        last = Mux(added, late[summed], Mux(zipped, second, late[come]))
        m.d.comb += [
            self.fm.en.eq(en),
            self.fm.addr.eq(out.addr),
            self.fm.data.eq(self._written(m, zipped, added, second[0])),
            self.finish.eq(last[2]),
            out.init.eq(self.init),
            out.base.eq(i.out_addr),
            out.begin.eq(self.begin),
            out.step.eq(self.fm.en),
            out.pixel_end.eq(last[1]),
            out.pitch.eq(i.out_pitch),
            out.finish.eq(self.finish),
            out.words.eq(Mux(zipped, self.words << 1, self.words)),
        ]

    def _written(self, m: Module, zipped: Value, added: Value, second: Value) -> Value:
        """The word as it is, one of a zip's two (the ``second`` from a register), or the sum."""
        y, merged, half = self.rq_data, self.merge.data, WORD_BITS // 2
        m.submodules.add = add = AddWord()
        upper = Signal(WORD_BITS, reset_less=True)
        m.d.sync += upper.eq(interleave(merged[half:], y[half:]))
        m.d.comb += [add.instruction.eq(self.instruction), add.y.eq(y), add.residual.eq(merged)]
        choices = [y, interleave(merged[:half], y[:half]), upper, add.o]
        return Choice(choices)[Mux(added, 3, Mux(second, 2, zipped))]
