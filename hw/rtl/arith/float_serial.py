"""Floating-point units that take one operation at a time: ``start``, and a fixed number of cycles later ``done``."""

from amaranth.hdl import C, Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.float_parts import (
    BIAS,
    FRACTION,
    SIGNIFICAND,
    Values,
    check_latency,
    combined,
    denormalised,
    leading_zeros,
    register,
    rounded,
    shifted_left,
    unpack,
)
from hw.spec.sat.latency import FP32_DIVIDE, FP32_SQRT, INT_TO_FP32

FIRST_BIT = 1
"""The cycle after ``start`` in which a quotient's or root's first bit is found, which is always one; each later cycle finds another."""

LAST_BIT = FIRST_BIT + SIGNIFICAND
"""The cycle in which the bit below the significand is found, the one to round with; the rest only tells whether the result is exact."""


def counted(m: Module, start: Value, done: Value, cycles: int) -> Signal:
    """How many cycles ago ``start`` was, 0 where nothing is under way; raises ``done`` for one cycle after ``cycles`` of them."""
    count, finished = Signal(range(cycles)), Signal()
    m.d.sync += finished.eq(count == cycles - 1)
    m.d.comb += done.eq(finished)
    with m.If(start):
        m.d.sync += count.eq(1)
    with m.Elif(count != 0):
        m.d.sync += count.eq(Mux(count == cycles - 1, 0, count + 1))
    return count


def held(m: Module, en: Value, values: dict[str, tuple[Value, Value]]) -> None:
    """Outputs that take a new value where ``en`` is high and keep it: (output, value) by name. Without reset."""
    for name, (output, value) in values.items():
        kept = Signal.like(Value.cast(value), name=f"kept_{name}", reset_less=True)
        m.d.comb += output.eq(kept)
        with m.If(en):
            m.d.sync += kept.eq(value)


def repeated(m: Module, first: Value, initial: Values, again: Values, names: dict[str, Signal]) -> None:
    """Registers without reset that take ``initial`` in the cycle ``first`` and ``again`` in every other one."""
    for name, signal in names.items():
        m.d.sync += signal.eq(Mux(first, initial[name], again[name]))


class Fp32Divide(wiring.Component):
    """``o = hw.spec.floats.fp32_div(a, b)``, one bit of the quotient per cycle.

    Members
    -------
    start, a, b : operands are taken in the cycle of ``start``; the next one may come with ``done`` at the earliest
    done : one cycle, ``latency`` cycles after ``start``
    o, saturated : from ``done`` to the next one

    Tested over all finite numbers, zero divisors included.
    """

    start: In(1)
    a: In(32)
    b: In(32)
    done: Out(1)
    o: Out(32)
    saturated: Out(1)

    latency = FP32_DIVIDE

    def elaborate(self, platform: object) -> Module:
        m = Module()
        check_latency(self, LAST_BIT + 3, self.latency)
        count = counted(m, self.start, self.done, self.latency)
        unpacked = register(m, combined(m, {"a": self.a, "b": self.b}, [self._unpack]), 1)
        first = combined(m, unpacked, [self._first])
        work = {name: Signal(len(first[name]), name=f"work_{name}", reset_less=True) for name in ("rest", "divisor", "quotient")}
        exponent = Signal(signed(10), name="work_exponent", reset_less=True)
        flags = Signal(3, name="work_flags", reset_less=True)
        repeated(m, count == FIRST_BIT, first, combined(m, work, [self._next]), work)
        with m.If(count == FIRST_BIT):
            m.d.sync += [exponent.eq(first["exponent"]), flags.eq(Cat(unpacked[name] for name in ("sign", "nothing", "endless")))]
        settled = register(m, combined(m, {**work, "exponent": exponent, "flags": flags}, [self._align]), LAST_BIT + 1)
        result = combined(m, settled, [self._round])
        held(m, count == self.latency - 1, {"o": (self.o, result["o"]), "saturated": (self.saturated, result["saturated"])})
        return m

    @staticmethod
    def _unpack(v: Values) -> Values:
        a, b = unpack(v["a"]), unpack(v["b"])
        nothing, by_nothing = ~v["a"][:31].any(), ~v["b"][:31].any()
        return {
            "x": a.significand, "x_zeros": leading_zeros(a.significand),
            "y": b.significand, "y_zeros": leading_zeros(b.significand),
            "exponent": a.exponent - b.exponent + BIAS,
            "sign": (a.sign ^ b.sign) & ~(nothing & by_nothing), "nothing": nothing, "endless": by_nothing & ~nothing,
        }  # fmt: skip

    @staticmethod
    def _first(v: Values) -> Values:
        """Both leading ones to the top; where the quotient is below one it is doubled, so that its first bit is a one."""
        x, y = shifted_left(v["x"], v["x_zeros"]), shifted_left(v["y"], v["y_zeros"])
        once, twice = x - y, Cat(C(0, 1), x) - y
        below = once[-1]
        rest = Mux(below, twice[:SIGNIFICAND], once[:SIGNIFICAND])
        exponent = v["exponent"] - v["x_zeros"] + v["y_zeros"] - below
        return {"rest": Cat(C(0, 1), rest), "divisor": y, "quotient": C(1, SIGNIFICAND + 1), "exponent": exponent}

    @staticmethod
    def _next(v: Values) -> Values:
        """``rest`` is twice what is left, and below twice the divisor."""
        trial = v["rest"] - v["divisor"]
        fits = ~trial[-1]
        rest = Mux(fits, trial[:SIGNIFICAND], v["rest"][:SIGNIFICAND])
        return {"rest": Cat(C(0, 1), rest), "divisor": v["divisor"], "quotient": Cat(fits, v["quotient"][:-1])}

    @staticmethod
    def _align(v: Values) -> Values:
        sign, nothing, endless = v["flags"]
        value, field, lost = denormalised(v["quotient"], v["exponent"])
        return {
            "value": value & (~nothing).replicate(len(value)),
            "field": Mux(endless, 255, Mux(nothing, 0, field))[:9],
            "lost": (lost | v["rest"].any()) & ~nothing,
            "sign": sign,
        }

    @staticmethod
    def _round(v: Values) -> Values:
        o, saturated = rounded(v["sign"], v["field"], v["value"][1 : 1 + FRACTION], v["value"][0], v["lost"])
        return {"o": o, "saturated": saturated}


class Fp32Sqrt(wiring.Component):
    """``o = hw.spec.floats.fp32_sqrt(a)``, one bit of the root per cycle.

    Members
    -------
    start, a : the operand is taken in the cycle of ``start``; the next one may come with ``done`` at the earliest
    done : one cycle, ``latency`` cycles after ``start``
    o : from ``done`` to the next one

    Tested over all finite numbers, negative ones included.
    """

    start: In(1)
    a: In(32)
    done: Out(1)
    o: Out(32)

    latency = FP32_SQRT

    def elaborate(self, platform: object) -> Module:
        m = Module()
        check_latency(self, LAST_BIT + 2, self.latency)
        count = counted(m, self.start, self.done, self.latency)
        unpacked = register(m, combined(m, {"a": self.a}, [self._unpack]), 1)
        first = combined(m, unpacked, [self._first])
        work = {name: Signal(len(first[name]), name=f"work_{name}", reset_less=True) for name in ("rest", "radicand", "root")}
        kept = {name: Signal.like(first[name], name=f"work_{name}", reset_less=True) for name in ("field", "sign", "zero")}
        repeated(m, count == FIRST_BIT, first, combined(m, work, [self._next]), work)
        with m.If(count == FIRST_BIT):
            m.d.sync += [signal.eq(first[name]) for name, signal in kept.items()]
        result = combined(m, {**work, **kept}, [self._round])
        held(m, count == self.latency - 1, {"o": (self.o, result["o"])})
        return m

    @staticmethod
    def _unpack(v: Values) -> Values:
        a = unpack(v["a"])
        return {"x": a.significand, "zeros": leading_zeros(a.significand), "exponent": a.exponent, "sign": a.sign,
                "zero": ~v["a"][:31].any()}  # fmt: skip

    @staticmethod
    def _first(v: Values) -> Values:
        """The radicand is the significand, doubled if that makes its exponent even; its top two bits, less the root's first one."""
        x = shifted_left(v["x"], v["zeros"])
        exponent = v["exponent"] - v["zeros"] + BIAS
        radicand = Mux(exponent[0], Cat(C(0, 1), x), x)
        return {
            "rest": Cat(radicand[-2:] - 1, C(0, SIGNIFICAND + 2))[: SIGNIFICAND + 2],
            "radicand": radicand[:-2],
            "root": C(1, SIGNIFICAND + 1),
            "field": exponent[1:9],
            "sign": v["sign"] & v["zero"],
            "zero": v["zero"] | v["sign"],
        }

    @staticmethod
    def _next(v: Values) -> Values:
        """With a further bit the square grows by 4 * root + 1, in units of the next two bits of the radicand."""
        shifted = Cat(v["radicand"][-2:], v["rest"])
        trial = shifted - Cat(C(1, 2), v["root"])
        fits = ~trial[-1]
        return {
            "rest": Mux(fits, trial, shifted)[: SIGNIFICAND + 2],
            "radicand": Cat(C(0, 2), v["radicand"][:-2]),
            "root": Cat(fits, v["root"][:-1]),
        }

    @staticmethod
    def _round(v: Values) -> Values:
        """A root is never subnormal and never too large; a carry out of its fraction goes on into the exponent."""
        root, valid = v["root"], ~v["zero"]
        up = root[0] & (root[1] | v["rest"].any())
        magnitude = (Cat(root[1 : 1 + FRACTION], v["field"]) + up)[:31]
        return {"o": Cat(magnitude & valid.replicate(31), v["sign"])}


class IntToFp32(wiring.Component):
    """``o = hw.spec.floats.fp32_from_int(value, exponent)``, normalised sixteen places a cycle, then up to fifteen at once.

    Members
    -------
    start, value, exponent : taken in the cycle of ``start``; the next one may come with ``done`` at the earliest
    done : one cycle, ``latency`` cycles after ``start``
    o, saturated : from ``done`` to the next one

    Tested over all exponents, and over integers of every length.
    """

    start: In(1)
    value: In(signed(128))
    exponent: In(signed(10))
    done: Out(1)
    o: Out(32)
    saturated: Out(1)

    latency = INT_TO_FP32

    STEP = 16
    STEPS = 128 // STEP - 1
    KEPT = SIGNIFICAND + 2
    """Bits that are rounded from; what lies beneath counts only as lost."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        check_latency(self, self.STEPS + 5, self.latency)
        count = counted(m, self.start, self.done, self.latency)
        work = Signal(128, name="work_value", reset_less=True)
        exponent = Signal(signed(11), name="work_exponent", reset_less=True)
        sign = Signal(name="work_sign", reset_less=True)
        with m.If(self.start):
            # The exponent field of bit 127.
            m.d.sync += [work.eq(self.value), sign.eq(self.value[-1]), exponent.eq(self.exponent + (127 + BIAS))]
        with m.Elif(count == 1):
            m.d.sync += work.eq((work ^ sign.replicate(128)) + sign)
        with m.Elif((count <= 1 + self.STEPS) & ~work[-self.STEP :].any()):
            m.d.sync += [work.eq(work << self.STEP), exponent.eq(exponent - self.STEP)]
        values: Values = {"work": work, "exponent": exponent, "sign": sign}
        for number, step in enumerate((self._normalise, self._align), 2 + self.STEPS):
            values = register(m, combined(m, values, [step]), number)
        result = combined(m, values, [self._round])
        held(m, count == self.latency - 1, {"o": (self.o, result["o"]), "saturated": (self.saturated, result["saturated"])})
        return m

    @classmethod
    def _normalise(cls, v: Values) -> Values:
        """The leading one, which is among the uppermost STEP bits, to the top."""
        window = cls.KEPT + cls.STEP - 1
        zeros = leading_zeros(v["work"][-cls.STEP :])
        moved = shifted_left(v["work"][-window:], zeros)
        lost = moved[: -cls.KEPT].any() | v["work"][:-window].any()
        return {"sign": v["sign"], "value": moved[-cls.KEPT :], "lost": lost, "exponent": (v["exponent"] - zeros)[:11].as_signed()}

    @staticmethod
    def _align(v: Values) -> Values:
        value, field, lost = denormalised(v["value"], v["exponent"])
        return {"sign": v["sign"], "value": value, "field": field[:10], "lost": lost | v["lost"]}

    @staticmethod
    def _round(v: Values) -> Values:
        value = v["value"]
        o, saturated = rounded(v["sign"], v["field"], value[2 : 2 + FRACTION], value[1], value[0] | v["lost"])
        return {"o": o, "saturated": saturated}
