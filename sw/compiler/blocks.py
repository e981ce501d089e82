"""Which words of its source each part of a convolution reads.

The array computes a tile of output words at once. In a grouped convolution a tile needs the words of its groups alone, so that
its reduction is as short as its channels' slots allow; within the words that it reads, weights across groups are zero. Tiles that
read the same words stand in one instruction: of an ordinary convolution all do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hw.spec.program import WORD_BYTES
from sw.compiler.steps import PwStep
from sw.compiler.tiling import Span


@dataclass(frozen=True, kw_only=True)
class Block:
    """Output words, before a merge, that one instruction computes from the same words of the source."""

    out: Span
    source: Span


def tile_reads(step: PwStep, tile_words: int) -> tuple[Span, ...]:
    """For each tile of ``tile_words`` output words the words of the source from its first to its last."""
    first, last = _group_words(step)
    per_out = len(step.weight) // step.groups
    size = tile_words * WORD_BYTES
    tiles = (np.asarray(step.slots[at : at + size]) for at in range(0, len(step.slots), size))
    groups = (tile[tile >= 0] // per_out for tile in tiles)
    # A tile of pads alone must read something: any word does, its weights are zero.
    return tuple(
        Span(start=int(first[g].min()), stop=int(last[g].max()) + 1) if g.size else Span(start=0, stop=1) for g in groups
    )


def _group_words(step: PwStep) -> tuple[np.ndarray, np.ndarray]:
    """First and last word of the source with input channels of each group."""
    slots = np.asarray(step.in_slots)
    real = slots >= 0
    words, groups = np.nonzero(real)[0] // WORD_BYTES, slots[real] // step.weight.shape[1]
    first, last = np.full(step.groups, len(slots)), np.zeros(step.groups, np.int64)
    np.minimum.at(first, groups, words)
    np.maximum.at(last, groups, words)
    return first, last


def union(reads: tuple[Span, ...]) -> Span:
    """From the first word that any tile reads to the last."""
    return Span(start=min(span.start for span in reads), stop=max(span.stop for span in reads))


def blocks(reads: tuple[Span, ...], tile_words: int, group: Span) -> Iterator[Block]:
    """The instructions of a group of output words, which starts at a tile."""
    start = group.start
    for word in range(group.start, group.stop, tile_words):
        stop = min(word + tile_words, group.stop)
        if stop == group.stop or reads[stop // tile_words] != reads[word // tile_words]:
            yield Block(out=Span(start=start, stop=stop), source=reads[word // tile_words])
            start = stop
