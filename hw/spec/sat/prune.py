"""What PRUNE selects: part of the training core's machine, which shares nothing with ``hw.spec.sparsity``."""

from __future__ import annotations

import numpy as np

from hw.spec.isa import Instruction
from hw.spec.sat.arch import FP32_LANES, LANES


def chunk_values(i: Instruction) -> int:
    return LANES << i["chunk_log2"]


def master_words(i: Instruction, chunk: int, word: int) -> np.ndarray:
    """Words of the masters of a chunk and a word of lanes: (rows, words), k along the rows, or with ``transpose`` along the columns."""
    k, lanes = chunk_values(i), LANES
    if i["transpose"]:
        rows, first, count = word * lanes + np.arange(lanes), chunk * k // FP32_LANES, k // FP32_LANES
    else:
        rows, first, count = chunk * k + np.arange(k), word * lanes // FP32_LANES, lanes // FP32_LANES
    return i["in_addr"] + rows[:, None] * i["in_pitch"] + first + np.arange(count)


def by_lane(i: Instruction, masters: np.ndarray) -> np.ndarray:
    """Masters (rows, words, 4) as (k, lanes)."""
    flat = masters.reshape(len(masters), -1)
    return flat.T if i["transpose"] else flat


def select(i: Instruction, masters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of masters (k, lanes) the values kept (steps, lanes) and their positions in the chunk (uint16), ascending."""
    size, keep = 1 << i["group_log2"], i["keep"]
    values, positions = [], []
    for start in range(0, len(masters), size):
        group = masters[start : start + size]
        order = np.argsort(-np.abs(group), axis=0, kind="stable")[:keep]
        kept = np.sort(order, axis=0)
        values.append(np.take_along_axis(group, kept, axis=0))
        positions.append((start + kept).astype(np.uint16))
    return np.concatenate(values), np.concatenate(positions)
