"""Feature-memory words that PW and DW instructions touch: shared by the machine and by whoever checks a program.

All are 20-bit addresses in int64 arrays; pixels are in raster order.
"""

from __future__ import annotations

import numpy as np

from hw.spec.deform.instructions import ADDR_BITS, DW_DEFORM, DW_SAMPLE, MERGE_NONE, MERGE_ZIP
from hw.spec.isa import Instruction

ADDR_MASK = (1 << ADDR_BITS) - 1
OFFSET_MODES = (DW_DEFORM, DW_SAMPLE)
"""Modes of DW that read the offset map."""


def pixels(i: Instruction) -> np.ndarray:
    """Indices of the output pixels."""
    return np.arange(i["out_rows"] * i["out_cols"])


def pw_taps(i: Instruction) -> tuple[np.ndarray, np.ndarray]:
    """Input word of each (pixel, tap and channel word), and whether it exists (elsewhere the operand is 0)."""
    oy, ox = (a[:, None] for a in np.divmod(pixels(i), i["out_cols"]))
    grid = np.meshgrid(*(np.arange(i[n]) for n in ("kernel_h", "kernel_w", "in_words")), indexing="ij")
    ky, kx, word = (a.reshape(1, -1) for a in grid)
    row, col = oy * i["stride"] + ky - i["pad_top"], ox * i["stride"] + kx - i["pad_left"]
    inside = (row >= 0) & (row < i["in_rows"]) & (col >= 0) & (col < i["in_cols"])
    start = i["in_addr"] + oy * i["row_step"] + ox * i["pixel_step"]
    return (start + ky * i["ky_step"] + kx * i["kx_step"] + word) & ADDR_MASK, inside


def pw_merged(i: Instruction, word: int) -> np.ndarray:
    """Words of the left half or residual that output word ``word`` of each pixel is merged with."""
    return (i["merge_addr"] + pixels(i) * i["merge_pitch"] + word) & ADDR_MASK


def output(i: Instruction, word: int) -> np.ndarray:
    """Word ``word`` of each output pixel."""
    return (i["out_addr"] + pixels(i) * i["out_pitch"] + word) & ADDR_MASK


def dw_offsets(i: Instruction) -> np.ndarray:
    """Words of the offset map."""
    return (i["offset_addr"] + pixels(i) * i["offset_pitch"]) & ADDR_MASK


def feature_reads(i: Instruction) -> np.ndarray:
    """All feature words that a PW or DW instruction reads."""
    if i.name == "DW":
        return dw_offsets(i) if i["mode"] in OFFSET_MODES else np.zeros(0, np.int64)
    addr, inside = pw_taps(i)
    merged = [pw_merged(i, word) for word in range(i["out_words"])] if i["merge"] != MERGE_NONE else []
    return np.concatenate([addr[inside], *merged])


def feature_writes(i: Instruction) -> np.ndarray:
    """All feature words that a PW or DW instruction writes, each as often as it does."""
    words = i["words"] if i.name == "DW" else i["out_words"] * (2 if i["merge"] == MERGE_ZIP else 1)
    return np.concatenate([output(i, word) for word in range(words)])
