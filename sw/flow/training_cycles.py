"""Cycles of a training step by the timing model: per instruction, layer and pass, without running anything.

The model's formulas are those that simulation is compared with, instruction by instruction. Transfers that differ only in where
they lie, with the same place in their 4 KB blocks, take equally long; so each kind is worked out once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hw.spec.arch import WORD_BYTES
from hw.spec.isa import Instruction
from hw.spec.sat import SatArch
from hw.spec.sat.timing import MemoryTiming, instruction_cycles
from hw.spec.sat.timing.program import fetch_cycles
from hw.spec.training_program import TrainingProgram
from sw.runtime.records import InstructionTime

PASSES = ("forward", "backward", "update")
"""Programs of a step."""

BLOCK_WORDS = 4096 // WORD_BYTES
_ALIGNED = ("offset", "stride1", "stride2")


@dataclass(frozen=True, kw_only=True)
class Work:
    """Cycles that one layer spends in one program, by operation; fetching the instructions is ``FETCH``."""

    layer: str
    cycles: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.cycles.values())


class StepModel:
    """The timing model on one memory, regions at multiples of 4 KB."""

    def __init__(self, arch: SatArch, memory: MemoryTiming) -> None:
        self.arch, self.memory = arch, memory
        self._fetch = fetch_cycles(arch, memory)
        self._known: dict[tuple[object, ...], int] = {}

    def cycles(self, instruction: Instruction) -> int:
        """Of one instruction, from issue to retirement."""
        key = self._key(instruction)
        if key not in self._known:
            self._known[key] = instruction_cycles(instruction, self.arch, self.memory, (0,) * self.arch.regions)
        return self._known[key]

    def _key(self, i: Instruction) -> tuple[object, ...]:
        if i.name in ("LOAD", "STORE"):
            return (i.name, *(i[n] for n in ("n0", "n1", "n2", "space")), *(i[n] % BLOCK_WORDS for n in _ALIGNED))
        hidden = ("wait", "push")
        return (i.name, *(value for name, value in i.values.items() if name not in hidden and not name.endswith("_addr")))

    def step(self, program: TrainingProgram, passes: tuple[str, ...] = PASSES) -> dict[str, list[Work]]:
        """Work of each layer, program by program, in the order of first appearance."""
        return {name: self._program(program, name) for name in passes}

    def _program(self, program: TrainingProgram, name: str) -> list[Work]:
        found: dict[str, dict[str, int]] = {}
        for layer, instruction in zip(program.layers[name], program.program(name).instructions(), strict=True):
            work = found.setdefault(layer, {})
            work[instruction.name] = work.get(instruction.name, 0) + self.cycles(instruction)
            work["FETCH"] = work.get("FETCH", 0) + self._fetch
        return [Work(layer=layer, cycles=cycles) for layer, cycles in found.items()]


@dataclass(frozen=True, kw_only=True)
class LayerPass:
    """Cycles of one layer in one program of a step, as they were counted: the array, transfers, and everything else."""

    program: str
    layer: str
    array: int
    transfer: int
    other: int

    @property
    def cycles(self) -> int:
        return self.array + self.transfer + self.other


def layer_passes(program: TrainingProgram, times: Mapping[str, Sequence[InstructionTime]]) -> tuple[LayerPass, ...]:
    """Where a core's cycles went in the programs of a step, from issue to retirement, by program and layer."""
    kinds = {"GEMM": "array", "LOAD": "transfer", "STORE": "transfer"}
    found: dict[tuple[str, str], dict[str, int]] = {}
    for name in PASSES:
        operations = [instruction.name for instruction in program.program(name).instructions()]
        for entry in times.get(name, ()):
            parts = found.setdefault((name, program.layers[name][entry.index]), dict.fromkeys(("array", "transfer", "other"), 0))
            parts[kinds.get(operations[entry.index], "other")] += entry.cycles
    return tuple(LayerPass(program=name, layer=layer, **parts) for (name, layer), parts in found.items())


def total(step: Mapping[str, list[Work]]) -> int:
    """All cycles of a step but the host's."""
    return sum(work.total for works in step.values() for work in works)


def by_operation(step: Mapping[str, list[Work]]) -> dict[str, int]:
    """Cycles of a step by operation."""
    found: dict[str, int] = {}
    for works in step.values():
        for work in works:
            for name, cycles in work.cycles.items():
                found[name] = found.get(name, 0) + cycles
    return found
