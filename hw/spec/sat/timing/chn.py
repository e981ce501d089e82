"""Cycles of a CHN instruction, from ``start`` to ``done``, exactly: its steps one after the other, for one channel after the other."""

from __future__ import annotations

from hw.spec.isa import Instruction
from hw.spec.sat.arch import SatArch
from hw.spec.sat.channel import FIRST_BITS, PROGRAMS, Op
from hw.spec.sat.instructions import CHANNEL_PROGRAMS, CHN, RECORD_WORDS
from hw.spec.sat.latency import FP32_ADD, FP32_DIVIDE, FP32_MULTIPLY, FP32_SQRT, INT_TO_FP32, VECTOR_READ

CONSTANT_WORDS = 4
READ_WORDS = RECORD_WORDS - 1
WRITTEN_WORDS = 5
"""Words that are read for an instruction, read for a channel, and written: four of values, and the kept sum."""

FETCH = 2
"""A step's operands from the register file, one after the other."""

COUNT_BITS = next(field.width for field in CHN.fields if field.name == "count")

CROSS = 2 + FIRST_BITS + COUNT_BITS
"""``start`` to the difference of products: an addition for each bit of SUM_1 and of the count, each after its bit was picked."""

KEEP = 0

RUN = {
    Op.ADD: FP32_ADD,
    Op.SUB: FP32_ADD,
    Op.MUL: FP32_MULTIPLY,
    Op.DIV: FP32_DIVIDE,
    Op.SQRT: FP32_SQRT,
    Op.SUM_1: INT_TO_FP32,
    Op.SUM_2: INT_TO_FP32,
    Op.CROSS: CROSS + INT_TO_FP32,
    Op.KEEP: KEEP,
}
"""Operands to result."""

WRITE = 1
"""A result to the register file."""

END = 2
"""The last word handed to the write port's register, to ``done``."""


def step_cycles(op: Op) -> int:
    """Cycles of a step; the same for all data."""
    return FETCH + RUN[op] + WRITE


def chn_cycles(instruction: Instruction, arch: SatArch) -> int:
    """Cycles from ``start`` to ``done``; the same for all data."""
    steps = sum(step_cycles(step.op) for step in PROGRAMS[CHANNEL_PROGRAMS[instruction["program"]]])
    channel = READ_WORDS + VECTOR_READ + steps + WRITTEN_WORDS
    return CONSTANT_WORDS + VECTOR_READ + instruction["channels"] * channel + END
