"""Performance counters of the shell: the table ``hw.spec.regs.COUNTERS``."""

from amaranth.hdl import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.spec.regs import COUNTERS

Events = data.StructLayout({name: 1 for name in COUNTERS})
"""Which counters count in a cycle."""

CounterValues = data.StructLayout({name: 64 for name in COUNTERS})


class Counters(wiring.Component):
    """Counts events while a program runs; a cycle's events are in ``values`` two cycles later.

    Members
    -------
    clear : all counters are 0 from the next cycle on
    busy : only cycles in which a program runs count
    events : of this cycle
    """

    clear: In(1)
    busy: In(1)
    events: In(Events)
    values: Out(CounterValues)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for name in COUNTERS:
            event, value = Signal(name=f"event_{name.lower()}"), self.values[name]
            m.d.sync += [event.eq(0), value.eq(value + event)]
            with m.If(self.busy):
                m.d.sync += event.eq(self.events[name])
            with m.If(self.clear):
                m.d.sync += value.eq(0)
        return m
