"""The requantise lane against its definition in ``hw.spec.ops``, for all accumulators, records, roundings and clips.

The product is where a solver gives up, so the lane is cut at its own registers ``low_2`` and ``high_2``: :class:`FrontProof` shows
that they hold two exact partial products, :func:`product_lemma` over the integers that their sum is the product;
:class:`TailProof` starts from any two partial products. :class:`WholeProof` needs no cut, for multipliers below a power of two, nor
does :class:`AdderProof`, for the multiplier 1 without a shift.
"""

from __future__ import annotations

from types import ModuleType

import z3
from amaranth.hdl import C, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.requantise import MAX_LEFT, PRODUCT_BITS, RECORD_BITS, SPLIT
from hw.rtl.deform.ports import ACC_BITS
from hw.rtl.formal import Harness
from hw.spec.deform.instructions import ROUNDING_CODES

LATENCY = 5


def product_lemma() -> bool:
    """The two partial products are the product, over all integers."""
    low, high, multiplier = z3.Ints("low high multiplier")
    whole, parts = (high * 2**SPLIT + low) * multiplier, high * multiplier * 2**SPLIT + low * multiplier
    return z3.is_int_value(difference := z3.simplify(whole - parts, som=True)) and difference.as_long() == 0


class Definition(wiring.Component):
    """``clip(shift_saturating(product, shift, rounding), lo, hi)`` in plain wide arithmetic, combinational; ``o`` has 9 bits."""

    def __init__(self) -> None:
        super().__init__(
            {
                "product": In(signed(PRODUCT_BITS)),
                "shift": In(signed(6)),
                "rounding": In(2),
                "lo": In(signed(9)),
                "hi": In(signed(9)),
                "o": Out(signed(9)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        right = self._right(m, self.shift[:5])
        ten_bits = Signal(signed(10))
        m.d.comb += ten_bits.eq(Mux(self.product < -512, -512, Mux(self.product > 511, 511, self.product)))
        left = ten_bits << Mux(self.shift < -9, 9, (-self.shift)[:4])
        result = Signal(signed(PRODUCT_BITS + 1))
        m.d.comb += result.eq(Mux(self.shift < 0, left, right))
        m.d.comb += self.o.eq(Mux(result < self.lo, self.lo, Mux(result > self.hi, self.hi, result)))
        return m

    def _right(self, m: Module, amount: Value) -> Value:
        """``product / 2**amount``, rounded: the floor, and one more where the rest says so."""
        floor, rest, half = Signal(signed(PRODUCT_BITS)), Signal(31), Signal(31)
        m.d.comb += [
            floor.eq(self.product >> amount),
            rest.eq(self.product & ((C(1, 32) << amount) - 1)),
            half.eq((C(1, 32) << amount)[1:]),
        ]
        nearest_up = (amount != 0) & (rest >= half)
        nearest_even = (amount != 0) & ((rest > half) | ((rest == half) & floor[0]))
        code = self.rounding
        return floor + Mux(code == ROUNDING_CODES["RND"], nearest_up, (code == ROUNDING_CODES["RND_CONV"]) & nearest_even)


class LaneHarness(Harness):
    """The lane with arbitrary operands in every cycle, and rounding and clips that hold still."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def lane(self) -> dict[str, Signal]:
        m = self.m
        self.dut = dut = self._module.RequantiseLane()
        registers = self.part(dut)
        self.acc, self.word = self.any(signed(ACC_BITS), "acc"), self.any(RECORD_BITS, "record")
        self.rounding = self.constant(2, "rounding")
        self.lo, self.hi = self.constant(signed(9), "lo"), self.constant(signed(9), "hi")
        self.assume((self.rounding < len(ROUNDING_CODES)) & (self.lo <= self.hi))
        m.d.comb += [
            dut.acc.eq(self.acc), Value.cast(dut.record).eq(self._module.unpack_record(self.word)),
            dut.rounding.eq(self.rounding), dut.clip_lo.eq(self.lo), dut.clip_hi.eq(self.hi),
        ]  # fmt: skip
        self.bias, self.multiplier, self.shift = self.word[:32].as_signed(), self.word[32:48], self.word[48:54].as_signed()
        return registers

    def defined(self, product: Value, shift: Value) -> Signal:
        self.m.submodules.definition = definition = Definition()
        self.m.d.comb += [
            definition.product.eq(product), definition.shift.eq(shift), definition.rounding.eq(self.rounding),
            definition.lo.eq(self.lo), definition.hi.eq(self.hi),
        ]  # fmt: skip
        return definition.o

    def cover_roundings(self, ready: Value) -> None:
        for name, code in ROUNDING_CODES.items():
            self.cover(
                f"inside_{name}", ready & (self.rounding == code) & (self.dut.o == self.lo[:8] + 1) & (self.hi > self.lo + 2)
            )


class FrontProof(LaneHarness):
    """The first two stages. Checks: ``total`` (acc + bias without overflow) and ``multiplier``, of the cycle before; ``halves``,
    the two parts of the total are it;
    ``low`` and ``high``, the registers are their products; ``amount``, the shift of two cycles ago, bounded.
    """

    def describe(self) -> None:
        registers, ready = self.lane(), self.since_reset(2)
        total, multiplier = registers["total_1"].as_signed(), registers["multiplier_1"]
        low, high = total[:SPLIT], total[SPLIT:].as_signed()
        one_later = ~self.since_reset(1)
        self.check("total", one_later | (total == self.past(self.acc + self.bias, "sum").as_signed()))
        self.check("multiplier", one_later | (multiplier == self.past(self.multiplier, "k")))
        self.check("halves", (high << SPLIT) + low == total)
        self.check("low", ~ready | (registers["low_2"] == self.past(low * multiplier, "low_exact")))
        self.check("high", ~ready | (registers["high_2"].as_signed() == self.past(high * multiplier, "high_exact").as_signed()))
        amount = self.past(Mux(self.shift < -MAX_LEFT, 0, self.shift + MAX_LEFT)[:6], "amount", 2)
        self.check("amount", ~ready | (registers["amount_2"] == amount))
        self.cover("negative", ready & (registers["high_2"].as_signed() < -(1 << 30)))


class TailProof(LaneHarness):
    """The last three stages, from any two partial products. Check ``byte``: the definition's byte, three cycles later.

    The register's bounded amount stands for the shift, in its range -9..31; FrontProof's check ``amount`` allows that. The lower
    product is below 2**33 and its 16-bit factor times 2**17 bounds the whole to 49 bits, which FrontProof's ``total`` gives.
    """

    def describe(self) -> None:
        registers, ready = self.lane(), self.since_reset(LATENCY)
        product = self.named("product", (registers["high_2"].as_signed() << SPLIT) + registers["low_2"])
        self.assume((registers["amount_2"] <= 31 + MAX_LEFT) & (product == product[:PRODUCT_BITS].as_signed()))
        shift = self.past((registers["amount_2"] - MAX_LEFT)[:6], "shift", 3).as_signed()
        defined = self.defined(self.past(product[:PRODUCT_BITS], "product", 3).as_signed(), shift)
        self.check("byte", ~ready | (self.dut.o == defined[:8]))
        self.cover_roundings(ready)


class ClipProof(LaneHarness):
    """The last stage alone. Check ``byte``: any whole part, half bit and rest, rounded and clipped."""

    def describe(self) -> None:
        registers, ready = self.lane(), self.since_reset(1)
        whole, half, lost = (self.past(registers[name], name) for name in ("whole_4", "half_4", "lost_4"))
        tie_up = (self.rounding == 1) | ((self.rounding == 2) & (lost | whole[0]))
        rounded = self.named("rounded", whole.as_signed() + (half & tie_up & (self.rounding != 0)))
        clipped = Mux(rounded < self.lo, self.lo, Mux(rounded > self.hi, self.hi, rounded))
        self.check("byte", ~ready | (self.dut.o == clipped[:8]))
        self.cover("below", ready & (rounded < self.lo))
        self.cover("above", ready & (rounded > self.hi))
        self.cover_roundings(ready)


class AdderProof(LaneHarness):
    """The lane as the saturating adder of residual sums: multiplier 1, shift 0, so that no bit is lost and every rounding is the same.

    Check ``sum``, for any two 32-bit numbers: the byte of their sum, or of the bound beyond which it lies.
    """

    def describe(self) -> None:
        self.lane()
        self.assume((self.multiplier == 1) & (self.shift == 0))
        total = self.past(self.acc + self.bias, "total", LATENCY).as_signed()
        wanted = Mux(total < self.lo, self.lo, Mux(total > self.hi, self.hi, total))
        ready = self.since_reset(LATENCY)
        self.check("sum", ~ready | (self.dut.o == wanted[:8]))
        self.cover("above", ready & (total > self.hi))
        self.cover("below", ready & (total < self.lo))
        self.cover("inside", ready & (total == self.lo + 1) & (total < self.hi))


class WholeProof(LaneHarness):
    """The lane without a cut, for multipliers below ``2**multiplier_bits``. Check ``byte``."""

    def __init__(self, module: ModuleType, multiplier_bits: int) -> None:
        super().__init__(module)
        self._bits = multiplier_bits

    def describe(self) -> None:
        self.lane()
        self.assume(self.multiplier < 1 << self._bits)
        product = self.past((self.acc + self.bias) * self.multiplier[: self._bits], "product", LATENCY).as_signed()
        shift = self.past(self.shift, "shift", LATENCY).as_signed()
        ready = self.since_reset(LATENCY)
        self.check("byte", ~ready | (self.dut.o == self.defined(product, shift)[:8]))
        self.cover_roundings(ready)
