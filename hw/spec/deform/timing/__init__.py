"""How long each instruction takes, from issue to retirement, exactly: closed formulas and recurrences, no fitted constants.

They hold for an instruction that runs alone on a memory of fixed latency.
"""

from __future__ import annotations

from collections.abc import Sequence

from hw.spec.deform.arch import DeformArch
from hw.spec.deform.timing.dw import dw_cycles
from hw.spec.deform.timing.pw import pw_cycles
from hw.spec.deform.timing.transfer import MemoryTiming, load_cycles, store_cycles
from hw.spec.isa import Instruction

__all__ = ["MemoryTiming", "dw_cycles", "instruction_cycles", "load_cycles", "pw_cycles", "store_cycles"]


def instruction_cycles(instruction: Instruction, arch: DeformArch, memory: MemoryTiming, bases: Sequence[int]) -> int:
    """Cycles of any instruction that ends well; ``bases`` are the memory regions' base addresses in bytes."""
    if instruction.name == "LOAD":
        return load_cycles(instruction, arch, memory, bases)
    if instruction.name == "STORE":
        return store_cycles(instruction, arch, memory, bases)
    return {"PW": pw_cycles, "DW": dw_cycles}[instruction.name](instruction, arch)
