"""Parameters of the training core."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hw.spec.arch import Arch, _require
from hw.spec.isa import InstructionSet
from hw.spec.sat.instructions import BANKS, INSTRUCTIONS, TABLE_ENTRIES

LANES = 8
"""FP16 values of a memory word; lanes of the vector unit."""

SLOTS = 16
"""Accumulators of a processing element: the outputs that it computes in turn."""

FP32_LANES = 4
"""FP32 values of a memory word."""


@dataclass(frozen=True, kw_only=True)
class SatArch(Arch):
    """Training core: ``rows`` x ``columns`` processing elements, each an FP16 product and an FP32 sum per cycle.

    Parameters (those of :class:`hw.spec.arch.Arch` too)
    ----------
    rows : pixels (or input channels of a weight gradient) computed at once: 4, 8, 16 or 32
    columns : output channels computed at once: 4, 8, 16 or 32
    latency : cycles of the accumulating adder's loop, 4..6: as many outputs must be interleaved for an addition per cycle
    feed : operands that a row takes per cycle: 1 or 2
    act_words : activation memory, in 16-byte words, up to 65,536; it exists ``copies`` times
    wgt_words : weight memory, in words of ``columns`` FP16 values, and as many words of ``columns`` positions
    acc_words : memory of FP32 results, in words of ``columns`` values
    vec_words : one of the three banks of the vector memory, in 16-byte words, a power of two
    chn_words : memory of channel records, in 16-byte words
    tbl_words : pixel table, in 16-byte words of four entries
    """

    core: ClassVar[str] = "sat"
    instructions: ClassVar[InstructionSet] = INSTRUCTIONS

    regions: int = 8
    region_manager: tuple[int, ...] = (0,) * 8
    rows: int = 8
    columns: int = 8
    latency: int = 4
    feed: int = 1
    act_words: int = 4096
    wgt_words: int = 4096
    acc_words: int = 2048
    vec_words: int = 2048
    chn_words: int = 1024
    tbl_words: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rows", "columns"):
            _require(getattr(self, name) in (4, 8, 16, 32), name, "4, 8, 16 or 32", getattr(self, name))
        _require(4 <= self.latency <= 6, "latency", "in 4..6", self.latency)
        _require(self.feed in (1, 2), "feed", "1 or 2", self.feed)
        _require(64 <= self.act_words <= 1 << 16, "act_words", "in 64..65536", self.act_words)
        for name in ("wgt_words", "acc_words", "chn_words", "tbl_words"):
            _require(64 <= getattr(self, name) <= 1 << 17, name, "in 64..131072", getattr(self, name))
        _require(self.vec_words in [1 << i for i in range(6, 18)], "vec_words", "a power of two in 64..131072", self.vec_words)
        for name in ("acc_words", "wgt_words"):
            _require(getattr(self, name) % 8 == 0, name, "a multiple of 8", getattr(self, name))

    @property
    def rows_per_copy(self) -> int:
        """Rows that one copy of the activation memory feeds: a word lasts a row 8 / feed cycles."""
        return min(self.rows, LANES // self.feed)

    @property
    def copies(self) -> int:
        """Copies of the activation memory and of the pixel table; all hold the same."""
        return self.rows // self.rows_per_copy

    def space_units(self) -> dict[str, int]:
        """Size of each on-chip memory in 16-byte words, by the space's name, in the order of the instructions' ``space``."""
        return {
            "act": self.act_words,
            "wgt": self.wgt_words * self.columns // LANES,
            "idx": self.wgt_words * self.columns // LANES,
            "acc": self.acc_words * self.columns // FP32_LANES,
            "vec": self.vec_words * BANKS,
            "chn": self.chn_words,
            "tbl": self.tbl_words,
        }

    @property
    def table_entries(self) -> int:
        """Entries of the pixel table."""
        return self.tbl_words * TABLE_ENTRIES
