"""A timer that the sequencer restarts at every step it waits for."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.delay import data_register


class Watchdog(wiring.Component):
    """``expired`` rises ``limit`` cycles after ``restart`` and stays until the next restart; a limit of 0 never expires.

    Before the first restart ``expired`` is anything.

    Members
    -------
    restart : count ``limit`` cycles from here on
    limit : cycles, 0..2**32 - 1; read in the cycle of ``restart``
    """

    restart: In(1)
    limit: In(32)
    expired: Out(1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        remaining, expired = Signal(32, reset_less=True), data_register(m, self.expired)
        with m.If(self.restart):
            m.d.sync += [remaining.eq(self.limit), expired.eq(self.limit == 1)]
        with m.Elif(remaining != 0):
            m.d.sync += remaining.eq(remaining - 1)
            with m.If(remaining == 2):
                m.d.sync += expired.eq(1)
        return m
