"""The array: ``rows`` x ``columns`` processing elements, and the registers that broadcast to its rows."""

from __future__ import annotations

from amaranth.hdl import Cat, Module
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.delay import later
from hw.rtl.sat.pe import Broadcast, ProcessingElement, WeightStep, operand_write
from hw.rtl.sat.ports import FP32_BITS
from hw.spec.sat import SatArch
from hw.spec.sat.timing.gemm import BROADCAST

ROW_REGISTERS = 1
"""Registers of the broadcast before the elements, which use it a cycle later."""

if ROW_REGISTERS + 1 != BROADCAST:
    raise AssertionError(f"BROADCAST must be {ROW_REGISTERS + 1}, not {BROADCAST}")


class Array(wiring.Component):
    """The array. Element (r, c) works r + c cycles after element (0, 0).

    Members
    -------
    steps : of each column, for its uppermost element; those of column c come c cycles after those of column 0
    operands : of each row, for its leftmost element; those of row r come r cycles after those of row 0
    all : broadcast; what an element does in the next cycle (:obj:`Broadcast`) it does BROADCAST cycles later
    bottom, top : FP32 for the chains of the lowest row, and what those of the uppermost one hold; a chain moves up each cycle
    """

    def __init__(self, arch: SatArch) -> None:
        self.arch = arch
        super().__init__({
            "steps": In(data.ArrayLayout(WeightStep, arch.columns)),
            "operands": In(data.ArrayLayout(operand_write(arch.feed), arch.rows)),
            "all": In(Broadcast),
            "bottom": In(FP32_BITS * arch.columns),
            "top": Out(FP32_BITS * arch.columns),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        rows = [[self._element(m, row, column) for column in range(self.arch.columns)] for row in range(self.arch.rows)]
        for number, row in enumerate(rows):
            everywhere = later(m, self.all, ROW_REGISTERS, reset_less=True)
            for column, element in enumerate(row):
                m.d.comb += [
                    element.north.eq(rows[number - 1][column].south if number else self.steps[column]),
                    element.west.eq(row[column - 1].east if column else self.operands[number]),
                    element.all.eq(everywhere),
                    element.below.eq(
                        rows[number + 1][column].chain if number + 1 < len(rows) else self.bottom.word_select(column, FP32_BITS)
                    ),
                ]
        m.d.comb += self.top.eq(Cat(element.chain for element in rows[0]))
        return m

    def _element(self, m: Module, row: int, column: int) -> ProcessingElement:
        element = ProcessingElement(latency=self.arch.latency, feed=self.arch.feed)
        m.submodules[f"element_{row}_{column}"] = element
        return element
