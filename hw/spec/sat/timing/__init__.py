"""How long each instruction of the training core takes, from ``start`` to ``done``, exactly.

The formulas hold for an instruction that runs alone on a memory of fixed latency.
"""

from __future__ import annotations

from collections.abc import Sequence

from hw.spec.isa import Instruction
from hw.spec.sat.arch import SatArch
from hw.spec.sat.timing.chn import chn_cycles
from hw.spec.sat.timing.gemm import gemm_cycles
from hw.spec.sat.timing.prune import prune_cycles
from hw.spec.sat.timing.vec import vec_cycles
from hw.spec.transfer_timing import MemoryTiming, load_cycles, store_cycles

__all__ = [
    "MemoryTiming", "chn_cycles", "gemm_cycles", "instruction_cycles", "load_cycles", "prune_cycles", "store_cycles", "vec_cycles",
]  # fmt: skip


def instruction_cycles(instruction: Instruction, arch: SatArch, memory: MemoryTiming, bases: Sequence[int]) -> int:
    """Cycles of any instruction that ends well; ``bases`` are the memory regions' base addresses in bytes."""
    if instruction.name == "LOAD":
        return load_cycles(instruction, arch, memory, bases)
    if instruction.name == "STORE":
        return store_cycles(instruction, arch, memory, bases)
    computed = {"GEMM": gemm_cycles, "VEC": vec_cycles, "CHN": chn_cycles, "PRUNE": prune_cycles}
    return computed[instruction.name](instruction, arch)
