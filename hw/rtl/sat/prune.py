"""The pruning engine: FP32 masters to the FP16 weights that are kept of each group, and their positions.

It executes PRUNE instructions as ``hw/spec/sat/machine.py`` defines them, eight lanes side by side. ``done`` comes in the cycle after
the last write; the cycles from ``start`` to ``done`` are :func:`hw.spec.sat.timing.prune.prune_cycles`. The engine may be reset at any
time.

Each lane has its values of an item (a chunk of k) in a buffer of rows of four. A value's rank is how many of its group come before
it: four are compared with it per cycle. What ranks below ``keep`` goes to a second buffer in ascending k, from where all lanes' first,
second, .. survivors become a word.
"""

from amaranth.hdl import C, Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.delay import data_register, later
from hw.rtl.common.decode import view
from hw.rtl.common.interfaces import EngineCommand
from hw.rtl.sat.prune_control import ITEM_WORDS, ReadWalker, Rounds, WriteWalker
from hw.rtl.sat.prune_lane import PruneLane
from hw.rtl.sat.vec_ports import WORD_BITS, PrunedPort, ReadPort
from hw.rtl.sat.vec_words import fp32_word
from hw.spec.sat.arch import FP32_LANES, LANES
from hw.spec.sat.instructions import PRUNE
from hw.spec.sat.latency import VECTOR_READ
from hw.spec.sat.timing import prune as timing

TAKE = 1
"""Word to finite numbers in a register."""


class PruneEngine(wiring.Component):
    """Pruning engine.

    Members
    -------
    command : a PRUNE instruction with legal fields; ``error`` is always 0
    read : masters, bank 0
    write : values and positions
    saturated : a value saturated when it was rounded; at the latest two cycles before ``done``

    While the engine is idle every ``en`` is zero, and so is ``saturated``.
    """

    command: In(EngineCommand)
    read: Out(ReadPort)
    write: Out(PrunedPort)
    saturated: Out(1)

    def elaborate(self, platform: object) -> Module:
        _check_latencies()
        m = Module()
        i = view(PRUNE, self.command.instruction)
        m.submodules.rounds = rounds = Rounds()
        m.submodules.walk_read, m.submodules.walk_write = read, write = ReadWalker(), WriteWalker()
        m.d.comb += [rounds.start.eq(self.command.start), rounds.instruction.eq(self.command.instruction)]
        for walker, item, step, end in (
            (read, rounds.read_item, rounds.beat.valid, rounds.item_end),
            (write, rounds.write_item, rounds.emission.valid, rounds.emission.last),
        ):
            m.d.comb += [
                walker.load.eq(self.command.start),
                walker.instruction.eq(self.command.instruction),
                walker.step.eq(step),
                walker.item_end.eq(end),
                walker.word_first.eq(item.word_first),
                walker.word_last.eq(item.word_last),
            ]
        # A row of the masters is two words of lanes, or with transpose a chunk of k.
        number = rounds.beat.number
        m.d.comb += [
            read.row_end.eq(number[0] & (~i.transpose | ~i.chunk_log2[0] | number[1])),
            self.read.en.eq(rounds.beat.valid),
            self.read.addr.eq(read.value),
        ]
        lanes = self._lanes(m, i, rounds)
        self._write(m, rounds, write, lanes)
        return m

    def _lanes(self, m: Module, i: data.View, rounds: Rounds) -> list[PruneLane]:
        """The lanes and what they are filled with."""
        word = Signal(WORD_BITS, reset_less=True)
        m.d.sync += word.eq(fp32_word(self.read.data))
        beat = later(m, rounds.beat, VECTOR_READ + TAKE)
        turn = later(m, rounds.turn, timing.SELECT)
        lanes = [PruneLane() for _ in range(LANES)]
        for number, lane in enumerate(lanes):
            m.submodules[f"lane_{number}"] = lane
            self._fill(m, i, beat, number, lane)
            own = word.word_select(number % FP32_LANES, 32).replicate(FP32_LANES)
            m.d.comb += [
                lane.i_data.eq(Mux(i.transpose, word, own)),
                lane.turn.eq(turn),
                lane.group_log2.eq(i.group_log2),
                lane.keep.eq(i.keep),
                lane.step.eq(rounds.emission.step),
                lane.step_slot.eq(rounds.emission.slot),
            ]
        m.d.sync += self.saturated.eq(Cat(lane.saturated for lane in lanes).any())
        return lanes

    def _fill(self, m: Module, i: data.View, beat: data.View, number: int, lane: PruneLane) -> None:
        """Where a word goes: a value each to half of the lanes, or with transpose a row of one."""
        k, half = beat.number[1:], beat.number[0]
        long = i.chunk_log2[0]
        owner = Mux(long, beat.number[2:5], beat.number[1:4])
        row = Mux(long, beat.number[:2], beat.number[:1])
        one = (1 << k[:2]) & (beat.valid & (half == number // FP32_LANES)).replicate(FP32_LANES)
        m.d.comb += [
            lane.fill.slot.eq(beat.slot),
            lane.fill.row.eq(Mux(i.transpose, row, k[2:])),
            lane.fill.en.eq(Mux(i.transpose, (beat.valid & (owner == number)).replicate(FP32_LANES), one)),
        ]

    def _write(self, m: Module, rounds: Rounds, walker: WriteWalker, lanes: list[PruneLane]) -> None:
        """Words of survivors and of their positions through the write port's registers, and the instruction's end."""
        place, values, positions = (data_register(m, port) for port in (self.write.addr, self.write.values, self.write.positions))
        finished = Signal()
        m.d.sync += [
            self.write.en.eq(rounds.emission.valid),
            place.eq(walker.value),
            values.eq(Cat(lane.survivor.value for lane in lanes)),
            positions.eq(Cat(Cat(lane.survivor.position, C(0, 12)) for lane in lanes)),
            finished.eq(rounds.emission.last & rounds.write_item.final),
            self.command.done.eq(finished),
        ]


def _check_latencies() -> None:
    """Whatever is read has been written before."""
    shortest = ITEM_WORDS // 2
    arrived = shortest - 1 + VECTOR_READ + TAKE + 1
    begun = shortest // 2 // FP32_LANES * (1 + timing.COMPARED * timing.GROUP_ROWS[0]) + timing.SELECT
    if begun < arrived:
        raise ValueError(f"selection begins in cycle {begun}, before the last word of the shortest item is there in {arrived}")
    if timing.EMIT < timing.SELECT + PruneLane.delay:
        raise ValueError(f"EMIT must be at least {timing.SELECT + PruneLane.delay}, not {timing.EMIT}")


