"""Tensors copied through feature memory, and the stores that all steps share."""

from __future__ import annotations

from collections.abc import Iterator

from hw.spec.deform import DeformArch
from sw.compiler.emit import Emitter
from sw.compiler.plan import MemoryPlan, Operand
from sw.compiler.problems import Problem
from sw.compiler.steps import CopyStep
from sw.compiler.tiling import Span, spans


def check_copy(step: CopyStep, plan: MemoryPlan, arch: DeformArch) -> list[Problem]:
    words = plan.operand(step.source).words
    if words <= arch.feature_words:
        return []
    reason = f"one pixel needs {words} feature_words (it has {arch.feature_words})"
    return [Problem(place=step.name, reason=reason, advice="raise feature_words of the architecture")]


def lower_copy(step: CopyStep, plan: MemoryPlan, emitter: Emitter) -> None:
    """Load and store as many pixels at a time as fit."""
    source, target = plan.operand(step.source), plan.operand(step.target)
    words = source.words
    for rows, cols in pieces(source.rows, source.cols, emitter.arch.feature_words // words):
        place, axes = source.at(rows.start, 0, cols.start), source.axes(rows.size, words, cols.size)
        emitter.load(step.name, "fm", place, 0, axes)
        store(emitter, step.name, target, rows, cols, Span(start=step.word, stop=step.word + words), 0, step.upsample)


def pieces(rows: int, cols: int, most: int) -> Iterator[tuple[Span, Span]]:
    """Rectangles (rows, columns) of at most ``most`` pixels: whole rows, as many as fit, or parts of one row."""
    if cols <= most:
        yield from ((span, Span(start=0, stop=cols)) for span in spans(rows, most // cols))
    else:
        yield from ((Span(start=row, stop=row + 1), span) for row in range(rows) for span in spans(cols, most))


def store(
    emitter: Emitter, layer: str, target: Operand, rows: Span, cols: Span, words: Span, at: int, upsample: bool
) -> None:
    """Store results packed from feature word ``at`` on. With ``upsample`` the pixel (y, x) goes to (2y, 2x) and the three beside it."""
    if not upsample:
        place, axes = target.at(rows.start, words.start, cols.start), target.axes(rows.size, words.size, cols.size)
        return emitter.store(layer, place, at, axes)
    for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):
        place = target.at(2 * rows.start + y, words.start, 2 * cols.start + x)
        emitter.store(layer, place, at, target.axes(rows.size, words.size, cols.size, step=2))
