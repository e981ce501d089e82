"""Cycles of a PRUNE instruction, from ``start`` to ``done``, exactly.

An item is a chunk of k of one word of lanes. Rounds of equal length follow one another: in each, one item is read, the one before is
selected from, and the one before that is written.
"""

from __future__ import annotations

from hw.spec.isa import Instruction
from hw.spec.sat.arch import FP32_LANES, LANES, SatArch
from hw.spec.sat.instructions import PRUNE

COMPARED = FP32_LANES
"""Values of a lane that a value is compared with in a cycle: a row of the buffer."""

GROUP_ROWS = (2, 4)
"""Rows that a value is compared with: of groups up to 8, and of 16."""

SELECT = 1
"""Cycles by which the selection of a round lags behind its reading, so that all of an item has arrived."""

EMIT = 4
"""Cycle of a round in which the first result of the item before the last one is taken from its buffer."""

WRITE = 1
"""Result to write port: its register."""

END = 2
"""From ``start`` to the first round, and from the last write to ``done``."""

KEEP_BITS = next(field.width for field in PRUNE.fields if field.name == "keep")


def round_cycles(instruction: Instruction) -> int:
    """A row of four values is fetched, then each of them compared; reading an item takes a little less."""
    rows = (LANES << instruction["chunk_log2"]) // COMPARED
    return rows * (1 + COMPARED * GROUP_ROWS[instruction["group_log2"] == 4])


def steps(instruction: Instruction) -> int:
    """Values that are kept of an item's lane."""
    return instruction["keep"] * (LANES << instruction["chunk_log2"]) >> instruction["group_log2"]


def prune_cycles(instruction: Instruction, arch: SatArch) -> int:
    """Cycles from ``start`` to ``done``; the same for all data."""
    items = instruction["chunks"] * instruction["words"]
    return (items + 1) * round_cycles(instruction) + EMIT + steps(instruction) - 1 + WRITE + END
