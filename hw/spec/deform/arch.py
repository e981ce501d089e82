"""Parameters of the inference core."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hw.spec.arch import Arch, _require
from hw.spec.deform.digits import MOST_TERMS
from hw.spec.deform.instructions import INSTRUCTIONS, TABLE_BYTES, TABLES_MAX
from hw.spec.isa import InstructionSet

LANES = 16
"""Channels of a memory word, and lanes of the depthwise and requantise units."""

ROW_BANKS = 9
"""Banks of the row memory: row y lies in bank y mod 9, so rows y-s, y, y+s never collide for |s| <= 8."""


@dataclass(frozen=True, kw_only=True)
class DeformArch(Arch):
    """Inference core: ``rows`` x ``columns`` multiply-accumulates of a 4-bit weight and an 8-bit activation.

    Parameters (those of :class:`hw.spec.arch.Arch` too)
    ----------
    rows : pixels computed at once, 1..16
    columns : output channels computed at once with 4-bit weights, 32 or 64 (half with 8-bit weights)
    field_bits : width of the lower of the two accumulators packed into one 48-bit register, 16..23 (the weight operand is 4 bits wider,
        and a multiplier port has 27); of each of two that are not packed, with ``weight_terms``
    feature_words : feature memory, in 16-byte words
    row_words : one bank of the row memory, in 16-byte words
    weight_words : pointwise weight memory, in words of columns/2 bytes
    parameter_words : requantise records and depthwise weights, in 16-byte words
    tables : table activations held at once, 0..8, each 256 bytes; 0 leaves out their hardware and its latency
    weight_terms : 0, the array's cells multiply; 1 or 2, they shift and add so many signed powers of two for each 4-bit digit of a
        weight: with 2 every weight, with 1 those whose digits are powers of two
    """

    core: ClassVar[str] = "deform"
    instructions: ClassVar[InstructionSet] = INSTRUCTIONS

    rows: int = 8
    columns: int = 32
    field_bits: int = 23
    feature_words: int = 2048
    row_words: int = 256
    weight_words: int = 2048
    parameter_words: int = 512
    tables: int = 4
    weight_terms: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(1 <= self.rows <= 16, "rows", "in 1..16", self.rows)
        _require(self.columns in (32, 64), "columns", "32 or 64", self.columns)
        _require(16 <= self.field_bits <= 23, "field_bits", "in 16..23", self.field_bits)
        for name in ("feature_words", "row_words", "weight_words", "parameter_words"):
            size = getattr(self, name)
            _require(16 <= size <= 1 << 20, name, "in 16..1048576", size)
        _require(0 <= self.tables <= TABLES_MAX, "tables", f"in 0..{TABLES_MAX}", self.tables)
        _require(0 <= self.weight_terms <= MOST_TERMS, "weight_terms", f"in 0..{MOST_TERMS}", self.weight_terms)

    @property
    def cells(self) -> int:
        """Multiplier cells of a row: one per two 4-bit weights."""
        return self.columns // 2

    @property
    def weight_word_units(self) -> int:
        """16-byte units of one weight word."""
        return self.cells // LANES

    def space_units(self) -> dict[str, int]:
        """Size of each on-chip memory in 16-byte units, by the LOAD space's name; 0 for tables that the core does not have."""
        return {
            "fm": self.feature_words,
            "row": self.row_words * ROW_BANKS,
            "wgt": self.weight_words * self.weight_word_units,
            "par": self.parameter_words,
            "tbl": self.tables * TABLE_BYTES // LANES,
        }
