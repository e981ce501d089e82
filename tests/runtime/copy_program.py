"""A program small enough to write by hand: an image through feature memory and out again, beside a checked load of parameters."""

from __future__ import annotations

import zlib

import numpy as np

from hw.spec.deform import DeformArch
from hw.spec.fixed import FixedFormat
from hw.spec.program import Program, Region, TensorLayout, build_image, default_slots

ARCH = DeformArch(rows=2, feature_words=64, row_words=16, weight_words=16, parameter_words=16)
SHAPE = (20, 3, 2)
FORMAT = FixedFormat(8, 4)
WORDS = 3 * 2 * 2
PARAMETERS = bytes(range(64))
LAYERS = ("parameters", "input", "output")


def copy_program(arch: DeformArch = ARCH) -> Program:
    """Parameters in region 0, input ``x`` in region 1, output ``y`` in region 2 at an offset of 32 bytes."""
    table = arch.instructions
    instructions = [
        table.encode("LOAD", region=0, n0=4, space=3, check_crc=1, crc=zlib.crc32(PARAMETERS)),
        table.encode("LOAD", region=1, chip_addr=5, n0=WORDS, space=0, push=1),
        table.encode("STORE", region=2, offset=2, chip_addr=5, n0=WORDS, wait=1),
    ]
    layout = {"shape": SHAPE, "fmt": FORMAT, "slots": default_slots(SHAPE[0])}
    return Program(
        arch=arch,
        image=build_image(arch, instructions),
        regions=(
            Region(name="parameters", kind="parameters", size=len(PARAMETERS), data=PARAMETERS),
            Region(name="in", kind="input", size=16 * WORDS),
            Region(name="out", kind="output", size=16 * WORDS + 32),
        ),
        inputs=(TensorLayout(name="x", region=1, offset=0, **layout),),
        outputs=(TensorLayout(name="y", region=2, offset=32, **layout),),
        layers=LAYERS,
    )


def image(seed: int, *batch: int) -> np.ndarray:
    """Random codes (*batch, C, H, W) over the whole range."""
    return np.random.default_rng(seed).integers(FORMAT.min_code, FORMAT.max_code + 1, (*batch, *SHAPE))
