"""Cycles of a VEC instruction, from ``start`` to ``done``, exactly.

Pixels are issued one per cycle. A channel word begins at least as many cycles after the one before as its records take in the
memory of channel records, where the next word's constants are read, or the last one's sums written, meanwhile.
"""

from __future__ import annotations

from hw.spec.isa import Instruction
from hw.spec.sat.arch import FP32_LANES, LANES, SatArch
from hw.spec.sat.instructions import VEC_AFFINE, VEC_FLAG, VEC_SUMS
from hw.spec.sat.latency import FP16_TO_FP32, FP32_ADD, FP32_MULTIPLY, FP32_TO_FP16, VECTOR_READ

FLAG_CYCLES = 2
"""The flag to the write port's register; done."""

RECORD_VISITS = 2 * LANES
"""Words of a channel word's sums: two of each lane."""

TAKE = 1
"""Operand words to finite numbers in registers."""

MASK = 1
"""Affine: operands to those that count."""

RELU = 1
"""Affine: the last sum to the result in FP32."""

CHOOSE = 1
"""Operands to the larger one, or the one that is let through."""

SUM = 5
"""Operands to sums: sign and significand, product, two shifts, addition."""

CAPTURE = 1
"""A channel word's sums to the registers that they are written from."""

DRAIN = 2
"""A record's sum read to the word that replaces it: addition, extension."""

WRITE = 1
"""Result to write port: its register. Sums leave from a register of their own, counted in DRAIN."""


AFFINE = MASK + FP16_TO_FP32 + FP32_MULTIPLY + 2 * FP32_ADD + RELU
"""Operands to result in FP32."""


def pipeline_cycles(instruction: Instruction) -> int:
    """Last pixel issued to the instruction's last word on the write port."""
    taken = VECTOR_READ + TAKE
    if instruction["op"] == VEC_SUMS:
        return taken + SUM + CAPTURE + (RECORD_VISITS - 1) + DRAIN
    if instruction["op"] != VEC_AFFINE:
        return taken + CHOOSE + WRITE
    return taken + AFFINE + (0 if instruction["fp32"] else FP32_TO_FP16) + WRITE


def record_cycles(instruction: Instruction) -> int:
    """Fewest cycles from a channel word's first pixel to the next one's."""
    if instruction["op"] == VEC_AFFINE:
        return FP32_LANES if instruction["fp32"] else LANES
    return RECORD_VISITS if instruction["op"] == VEC_SUMS else 1


def vec_cycles(instruction: Instruction, arch: SatArch) -> int:
    """Cycles from ``start`` to ``done``; the same for all data. The first pixel waits for its constants, if it has any."""
    if instruction["op"] == VEC_FLAG:
        return FLAG_CYCLES
    records, pixels = record_cycles(instruction), instruction["pixels"]
    first = records if instruction["op"] == VEC_AFFINE else 1
    last = first + (instruction["words"] - 1) * max(pixels, records) + pixels - 1
    return last + pipeline_cycles(instruction) + 1
