"""Cycles of a DW instruction, from ``start`` to ``done``, exactly.

Three activities overlap: parameter words are read for one channel word after the other into one of two slots, tap columns are
issued back to back for a channel word whose parameters are there, and results leave the pipeline ``pipeline_cycles`` later. A
slot is free for the next but one channel word ``RELEASE`` cycles after its owner's last tap column.
"""

from __future__ import annotations

from hw.spec.deform.arch import DeformArch
from hw.spec.deform.instructions import DW_CONV, DW_DEFORM
from hw.spec.deform.latency import MEMORY_READ, result_cycles
from hw.spec.isa import Instruction

RECORD_WORDS = 8
"""Parameter words with the requantise records of 16 channels."""

WEIGHT_WORDS = 9
"""Parameter words with the weights of 16 channels; all are read, also for a window smaller than 3 x 3."""

START = 1
"""Start to the first parameter read leaving the loader."""

OFFSET_FETCH = 1 + MEMORY_READ + 1
"""Tap column issued to its offset known: address register, memory, offset register."""

TAP_ADDRESS = 4
"""Offset known to row memory addressed: the window's shift, bank and row of each tap, its base address and validity, its address."""

ROW_READ = MEMORY_READ
"""Row memory: cycle of the address to the cycle in which the data can be used."""

LANE = 4
"""Row data to accumulator: operand, product, sum of three products, accumulator."""

WRITE = 1
"""Requantised word to feature memory written: the port's register."""

RELEASE = OFFSET_FETCH + TAP_ADDRESS + ROW_READ
"""Last tap column of a channel word issued to its parameter slot free: when its row data arrives."""

WEIGHTED_MODES = (DW_CONV, DW_DEFORM)
"""Modes that read weights."""


def pipeline_cycles(arch: DeformArch) -> int:
    """Last tap column of a pixel issued to its word presented to the feature memory."""
    return RELEASE + LANE + result_cycles(arch) + WRITE


def dw_cycles(instruction: Instruction, arch: DeformArch) -> int:
    """Cycles from ``start`` to ``done``; the same for all data."""
    loads = RECORD_WORDS + (WEIGHT_WORDS if instruction["mode"] in WEIGHTED_MODES else 0)
    columns = -(-instruction["kernel_h"] // 3) * instruction["kernel_w"]
    steps = instruction["out_rows"] * instruction["out_cols"] * columns
    return START + loads + _last_word_issued(instruction["words"] - 1, loads, steps) + steps + pipeline_cycles(arch)


def _last_word_issued(words: int, loads: int, steps: int) -> int:
    """Cycles from the first channel word's first tap column to that of the word ``words`` later.

    Solution of ``ready(c) = max(ready(c-1), issue(c-2) + steps + RELEASE) + loads`` and
    ``issue(c) = max(ready(c), issue(c-1) + steps)``: one word costs the longer of loading and issuing it, two words with
    the same slot at least one round from parameters to the slot's release. The sum is linear in the number of rounds that
    are waited for, so it is largest for none or for all.
    """
    word = max(loads, steps)
    rounds, rest = divmod(words, 2)
    return max(words * word, rounds * (loads + steps + RELEASE) + rest * word)
