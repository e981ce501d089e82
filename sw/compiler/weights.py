"""Parameters as the core's memories hold them: weight words of the array, depthwise weights, requantise records."""

from __future__ import annotations

import numpy as np

from hw.spec.ops import Requant
from hw.spec.program import WORD_BYTES
from sw.compiler.slots import Slots

RECORD_WORDS = 8
"""16-byte words of the requantise records of one output word."""

TAP_WORDS = 9
"""16-byte words of the depthwise weights of one channel word."""

RECORD = np.dtype([("bias", "<i4"), ("multiplier", "<u2"), ("shift", "i1"), ("zero", "u1")])


def gather(values: np.ndarray, slots: Slots, axis: int = 0) -> np.ndarray:
    """Per-channel values to per-slot values along an axis; pads are zero."""
    order = np.asarray(slots)
    picked = np.moveaxis(np.take(values, np.maximum(order, 0), axis=axis), axis, 0)
    real = (order >= 0).reshape(-1, *(1,) * (picked.ndim - 1))
    return np.moveaxis(np.where(real, picked, 0), 0, axis)


def expand(weight: np.ndarray, groups: int, out_slots: Slots, in_slots: Slots) -> np.ndarray:
    """A grouped convolution's weights (OC, IC / groups, KH, KW) by slots (out, in, KH, KW): zero across groups and at pads."""
    per_out, per_in = len(weight) // groups, weight.shape[1]
    out, inner = np.asarray(out_slots), np.asarray(in_slots)
    local = inner[None, :] - (out // per_out * per_in)[:, None]
    real = (out >= 0)[:, None] & (inner >= 0)[None, :] & (local >= 0) & (local < per_in)
    picked = weight[np.maximum(out, 0)[:, None], np.where(real, local, 0)]
    return np.where(real[:, :, None, None], picked, 0)


def array_weights(slotted: np.ndarray, cells: int, wide: bool) -> bytes:
    """Weight words of a convolution by slots (out, in, KH, KW): for each tile of output words, for each step of K a byte per cell.

    K runs over (ky, kx, input word, lane). A cell holds one wide weight, or two: in its lower digit a channel of the first half
    of the tile, in its upper digit the channel ``cells`` further on. Channels that the last tile lacks have zero weights.
    """
    steps = slotted.transpose(0, 2, 3, 1).reshape(len(slotted), -1)
    channels = cells if wide else 2 * cells
    tiles = -(-len(slotted) // channels)
    padded = np.zeros((tiles * channels, steps.shape[1]), np.int64)
    padded[: len(steps)] = steps
    halves = padded.reshape(tiles, channels // cells, cells, -1)
    codes = halves[:, 0] if wide else halves[:, 0] + 16 * halves[:, 1]
    return (codes.transpose(0, 2, 1) & 0xFF).astype(np.uint8).tobytes()


def tap_weights(weight: np.ndarray, slots: Slots) -> bytes:
    """Depthwise weights (C, KH, KW), up to 3 x 3: for each channel word nine words, tap (i, j) in word 3 * i + j."""
    taps = np.zeros((len(weight), 3, 3), np.int64)
    taps[:, : weight.shape[1], : weight.shape[2]] = weight
    slotted = gather(taps, slots).reshape(-1, WORD_BYTES, TAP_WORDS)
    return (slotted.transpose(0, 2, 1) & 0xFF).astype(np.uint8).tobytes()


def requantise_records(requant: Requant, slots: Slots) -> bytes:
    """Eight bytes per slot; a pad's record is all zero, so that it yields code 0."""
    records = np.zeros(len(slots), RECORD)
    for name in ("bias", "multiplier", "shift"):
        records[name] = gather(getattr(requant, name), slots)
    return records.tobytes()


def table_bytes(values: np.ndarray) -> bytes:
    """A table (256,) as its memory holds it: the low byte of each value."""
    return (values & 0xFF).astype(np.uint8).tobytes()
