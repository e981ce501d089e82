"""Cycles that the timing model gives a program's instructions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from hw.spec.cores import instruction_cycles
from hw.spec.program import Program
from hw.spec.transfer_timing import MemoryTiming
from sw.runtime.placement import Placement

if TYPE_CHECKING:
    from hw.sim.loop import MemoryTiming as LoopTiming
    from sw.runtime.training import TrainingSession


def model_timing(timing: LoopTiming) -> MemoryTiming | None:
    """The timing model's words for the simulated memory; None where it does not describe it."""
    if (timing.read_interval, timing.read_beats) != (timing.write_interval, timing.write_beats):
        return None
    return MemoryTiming(
        read_latency=timing.read_latency,
        write_latency=timing.write_latency,
        beat_interval=timing.read_interval,
        beats=timing.read_beats,
    )


def predictor(program: Program, placement: Placement, timing: LoopTiming) -> Callable[[int], int] | None:
    """From an instruction's index to its cycles; None where the memory is one that the model does not describe."""
    if (memory := model_timing(timing)) is None:
        return None
    arch, instructions = program.arch, program.instructions()
    bases = [region.base for region in placement.regions]
    return functools.cache(lambda index: instruction_cycles(instructions[index], arch, memory, bases))


def training_predictor(timing: LoopTiming) -> Callable[[Program, TrainingSession], Callable[[int], int] | None]:
    """The same for the programs of a training session on a simulated core with such a memory."""
    return lambda program, session: predictor(program, session.placement, timing)
