"""Requantise unit: sixteen 32-bit accumulators a cycle to sixteen output bytes, ``hw.spec.ops.Requant`` in five stages.

Per lane ``clip(round((acc + bias) * multiplier * 2**-shift))``; the stages are

1. the lane's record is read and ``acc + bias`` formed (33 bits),
2. two partial products with the 16-bit multiplier, of 17 and 16 bits of the sum (one DSP slice each),
3. their sum, the product (49 bits), and the part of the shift by multiples of eight,
4. the rest of the shift by -9..31 bits, saturated to 11 bits, with the half bit and whether anything was lost below it,
5. rounding, clip, low byte.

Saturating to 11 bits before rounding never shows: the clip that follows has at most 9 bits. For the same reason a left shift
may drop the saturation to 10 bits that ``shift_saturating`` names, and shifts further than 9 to the left act like 9.
"""

from __future__ import annotations

from collections.abc import Callable

from amaranth.hdl import C, Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.compare import at_least, clipped
from hw.rtl.deform.ports import ACC_BITS, RequantisePort
from hw.spec.deform import LANES
from hw.spec.deform.instructions import ROUNDING_CODES
from hw.spec.deform.latency import REQUANTISE

RECORD_BITS = 64
"""Bits of a channel's record in parameter memory: bias s32, multiplier u16, shift s8 (low 6 bits), zero."""

MAX_LEFT = 9
PRODUCT_BITS = ACC_BITS + 1 + 16
HEADROOM = MAX_LEFT + 1
"""Zeros below the product before the shift: for the largest left shift, and one more, as the lowest bit of the result is the first
lost one."""
FINE_BITS = 3
"""Bits of the amount that the second part of the shift takes."""
SHIFTED_BITS = 11
LOSABLE = 30
"""Low bits of the product that a right shift by up to 31 can lose below the half bit."""
SPLIT = 17

Record = data.StructLayout({"bias": signed(32), "multiplier": 16, "amount": 6})
"""A record as the unit keeps it: ``amount`` is the shift plus MAX_LEFT, 0..40."""


def unpack_record(record: Value) -> Value:
    """The 64 bits of a record in parameter memory as the bits of a :obj:`Record`."""
    shift = record[48:54].as_signed()
    amount = Mux(shift < -MAX_LEFT, 0, shift + MAX_LEFT)
    return Cat(record[:48], amount[:6])


class RequantiseLane(wiring.Component):
    """One lane, one value per cycle, ``latency`` cycles from operands to byte.

    Members: ``acc`` and ``record`` are taken in the same cycle; ``rounding`` (a code of ROUNDING_CODES), ``clip_lo`` and
    ``clip_hi`` (9 bits, signed) hold still; ``o`` is the byte. The lower clip wins over the upper one.
    """

    def __init__(self) -> None:
        super().__init__({
            "acc": In(signed(ACC_BITS)),
            "record": In(Record),
            "rounding": In(2),
            "clip_lo": In(signed(9)),
            "clip_hi": In(signed(9)),
            "o": Out(8),
        })

    @property
    def _stages(self) -> tuple[Callable[[dict[str, Value]], dict[str, Value]], ...]:
        """What is between registers: named values in, named values out."""
        return (self._add_bias, self._multiply, self._sum_products, self._shift, self._round_and_clip)

    @property
    def latency(self) -> int:
        return len(self._stages)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        values: dict[str, Value] = {"acc": self.acc, **{k: self.record[k] for k in ("bias", "multiplier", "amount")}}
        for number, stage in enumerate(self._stages, 1):
            values = self._registered(m, stage(values), number)
        m.d.comb += self.o.eq(values["byte"])
        return m

    @staticmethod
    def _registered(m: Module, values: dict[str, Value], number: int) -> dict[str, Value]:
        registers = {}
        for name, value in values.items():
            registers[name] = Signal(Value.cast(value).shape(), name=f"{name}_{number}", reset_less=True)
            m.d.sync += registers[name].eq(value)
        return registers

    @staticmethod
    def _add_bias(v: dict[str, Value]) -> dict[str, Value]:
        return {"total": v["acc"] + v["bias"], "multiplier": v["multiplier"], "amount": v["amount"]}

    @staticmethod
    def _multiply(v: dict[str, Value]) -> dict[str, Value]:
        low, high = v["total"][:SPLIT], v["total"][SPLIT:].as_signed()
        return {"low": low * v["multiplier"], "high": high * v["multiplier"], "amount": v["amount"]}

    @staticmethod
    def _sum_products(v: dict[str, Value]) -> dict[str, Value]:
        product = (Cat(C(0, SPLIT), v["high"]).as_signed() + v["low"])[:PRODUCT_BITS]
        coarse = Cat(C(0, HEADROOM), product).as_signed() >> Cat(C(0, FINE_BITS), v["amount"][FINE_BITS:])
        return {"coarse": coarse, "below": product[:LOSABLE], "amount": v["amount"]}

    @staticmethod
    def _shift(v: dict[str, Value]) -> dict[str, Value]:
        coarse, sign, most = v["coarse"], v["coarse"][-1], (1 << FINE_BITS) - 1
        fine, coarsely = v["amount"][:FINE_BITS], v["amount"][FINE_BITS:]
        shifted = (coarse.as_signed() >> fine)[: SHIFTED_BITS + 1]
        # A one at every place below ``fine``, made by shifting ones right.
        passed = (C((1 << most) - 1, most) >> ~fine)[:most]
        # Bits above the result must be the sign; of the lowest ones those that the shift does not bring into it.
        near, upper = coarse[SHIFTED_BITS:][:most] ^ sign.replicate(most), coarse[SHIFTED_BITS + most :]
        fits = ~(near & ~passed).any() & (upper.all() | ~upper.any())
        saturated = Cat((~sign).replicate(SHIFTED_BITS - 1), sign)
        lost = _lost_before(v["below"], coarsely) | (coarse[:most] & passed).any()
        return {"whole": Mux(fits, shifted[1:], saturated), "half": shifted[0], "lost": lost}

    def _round_and_clip(self, v: dict[str, Value]) -> dict[str, Value]:
        half_up = self.rounding == ROUNDING_CODES["RND"]
        half_even = (self.rounding == ROUNDING_CODES["RND_CONV"]) & (v["lost"] | v["whole"][0])
        rounded = v["whole"].as_signed() + Cat(v["half"] & (half_up | half_even), C(0, 1)).as_signed()
        return {"byte": clipped(rounded, self.clip_lo, self.clip_hi)[:8]}


def _lost_before(below: Value, coarsely: Value) -> Value:
    """Whether the first part of the shift, by 8 * ``coarsely``, lost a one of the product's low bits ``below``."""
    ends = [max((step << FINE_BITS) - HEADROOM, 0) for step in range((MAX_LEFT + 31 >> FINE_BITS) + 1)]
    steps = [(step, below[ends[step - 1] : ends[step]]) for step in range(1, len(ends)) if ends[step]]
    return Cat(at_least(coarsely, step) & lost.any() for step, lost in steps).any()


class RequantiseUnit(wiring.Component):
    """Sixteen lanes and ``sets`` sets of their records; one word of sixteen accumulators per cycle.

    Parameters: ``sets``, 1..4: output words whose records are kept at once (columns / 16).

    Members: ``port``, see :obj:`hw.rtl.deform.ports.RequantisePort`. A record takes part in words that are sent in a later cycle
    than its ``load_en``; words in flight keep the record with which they started. Latency REQUANTISE cycles.
    """

    def __init__(self, sets: int) -> None:
        if not 1 <= sets <= 4:
            raise ValueError(f"requantise unit must have 1..4 sets of records, not {sets}")
        self.sets = sets
        super().__init__({"port": In(RequantisePort)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        port = self.port
        # They hold still during an instruction and are used at the pipeline's end only.
        rounding, clip_lo, clip_hi = (Signal.like(value, reset_less=True) for value in (port.rounding, port.clip_lo, port.clip_hi))
        m.d.sync += [rounding.eq(port.rounding), clip_lo.eq(port.clip_lo), clip_hi.eq(port.clip_hi)]
        held = {"rounding": rounding, "clip_lo": clip_lo, "clip_hi": clip_hi}
        for pair in range(LANES // 2):
            records = self._record_pair(m, pair)
            for half in range(2):
                self._lane(m, 2 * pair + half, records[half], held)
        return m

    def _record_pair(self, m: Module, pair: int) -> data.View:
        """The records of two lanes for the addressed set; a small asynchronous memory (LUT RAM)."""
        port, layout = self.port, data.ArrayLayout(Record, 2)
        memory = Memory(shape=layout, depth=self.sets, init=[])
        m.submodules[f"records_{pair}"] = memory
        write, read = memory.write_port(), memory.read_port(domain="comb")
        m.d.comb += [
            write.en.eq(port.load_en & (port.load_index == pair)),
            write.addr.eq(port.load_set),
            Value.cast(write.data).eq(Cat(unpack_record(port.load_data.word_select(half, RECORD_BITS)) for half in range(2))),
            read.addr.eq(port.set),
        ]
        return read.data

    def _lane(self, m: Module, number: int, record: data.View, held: dict[str, Signal]) -> None:
        port = self.port
        m.submodules[f"lane_{number}"] = lane = RequantiseLane()
        if lane.latency != REQUANTISE:
            raise ValueError(f"requantise lane must have the latency REQUANTISE = {REQUANTISE}, not {lane.latency}")
        m.d.comb += [
            lane.acc.eq(port.acc[number]),
            lane.record.eq(record),
            *(getattr(lane, name).eq(value) for name, value in held.items()),
            port.o_data.word_select(number, 8).eq(lane.o),
        ]
