"""A timer that the sequencer restarts at every step it waits for."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class Watchdog(wiring.Component):
    """``expired`` rises ``limit`` cycles after ``restart`` and stays until the next restart; a limit of 0 never expires.

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
        remaining = Signal(32)
        with m.If(self.restart):
            m.d.sync += [remaining.eq(self.limit), self.expired.eq(self.limit == 1)]
        with m.Elif(remaining != 0):
            m.d.sync += remaining.eq(remaining - 1)
            with m.If(remaining == 2):
                m.d.sync += self.expired.eq(1)
        return m
