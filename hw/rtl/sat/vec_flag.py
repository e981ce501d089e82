"""The sticky saturation flag: whether anything saturated since it was last taken."""

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from hw.rtl.sat.vec_ports import FlagPort


class SaturationFlag(wiring.Component):
    """One flip-flop.

    Members
    -------
    events : a result saturated in this cycle: of VEC, CHN, PRUNE and of GEMM's drain
    port : ``saturated`` tells of events before this cycle; ``take`` clears it. An event in the same cycle wins
    """

    events: In(4)
    port: In(FlagPort)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        with m.If(self.events.any()):
            m.d.sync += self.port.saturated.eq(1)
        with m.Elif(self.port.take):
            m.d.sync += self.port.saturated.eq(0)
        return m
