"""How long each instruction of the training core takes, from ``start`` to ``done``, exactly.

The formulas hold for an instruction that runs alone on a memory of fixed latency.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from hw.spec.isa import Instruction
from hw.spec.sat.arch import SatArch
from hw.spec.transfer_timing import MemoryTiming, load_cycles, store_cycles

__all__ = ["MemoryTiming", "instruction_cycles", "load_cycles", "store_cycles"]


def instruction_cycles(instruction: Instruction, arch: SatArch, memory: MemoryTiming, bases: Sequence[int]) -> int:
    """Cycles of any instruction that ends well; ``bases`` are the memory regions' base addresses in bytes."""
    if instruction.name == "LOAD":
        return load_cycles(instruction, arch, memory, bases)
    if instruction.name == "STORE":
        return store_cycles(instruction, arch, memory, bases)
    name = instruction.name.lower()
    return int(getattr(importlib.import_module(f"{__name__}.{name}"), f"{name}_cycles")(instruction, arch))
