"""Tokens: the order that instructions ask of each other by the wait and push masks of their headers."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.spec.isa import TOKEN_COUNT, TOKEN_MAX


class TokenBoard(wiring.Component):
    """Counts each token's pushes that nothing waited for yet, 0..TOKEN_MAX.

    Members
    -------
    clear : no token is outstanding from the next cycle on; there is no other reset
    wait, push : masks of the instruction in hand
    blocked : it waits for a token that is not there, or pushes one more than can be held once it has consumed its own
    take : consume ``wait`` (at issue)
    give : add ``push`` (at retirement); only what was not blocked may be taken and given
    """

    clear: In(1)
    wait: In(TOKEN_COUNT)
    push: In(TOKEN_COUNT)
    take: In(1)
    give: In(1)
    blocked: Out(1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        counts = [Signal(range(TOKEN_MAX + 1), name=f"count_{i}", reset_less=True) for i in range(TOKEN_COUNT)]
        missing, surplus = Signal(TOKEN_COUNT), Signal(TOKEN_COUNT)
        m.d.comb += self.blocked.eq((missing | surplus).any())
        for i, count in enumerate(counts):
            m.d.comb += [
                missing[i].eq(self.wait[i] & (count == 0)),
                surplus[i].eq(self.push[i] & ~self.wait[i] & (count == TOKEN_MAX)),
            ]
            with m.If(self.clear):
                m.d.sync += count.eq(0)
            with m.Elif(self.take & self.wait[i]):
                m.d.sync += count.eq(count - 1)
            with m.Elif(self.give & self.push[i]):
                m.d.sync += count.eq(count + 1)
        return m
