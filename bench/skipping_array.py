"""An array that skips N:M-sparse weights, 2 of 4, to be synthesised beside the one that the core has; no core is built with it.

A slot is eight K-steps in place of sixteen: each meets one of the four activations that its weights chose from. So a row needs its
next word after eight cycles, and one memory word a cycle feeds eight rows.
"""

from __future__ import annotations

from amaranth.hdl import Array as Choice
from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.delay import data_register, delayed
from hw.rtl.cells.mac2 import ACTIVATION_BITS, PACKED_BITS, WEIGHT_BITS, Mac2Cell
from hw.rtl.deform.array import Array
from hw.rtl.deform.ports import WORD_BITS
from hw.spec.deform import LANES, DeformArch
from hw.spec.deform.latency import CELL

KEPT, GROUP = 2, 4
"""Of the activations of a group as many are met."""

CHOICE_BITS = 2
SLOT = LANES * KEPT // GROUP
"""K-steps of one activation word."""


class SkippingArray(wiring.Component):
    """As :class:`hw.rtl.deform.array.Array`, but for slots of ``SLOT`` K-steps and for what a K-step brings.

    Parameters: ``arch``; ``shared``: one choice for all cells, else one for each cell, whose two weights then have one pattern.

    Members: ``choices``: which activation of the group a cell meets in this K-step, CHOICE_BITS each. The rest as Array's.
    """

    def __init__(self, arch: DeformArch, *, shared: bool) -> None:
        self.arch, self.shared, self.groups = arch, shared, arch.cells // LANES
        super().__init__({
            "load": In(1),
            "word": In(WORD_BITS),
            "zero": In(1),
            "unsigned": In(1),
            "first": In(1),
            "weights": In(WEIGHT_BITS * arch.cells),
            "choices": In(CHOICE_BITS * (1 if shared else arch.cells)),
            "row": In(range(max(arch.rows, 2))),
            "group": In(range(max(self.groups, 2))),
            "packed": Out(data.ArrayLayout(signed(PACKED_BITS), LANES)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        first = delayed(m, self.first, CELL - 1, "first_0", reset_less=True)[-1]
        step: dict[str, Value] = {"load": self.load, "first": first, "weights": self.weights, "choices": self.choices}
        sums = []
        for row in range(self.arch.rows):
            sums.append(self._row(m, row, step))
            step = Array._passed_down(m, row, step)
        selected = Choice(Choice(groups)[self.group] for groups in sums)[self.row]
        m.d.sync += data_register(m, self.packed).eq(selected)
        return m

    def _row(self, m: Module, row: int, step: dict[str, Value]) -> list[Value]:
        """The row's accumulators. Its word moves on by a group after every second K-step."""
        queue = Signal(WORD_BITS, name=f"queue_{row}", reset_less=True)
        second = Signal(name=f"second_{row}", reset_less=True)
        m.d.sync += second.eq(~step["load"] & ~second)
        with m.If(step["load"]):
            m.d.sync += queue.eq(Mux(self.zero, 0, self.word))
        with m.Elif(second):
            m.d.sync += queue.eq(queue[8 * GROUP :])
        sums = [self._cell(m, row, number, step, queue[: 8 * GROUP]) for number in range(self.arch.cells)]
        return [Cat(sums[LANES * g : LANES * g + LANES]) for g in range(self.groups)]

    def _cell(self, m: Module, row: int, number: int, step: dict[str, Value], group: Value) -> Value:
        choice = step["choices"].word_select(0 if self.shared else number, CHOICE_BITS)
        met = group.word_select(choice, 8)
        m.submodules[f"cell_{row}_{number}"] = cell = Mac2Cell(self.arch.field_bits)
        m.d.comb += [
            cell.weight.eq(step["weights"].word_select(number, WEIGHT_BITS)),
            cell.activation.eq(Cat(met, met[-1] & ~self.unsigned).as_signed()),
            cell.first.eq(step["first"]),
        ]
        assert len(cell.activation) == ACTIVATION_BITS
        return cell.acc
