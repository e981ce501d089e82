"""Cycles of LOAD and STORE of the inference core: as every core's, but that the table memories take a word in parts."""

from __future__ import annotations

from collections.abc import Sequence

from hw.spec import transfer_timing
from hw.spec.arch import Arch
from hw.spec.deform.instructions import SPACES
from hw.spec.deform.latency import TABLE_PARTS
from hw.spec.isa import Instruction
from hw.spec.transfer_timing import MemoryTiming, store_cycles

__all__ = ["MemoryTiming", "load_cycles", "store_cycles"]


def load_cycles(instruction: Instruction, arch: Arch, memory: MemoryTiming, bases: Sequence[int]) -> int:
    """Cycles of a LOAD that ends without an error; ``bases`` are the regions' base addresses in bytes."""
    paced = instruction.name == "LOAD" and SPACES[instruction["space"]] == "tbl"
    return transfer_timing.load_cycles(instruction, arch, memory, bases, hold=TABLE_PARTS if paced else 1)
