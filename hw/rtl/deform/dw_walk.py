"""Walkers: positions of nested loops by additions alone, one step per cycle, for the depthwise engine's addresses."""

from amaranth.hdl import Array, Module, Shape, Signal
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.compare import at_least
from hw.rtl.arith.delay import data_register
from hw.spec.deform import ROW_BANKS


class Walk(enum.Enum, shape=3):
    """How a :class:`Walker` reaches its next value."""

    HOLD = 0
    RESTART = 1
    OUTER = 2
    RETURN = 3
    INNER = 4


class Walker(wiring.Component):
    """A value that follows two nested loops by additions. ``value`` changes in the cycle after ``walk``.

    RESTART: to ``origin``. OUTER: to the last RESTART's or OUTER's value plus ``outer_step``. RETURN: to that value. INNER: plus
    ``inner_step``. The sum wraps at the shape's width.

    Parameters: ``shape``; ``holds``: HOLD keeps ``value``, and is not only there between one walk and the next RESTART.
    """

    def __init__(self, shape: Shape, *, holds: bool = True) -> None:
        self._shape, self._holds = shape, holds
        super().__init__({
            "walk": In(Walk),
            "origin": In(shape),
            "outer_step": In(shape),
            "inner_step": In(shape),
            "value": Out(shape),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        value, mark = data_register(m, self.value), Signal(self._shape, reset_less=True)
        base, step, total = (Signal(self._shape) for _ in range(3))
        m.d.comb += [base.eq(mark), total.eq(base + step)]
        with m.Switch(self.walk):
            with m.Case(Walk.RESTART):
                m.d.comb += base.eq(self.origin)
            with m.Case(Walk.OUTER):
                m.d.comb += step.eq(self.outer_step)
            with m.Case(Walk.INNER):
                m.d.comb += [base.eq(value), step.eq(self.inner_step)]
        with m.If((self.walk != Walk.HOLD) | (not self._holds)):
            m.d.sync += value.eq(total)
        with m.If((self.walk == Walk.RESTART) | (self.walk == Walk.OUTER)):
            m.d.sync += mark.eq(total)
        return m


class BankWalker(wiring.Component):
    """:class:`Walker` modulo 9 with steps of 0 to 8. ``wrapped`` tells, a cycle after a step,
    that it passed bank 8; after HOLD it is anything."""

    walk: In(Walk)
    origin: In(4)
    outer_step: In(4)
    inner_step: In(4)
    value: Out(4)
    wrapped: Out(1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        value, wrapped, mark = data_register(m, self.value), data_register(m, self.wrapped), Signal(4, reset_less=True)
        base, step, bank = (Signal(4) for _ in range(3))
        total = Signal(5)
        sums = range(2 * ROW_BANKS - 1)  # a table of five bits is shallower than a comparison and a subtraction
        m.d.comb += [
            base.eq(mark),
            total.eq(base + step),
            bank.eq(Array(number % ROW_BANKS for number in sums)[total]),
        ]
        with m.Switch(self.walk):
            with m.Case(Walk.RESTART):
                m.d.comb += base.eq(self.origin)
            with m.Case(Walk.OUTER):
                m.d.comb += step.eq(self.outer_step)
            with m.Case(Walk.INNER):
                m.d.comb += [base.eq(value), step.eq(self.inner_step)]
        m.d.sync += wrapped.eq(at_least(total, ROW_BANKS))
        with m.If(self.walk != Walk.HOLD):
            m.d.sync += value.eq(bank)
        with m.If((self.walk == Walk.RESTART) | (self.walk == Walk.OUTER)):
            m.d.sync += mark.eq(bank)
        return m


def walk(m: Module, restart: Signal, outer: Signal, back: Signal, inner: Signal) -> Signal:
    """The command of the outermost loop that begins."""
    command = Signal(Walk)
    with m.If(restart):
        m.d.comb += command.eq(Walk.RESTART)
    with m.Elif(outer):
        m.d.comb += command.eq(Walk.OUTER)
    with m.Elif(back):
        m.d.comb += command.eq(Walk.RETURN)
    with m.Elif(inner):
        m.d.comb += command.eq(Walk.INNER)
    return command
