"""How long a PW instruction takes, in cycles from ``start`` to ``done``.

For each tile of output words the engine sets up, then runs the K loops of all pixel tiles with a gap between two, then drains the last
one. The drain of a tile runs beside the next tile's K loop: the gap keeps that loop from overwriting sums that were not read yet and,
where a merge reads the feature memory, from using its read port at the same time.
"""

from __future__ import annotations

from hw.spec.deform.arch import LANES, DeformArch
from hw.spec.deform.instructions import MERGE_ADD, MERGE_NONE, MERGE_ZIP
from hw.spec.deform.latency import ADD, CELL, MEMORY_READ, result_cycles
from hw.spec.isa import Instruction

SLOT = LANES
"""K-steps of one activation word."""

RECORD_WORDS = 8
"""Parameter words with the records of one output word."""

ISSUE = 2
"""Cycles from a K-step's control state to its weight read: address register, weight read one cycle behind the activations'."""

SELECT = 2
"""Cycles from asking for an array row to its accumulators at the requantise unit: row register, unpacked register."""

ACCUMULATED = ISSUE + MEMORY_READ + CELL
"""Cycles from a K-step's control state until it shows in the accumulators of row 0."""


def merge_read(arch: DeformArch) -> int:
    """Cycles from asking for an array row to the read of the word that is merged with it."""
    return SELECT + result_cycles(arch) - MEMORY_READ


def word_cycles(merge: int) -> int:
    """Cycles in which the drain asks for a word: a zip writes two for it."""
    return 2 if merge == MERGE_ZIP else 1


def words_per_tile(arch: DeformArch, wide: bool) -> int:
    """Output words that the array computes at once."""
    return arch.cells // LANES * (1 if wide else 2)


def setup_cycles(arch: DeformArch) -> int:
    """Cycles before the first K loop of a tile of output words.

    The tile's records are read beside that loop, a word per cycle from the cycle after the set-up's first. The last set must be
    complete when the drain after the shortest loop (one slot) sends its first word with it.
    """
    last_set = words_per_tile(arch, wide=False) - 1
    complete = 1 + RECORD_WORDS * (last_set + 1) + MEMORY_READ
    used = SLOT - 1 + ACCUMULATED + SELECT + last_set
    return max(1, complete - used)


def gap_cycles(arch: DeformArch, words: int, merge: int) -> int:
    """Cycles between the K loops of two pixel tiles with ``words`` output words."""
    if merge != MERGE_NONE:
        # The next loop's first read comes one cycle into it, after the merge read of the tile's last word.
        last = (arch.rows * words - 1) * word_cycles(merge)
        return ACCUMULATED + last + merge_read(arch) - 1
    # Row r is read for the last time rows * words cycles on; the next loop reaches it r cycles after row 0.
    return arch.rows * (words - 1)


def tail_cycles(arch: DeformArch, pixels: int, words: int, merge: int) -> int:
    """Cycles from the last K-step of a tile with ``pixels`` real pixels to the cycle after its last write."""
    merging = ADD if merge == MERGE_ADD else 0
    return ACCUMULATED + SELECT + result_cycles(arch) + merging + pixels * words * word_cycles(merge)


def pw_cycles(instruction: Instruction, arch: DeformArch) -> int:
    """Cycles of a PW instruction on ``arch``; exact."""
    i = instruction
    steps = SLOT * i["kernel_h"] * i["kernel_w"] * i["in_words"]
    pixels = i["out_rows"] * i["out_cols"]
    tiles = -(-pixels // arch.rows)
    last_pixels = pixels - (tiles - 1) * arch.rows

    def tile(words: int) -> int:
        if not words:
            return 0
        loops = tiles * steps + (tiles - 1) * gap_cycles(arch, words, i["merge"])
        return setup_cycles(arch) + loops - 1 + tail_cycles(arch, last_pixels, words, i["merge"])

    per_tile = words_per_tile(arch, bool(i["wide_weights"]))
    full, rest = divmod(i["out_words"], per_tile)
    return 1 + full * tile(per_tile) + tile(rest)
