"""What GEMM computes, operand by operand, from the words of the on-chip memories: part of the training core's machine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hw.spec.isa import Instruction
from hw.spec.sat.arch import LANES, SatArch

ACT_MASK = (1 << 16) - 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Gather:
    """Where the operands of one chunk come from: activation words (outputs or values of k, words), and which of them exist."""

    words: np.ndarray
    exists: np.ndarray


def interleave(i: Instruction) -> tuple[int, int]:
    """Interleaved output rows a and column words b of a processing element."""
    return 1 << i["a_log2"], 1 << i["b_log2"]


def chunk_values(i: Instruction) -> int:
    """Values of k in a chunk."""
    return LANES << i["chunk_log2"]


def chunk_count(i: Instruction) -> int:
    return i["kernel_h"] * i["kernel_w"] * i["chunks"]


def entry_numbers(i: Instruction, arch: SatArch, chunk: int) -> np.ndarray:
    """Entries of the pixel table that a chunk needs: of each output row, or of each value of k."""
    if i["channels"]:
        return i["table_addr"] + LANES * chunk + np.arange(LANES)
    return i["table_addr"] + np.arange(arch.rows << i["a_log2"])


def gather(i: Instruction, arch: SatArch, chunk: int, entries: np.ndarray) -> Gather:
    """Activation words of a chunk, from its entries (n, 4) as bytes."""
    base = entries[:, 0].astype(np.int64) | entries[:, 1].astype(np.int64) << 8
    tap, part = divmod(chunk, i["chunks"])
    row, col = divmod(tap, i["kernel_w"])
    exists = (entries[:, 2] >> (i["tap_row"] + row) % 8 & 1) & (entries[:, 3] >> (i["tap_col"] + col) % 8 & 1)
    at = base + i["act_addr"]
    if i["channels"]:
        # Each value of k has its own pixel; the rows of the array are its channels.
        inner = np.arange(-(-(arch.rows << i["a_log2"]) // LANES))
    else:
        at = at + row * i["row_step"] + col * i["col_step"] + (part << i["chunk_log2"])
        inner = np.arange(1 << i["chunk_log2"])
    return Gather(words=(at[:, None] + inner) & ACT_MASK, exists=exists.astype(bool))


def operands(i: Instruction, arch: SatArch, words: np.ndarray) -> np.ndarray:
    """FP16 words of a chunk (n, words, 8), zero where they do not exist, as operands (output rows, values of k)."""
    flat = words.reshape(len(words), -1)
    return flat.T[: arch.rows << i["a_log2"]] if i["channels"] else flat


def weight_words(i: Instruction, chunk: int) -> np.ndarray:
    """Offsets of a chunk's weight words (steps, b) from the first."""
    step = chunk * i["steps"] + np.arange(i["steps"])
    return step[:, None] * i["wgt_pitch"] + np.arange(1 << i["b_log2"])


def accumulate(acc: np.ndarray, x: np.ndarray, weights: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Add a chunk's products to acc (rows, columns), one k after the other.

    x (rows, values of k), weights and positions (steps, columns); float32 sums of FP16 products, each product exact.
    """
    wide, scale = x.astype(np.float32), weights.astype(np.float32)
    for step in range(len(weights)):
        acc = acc + wide[:, positions[step]] * scale[step]
    return acc
