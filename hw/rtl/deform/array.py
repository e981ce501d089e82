"""Skewed output-stationary array: ``rows`` pixels x ``cells`` multiplier cells.

Every row has a 16-byte shift register of activations and works one K-step per cycle. A weight word enters row 0 and passes down one
row per cycle, so row r does what row 0 did r cycles before, and one memory word per cycle (for row r in cycle r of each slot of 16
K-steps) feeds all rows. There is no adder tree: a cell keeps its own sums until they are read.
"""

from __future__ import annotations

from amaranth.hdl import Array as Choice
from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.delay import data_register, delayed
from hw.rtl.cells.mac2 import ACTIVATION_BITS, PACKED_BITS, WEIGHT_BITS, Mac2Cell
from hw.rtl.cells.shift_add import ShiftAddCell, recoded
from hw.rtl.deform.ports import WORD_BITS
from hw.spec.deform import LANES, DeformArch
from hw.spec.deform.latency import CELL


class Array(wiring.Component):
    """The array.

    Parameters: ``arch``: its rows, columns (two per cell) and field_bits; ``cell``: the multiplier cell that suits the part, where the
    architecture has multipliers.

    Members
    ----------
    load : the activation word of row 0 for the next 16 K-steps is in ``word``; row r takes what is in ``word`` r cycles later
    word, zero : sixteen activation bytes, lowest first; ``zero``: take zeros instead
    unsigned : activations are unsigned bytes; holds still
    first, weights : a K-step of row 0 with one byte per cell; it meets byte i of a word whose ``load`` was i + 1 cycles before.
        ``first`` starts the sums anew. After the sixteenth byte without another ``load`` there are only zeros, and sums hold
    row, group, packed : the accumulators of cells 16 * group .. of ``row``, one cycle after the two were given. A K-step of row 0
        in cycle t shows in row r's accumulators in cycle t + r + CELL (so it can be asked for then)
    """

    def __init__(self, arch: DeformArch, cell: type[Mac2Cell] = Mac2Cell) -> None:
        self.arch, self.cell = arch, cell
        self.groups = arch.cells // LANES
        super().__init__({
            "load": In(1),
            "word": In(WORD_BITS),
            "zero": In(1),
            "unsigned": In(1),
            "first": In(1),
            "weights": In(WEIGHT_BITS * arch.cells),
            "row": In(range(max(arch.rows, 2))),
            "group": In(range(max(self.groups, 2))),
            "packed": Out(data.ArrayLayout(signed(PACKED_BITS), LANES)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        first = delayed(m, self.first, CELL - 1, "first_0", reset_less=True)[-1]
        step: dict[str, Value] = {"load": self.load, "first": first, "weights": self._weights(m)}
        sums = []
        for row in range(self.arch.rows):
            sums.append(self._row(m, row, step))
            step = self._passed_down(m, row, step)
        selected = Choice(Choice(groups)[self.group] for groups in sums)[self.row]
        m.d.sync += data_register(m, self.packed).eq(selected)
        return m

    def _weights(self, m: Module) -> Value:
        """What passes down the rows: the bytes, or what cells that shift and add get for them."""
        if not self.arch.weight_terms:
            return self.weights
        bytes_ = (self.weights.word_select(number, WEIGHT_BITS) for number in range(self.arch.cells))
        return Cat(recoded(m, byte, self.arch.weight_terms, f"weight_{number}") for number, byte in enumerate(bytes_))

    @staticmethod
    def _passed_down(m: Module, row: int, step: dict[str, Value]) -> dict[str, Value]:
        below = {}
        for name, value in step.items():
            below[name] = Signal(len(value), name=f"{name}_{row + 1}", reset_less=True)
            m.d.sync += below[name].eq(value)
        return below

    def _row(self, m: Module, row: int, step: dict[str, Value]) -> list[Value]:
        """The row's accumulators, in groups of sixteen cells."""
        queue = Signal(WORD_BITS, name=f"queue_{row}", reset_less=True)
        m.d.sync += queue.eq(Mux(step["load"], Mux(self.zero, 0, self.word), queue[8:]))
        activation = Signal(signed(ACTIVATION_BITS), name=f"activation_{row}")
        m.d.comb += activation.eq(Cat(queue[:8], queue[7] & ~self.unsigned).as_signed())
        sums = [self._cell(m, row, number, step, activation) for number in range(self.arch.cells)]
        return [Cat(sums[LANES * g : LANES * g + LANES]) for g in range(self.groups)]

    def _cell(self, m: Module, row: int, number: int, step: dict[str, Value], activation: Value) -> Value:
        terms, weights = self.arch.weight_terms, step["weights"]
        cell = ShiftAddCell(self.arch.field_bits, terms) if terms else self.cell(self.arch.field_bits)
        m.submodules[f"cell_{row}_{number}"] = cell
        m.d.comb += [
            cell.weight.eq(weights.word_select(number, len(weights) // self.arch.cells)),
            cell.activation.eq(activation),
            cell.first.eq(step["first"]),
        ]
        return cell.acc
