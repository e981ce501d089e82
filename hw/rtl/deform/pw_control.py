"""Control of the PW engine: tiles of output words, their records, and the K loops of their pixel tiles."""

from __future__ import annotations

from amaranth.hdl import Array as Choice
from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.delay import data_register, delayed
from hw.rtl.common.decode import INSTRUCTION_BITS, view
from hw.rtl.deform.ports import ReadPort
from hw.spec.deform import DeformArch
from hw.spec.deform.instructions import ADDR_BITS, MERGE_ADD, MERGE_NONE, MERGE_ZIP, PW
from hw.spec.deform.latency import MEMORY_READ
from hw.spec.deform.timing.pw import RECORD_WORDS, gap_cycles, setup_cycles, words_per_tile


class PwControl(wiring.Component):
    """State machine: idle, set-up of a tile of output words, K loop (``run``), gap between loops, flush of the last drain.

    Members
    ----------
    start, instruction : from the sequencer; ``busy`` from the next cycle up to ``done``
    begin : first cycle of a tile of output words; ``words`` of them from the next cycle on
    run : a K-step; ``tile_end``, ``final``: see :class:`hw.rtl.deform.pw_walker.TapWalker`
    finish : the last write of the tile of output words
    """

    def __init__(self, arch: DeformArch) -> None:
        self.arch = arch
        self.words_max = words_per_tile(arch, wide=False)
        super().__init__({
            "start": In(1),
            "instruction": In(INSTRUCTION_BITS),
            "busy": Out(1),
            "done": Out(1),
            "begin": Out(1),
            "words": Out(range(self.words_max + 1)),
            "run": Out(1),
            "tile_end": In(1),
            "final": In(1),
            "finish": In(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        i = view(PW, self.instruction)
        remaining, taken = Signal(16, reset_less=True), Signal.like(self.words)
        words = data_register(m, self.words)
        most = Mux(i.wide_weights, words_per_tile(self.arch, wide=True), self.words_max)
        m.d.comb += taken.eq(Mux(remaining < most, remaining, most))
        gap = self._gap(m, words, i.merge)
        pause = setup_cycles(self.arch) - 1
        count = Signal(range(max(pause, *self._gaps())), reset_less=True)
        with m.FSM():
            with m.State("IDLE"):
                with m.If(self.start):
                    m.d.sync += remaining.eq(i.out_words)
                    m.next = "SETUP"
            with m.State("SETUP"):
                m.d.comb += [self.busy.eq(1), self.begin.eq(1)]
                m.d.sync += [words.eq(taken), remaining.eq(remaining - taken), count.eq(max(pause - 1, 0))]
                m.next = "PAUSE" if pause else "RUN"
            with m.State("PAUSE"):
                m.d.comb += self.busy.eq(1)
                m.d.sync += count.eq(count - 1)
                with m.If(count == 0):
                    m.next = "RUN"
            with m.State("RUN"):
                m.d.comb += [self.busy.eq(1), self.run.eq(1)]
                m.d.sync += count.eq(gap - 1)
                with m.If(self.tile_end & self.final):
                    m.next = "FLUSH"
                with m.Elif(self.tile_end & (gap != 0)):
                    m.next = "PAUSE"
            with m.State("FLUSH"):
                m.d.comb += self.busy.eq(1)
                with m.If(self.finish):
                    m.next = "DONE"
                    with m.If(remaining != 0):
                        m.next = "SETUP"
            with m.State("DONE"):
                m.d.comb += [self.busy.eq(1), self.done.eq(1)]
                m.next = "IDLE"
        return m

    def _gaps(self) -> list[int]:
        """The gap of each number of words from 0 on and, within it, each merge; 0 where there is no such merge."""
        merges = sorted((MERGE_NONE, MERGE_ZIP, MERGE_ADD))
        gaps = [0] * 4
        for words in range(1, self.words_max + 1):
            gaps += [gap_cycles(self.arch, words, merge) if merge in merges else 0 for merge in range(4)]
        return gaps

    def _gap(self, m: Module, words: Value, merge: Value) -> Signal:
        """Cycles between two K loops of the current tile, from a table; ready a cycle after ``words``."""
        table = self._gaps()
        gap = Signal(range(max(table) + 1), reset_less=True)
        m.d.sync += gap.eq(Choice(table)[Cat(merge, words)])
        return gap


class RecordLoader(wiring.Component):
    """Copies the requantise records of a tile's words from parameter memory to the unit's sets, one word per cycle.

    Members: ``init`` with ``base`` (first record word of the instruction); ``begin``, ``words`` as of :class:`PwControl`; ``par``,
    the memory's port; ``load_en``, ``load_set``, ``load_index`` for the unit, in the cycle of the memory's data.
    """

    def __init__(self, words_max: int) -> None:
        self.words_max = words_max
        super().__init__({
            "init": In(1),
            "base": In(ADDR_BITS),
            "begin": In(1),
            "words": In(range(words_max + 1)),
            "par": Out(ReadPort),
            "load_en": Out(1),
            "load_set": Out(2),
            "load_index": Out(3),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        busy, number = Signal(), Signal(range(self.words_max * RECORD_WORDS))
        addr = Signal(ADDR_BITS, reset_less=True)
        following = Signal(range(self.words_max * RECORD_WORDS + 1))
        m.d.comb += [following.eq(number + 1), self.par.en.eq(busy), self.par.addr.eq(addr)]
        with m.If(self.init):
            m.d.sync += addr.eq(self.base)
        with m.Elif(busy):
            m.d.sync += addr.eq(addr + 1)
        with m.If(self.begin):
            m.d.sync += busy.eq(1)
        with m.Elif(following == self.words * RECORD_WORDS):
            m.d.sync += [busy.eq(0), number.eq(0)]
        with m.Elif(busy):
            m.d.sync += number.eq(following)
        late = delayed(m, number, MEMORY_READ, "record", reset_less=True)[-1]
        m.d.comb += [
            self.load_en.eq(delayed(m, busy, MEMORY_READ, "load", reset_less=True)[-1]),
            self.load_index.eq(late[:3]),
            self.load_set.eq(late[3:]),
        ]
        return m
