"""The residual addition against its definition, for all bytes, both kinds of bytes and all clips, crossed ones too."""

from __future__ import annotations

from types import ModuleType

from amaranth.hdl import Mux, Value, signed

from hw.rtl.formal import Harness

LATENCY = 2


class AddClipProof(Harness):
    """Check ``sum``: two cycles after any two bytes the low byte of their sum as numbers, or of the clip beyond which it lies; of the
    lower one where the clips cross. Clips and signedness hold still."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def describe(self) -> None:
        dut = self._module.AddClip()
        self.part(dut)
        a, b = self.any(8, "a"), self.any(8, "b")
        unsigned = self.constant(1, "unsigned")
        lo, hi = self.constant(signed(9), "lo"), self.constant(signed(9), "hi")
        self.m.d.comb += [dut.a.eq(a), dut.b.eq(b), dut.unsigned.eq(unsigned), dut.lo.eq(lo), dut.hi.eq(hi)]

        def number(byte: Value) -> Value:
            """Its value: 256 less from 128 on, where bytes are signed."""
            return byte - Mux(~unsigned & (byte >= 128), 256, 0)

        total = self.named("total", self.past((number(a) + number(b))[:12], "total", LATENCY).as_signed())
        least = Mux(total > hi, hi, total)
        wanted = Mux(least < lo, lo, least)
        ready = self.since_reset(LATENCY)
        self.check("sum", ~ready | (dut.o == wanted[:8]))
        self.cover("above", ready & (total > hi) & (lo < hi))
        self.cover("below", ready & (total < lo) & (lo < hi))
        self.cover("crossed", ready & (lo > hi) & (total > lo))
        self.cover("farthest", ready & (total == 510))
        self.cover("inside", ready & (total > lo) & (total < hi))
        self.cover("lowest", ready & (total == -256))
