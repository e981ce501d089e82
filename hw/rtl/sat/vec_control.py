"""Control of the vector unit: which pixels are issued when, addresses of operands and results, and of channel records."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.delay import data_register
from hw.rtl.common.decode import view
from hw.rtl.common.interfaces import INSTRUCTION_BITS
from hw.spec.sat.arch import FP32_LANES, LANES
from hw.spec.sat.instructions import VEC, VEC_AFFINE, VEC_FLAG, VEC_SUMS
from hw.spec.sat.timing.vec import RECORD_VISITS
from hw.spec.transfer import ADDR_BITS

SLOTS = 8
"""Channel words whose constants are held at once. A word's constants are read while the one before is issued; that many slots later
even the shortest words have left the pipeline, so that nothing has to be told when a slot is free."""

Pixel = data.StructLayout({"valid": 1, "first": 1, "last": 1, "final": 1, "slot": range(SLOTS)})
"""A pixel on its way: the first, the last of its channel word, the last of the instruction; where its constants are. The flags are
zero where it is not ``valid``."""


class Loop(wiring.Component):
    """A loop counter that knows its first and last passes in advance. Parameters: ``width`` of ``count``.

    Members: ``load``, begin: ``count`` (at least 1) is sampled; ``step``, a pass is done: after the last the loop begins again;
    ``first``, ``last``: this pass is.
    """

    def __init__(self, width: int) -> None:
        super().__init__({"load": In(1), "step": In(1), "count": In(width), "first": Out(1), "last": Out(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        left = Signal(self.count.shape(), reset_less=True)
        first, last = data_register(m, self.first), data_register(m, self.last)
        with m.If(self.load | (self.step & last)):
            m.d.sync += [left.eq(self.count), first.eq(1), last.eq(self.count == 1)]
        with m.Elif(self.step):
            m.d.sync += [left.eq(left - 1), first.eq(0), last.eq(left == 2)]
        return m


class WordWalker(wiring.Component):
    """Addresses of one channel word after the other, pixel by pixel. ``value`` changes in the cycle after ``load`` or ``step``.

    Members: ``load`` with ``origin``; ``step``: a pixel is done; ``last``, with it: it was its channel word's last; ``pitch``.
    """

    load: In(1)
    step: In(1)
    last: In(1)
    origin: In(ADDR_BITS)
    pitch: In(ADDR_BITS)
    value: Out(ADDR_BITS)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        value, word = data_register(m, self.value), Signal(ADDR_BITS, reset_less=True)
        with m.If(self.load):
            m.d.sync += [value.eq(self.origin), word.eq(self.origin + 1)]
        with m.Elif(self.step & self.last):
            m.d.sync += [value.eq(word), word.eq(word + 1)]
        with m.Elif(self.step):
            m.d.sync += value.eq(value + self.pitch)
        return m


class RecordWalker(wiring.Component):
    """Addresses in channel memory: a record after the other, and with ``pairs`` two words of each.

    Members: ``load`` with ``origin``; ``step``: a word is done; ``pitch`` from record to record; ``value``; ``second``: it is the
    second of a pair.
    """

    load: In(1)
    step: In(1)
    pairs: In(1)
    origin: In(ADDR_BITS)
    pitch: In(4)
    value: Out(ADDR_BITS)
    second: Out(1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        value, second = data_register(m, self.value), data_register(m, self.second)
        back, distance = Signal(signed(2)), Signal(signed(6))
        m.d.comb += [back.eq(Mux(self.pairs, -1, 0)), distance.eq(Mux(self.pairs & ~second, 1, self.pitch + back))]
        with m.If(self.load):
            m.d.sync += [value.eq(self.origin), second.eq(0)]
        with m.Elif(self.step):
            m.d.sync += [value.eq(value + distance), second.eq(self.pairs & ~second)]
        return m


class Issuer(wiring.Component):
    """Issues an instruction's pixels, one per cycle, and asks for constants.

    A channel word begins at least so many cycles after the one before as its records take: they are read (affine: the next word's
    constants) or written (sums: the last word's) meanwhile.

    Members
    -------
    start, instruction : a VEC instruction other than FLAG begins
    pixel : issued in this cycle; the first one ``first_issue`` cycles after ``start``
    fetch : the constants of a lane are to be asked for in this cycle
    fetch_lane, fetch_slot : which, and where to
    """

    start: In(1)
    instruction: In(INSTRUCTION_BITS)
    pixel: Out(Pixel)
    fetch: Out(1)
    fetch_lane: Out(range(LANES))
    fetch_slot: Out(range(SLOTS))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        i = view(VEC, self.instruction)
        m.submodules.pixels = pixels = Loop(len(i.pixels))
        m.submodules.words = words = Loop(len(i.words))
        active, wait, slot = Signal(), Signal(range(RECORD_VISITS), reset_less=True), Signal(range(SLOTS), reset_less=True)
        issue, begin, end = Signal(), Signal(), Signal()
        affine, lanes = i.op == VEC_AFFINE, Mux(i.fp32, FP32_LANES - 1, LANES - 1)
        m.d.comb += [
            issue.eq(active & (~pixels.first | (wait == 0))),
            begin.eq(issue & pixels.first),
            end.eq(issue & pixels.last),
            pixels.load.eq(self.start),
            pixels.count.eq(i.pixels),
            pixels.step.eq(issue),
            words.load.eq(self.start),
            words.count.eq(i.words),
            words.step.eq(end),
            self.pixel.valid.eq(issue),
            self.pixel.first.eq(begin),
            self.pixel.last.eq(end),
            self.pixel.final.eq(end & words.last),
            self.pixel.slot.eq(slot),
        ]
        with m.If(self.start):
            m.d.sync += [active.eq(i.op != VEC_FLAG), slot.eq(0), wait.eq(Mux(affine, lanes, 0))]
        with m.Else():
            with m.If(self.pixel.final):
                m.d.sync += active.eq(0)
            with m.If(end):
                m.d.sync += slot.eq(slot + 1)
            with m.If(begin):
                m.d.sync += wait.eq(Mux(affine, lanes, Mux(i.op == VEC_SUMS, RECORD_VISITS - 1, 0)))
            with m.Elif(wait != 0):
                m.d.sync += wait.eq(wait - 1)
        self._fetch(m, affine & (self.start | (begin & ~words.last)), lanes)
        return m

    def _fetch(self, m: Module, begin: Signal, lanes: Signal) -> None:
        """Asks for one word's constants from the cycle after ``begin`` on."""
        lane, slot = data_register(m, self.fetch_lane), data_register(m, self.fetch_slot)
        with m.If(begin):
            m.d.sync += [self.fetch.eq(1), lane.eq(0)]
        with m.Elif(self.fetch):
            m.d.sync += [self.fetch.eq(lane != lanes), lane.eq(lane + 1)]
        with m.If(self.start):
            m.d.sync += slot.eq(0)
        with m.Elif(self.fetch & (lane == lanes)):
            m.d.sync += slot.eq(slot + 1)
