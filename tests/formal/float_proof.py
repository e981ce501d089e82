"""The floating-point units against what rounding means: of the numbers of a format the nearest one, of two equally near the even one.

None of these definitions rounds anything. They take the unit's result and say in integers that no other number of the format is
nearer. The accumulator's adder is cut at the registers behind its first stage: :class:`OrderProof` shows what they hold for any two
operands, :class:`SumProof` starts from any registers of that kind.
"""

from __future__ import annotations

from types import ModuleType

from amaranth.hdl import C, Cat, Module, Mux, Value

from hw.rtl.formal import Harness

LATENCY = 4
"""Of the accumulator's adder as proven; the others have the same steps, between other registers."""

SIXTEEN_BITS_MORE = 65520
"""Halfway between the largest FP16 and the power of two above it."""


def widened(m: Module, number: Value, name: str) -> Value:
    """The bits of an FP32 that equals a number with FP16's exponent and 11 bits of fraction: FP16 with one bit more."""
    fraction, field = number[:11], number[11:]
    wide = Cat(C(0, 12), fraction, C(0, 8)) | (field + 112) << 23
    for place in range(11):  # the leading one of what is below the normal numbers
        below = Cat(C(0, 23 - place), fraction[:place], C(102 + place, 8))
        wide = Mux((field == 0) & (fraction >> place == 1), below, wide)
    return Mux(number == 0, 0, wide)[:31]


class NarrowProof(Harness):
    """`Fp32ToFp16` for every finite FP32. FP32 of one sign are ordered like their bits, so "between two midpoints" is a comparison.

    Checks: ``nearest``, the operand lies between the midpoints around the result, at one of them only if the result is even;
    ``saturated``, exactly from 65520 on, and then it is the largest number; ``sign``.
    """

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def describe(self) -> None:
        dut = self._module.Fp32ToFp16()
        self.part(dut)
        i = self.any(32, "i")
        self.assume(i[23:31] != 255)
        self.m.d.comb += dut.i.eq(i)
        operand, ready = self.past(i, "operand", 2), self.since_reset(2)
        magnitude, result = operand[:31], dut.o[:15]
        above = self.named("above", widened(self.m, Cat(C(1, 1), result), "above"))
        below = self.named("below", widened(self.m, Cat(C(1, 1), (result - 1)[:15]), "below"))
        even = ~result[0]
        high_enough = (result == 0) | (magnitude > below) | ((magnitude == below) & even)
        low_enough = (magnitude < above) | ((magnitude == above) & even)
        self.check("nearest", ~ready | Mux(dut.saturated, result == 0x7BFF, high_enough & low_enough))
        bound = 142 << 23 | (SIXTEEN_BITS_MORE - (1 << 15)) << 8
        self.check("saturated", ~ready | (dut.saturated == (magnitude >= bound)))
        self.check("sign", ~ready | (dut.o[15] == operand[31]))
        self.cover("tie", ready & (magnitude == below) & (result > 0) & ~dut.saturated)
        self.cover("subnormal", ready & (result[10:] == 0) & (result[:10] == 5))
        self.cover("saturated", ready & dut.saturated)


class NormaliseProof(Harness):
    """`Fp16Normalise` for every finite FP16, as integers in units of 2**-24.

    Checks: ``value``, significand and exponent are the operand's; ``form``, the top bit is set unless it is zero; ``range``, the
    exponent is 8..47 then; ``sign``.
    """

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def describe(self) -> None:
        dut = self._module.Fp16Normalise()
        self.part(dut)
        i = self.any(16, "i")
        self.assume(i[10:15] != 31)
        self.m.d.comb += dut.i.eq(i)
        operand, ready = self.past(i, "operand"), self.since_reset(1)
        field, fraction = operand[10:15], operand[:10]
        integer = self.named("integer", Mux(field == 0, fraction, (1024 + fraction) << (field - 1)[:5])[:41])
        significand, exponent = dut.o.significand, dut.o.exponent
        value = self.named("value", (significand << (exponent - 8)[:6])[:51])
        self.check("value", ~ready | (value == integer << 10))
        self.check("form", ~ready | (significand[10] == (integer != 0)))
        self.check("range", ~ready | (integer == 0) | ((exponent >= 8) & (exponent <= 47)))
        self.check("sign", ~ready | (dut.o.sign == operand[15]))
        self.cover("smallest", ready & (integer == 1))
        self.cover("largest", ready & (exponent == 47))


class ProductProof(Harness):
    """`Fp16Product` for all normalised operands. Checks: ``value``, significand and exponent of the product; ``zero``; ``sign``."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def describe(self) -> None:
        dut = self._module.Fp16Product()
        self.part(dut)
        ready = self.since_reset(3)
        a, b = (self.any(18, name) for name in "ab")
        for operand in (a, b):
            self.assume((operand[:11] == 0) | operand[10] & (operand[11:17] >= 8) & (operand[11:17] <= 47))
        self.m.d.comb += [Value.cast(dut.a).eq(a), Value.cast(dut.b).eq(b)]
        product = self.past(a[:11] * b[:11], "product", 3)
        exponent = self.past(a[11:17] + b[11:17], "exponent", 3)
        field, significand = dut.o[23:31], Cat(dut.o[:23], C(1, 1))
        doubled = field == exponent + 64
        exact = Mux(doubled, significand << 1, significand) == product << 3
        self.check("value", ~ready | (product == 0) | ((doubled | (field == exponent + 63)) & exact))
        self.check("zero", ~ready | (product != 0) | (dut.o[:31] == 0))
        self.check("sign", ~ready | (dut.o[31] == self.past(a[17] ^ b[17], "sign", 3)))
        self.cover("doubled", ready & doubled & (product != 0))
        self.cover("zero", ready & (product == 0) & dut.o[31])


class AdderHarness(Harness):
    """The accumulator's adder with operands of its domain in every cycle; what is below 2**-48 may be anything."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def adder(self) -> dict[str, Value]:
        self.dut = self._module.MacAdder(LATENCY)
        registers = self.part(self.dut)
        self.acc, self.product = self.any(32, "acc"), self.any(32, "product")
        for operand in (self.acc, self.product):
            self.assume(Mux(operand[23:31] == 0, operand[:23] == 0, (operand[23:31] >= 79) & (operand[23:31] <= 206)))
        self.m.d.comb += [self.dut.acc.eq(self.acc), self.dut.product.eq(self.product)]
        return registers


REGISTERS = ("sign", "subtract", "exponent", "big", "small", "amount")


def ordered(v: dict[str, Value]) -> Value:
    """What the adder's first stage guarantees: leading ones unless zero, in the domain, and the smaller one no larger."""
    in_range = (v["exponent"] >= 79) & (v["exponent"] <= 206) & v["big"][-1]
    above, below = v["small"][-1] & ~v["small"][0], ~v["small"][-1] & v["small"][-2]
    fits = (v["amount"] != 0) | (v["small"][1:] <= v["big"])
    nothing = (v["exponent"] == 0) & (v["big"] == 0) & (v["small"] == 0)
    return nothing | in_range & ((v["small"] == 0) | below | above & fits)


class OrderProof(AdderHarness):
    """The first stage.

    Checks: ``larger``, the larger operand's sign, field and significand; ``distance``, the smaller significand, and how far it is to be
    moved: by ``amount`` from one place above, or by one more if it is there already; ``subtract``; ``ordered``, what
    :class:`SumProof` assumes of the registers.
    """

    def describe(self) -> None:
        registers, ready = self.adder(), self.since_reset(1)
        acc, product = self.past(self.acc, "first"), self.past(self.product, "second")
        swap = self.named("swap", product[:31] > acc[:31])
        large, small = (self.named(*pair) for pair in (("large", Mux(swap, product, acc)), ("small", Mux(swap, acc, product))))
        significands = [Cat(x[:23], x[23:31] != 0) for x in (large, small)]
        distance = self.named("distance", large[23:31] - small[23:31])
        place, amount = registers["small_1"], registers["amount_1"]
        moved = (place == significands[1] << 1) & (amount == distance) | (place == significands[1]) & (amount + 1 == distance)
        kept = (registers["exponent_1"] == large[23:31]) & (registers["big_1"] == significands[0])
        self.check("larger", ~ready | kept & (registers["sign_1"] == large[31]))
        self.check("distance", ~ready | moved)
        self.check("subtract", ~ready | (registers["subtract_1"] == acc[31] ^ product[31]))
        self.check("ordered", ~ready | ordered({name: registers[f"{name}_1"] for name in REGISTERS}))
        self.cover("swapped", ready & swap & (distance == 0))
        self.cover("far", ready & (distance == 127))


class SumProof(AdderHarness):
    """The other stages, from registers as :class:`OrderProof` leaves them.

    The sum is exact in integers of 66 bits, units of 2**-40 of the larger significand's last place, as long as nothing moves further
    than 39 places. Checks: ``nearest``, no number is nearer to it, and none as near is even; ``far``: a smaller operand that is moved
    further leaves the larger one as it was; ``zero``: the sum is +0 if it is nothing, but -0 of two -0; ``sign``: else the larger's.
    For one ``amount`` if it is given, for all otherwise.
    """

    MOST = 39

    def __init__(self, module: ModuleType, amount: int | None = None) -> None:
        super().__init__(module)
        self._amount = amount

    def describe(self) -> None:
        registers = self.adder()
        ready = self.since_reset(LATENCY)
        first = {name: registers[f"{name}_1"] for name in REGISTERS}
        self.assume(ordered(first))
        if self._amount is not None:
            self.assume(first["amount"] == self._amount)
        sign, subtract, exponent, big, small, amount = (
            self.past(value, f"past_{name}", LATENCY - 1) for name, value in first.items()
        )
        larger = self.named("larger", Cat(C(0, 40), big, C(0, 2)))
        smaller = self.named("smaller", Cat(C(0, self.MOST), small) >> amount[:6])
        exact = self.named("exact", Mux(subtract, larger - smaller, larger + smaller)[:66])
        field, significand = self.dut.o[23:31], Cat(self.dut.o[:23], self.dut.o[23:31] != 0)
        far, nothing = (amount > self.MOST) | (small == 0), exact == 0
        places = self.named("places", (field - exponent + 40)[:6])
        value, unit = self.named("value", (significand << places)[:66]), self.named("unit", (C(1, 1) << places)[:66])
        near = self._near(exact, value, unit, significand)
        self.check("nearest", ~ready | far | nothing | near & (field <= exponent + 1) & (field + 40 >= exponent))
        self.check("far", ~ready | ~far | (big == 0) | ((significand == big) & (field == exponent)))
        gone = Mux(big == 0, small == 0, nothing & ~far)
        self.check("zero", ~ready | ~gone | (self.dut.o == Cat(C(0, 31), sign & ~subtract)))
        self.check("sign", ~ready | gone | (self.dut.o[31] == sign))
        self.cover("tie", ready & ~far & (exact + (unit >> 1) == value) & ~subtract)
        self.cover("cancelled", ready & ~far & (field + (20 if not self._amount else 1) == exponent))

    @staticmethod
    def _near(exact: Value, value: Value, unit: Value, significand: Value) -> Value:
        """Within half a unit; below a power of two, where numbers are twice as dense, within a quarter; at a tie, even."""
        up = value >= exact
        off = Mux(up, value - exact, exact - value)[:67]
        dense = up & (significand == 1 << 23)
        twice = Mux(dense, off << 2, off << 1)
        return (twice < unit) | ((twice == unit) & ~significand[0])
