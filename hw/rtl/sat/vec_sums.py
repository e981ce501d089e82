"""Exact sums over pixels: of values in units of 2**-24, of products in units of 2**-48, as integers."""

from amaranth.hdl import C, Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.delay import later
from hw.rtl.sat.vec_ports import WORD_BITS
from hw.spec.sat.channel import FIRST_BITS, SECOND_BITS

SIGNIFICAND = 11
FIELD = 5
VALUE_BITS = 40
"""Magnitude of a value in its unit, below 2**40; a product's has twice as many bits, as has its significand."""

FINE = 3, 4
"""Bits of the shift that a value, a product moves last."""


def _number(bits: Value) -> tuple[Value, Value, Value]:
    """Sign, significand and how far it lies above the unit, of a finite FP16."""
    field = bits[10:15]
    normal = field.any()
    return bits[15], Cat(bits[:10], normal), (field - normal)[:FIELD]


class SumLane(wiring.Component):
    """One lane's two sums; a pixel per cycle.

    Members
    -------
    a, b, c : finite FP16
    masked, square : see the instruction
    valid, first : ``add_cycle`` cycles after a, b, c: the pixel counts; it is the first
    first_sum, second_sum : sums up to the pixel, ``delay`` cycles after its a, b, c; they hold while no pixel is valid
    """

    a: In(16)
    b: In(16)
    c: In(16)
    masked: In(1)
    square: In(1)
    valid: In(1)
    first: In(1)
    first_sum: Out(FIRST_BITS)
    second_sum: Out(SECOND_BITS)

    add_cycle = 4
    delay = add_cycle + 1

    def elaborate(self, platform: object) -> Module:
        m = Module()
        counts = ~self.masked | (~self.c[15] & self.c[:15].any())
        a = Signal(16)
        m.d.comb += a.eq(self.a & counts.replicate(16))
        sign, x, shift = self._registers(m, "a", _number(a))
        other_sign, y, other_shift = self._registers(m, "b", _number(Mux(self.square, a, self.b)))
        product = self._registers(m, "product", (sign ^ other_sign, x * y, shift + other_shift))
        value = self._registers(m, "value", (sign, x, shift))
        self._sum(m, "first", value, self.first_sum, FINE[0])
        self._sum(m, "second", product, self.second_sum, FINE[1])
        return m

    def _registers(self, m: Module, name: str, values: tuple[Value, ...]) -> list[Signal]:
        registers = []
        for number, value in enumerate(values):
            register = Signal(len(value), name=f"{name}_{number}", reset_less=True)
            m.d.sync += register.eq(value)
            registers.append(register)
        return registers

    def _sum(self, m: Module, name: str, parts: list[Signal], total: Value, fine: int) -> None:
        """Moves a magnitude in two steps, gives it its sign, and adds it."""
        sign, magnitude, shift = parts
        most = (1 << len(shift)) - (1 << fine)
        coarse = (magnitude << Cat(C(0, fine), shift[fine:]))[: len(magnitude) + most]
        sign, coarse, rest = self._registers(m, f"{name}_coarse", (sign, coarse, shift[:fine]))
        moved = (coarse << rest)[: VALUE_BITS * len(magnitude) // SIGNIFICAND]
        sign, addend = self._registers(m, f"{name}_moved", (sign, moved ^ sign.replicate(len(moved))))
        result = Signal(len(total), name=f"{name}_total", reset_less=True)
        extended = Cat(addend, sign.replicate(len(total) - len(addend)))
        with m.If(self.valid):
            m.d.sync += result.eq(Mux(self.first, 0, result) + extended + sign)
        m.d.comb += total.eq(result)


class SumDrain(wiring.Component):
    """Adds a channel word's sums to those of the records: lane by lane, first and second sum in turn.

    Members
    -------
    capture, firsts, seconds : the sums of all lanes, to be kept from the next cycle on
    step, second : a record's word is in ``record`` in this cycle; it is the second sum's. They begin with lane 0 in the cycle after
        ``capture``, one per cycle, and the last one may come with the next ``capture``
    resume, record : the word that the sum is added to
    o : the word to be written, ``delay`` cycles after its step
    """

    delay = 2

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes
        super().__init__({
            "capture": In(1),
            "firsts": In(FIRST_BITS * lanes),
            "seconds": In(SECOND_BITS * lanes),
            "step": In(1),
            "second": In(1),
            "resume": In(1),
            "record": In(WORD_BITS),
            "o": Out(WORD_BITS),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        firsts, seconds = (Signal(port.shape(), name=name, reset_less=True) for name, port in self._captured())
        with m.If(self.capture):
            m.d.sync += [firsts.eq(self.firsts), seconds.eq(self.seconds)]
        with m.Elif(self.step & self.second):
            m.d.sync += [firsts.eq(firsts[FIRST_BITS:]), seconds.eq(seconds[SECOND_BITS:])]
        added, before, total = Signal(SECOND_BITS), Signal(SECOND_BITS), Signal(SECOND_BITS, reset_less=True)
        m.d.comb += [
            added.eq(Mux(self.second, seconds[:SECOND_BITS], firsts[:FIRST_BITS])),
            before.eq(self.record[:SECOND_BITS] & self.resume.replicate(SECOND_BITS)),
        ]
        m.d.sync += total.eq(added + before)
        second = later(m, self.second, 1, reset_less=True)
        word = Mux(second, total.as_signed(), total[:FIRST_BITS].as_signed())
        written = Signal(WORD_BITS, reset_less=True)
        m.d.sync += written.eq(word)
        m.d.comb += self.o.eq(written)
        return m

    def _captured(self) -> tuple[tuple[str, Signal], ...]:
        return ("kept_firsts", self.firsts), ("kept_seconds", self.seconds)
