"""What the floating-point units are made of: formats, shifts that keep track of what they lose, rounding, and pipelines.

Functions of values are plain logic, without registers. A significand is an integer whose top bit, where it is one, has the
weight that the (biased) exponent field beside it names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from amaranth.hdl import C, Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from hw.rtl.arith.compare import at_least

Values = dict[str, Value]
Step = Callable[[Values], Values]

FRACTION = 23
SIGNIFICAND = 24
BIAS = 127
LARGEST = 0x7F7F_FFFF
"""The bits of the largest finite FP32 without its sign."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """An FP32 number's fields: ``field`` is the exponent as stored, ``exponent`` the same but 1 for a subnormal, ``significand`` has 24
    bits."""

    sign: Value
    field: Value
    fraction: Value

    @property
    def normal(self) -> Value:
        return self.field.any()

    @property
    def exponent(self) -> Value:
        return Cat(self.field[0] | ~self.normal, self.field[1:])

    @property
    def significand(self) -> Value:
        return Cat(self.fraction, self.normal)


def unpack(bits: Value) -> Parts:
    """The fields of 32 bits."""
    return Parts(sign=bits[31], field=bits[FRACTION:31], fraction=bits[:FRACTION])


def leading_zeros(value: Value) -> Value:
    """How many zeros are above the topmost one; all ones for 0. As many bits as the width, rounded up to a power of two, needs."""
    width = 1 << (len(value) - 1).bit_length()
    return _zeros_above(Cat(C(0, width - len(value)), value))[0]


def _zeros_above(value: Value) -> tuple[Value, Value]:
    """The count, and whether there is a one at all: a tree of halves."""
    if len(value) == 2:
        return ~value[1], value.any()
    low, high = (_zeros_above(half) for half in (value[: len(value) // 2], value[len(value) // 2 :]))
    return Cat(Mux(high[1], high[0], low[0]), ~high[1]), high[1] | low[1]


def _digits(amount: Value) -> list[tuple[int, Value]]:
    """The amount two bits at a time, from the top: (weight, digit). A look-up table of six inputs is a shift by one digit."""
    places = range((len(amount) - 1) // 2 * 2, -1, -2)
    return [(1 << place, amount[place : place + 2]) for place in places]


def _chosen(digit: Value, choices: Sequence[Value]) -> Value:
    """The choice of that number: two or four."""
    if len(digit) == 1:
        return Mux(digit, choices[1], choices[0])
    return Mux(digit[1], Mux(digit[0], choices[3], choices[2]), Mux(digit[0], choices[1], choices[0]))


def shifted_left(value: Value, amount: Value) -> Value:
    """``value << amount`` in the width of ``value``."""
    width = len(value)
    for weight, digit in _digits(amount):
        steps = [min(number * weight, width) for number in range(1 << len(digit))]
        value = _chosen(digit, [Cat(C(0, step), value[: width - step]) for step in steps])
    return value


def shifted_right(value: Value, amount: Value) -> tuple[Value, Value]:
    """``value >> amount``, and whether a one was lost."""
    width, lost = len(value), C(0, 1)
    for weight, digit in _digits(amount):
        steps = [min(number * weight, width) for number in range(1 << len(digit))]
        lost = lost | _chosen(digit, [value[:step].any() for step in steps])
        value = _chosen(digit, [Cat(value[step:], C(0, step)) for step in steps])
    return value, lost


def distance_to_normal(exponent: Value) -> tuple[Value, Value]:
    """Whether an exponent (signed, -1022 at least) is below 1, the smallest field of a normal number, and by how much, 31 at most."""
    under = exponent < 1
    distance = (1 - exponent)[:10]
    return under, Mux(under, Mux(distance[5:].any(), 31, distance[:5]), 0)


def denormalised(value: Value, exponent: Value) -> tuple[Value, Value, Value]:
    """Moves a significand to the place where its exponent is in range: the value, its field (as wide as ``exponent``), and whether a
    one was lost.

    ``value``: at most 31 bits, the top one set unless it is 0; ``exponent``: signed, its field were that unbounded, -1022 at least.
    Below 1 the value moves right, and its field is 0, as is that of 0.
    """
    under, distance = distance_to_normal(exponent)
    shifted, lost = shifted_right(value, distance)
    return shifted, Mux(under | ~value[-1], 0, exponent)[: len(exponent)], lost


def nearest(field: Value, kept: Value, half: Value, lost: Value, top: Value | None = None) -> Value:
    """Field and fraction, rounded to nearest even: a number of 23 bits and the field, and one more for the carry.

    ``kept``: the 23 bits of the fraction; ``half`` the first bit below, ``lost`` whether there is a one below that. A carry out of the
    fraction goes on into the field, which also makes the smallest normal number of the largest subnormal one. ``top``: the bit above
    the fraction, if it is to be added to the field too.
    """
    up = half & (lost | kept[0])
    # One chain of carries: a one below everything, so that `up` comes in as a carry.
    return (Cat(C(1, 1), kept, field) + Cat(up, C(0, FRACTION), C(0, 1) if top is None else top))[1:]


def saturated(sign: Value, magnitude: Value) -> tuple[Value, Value]:
    """What `nearest` gave as 32 bits, the largest number where it is beyond; and whether it is."""
    over = at_least(magnitude[FRACTION:], 255)
    return Cat(Mux(over, LARGEST, magnitude[:31]), sign), over


def rounded(sign: Value, field: Value, kept: Value, half: Value, lost: Value) -> tuple[Value, Value]:
    """Rounds and packs, see `nearest` and `saturated`. ``field``: 0..255 and above."""
    return saturated(sign, nearest(field, kept, half, lost))


def register(m: Module, values: Values, number: int) -> Values:
    """Each value one register later, without reset, under its name and the number of the stage."""
    registers: Values = {}
    for name, value in values.items():
        registers[name] = signal = Signal(Value.cast(value).shape(), name=f"{name}_{number}", reset_less=True)
        m.d.sync += signal.eq(value)
    return registers


def combined(m: Module, values: Values, steps: Sequence[Step]) -> Values:
    """Steps in a row without registers. Each value gets a wire of its own, so that it is built once however often it is used."""
    for step in steps:
        wires: Values = {}
        for name, value in step(values).items():
            wires[name] = wire = Signal(Value.cast(value).shape(), name=f"{step.__name__.strip('_')}_{name}")
            m.d.comb += wire.eq(value)
        values = wires
    return values


def pipeline(m: Module, values: Values, stages: Sequence[Sequence[Step]]) -> Values:
    """Stages in a row, with registers behind each: what the last one gives, ``len(stages)`` cycles later."""
    for number, steps in enumerate(stages, 1):
        values = register(m, combined(m, values, steps), number)
    return values


def check_latency(unit: object, found: int, wanted: int) -> None:
    """Raises ValueError where a unit is not as long as the timing model says."""
    if found != wanted:
        raise ValueError(f"{type(unit).__name__} must have the latency {wanted} of hw.spec.sat.latency, not {found}")


class PipelinedUnit(wiring.Component):
    """A unit that is a row of ``stages``: one set of inputs per cycle, and the outputs, which the last stage gives, ``latency`` later.

    A subclass has its ports as members, and the two as attributes.
    """

    latency: int
    stages: Sequence[Sequence[Step]]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        check_latency(self, len(self.stages), self.latency)
        inputs = {name: getattr(self, name) for name, member in self.signature.members.items() if member.flow is In}
        for name, value in pipeline(m, inputs, self.stages).items():
            m.d.comb += getattr(self, name).eq(value)
        return m
