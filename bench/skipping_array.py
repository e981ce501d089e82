"""An array that skips N:M-sparse weights, 2 of 4, to be synthesised beside the one that the core has; no core is built with it.

A slot is eight K-steps in place of sixteen: each meets one of the four activations that its weights chose from. So a row needs its
next word after eight cycles, and one memory word a cycle feeds eight rows.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from hw.rtl.cells.mac2 import WEIGHT_BITS, Mac2Cell
from hw.rtl.deform.array import Array
from hw.rtl.deform.ports import WORD_BITS
from hw.spec.deform import LANES, DeformArch

KEPT, GROUP = 2, 4
"""Of the activations of a group as many are met."""

CHOICE_BITS = 2
SLOT = LANES * KEPT // GROUP
"""K-steps of one activation word."""


class SkippingArray(Array):
    """As :class:`hw.rtl.deform.array.Array`, but for slots of ``SLOT`` K-steps and for what a K-step brings.

    Parameters: ``arch``, with multipliers; ``shared``: one choice for all cells, else one for each cell, whose two weights then have
    one pattern. Members: ``choices``: which activation of the group a cell meets in this K-step, CHOICE_BITS each; the rest as Array's.
    """

    def __init__(self, arch: DeformArch, *, shared: bool) -> None:
        self.arch, self.cell, self.groups, self.shared = arch, Mac2Cell, arch.cells // LANES, shared
        choices = In(CHOICE_BITS * (1 if shared else arch.cells))
        wiring.Component.__init__(self, {**Array(arch).signature.members, "choices": choices})

    def _weights(self, m: Module) -> Value:
        return Cat(self.weights, self.choices)

    def _row(self, m: Module, row: int, step: dict[str, Value]) -> list[Value]:
        """The row's accumulators. Its word moves on by a group after every second K-step."""
        queue = Signal(WORD_BITS, name=f"queue_{row}", reset_less=True)
        second = Signal(name=f"second_{row}", reset_less=True)
        m.d.sync += second.eq(~step["load"] & ~second)
        with m.If(step["load"]):
            m.d.sync += queue.eq(Mux(self.zero, 0, self.word))
        with m.Elif(second):
            m.d.sync += queue.eq(queue[8 * GROUP :])
        sums = [self._meet(m, row, number, step, queue[: 8 * GROUP]) for number in range(self.arch.cells)]
        return [Cat(sums[LANES * g : LANES * g + LANES]) for g in range(self.groups)]

    def _meet(self, m: Module, row: int, number: int, step: dict[str, Value], group: Value) -> Value:
        """A cell's accumulator; it meets the activation of its choice."""
        split = WEIGHT_BITS * self.arch.cells
        choice = step["weights"][split:].word_select(0 if self.shared else number, CHOICE_BITS)
        met = group.word_select(choice, 8)
        cell = Mac2Cell(self.arch.field_bits)
        m.submodules[f"cell_{row}_{number}"] = cell
        m.d.comb += [
            cell.weight.eq(step["weights"][:split].word_select(number, WEIGHT_BITS)),
            cell.activation.eq(Cat(met, met[-1] & ~self.unsigned).as_signed()),
            cell.first.eq(step["first"]),
        ]
        return cell.acc
