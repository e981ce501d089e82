"""Fetches 64 bytes of the program, a header or an instruction, and checks their CRC-32."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.delay import data_register
from hw.rtl.common.crc import Crc32
from hw.rtl.common.decode import INSTRUCTION_BITS
from hw.rtl.common.interfaces import DATA_BITS, PROGRAM_REGION, ReadRuns

WORDS = INSTRUCTION_BITS // DATA_BITS
UNIT_BITS = 26
"""A program has fewer than 2**32 bytes."""


class Fetcher(wiring.Component):
    """Reads the unit ``index`` (64 bytes each) of the program region.

    Members
    -------
    start : begin; only while idle and while ``runs`` is idle
    index : unit, read in the cycle of ``start``
    halt : give up at once
    active : from the cycle after ``start`` to that of ``done``: ``runs`` is in use
    done : for one cycle: ``bits`` and ``sealed`` (their CRC-32 is right) hold until the next start, if neither ``refused``
        (the unit is not in the region) nor ``failed`` (the memory answered with an error) is high in this cycle
    """

    start: In(1)
    index: In(UNIT_BITS)
    halt: In(1)
    active: Out(1)
    done: Out(1)
    refused: Out(1)
    failed: Out(1)
    bits: Out(INSTRUCTION_BITS)
    sealed: Out(1)
    runs: Out(ReadRuns)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.crc = crc = Crc32()
        runs = self.runs
        requesting, waiting = Signal(), Signal()
        words = Signal(range(WORDS + 1), reset_less=True)
        unit, take = Signal(UNIT_BITS, reset_less=True), Signal()
        bits = data_register(m, self.bits)
        m.d.comb += [
            self.active.eq(requesting | waiting),
            runs.clear.eq(self.start),
            runs.request.valid.eq(requesting),
            runs.request.payload.region.eq(PROGRAM_REGION),
            runs.request.payload.offset.eq(unit << 2),
            runs.request.payload.words.eq(WORDS),
            runs.data.ready.eq(waiting),
            take.eq(waiting & runs.data.valid),
            crc.clear.eq(self.start),
            crc.en.eq(take),
            crc.data.eq(runs.data.payload),
            self.sealed.eq(crc.sealed),
            self.refused.eq(runs.refused),
            self.failed.eq(runs.failed),
            self.done.eq(waiting & runs.idle & ((words == WORDS) | runs.refused)),
        ]
        with m.If(self.start):
            m.d.sync += [requesting.eq(1), words.eq(0), unit.eq(self.index)]
        with m.If(requesting & runs.request.ready):
            m.d.sync += [requesting.eq(0), waiting.eq(1)]
        with m.If(take):
            m.d.sync += [words.eq(words + 1), bits.eq(Cat(bits[DATA_BITS:], runs.data.payload))]
        with m.If(self.done):
            m.d.sync += waiting.eq(0)
        with m.If(self.halt):
            m.d.sync += [requesting.eq(0), waiting.eq(0)]
        return m
