"""The token board against plain integers."""

from __future__ import annotations

from types import ModuleType

from amaranth.hdl import Cat, Signal

from hw.rtl.formal import Harness
from hw.spec.isa import TOKEN_COUNT, TOKEN_MAX

TOKEN = 3
WIDE = 16
"""Bits of the model's counts, so that an overflow of the unit's would differ."""


class TokenProof(Harness):
    """A ``clear``, then instructions one after the other, each with any masks, taken only if not blocked and given some time later,
    or never (an error; then a ``clear`` follows before the next). For each token pushes less waits are counted in 16 bits.

    Checks: ``equal``, the unit's counts are those; ``range``, these stay in 0..TOKEN_MAX; ``blocked``, exactly where a wait would
    make one negative or a push more than TOKEN_MAX. With ``filling`` only runs are looked at in which every instruction pushes
    token 3 as soon as it can, and may wait for it once it is full: for witnesses, which a solver finds in so long a run only where
    it has little choice.
    """

    def __init__(self, module: ModuleType, filling: bool = False) -> None:
        self._module, self._filling = module, filling

    def describe(self) -> None:
        m, dut = self.m, self._module.TokenBoard()
        inside = self.part(dut)
        clear, take, give = (self.any(1, name) for name in ("clear", "take", "give"))
        wait, push = self.any(TOKEN_COUNT, "wait"), self.any(TOKEN_COUNT, "push")
        m.d.comb += [dut.clear.eq(clear), dut.take.eq(take), dut.give.eq(give), dut.wait.eq(wait), dut.push.eq(push)]
        running = Signal(name="running")
        m.d.sync += running.eq((running | take) & ~give & ~clear)
        same = (wait == self.past(wait, "wait")) & (push == self.past(push, "push"))
        cleared = self.since_reset(1)
        self.assume(cleared | (clear & ~take))
        self.assume(~take | (~running & ~dut.blocked))
        self.assume(~give | (running & ~take))
        self.assume(~running | same)
        counts = [Signal(WIDE, name=f"owed_{i}") for i in range(TOKEN_COUNT)]
        if self._filling:
            self.assume((wait == 0) | ((wait == 1 << TOKEN) & (counts[TOKEN] == TOKEN_MAX)))
            self.assume(
                (push == 1 << TOKEN) & (clear == ~cleared) & (take == (cleared & ~running & ~dut.blocked)) & (give == running)
            )
        equal, ranges, blocked = [], [], []
        for i, count in enumerate(counts):
            m.d.sync += count.eq(count - (take & wait[i]) + (give & push[i]))
            with m.If(clear):
                m.d.sync += count.eq(0)
            equal.append(inside[f"count_{i}"] == count)
            ranges.append(count <= TOKEN_MAX)
            blocked.append((wait[i] & (count == 0)) | (push[i] & (count - wait[i] + 1 > TOKEN_MAX) & (count != 0)))
        self.check("equal", ~cleared | Cat(equal).all())
        self.check("range", Cat(ranges).all())
        self.check("blocked", ~cleared | (dut.blocked == Cat(blocked).any()))
        # While an instruction with a push runs its own place stays free.
        self.invariant("reserved", ~running | ~Cat(push[i] & (count >= TOKEN_MAX) for i, count in enumerate(counts)).any())
        if self._filling:
            self.cover("blocked_by_push", cleared & dut.blocked & (wait == 0))
        else:
            self.cover("waited", self.past(take & wait[TOKEN], "waited") & running)
