"""Control of the pruning engine: rounds, in which one item is read, another selected from, a third written; and addresses."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.rtl.arith.delay import data_register
from hw.rtl.common.decode import view
from hw.rtl.common.interfaces import INSTRUCTION_BITS
from hw.rtl.sat.vec_control import Loop
from hw.spec.sat.arch import FP32_LANES, LANES
from hw.spec.sat.instructions import PRUNE
from hw.spec.sat.timing import prune as timing
from hw.spec.transfer import ADDR_BITS

MOST = 2 * LANES
"""Values of k in the longest chunk."""

ROWS = MOST // FP32_LANES
ITEM_WORDS = MOST * LANES // FP32_LANES

Item = data.StructLayout({"valid": 1, "word_first": 1, "word_last": 1, "final": 1})
"""An item: it is the first, the last of its chunk's lane words; the last of the instruction. ``final`` only where ``valid``."""

Beat = data.StructLayout({"valid": 1, "number": range(ITEM_WORDS), "slot": 1})
"""A word of an item that is read, and the half of the buffer it goes to."""

Turn = data.StructLayout({
    "valid": 1,
    "fetch": 1,
    "row": range(ROWS),
    "value": range(FP32_LANES),
    "against": range(ROWS),
    "first": 1,
    "last": 1,
    "item_first": 1,
    "slot": 1,
})
"""A cycle of the selection. ``fetch``: row ``row`` becomes the current one. Else its ``value`` is compared with row ``against``, which
is the ``first``, the ``last`` of those it is compared with. ``item_first``: it is the item's first value."""

Emission = data.StructLayout({"valid": 1, "step": range(MOST), "first": 1, "last": 1, "slot": 1})
"""A result word: of which step, the item's first, last one. All flags are zero where it is not ``valid``."""


class Rounds(wiring.Component):
    """The rounds of an instruction.

    Members
    -------
    start, instruction : a PRUNE instruction begins
    read_item, beat : the item that is read, and its word in this cycle
    item_end : the item's last word is read in this cycle
    turn : what the selection does; its valid cycles are those of a round
    write_item, emission : the item that is written, and its result in this cycle
    """

    start: In(1)
    instruction: In(INSTRUCTION_BITS)
    read_item: Out(Item)
    beat: Out(Beat)
    item_end: Out(1)
    turn: Out(Turn)
    write_item: Out(Item)
    emission: Out(Emission)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        i = view(PRUNE, self.instruction)
        cycle, slot, end = Signal(7, reset_less=True), Signal(reset_less=True), Signal()
        self._items(m, i, end)
        last_word = Mux(i.chunk_log2[0], 2 * MOST - 1, MOST - 1)
        reading = Signal()
        m.d.comb += [
            self.beat.valid.eq(reading & self.read_item.valid),
            self.beat.number.eq(cycle),
            self.beat.slot.eq(slot),
            self.item_end.eq(self.beat.valid & (cycle == last_word)),
        ]
        m.d.sync += cycle.eq(cycle + 1)
        with m.If(self.start | end):
            m.d.sync += [cycle.eq(0), slot.eq(~slot), reading.eq(1)]
        with m.Elif(cycle == last_word):
            m.d.sync += reading.eq(0)
        self._turns(m, i, slot, end)
        self._emissions(m, i, cycle, slot)
        return m

    def _items(self, m: Module, i: data.View, end: Signal) -> None:
        """Which items are under way. They move on at the end of a round."""
        m.submodules.words, m.submodules.chunks = words, chunks = Loop(len(i.words)), Loop(len(i.chunks))
        active, between = Signal(), Signal(Item)
        written = Signal(Item)
        m.d.comb += [
            words.load.eq(self.start),
            words.count.eq(i.words),
            words.step.eq(end),
            chunks.load.eq(self.start),
            chunks.count.eq(i.chunks),
            chunks.step.eq(end & words.last),
            self.read_item.valid.eq(active),
            self.read_item.word_first.eq(words.first),
            self.read_item.word_last.eq(words.last),
            self.read_item.final.eq(active & words.last & chunks.last),
            self.write_item.eq(written),
        ]
        self._selecting = between.valid
        with m.If(self.start):
            m.d.sync += [active.eq(1), between.eq(0), written.eq(0)]
        with m.Elif(end):
            m.d.sync += [active.eq(active & ~self.read_item.final), between.eq(self.read_item), written.eq(between)]

    def _turns(self, m: Module, i: data.View, slot: Signal, end: Signal) -> None:
        """A round: each row is fetched, then its values are compared with all rows of their groups."""
        row, value, against, fetch = (Signal(shape, name=name, reset_less=True) for name, shape in (
            ("row", range(ROWS)), ("value", range(FP32_LANES)), ("against", range(ROWS)), ("fetch", 1)))  # fmt: skip
        wide = i.group_log2 == 4
        last_against = Mux(wide, timing.GROUP_ROWS[1] - 1, timing.GROUP_ROWS[0] - 1)
        compared, row_end = ~fetch & (against == last_against), Signal()
        m.d.comb += [
            row_end.eq(compared & (value == FP32_LANES - 1)),
            end.eq(row_end & (row == Mux(i.chunk_log2[0], ROWS - 1, ROWS // 2 - 1))),
            self.turn.valid.eq(self._selecting),
            self.turn.fetch.eq(fetch),
            self.turn.row.eq(row),
            self.turn.value.eq(value),
            self.turn.against.eq(Mux(wide, against, Cat(against[0], row[1]))),
            self.turn.first.eq(~fetch & (against == 0)),
            self.turn.last.eq(compared),
            self.turn.item_first.eq((row == 0) & (value == 0)),
            self.turn.slot.eq(~slot),
        ]
        with m.If(fetch):
            m.d.sync += fetch.eq(0)
        with m.Elif(compared):
            m.d.sync += [against.eq(0), value.eq(value + 1)]
        with m.Else():
            m.d.sync += against.eq(against + 1)
        with m.If(row_end):
            m.d.sync += [row.eq(row + 1), fetch.eq(1)]
        with m.If(self.start | end):
            m.d.sync += [row.eq(0), value.eq(0), against.eq(0), fetch.eq(1)]

    def _emissions(self, m: Module, i: data.View, cycle: Signal, slot: Signal) -> None:
        """An item's results, one per cycle from cycle EMIT of the round on."""
        active, step = Signal(), Signal(range(MOST), reset_less=True)
        groups_log2, most = Signal(3), Signal(range(MOST), reset_less=True)
        m.d.comb += groups_log2.eq(i.chunk_log2 + exact_log2(LANES) - i.group_log2)
        m.d.sync += most.eq((i.keep << groups_log2) - 1)
        m.d.comb += [
            self.emission.valid.eq(active),
            self.emission.step.eq(step),
            self.emission.first.eq(active & (step == 0)),
            self.emission.last.eq(active & (step == most)),
            self.emission.slot.eq(slot),
        ]
        with m.If(self.start | self.emission.last):
            m.d.sync += active.eq(0)
        with m.Elif((cycle == timing.EMIT - 1) & self.write_item.valid):
            m.d.sync += active.eq(1)
        m.d.sync += step.eq(Mux(active, step + 1, 0))


class ReadWalker(wiring.Component):
    """Addresses of the masters: within an item row by row, the items of a chunk by lane words, then the next chunk.

    One of the two outer loops goes along the rows, where an item's end is the next one's begin; the other goes on by a few words.

    Members: ``load``, ``instruction``; ``step``: a word is read; ``row_end``, ``item_end``, with it: it was its row's, its item's
    last; ``word_first``, ``word_last``: of the item's lane word; ``value``.
    """

    load: In(1)
    instruction: In(INSTRUCTION_BITS)
    step: In(1)
    row_end: In(1)
    item_end: In(1)
    word_first: In(1)
    word_last: In(1)
    value: Out(ADDR_BITS)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        i = view(PRUNE, self.instruction)
        value = data_register(m, self.value)
        row, item, other = (Signal(ADDR_BITS, name=name, reset_less=True) for name in ("row", "item", "other"))
        after, following = Signal(ADDR_BITS), Signal(ADDR_BITS)
        chunk_words = Mux(i.chunk_log2[0], MOST // FP32_LANES, LANES // FP32_LANES)
        m.d.comb += after.eq(row + i.in_pitch)
        # With transpose lane words go along the rows and ``other`` is the next chunk's first word; else chunks do, and it is likewise.
        next_chunk = Mux(i.transpose | ~self.word_first, other, after)
        next_word = Mux(i.transpose, after, item + LANES // FP32_LANES)
        m.d.comb += following.eq(Mux(self.word_last, next_chunk, next_word))
        with m.If(self.load):
            m.d.sync += [value.eq(i.in_addr), row.eq(i.in_addr), item.eq(i.in_addr), other.eq(i.in_addr + chunk_words)]
        with m.Elif(self.step & self.item_end):
            m.d.sync += [value.eq(following), row.eq(following), item.eq(following)]
            with m.If(i.transpose & self.word_last):
                m.d.sync += other.eq(other + chunk_words)
            with m.If(~i.transpose & self.word_first):
                m.d.sync += other.eq(after)
        with m.Elif(self.step & self.row_end):
            m.d.sync += [value.eq(after), row.eq(after)]
        with m.Elif(self.step):
            m.d.sync += value.eq(value + 1)
        return m


class WriteWalker(wiring.Component):
    """Addresses of the results: an item's steps, lane word by lane word, then the next chunk.

    Members: ``load``, ``instruction``; ``step``: a result is written; ``item_end``, with it: it was its item's last; ``word_first``,
    ``word_last``: of the item's lane word; ``value``.
    """

    load: In(1)
    instruction: In(INSTRUCTION_BITS)
    step: In(1)
    item_end: In(1)
    word_first: In(1)
    word_last: In(1)
    value: Out(ADDR_BITS)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        i = view(PRUNE, self.instruction)
        value = data_register(m, self.value)
        item, chunk = (Signal(ADDR_BITS, name=name, reset_less=True) for name in ("item", "chunk"))
        after, following = Signal(ADDR_BITS), Signal(ADDR_BITS)
        next_chunk: Value = Mux(self.word_first, after, chunk)
        m.d.comb += [after.eq(value + i.out_pitch), following.eq(Mux(self.word_last, next_chunk, item + 1))]
        with m.If(self.load):
            m.d.sync += [value.eq(i.out_addr), item.eq(i.out_addr)]
        with m.Elif(self.step & self.item_end):
            m.d.sync += [value.eq(following), item.eq(following)]
            with m.If(self.word_first):
                m.d.sync += chunk.eq(after)
        with m.Elif(self.step):
            m.d.sync += value.eq(after)
        return m
