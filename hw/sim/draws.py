"""What the random programs of every core are drawn with."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import numpy as np

from hw.spec.arch import Arch
from hw.spec.isa import CRC_OFFSET, seal

WRAP = (1 << 20) - 1
"""The last on-chip address."""

OPCODE, VERSION = 0, 1
"""Bytes of an instruction."""


class Draws:
    """Numbers, transfers and damage; ``memory`` (region, word, count) gives the bytes that a LOAD will see."""

    def __init__(self, arch: Arch, seed: int | Sequence[int], memory: Callable[[int, int, int], bytes]) -> None:
        self.arch, self.memory = arch, memory
        self.rng = np.random.default_rng(seed)

    def require(self, least: dict[str, int]) -> None:
        """ValueError where a size of the architecture is below what the largest drawn shapes need."""
        for name, value in least.items():
            if getattr(self.arch, name) < value:
                raise ValueError(f"{name} must be at least {value} for random programs, not {getattr(self.arch, name)}")

    def below(self, limit: int) -> int:
        return int(self.rng.integers(limit))

    def between(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def one_of(self, *values: int) -> int:
        return int(self.rng.choice(values))

    def _transfer(self, words: int) -> dict[str, int]:
        """Loops of at most ``words`` words of a chip memory, and not many more of a region."""
        n0, n1, n2 = self.between(1, max(words // 4, 1)), self.between(1, 3), self.between(1, 3)
        while (n0 * n1 * n2) > words:
            n0, n1, n2 = max(n0 // 2, 1), max(n1 - 1, 1), max(n2 - 1, 1)
        stride1 = n0 + self.below(3)
        return {
            "n0": n0, "n1": n1, "n2": n2, "stride1": stride1, "stride2": n1 * stride1 + self.below(5),
            "chip_stride1": n0, "chip_stride2": n0 * n1, "offset": self.below(40),
        }  # fmt: skip

    def _crc(self, fields: dict[str, int]) -> int:
        crc = 0
        for plane in range(fields["n2"]):
            for run in range(fields["n1"]):
                word = fields["offset"] + plane * fields["stride2"] + run * fields["stride1"]
                crc = zlib.crc32(self.memory(fields["region"], word, fields["n0"]), crc)
        return crc


def patched(raw: bytes, offset: int, width: int, value: int) -> bytes:
    """An instruction with other bits and a right CRC."""
    word, mask = int.from_bytes(raw[:CRC_OFFSET], "little"), (1 << width) - 1
    return seal((word & ~(mask << offset) | (value & mask) << offset).to_bytes(CRC_OFFSET, "little"))
