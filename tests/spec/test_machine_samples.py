"""Bilinear samples in the machine: one tap of the golden deformable convolution, on images of any size, and what it notes of them."""

from __future__ import annotations

import numpy as np

from hw.spec.deform import INSTRUCTIONS, LANES, ROW_BANKS, DeformArch
from hw.spec.deform.instructions import DW_SAMPLE, OFFSET_PAIRS
from hw.spec.deform.machine import DeformMachine
from hw.spec.ops import DeformConv2d, identity_requant

ARCH = DeformArch()
OUT = 1000


def sampled(x: np.ndarray, offset: np.ndarray, frac: int, stride: int, padding: int, seed: int) -> tuple[np.ndarray, set[str]]:
    """Codes (16, OH * OW) that an instruction writes for x (16, H, W) and offsets (2, OH, OW), and what it met."""
    machine, (_, height, width), (_, rows, cols) = DeformMachine(ARCH, seed), x.shape, offset.shape
    pair, unsigned, row0 = seed % OFFSET_PAIRS, int(x.max() > 127), 1 - padding
    for y, col in np.ndindex(height, width):
        machine.chip["row"][y % ROW_BANKS * ARCH.row_words + y // ROW_BANKS * width + col] = x[:, y, col] & 0xFF
    machine.chip["fm"][: rows * cols, 2 * pair : 2 * pair + 2] = offset.reshape(2, -1).T & 0xFF
    machine.chip["par"][:8] = np.array([0, 0, 0, 0, 1, 0, 2 * frac, 0] * 2, np.uint8)
    machine.execute(INSTRUCTIONS.decode(INSTRUCTIONS.encode(
        "DW", mode=DW_SAMPLE, pitch=1, row_pitch=width, in_rows=height, in_cols=width, row0=row0, bank0=row0 % ROW_BANKS,
        row0_addr=row0 // ROW_BANKS * width & 0xFFFFF, col0=-padding, kernel_h=2, kernel_w=2, stride=stride,
        out_rows=rows, out_cols=cols, out_addr=OUT, out_pitch=1, offset_pitch=1, offset_pair=pair, offset_frac=frac,
        rounding=1, in_unsigned=unsigned, clip_lo=-128 * (not unsigned), clip_hi=255 if unsigned else 127,
    )))  # fmt: skip
    words = machine.chip["fm"][OUT : OUT + rows * cols].T
    return words if unsigned else words.view(np.int8), machine.writes.met


def test_samples_are_the_golden_operations() -> None:
    rng, compared, met = np.random.default_rng(8), 0, set()
    for seed in range(96):
        size, frac, stride, padding = rng.integers(1, 30, 2), seed % 8, int(rng.integers(1, 4)), int(rng.integers(3))
        x = rng.integers(0, 256, (LANES, *size)) if seed % 3 else rng.integers(-128, 128, (LANES, *size))
        operation = DeformConv2d(weight=np.ones((1, LANES, 1, 1), np.int64), requant=identity_requant(1, 0, 0), offset_frac=frac,
                                 stride=stride, padding=padding)
        rows, cols = ((int(side) + 2 * padding - 1) // stride + 1 for side in size)
        offset = rng.integers(-128, 128, (2, rows, cols)) >> rng.integers(0, 8 - frac, (1, rows, cols))
        got, found = sampled(x, offset, frac, stride, padding, seed)
        np.testing.assert_array_equal(got, operation.sample(x[None], offset[None])[0, :, 0].reshape(LANES, -1))
        compared, met = compared + got.size, met | found
    assert compared > 100_000
    assert met == {f"{how} {side}" for how in ("across", "beyond", "far") for side in ("above", "below", "left", "right")}


def test_what_is_noted_of_a_sample() -> None:
    """One pixel, in quarters from (0, 0) of images of 40 x 40 and 3 x 3."""
    x = np.full((LANES, 40, 40), 200)
    cases = {
        (0, 0): set(), (1, 1): set(), (-1, 0): {"across above"}, (-4, 0): set(), (-5, 0): {"beyond above"},
        (0, -3): {"across left"}, (-8, -8): {"beyond above", "beyond left"}, (4 * 19, 0): {"far below"}, (0, 4 * 19 + 3): {"far right"},
        (4 * 18, 4 * 18): set(),
    }  # fmt: skip
    for offset, wanted in cases.items():
        _, met = sampled(x, np.array(offset).reshape(2, 1, 1), 2, 8, 0, 1)
        assert met == wanted, offset
    assert sampled(x[:, :3, :3], np.array([9, 8]).reshape(2, 1, 1), 2, 8, 0, 1)[1] == {"across below"}
    assert sampled(x[:, :3, :3], np.array([-1, 12]).reshape(2, 1, 1), 2, 8, 0, 1)[1] == {"across above", "beyond right"}
