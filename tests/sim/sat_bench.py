"""Architectures of the training core's tests, and its machine alone under the bench's programs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hw.sim.bench import BASE, PROGRAM, bench_memory, bench_regions, dirt_program
from hw.spec.arch import WORD_BYTES
from hw.spec.machine import Memory, Outcome, Writes
from hw.spec.program import build_image
from hw.spec.sat import SatArch
from hw.spec.sat.machine import SatMachine

SIZES = {"act_words": 256, "wgt_words": 256, "acc_words": 256, "vec_words": 256, "chn_words": 256, "tbl_words": 64}
SMALL = SatArch(rows=4, columns=4, burst_beats=16, **SIZES)
WIDE = SatArch(rows=4, columns=8, latency=5, feed=2, burst_beats=16, **SIZES)
SQUARE = SatArch(rows=8, columns=8, latency=6, feed=2, burst_beats=32, managers=2, region_manager=(0, 1, 0, 0, 1, 0, 0, 0), **SIZES)
ARCHES = {"4x4": SMALL, "4x8": WIDE, "8x8": SQUARE}


class MachineBench:
    """The machine, with memory, regions and on-chip contents of the bench."""

    def __init__(self, arch: SatArch, seed: int) -> None:
        self.arch, self.regions, self.machine = arch, bench_regions(arch), SatMachine(arch, seed)
        self.memory = Memory(self.regions[-1].base + self.regions[-1].size - BASE, BASE)
        self.memory.bytes[:] = bench_memory(arch, seed)
        self.fill()

    def fill(self) -> None:
        assert self.run(dirt_program(self.arch))[0].retired == len(dirt_program(self.arch))

    def run(self, instructions: Sequence[bytes]) -> tuple[Outcome, list[Writes]]:
        image, written = build_image(self.arch, instructions), list[Writes]()
        self.memory.bytes[PROGRAM - BASE :][: len(image)] = np.frombuffer(image, np.uint8)
        return self.machine.run(self.memory, self.regions, PROGRAM, len(image), written.append), written

    def region_bytes(self, region: int, word: int, count: int) -> bytes:
        start = self.regions[region].base - BASE + WORD_BYTES * word
        return self.memory.bytes[start : start + WORD_BYTES * count].tobytes()
