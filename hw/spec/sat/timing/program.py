"""Cycles of whole programs: what the CYCLES counter reads after a program that ran alone on a memory of fixed latency."""

from __future__ import annotations

from collections.abc import Sequence

from hw.spec.isa import Instruction
from hw.spec.sat.arch import SatArch
from hw.spec.sat.timing import instruction_cycles
from hw.spec.transfer_timing import MemoryTiming, fetch_cycles, serial_cycles

__all__ = ["fetch_cycles", "program_cycles"]


def program_cycles(
    instructions: Sequence[Instruction], arch: SatArch, memory: MemoryTiming, bases: Sequence[int]
) -> int:
    """Cycles from START to the end of a program that ends well."""
    return serial_cycles(fetch_cycles(arch, memory), (instruction_cycles(i, arch, memory, bases) for i in instructions))
