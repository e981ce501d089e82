"""The vector unit: element-wise work on the vector memory, sums over pixels, and the saturation flag.

It executes VEC instructions as ``hw/spec/sat/machine.py`` defines them: a word of each operand and a result word per cycle. ``done``
comes in the cycle after the last write; the cycles from ``start`` to ``done`` are :func:`hw.spec.sat.timing.vec.vec_cycles`. The
engine may be reset at any time.

A pixel that is issued in cycle 0 is on its way as follows:

====== ==================================================================================================================
cycle  what there is
====== ==================================================================================================================
0      addresses on the operand port
2      memory words
3      finite numbers in registers
4      operands that count | larger or chosen operand | significands for the sums
5      FP32 operands, S, T
11     products
17     their sum, U
24     affine result, with relu; with ``fp32`` it goes to the write port
26     the same in FP16
8      sums (:class:`hw.rtl.sat.vec_sums.SumLane`); after a channel word's last pixel they are captured, and written one by one
====== ==================================================================================================================
"""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.delay import data_register, delayed, later
from hw.rtl.common.decode import view
from hw.rtl.common.interfaces import EngineCommand
from hw.rtl.sat.vec_constants import Constants
from hw.rtl.sat.vec_control import SLOTS, Issuer, RecordWalker, WordWalker
from hw.rtl.sat.vec_lane import AffineLane, chosen
from hw.rtl.sat.vec_ports import FlagPort, OperandPort, ReadPort, ResultPort, WritePort
from hw.rtl.sat.vec_sums import SumDrain, SumLane
from hw.rtl.sat.vec_words import taken
from hw.spec.sat.arch import FP32_LANES, LANES
from hw.spec.sat.channel import FIRST_BITS, SECOND_BITS
from hw.spec.sat.instructions import VEC, VEC_AFFINE, VEC_FLAG, VEC_MAX, VEC_SUMS
from hw.spec.sat.latency import VECTOR_READ
from hw.spec.sat.timing import vec as timing

TAKEN = VECTOR_READ + timing.TAKE
CHOSEN = TAKEN + timing.CHOOSE
FULL = TAKEN + AffineLane.full_cycle
HALF = TAKEN + AffineLane.half_cycle
SUMMED = TAKEN + SumLane.delay
FIRST_RECORD = SUMMED + timing.CAPTURE - VECTOR_READ
"""Cycles from a pixel's issue to: operands taken, chosen, affine result in FP32 and in FP16, sums, the first record asked for."""


class VecEngine(wiring.Component):
    """Vector unit.

    Members
    -------
    command : a VEC instruction with legal fields; ``error`` is always 0
    read : operands
    write : results
    chn_read, chn_write : channel records
    flag : the saturation flag, which VEC_FLAG takes
    saturated : something saturated; at the latest two cycles before ``done``

    While the engine is idle every ``en`` is zero, and so is ``saturated``.
    """

    command: In(EngineCommand)
    read: Out(OperandPort)
    write: Out(ResultPort)
    chn_read: Out(ReadPort)
    chn_write: Out(WritePort)
    flag: Out(FlagPort)
    saturated: Out(1)

    def elaborate(self, platform: object) -> Module:
        _check_latencies()
        m = Module()
        i = view(VEC, self.command.instruction)
        m.submodules.issuer = issuer = Issuer()
        m.d.comb += [issuer.start.eq(self.command.start), issuer.instruction.eq(self.command.instruction)]
        pixel = issuer.pixel
        self._flags = {name: self._chain(m, pixel[name], name) for name in ("valid", "last", "final")}
        self._flags["first"] = delayed(m, pixel.first, SUMMED - 1, "first")
        self._flags["slot"] = delayed(m, pixel.slot, FULL, "slot", reset_less=True)
        self._operands(m, pixel)
        words = [taken(m, self.read.data[number], i.fp32, name) for number, name in enumerate("abc")]
        results = self._affine(m, words, issuer), self._choose(m, words)
        self._sums(m, words)
        self._records(m, issuer)
        self._write(m, results)
        return m

    def _chain(self, m: Module, flag: Value, name: str) -> list[Signal | Value]:
        """A flag after 0 to HALF cycles. It goes on beyond CHOSEN only where it is needed: a comparison is over long before its flags
        would have passed, and the next instruction must not see them."""
        op = view(VEC, self.command.instruction).op
        early = delayed(m, flag, CHOSEN, name)
        return early + delayed(m, early[-1] & ((op == VEC_AFFINE) | (op == VEC_SUMS)), HALF - CHOSEN, f"{name}_late")[1:]

    def _operands(self, m: Module, pixel: data.View) -> None:
        """Addresses of a, b and c, and which of them are read."""
        i = view(VEC, self.command.instruction)
        compares, affine, sums = (i.op >= VEC_MAX) & (i.op < VEC_SUMS), i.op == VEC_AFFINE, i.op == VEC_SUMS
        used = (1, compares | (affine & i.use_b) | (sums & ~i.square), Mux(affine | sums, i.masked, compares & (i.op != VEC_MAX)))
        for number, (name, use) in enumerate(zip("abc", used, strict=True)):
            m.submodules[f"walk_{name}"] = walker = WordWalker()
            m.d.comb += [
                walker.load.eq(self.command.start),
                walker.origin.eq(i[f"{name}_addr"]),
                walker.pitch.eq(i[f"{name}_pitch"]),
                walker.step.eq(pixel.valid),
                walker.last.eq(pixel.last),
                self.read.en[number].eq(pixel.valid & use),
                self.read.addr[number].eq(walker.value),
            ]

    # Arithmetic -----------------------------------------------------------------------------------------------------------

    def _affine(self, m: Module, words: list[Signal], issuer: Issuer) -> tuple[Value, Value]:
        """The lanes' results as FP32 and FP16 words."""
        i = view(VEC, self.command.instruction)
        m.submodules.constants = constants = Constants()
        arrives = later(m, issuer.fetch, VECTOR_READ)
        m.d.comb += [
            constants.write.eq(arrives),
            constants.lane.eq(later(m, issuer.fetch_lane, VECTOR_READ, reset_less=True)),
            constants.slot.eq(later(m, issuer.fetch_slot, VECTOR_READ, reset_less=True)),
            constants.word.eq(self.chn_read.data),
            constants.use_b.eq(i.use_b),
            constants.use_u.eq(i.use_u),
            constants.product_slot.eq(self._flags["slot"][TAKEN + AffineLane.convert_cycle - Constants.delay]),
            constants.sum_slot.eq(self._flags["slot"][TAKEN + AffineLane.sum_cycle - Constants.delay]),
        ]
        lanes, events = [], []
        for number in range(LANES):
            wide = number < FP32_LANES
            m.submodules[f"lane_{number}"] = lane = AffineLane(wide=wide)
            m.d.comb += [lane.modes[name].eq(i[name]) for name in ("fp32", "use_b", "use_u", "masked", "relu")]
            m.d.comb += [getattr(lane, name)[:16].eq(word.word_select(number, 16)) for name, word in zip("abc", words, strict=True)]
            if wide:
                for name, word in zip("abc", words, strict=True):
                    full = word.word_select(number, 32)
                    m.d.comb += getattr(lane, name).eq(Mux(i.fp32, full, word.word_select(number, 16)))
            m.d.comb += [getattr(lane, name).eq(getattr(constants, name)[number]) for name in "stu"]
            lanes.append(lane)
            events.append(lane.saturated if wide else lane.saturated & (~i.fp32).replicate(len(lane.saturated)))
        self._events(m, events)
        return Cat(lane.o_full for lane in lanes[:FP32_LANES]), Cat(lane.o_half for lane in lanes)

    def _events(self, m: Module, events: list[Value]) -> None:
        """Whether a lane saturated on a pixel of an affine instruction."""
        i = view(VEC, self.command.instruction)
        found = []
        for number, cycle in enumerate(AffineLane.event_cycles):
            counts = self._flags["valid"][TAKEN + cycle] & (i.op == VEC_AFFINE)
            if cycle == AffineLane.half_cycle:
                counts &= ~i.fp32
            found.append(counts & Cat(event[number] for event in events).any())
        m.d.sync += self.saturated.eq(Cat(found).any())

    def _choose(self, m: Module, words: list[Signal]) -> Signal:
        """The word of MAX, EQUAL and UNEQUAL."""
        i = view(VEC, self.command.instruction)
        word = Signal(len(words[0]), name="chosen_word", reset_less=True)
        lanes = ([word.word_select(number, 16) for word in words] for number in range(LANES))
        m.d.sync += word.eq(Cat(chosen(i.op, *values) for values in lanes))
        return word

    # Sums -----------------------------------------------------------------------------------------------------------------

    def _sums(self, m: Module, words: list[Signal]) -> None:
        """The lanes' sums, captured after a channel word's last pixel and added to the records."""
        i = view(VEC, self.command.instruction)
        m.submodules.drain = self._drain = drain = SumDrain(LANES)
        sums = i.op == VEC_SUMS
        for number in range(LANES):
            m.submodules[f"sum_{number}"] = lane = SumLane()
            m.d.comb += [getattr(lane, name).eq(word.word_select(number, 16)) for name, word in zip("abc", words, strict=True)]
            m.d.comb += [
                lane.masked.eq(i.masked),
                lane.square.eq(i.square),
                lane.valid.eq(self._flags["valid"][TAKEN + SumLane.add_cycle]),
                lane.first.eq(self._flags["first"][TAKEN + SumLane.add_cycle]),
                drain.firsts.word_select(number, FIRST_BITS).eq(lane.first_sum),
                drain.seconds.word_select(number, SECOND_BITS).eq(lane.second_sum),
            ]
        m.d.comb += [
            drain.capture.eq(self._flags["last"][SUMMED] & sums),
            drain.resume.eq(i.resume),
            drain.record.eq(self.chn_read.data),
            self.chn_write.data.eq(drain.o),
        ]

    def _records(self, m: Module, issuer: Issuer) -> None:
        """Visits records: for constants when the issuer asks, for sums from FIRST_RECORD on after a channel word's last pixel."""
        i = view(VEC, self.command.instruction)
        m.submodules.records = records = RecordWalker()
        drain, sums = self._drain, i.op == VEC_SUMS
        draining, final = Signal(), Signal()
        left = Signal(range(timing.RECORD_VISITS), reset_less=True)
        with m.If(self._flags["last"][FIRST_RECORD - 1] & sums):
            m.d.sync += [draining.eq(1), left.eq(timing.RECORD_VISITS - 1), final.eq(self._flags["final"][FIRST_RECORD - 1])]
        with m.Elif(draining):
            m.d.sync += [draining.eq(left != 0), left.eq(left - 1)]
        m.d.comb += [
            records.load.eq(self.command.start),
            records.origin.eq(i.chn_addr),
            records.pitch.eq(i.chn_pitch),
            records.pairs.eq(sums),
            records.step.eq(issuer.fetch | draining),
            self.chn_read.en.eq(records.step),
            self.chn_read.addr.eq(records.value),
            drain.step.eq(later(m, draining, VECTOR_READ)),
            drain.second.eq(later(m, records.second, VECTOR_READ, reset_less=True)),
            self.chn_write.en.eq(later(m, drain.step, SumDrain.delay)),
            self.chn_write.addr.eq(later(m, records.value, VECTOR_READ + SumDrain.delay, reset_less=True)),
        ]
        self._sums_final = later(m, draining & (left == 0) & final, VECTOR_READ + SumDrain.delay)

    # Results --------------------------------------------------------------------------------------------------------------

    def _write(self, m: Module, results: tuple[tuple[Value, Value], Signal]) -> None:
        """The write port's registers, the addresses of results, the flag's word, and the instruction's end."""
        i = view(VEC, self.command.instruction)
        (full, half), compared = results
        taking, valid, last, final, finished = (Signal(name=name) for name in ("taking", "result", "last", "final", "finished"))
        place, written, bank = (data_register(m, port) for port in (self.write.addr, self.write.data, self.write.bank))
        m.submodules.walk_out = walker = WordWalker()
        affine, word = i.op == VEC_AFFINE, Signal(len(compared), name="result_word")
        for flag, name in ((valid, "valid"), (last, "last"), (final, "final")):
            taps = self._flags[name]
            exit_flag = Mux(affine, Mux(i.fp32, taps[FULL], taps[HALF]), taps[CHOSEN] & (i.op != VEC_SUMS))
            m.d.comb += flag.eq(exit_flag)
        m.d.comb += [
            taking.eq(self.command.start & (i.op == VEC_FLAG)),
            self.flag.take.eq(taking),
            word.eq(Mux(affine, Mux(i.fp32, full, half), compared)),
            walker.load.eq(self.command.start),
            walker.origin.eq(i.out_addr),
            walker.pitch.eq(i.out_pitch),
            walker.step.eq(valid),
            walker.last.eq(last),
        ]
        m.d.sync += [
            self.write.en.eq(valid | taking),
            place.eq(Mux(taking, i.out_addr, walker.value)),
            written.eq(Mux(taking, self.flag.saturated, word)),
            bank.eq(i.out_bank),
            finished.eq(final | taking),
            self.command.done.eq(finished | self._sums_final),
        ]


def _check_latencies() -> None:
    """The parts' latencies are those of the timing model, and constants are there before they are used."""
    structure = {"CHOOSE": CHOSEN - TAKEN, "SUM": SumLane.delay, "DRAIN": SumDrain.delay}
    for name, cycles in structure.items():
        if cycles != getattr(timing, name):
            raise ValueError(f"hw.spec.sat.timing.vec.{name} must be the engine's {cycles}, not {getattr(timing, name)}")
    if AffineLane.full_cycle != timing.AFFINE or AffineLane.half_cycle != timing.AFFINE + timing.FP32_TO_FP16:
        raise ValueError(f"the affine lane must take {timing.AFFINE} cycles to FP32, not {AffineLane.full_cycle}")
    # A pixel may be issued in the cycle in which its last constant is asked for, which is in its memory VECTOR_READ + 1 later.
    if TAKEN + AffineLane.convert_cycle - Constants.delay < VECTOR_READ + 1:
        raise ValueError("the first pixel's constants are read before they are there")
    # A word's slot is written again from the begin of the word SLOTS - 1 later on; words of fewer pixels than lanes take as long.
    written = (SLOTS - 1) * FP32_LANES + 1 + VECTOR_READ
    read = FP32_LANES - 1 + TAKEN + AffineLane.sum_cycle - Constants.delay
    if written <= read:
        raise ValueError(f"constants are replaced in cycle {written}, before the word's last pixel reads them in {read}")
