"""Tensors copied through feature memory: outputs of the graph that are views of other tensors, or inputs."""

from __future__ import annotations

from hw.spec.deform import DeformArch
from sw.compiler.emit import RUN_LIMIT, Axis, Emitter
from sw.compiler.plan import MemoryPlan
from sw.compiler.problems import Problem
from sw.compiler.steps import CopyStep
from sw.compiler.tiling import spans


def check_copy(step: CopyStep, plan: MemoryPlan, arch: DeformArch) -> list[Problem]:
    words = plan.operand(step.source).words
    if words <= arch.feature_words:
        return []
    reason = f"one pixel needs {words} feature_words (it has {arch.feature_words})"
    return [Problem(place=step.name, reason=reason, advice="raise feature_words of the architecture")]


def lower_copy(step: CopyStep, plan: MemoryPlan, emitter: Emitter) -> None:
    """Load and store as many pixels at a time as fit."""
    source, target = plan.operand(step.source), plan.operand(step.target)
    words, pixels = source.words, source.rows * source.cols
    for span in spans(pixels, min(pixels, emitter.arch.feature_words // words, RUN_LIMIT)):
        packed = Axis(count=words, memory=1, chip=1)
        place = source.region, source.offset + span.start * source.pitch
        emitter.load(step.name, "fm", place, 0, [Axis(count=span.size, memory=source.pitch, chip=words), packed])
        place = target.region, target.offset + span.start * words
        emitter.store(step.name, place, 0, [Axis(count=span.size, memory=words, chip=words), packed])
