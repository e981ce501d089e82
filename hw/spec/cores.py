"""What every core has, by the core of an architecture: its machine and its timing model."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from hw.spec.arch import CORES, Arch
from hw.spec.isa import Instruction
from hw.spec.machine import Machine
from hw.spec.transfer_timing import MemoryTiming

_MACHINES = {"deform": "DeformMachine", "sat": "SatMachine"}

assert tuple(_MACHINES) == CORES


def machine_for(arch: Arch, seed: int | None) -> Machine:
    """The interpreter of an architecture's core; ``seed`` fills its on-chip memories with dirt, None with zeros."""
    machine: type[Machine] = getattr(_module(arch, "machine"), _MACHINES[arch.core])
    return machine(arch, seed)  # type: ignore[call-arg]


def instruction_cycles(instruction: Instruction, arch: Arch, memory: MemoryTiming, bases: Sequence[int]) -> int:
    """Cycles of an instruction that ends well, from issue to retirement; ``bases`` are the regions' base addresses in bytes."""
    return int(_module(arch, "timing").instruction_cycles(instruction, arch, memory, bases))


def program_cycles(instructions: Sequence[Instruction], arch: Arch, memory: MemoryTiming, bases: Sequence[int]) -> int:
    """Cycles from START to the end of a program that ends well."""
    return int(_module(arch, "timing.program").program_cycles(instructions, arch, memory, bases))


def _module(arch: Arch, name: str) -> Any:
    return importlib.import_module(f"hw.spec.{arch.core}.{name}")
