"""A lane of the pruning engine: two chunks of values, their ranks within their groups, and the survivors in order."""

from amaranth.hdl import C, Cat, Module, Mux, Signal, Value
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.delay import later
from hw.rtl.arith.float_half import Fp32ToFp16
from hw.rtl.sat.prune_control import MOST, ROWS, Turn
from hw.rtl.sat.vec_ports import WORD_BITS
from hw.spec.sat.arch import FP32_LANES
from hw.spec.sat.timing.prune import KEEP_BITS

Survivor = data.StructLayout({"value": 16, "position": range(MOST)})

Fill = data.StructLayout({"en": FP32_LANES, "row": range(ROWS), "slot": 1})
"""Values of a row that are written."""


class PruneLane(wiring.Component):
    """One lane.

    Members
    -------
    fill, i_data : values of a chunk; ``k`` modulo 4 is the place within a row
    turn : see :obj:`hw.rtl.sat.prune_control.Turn`; the same for all lanes
    group_log2, keep : of the instruction
    step, step_slot, survivor : what is written to the buffer of survivors ``delay`` cycles after its turn can be read after that
    saturated : a survivor saturated when it was rounded
    """

    fill: In(Fill)
    i_data: In(WORD_BITS)
    turn: In(Turn)
    group_log2: In(3)
    keep: In(KEEP_BITS)
    step: In(range(MOST))
    step_slot: In(1)
    survivor: Out(Survivor)
    saturated: Out(1)

    delay = 1 + Fp32ToFp16.latency

    def elaborate(self, platform: object) -> Module:
        m = Module()
        turn = self.turn
        row = self._buffer(m)
        current = Signal(WORD_BITS, reset_less=True)
        with m.If(turn.fetch):
            m.d.sync += current.eq(row)
        with m.Elif(turn.last):
            m.d.sync += current.eq(current[32:])
        value, k = Signal(32, reset_less=True), Cat(turn.value, turn.row)
        hits = Signal(FP32_LANES, reset_less=True)
        m.d.sync += [hits.eq(Cat(self._ahead(row, place, current[:31], k) for place in range(FP32_LANES))), value.eq(current[:32])]
        self._select(m, hits, value, k)
        return m

    def _buffer(self, m: Module) -> Value:
        """Two chunks; the row that a turn names."""
        turn = self.turn
        m.submodules.buffer = buffer = memory.Memory(shape=WORD_BITS, depth=2 * ROWS, init=[])
        writer, reader = buffer.write_port(granularity=WORD_BITS // FP32_LANES), buffer.read_port(domain="comb")
        row = Signal(WORD_BITS)
        m.d.comb += [
            writer.en.eq(self.fill.en),
            writer.addr.eq(Cat(self.fill.row, self.fill.slot)),
            writer.data.eq(self.i_data),
            reader.addr.eq(Cat(Mux(turn.fetch, turn.row, turn.against), turn.slot)),
            row.eq(reader.data),
        ]
        return row

    def _ahead(self, row: Value, place: int, magnitude: Value, k: Value) -> Value:
        """Whether a value of the row is in the group of the current one and comes before it: it is larger, or as large and earlier."""
        other = Cat(place >> bit & 1 for bit in range(2))
        j = Cat(other, self.turn.against)
        grouped = Cat((self.group_log2 > bit) | (j[bit] == k[bit]) for bit in range(len(j))).all()
        return grouped & (Cat(j < k, row.word_select(place, 32)[:31]) > Cat(C(0, 1), magnitude))

    def _select(self, m: Module, hits: Signal, value: Signal, k: Value) -> None:
        """Counts what comes before a value; if that is few enough, its FP16 and its place go to the buffer of survivors."""
        turn = later(m, self.turn, 1, reset_less=True)
        valid = later(m, self.turn.valid & self.turn.last, 1)
        before, rank = Signal(range(MOST), reset_less=True), Signal(range(MOST))
        m.d.comb += rank.eq(Mux(turn.first, 0, before) + sum(hits[1:], hits[0]))
        m.d.sync += before.eq(rank)
        m.submodules.round = rounding = Fp32ToFp16()
        m.d.comb += rounding.i.eq(value)
        kept = later(m, valid & (rank < self.keep), rounding.latency)
        first = later(m, turn.item_first, rounding.latency, reset_less=True)
        slot = later(m, turn.slot, rounding.latency, reset_less=True)
        count, place = Signal(range(MOST), reset_less=True), Signal(range(MOST))
        moment = later(m, valid, rounding.latency)
        m.submodules.survivors = survivors = memory.Memory(shape=Survivor, depth=2 * MOST, init=[])
        writer, reader = survivors.write_port(), survivors.read_port(domain="comb")
        m.d.comb += [
            place.eq(Mux(first, 0, count)),
            writer.en.eq(kept),
            writer.addr.eq(Cat(place, slot)),
            writer.data.value.eq(rounding.o),
            writer.data.position.eq(later(m, k, 1 + rounding.latency, reset_less=True)),
            reader.addr.eq(Cat(self.step, self.step_slot)),
            self.survivor.eq(reader.data),
            self.saturated.eq(kept & rounding.saturated),
        ]
        with m.If(moment):
            m.d.sync += count.eq(place + kept)
