"""Contents of the training core's memories that exercise its units, and where in region 0 each memory's lie.

Most words are numbers of moderate size, so that sums cancel and round, or are from a small palette, so that values tie; some are
random bits, Inf and NaN among them. Two memories have a domain of their own, and only their own area may be loaded into them:
accumulators must be what GEMM drains, +0 or multiples of 2**-48 below 2**80, and bases of pixels must lie where activations are.
"""

from __future__ import annotations

import numpy as np

from hw.spec.arch import WORD_BYTES
from hw.spec.sat import SatArch
from hw.spec.sat.instructions import RECORD_WORDS

SHARES = {"bits": 0.12, "half": 0.36, "half palette": 0.2, "float": 0.2, "float palette": 0.12}
"""Kinds of words, and their shares."""

HALVES = (0x0000, 0x8000, 0x3C00, 0xBC00, 0x4000, 0x3555, 0x0001, 0x83FF, 0x7BFF, 0xFBFF, 0x7C00, 0xFE01)
"""FP16: zeros, ones, a third, subnormals, the largest, Inf, NaN."""

FLOATS = (0x00000000, 0x80000000, 0x3F800000, 0xBF800000, 0x33800000, 0x477FF000, 0xC7800000, 0x00000001, 0x7F7FFFFF, 0xFF800000)
"""FP32: zeros, ones, 2**-24, where FP16 saturates, a subnormal, the largest, -Inf."""

EXPONENTS = (-25, 30)
"""Of accumulators: a float with 24 bits is a multiple of 2**-48 from 2**-25 on."""

OWN_AREA = ("acc", "tbl")
"""Memories with a domain of their own."""


def areas(arch: SatArch) -> dict[str, int]:
    """First word of region 0 that goes to each memory; one after the other, so that no memory holds another's contents."""
    found, at = {}, 0
    for name, words in arch.space_units().items():
        found[name] = at
        at += words
    return found


def region_words(arch: SatArch) -> int:
    return sum(arch.space_units().values())


def plant(arch: SatArch, rng: np.random.Generator, memory: np.ndarray) -> None:
    """Words of all kinds everywhere, then the areas whose memories have a domain or a structure of their own."""
    memory[:] = words(rng, len(memory) // WORD_BYTES).reshape(-1)
    sizes = arch.space_units()
    for name, start in areas(arch).items():
        area = memory[WORD_BYTES * start : WORD_BYTES * (start + sizes[name])]
        if name == "acc":
            area[:] = accumulators(rng, area.size // 4).view(np.uint8)
        elif name == "tbl":
            area[:] = entries(rng, area.size // 4, arch.act_words).reshape(-1)
        elif name == "chn":
            _records(rng, area)


def words(rng: np.random.Generator, count: int) -> np.ndarray:
    """Words (count, 16) of all kinds."""
    made = {
        "bits": rng.integers(0, 256, (count, 16), np.uint8),
        "half": (rng.normal(size=(count, 8)) * 2.0 ** rng.integers(-6, 3, (count, 1))).astype("<f2").view(np.uint8),
        "half palette": rng.choice(np.array(HALVES, "<u2"), (count, 8)).view(np.uint8),
        "float": (rng.normal(size=(count, 4)) * 2.0 ** rng.integers(-6, 3, (count, 1))).astype("<f4").view(np.uint8),
        "float palette": rng.choice(np.array(FLOATS, "<u4"), (count, 4)).view(np.uint8),
    }
    kind = rng.choice(len(SHARES), count, p=list(SHARES.values()))
    return np.stack([made[name] for name in SHARES])[kind, np.arange(count)]


def accumulators(rng: np.random.Generator, count: int) -> np.ndarray:
    """Sums that an array may hold: float32 (count,), a tenth of them +0."""
    low, high = EXPONENTS
    values = (1 + rng.integers(0, 1 << 23, count) / (1 << 23)) * 2.0 ** rng.integers(low, high + 1, count)
    return np.where(rng.random(count) < 0.1, 0.0, rng.choice([-1.0, 1.0], count) * values).astype("<f4")


def entries(rng: np.random.Generator, count: int, act_words: int) -> np.ndarray:
    """Entries of the pixel table (count, 4) whose base lies in the second quarter of the activations; half with both masks full."""
    found = rng.integers(0, 256, (count, 4), np.uint8)
    bases = rng.integers(act_words // 4, act_words // 2, count)
    found[:, :2] = bases.astype("<u2").view(np.uint8).reshape(-1, 2)
    found[rng.random(count) < 0.5, 2:] = 0xFF
    return found


def _records(rng: np.random.Generator, area: np.ndarray) -> None:
    """Channel records: two of three have sums of a size that sums of FP16 have, and a variance that is positive."""
    records = area[: area.size // (RECORD_WORDS * WORD_BYTES) * RECORD_WORDS * WORD_BYTES].reshape(-1, RECORD_WORDS, WORD_BYTES)
    for record in records[rng.random(len(records)) < 0.67]:
        record[:4] = np.abs(rng.normal(size=(4, 4))).astype("<f4").view(np.uint8)
        first = int(rng.normal() * 2.0 ** rng.integers(10, 36))
        second = int(abs(rng.normal()) * 2.0 ** rng.integers(40, 70))
        for place, value in ((4, first), (5, second), (6, first)):
            record[place] = np.frombuffer(value.to_bytes(WORD_BYTES, "little", signed=True), np.uint8)
