"""Random instructions for the inference core, of shapes that fit small memories; some break a rule on purpose.

Convolutions read the lower half of feature memory and write the upper one, because what an instruction reads must not be
what it writes.
"""

from __future__ import annotations

from collections.abc import Callable

from hw.sim.draws import WRAP, Draws
from hw.spec.deform import DeformArch
from hw.spec.deform.instructions import (
    DW_CONV,
    DW_DEFORM,
    DW_MAX,
    DW_SAMPLE,
    DW_SUM,
    MERGE_ADD,
    MERGE_NONE,
    MERGE_ZIP,
    OFFSET_PAIRS,
    SAMPLE_SIDE,
    SPACES,
    TABLES_MAX,
    WINDOW_MAX,
)
from hw.spec.isa import CRC_OFFSET, seal

LEAST = {"feature_words": 224, "row_words": 64, "weight_words": 288, "parameter_words": 64}
"""Sizes of on-chip memories that the largest drawn shapes fit."""


class Generator(Draws):
    """Draws instructions for an architecture; ``memory`` (region, word, count) gives the bytes that a LOAD will see."""

    arch: DeformArch

    def __init__(self, arch: DeformArch, seed: int, memory: Callable[[int, int, int], bytes]) -> None:
        super().__init__(arch, seed, memory)
        self.require(LEAST)
        self.half = arch.feature_words // 2
        self.spaces = [number for number, space in enumerate(SPACES) if arch.space_units()[space]]

    def program(self, length: int) -> list[bytes]:
        """Legal instructions that fit."""
        return [self.instruction() for _ in range(length)]

    def instruction(self) -> bytes:
        """A legal instruction that fits."""
        return [self.load, self.store, self.pw, self.dw][self.below(4)]()

    def faulty(self) -> bytes:
        """An instruction of which the core may refuse something, at issue or while it runs."""
        kind = self.below(6)
        if kind == 0:
            return self._flipped(sealed=False)
        if kind == 1:
            return self._flipped(sealed=True)
        if kind == 2:
            return self.load(region=self.between(0, 5), offset=self.one_of(0, 500, 2048, 1 << 31))
        if kind == 3:
            return self.store(region=self.between(0, 3), chip_addr=self.one_of(0, self.arch.feature_words - 2, WRAP))
        if kind == 4:
            return self._beyond_a_memory()
        return self.load(check_crc=1, crc=self.below(1 << 32))

    def _beyond_a_memory(self) -> bytes:
        """A convolution of which some accesses lie outside, perhaps only the last, or that names a table that there is not."""
        arch, draw = self.arch, (self.pw, self.dw)[self.below(2)]
        weights = arch.weight_words if draw == self.pw else arch.parameter_words
        ends = {"out_addr": arch.feature_words, "param_addr": arch.parameter_words, "weight_addr": weights}
        if self.arch.tables < TABLES_MAX and self.below(4) == 0:
            return draw(table=self.between(self.arch.tables + 1, TABLES_MAX))
        field = str(self.rng.choice(list(ends)))
        return draw(**{field: self.one_of(WRAP, ends[field], ends[field] - 1, ends[field] - 5, ends[field] - 8)})

    def _flipped(self, *, sealed: bool) -> bytes:
        data = bytearray(self.instruction())
        for _ in range(self.between(1, 2)):
            # Not beyond the header and the first fields: a random far field would only make a very long instruction.
            data[self.one_of(0, 1, 2, 3, 4, 58, 59)] ^= 1 << self.below(8)
        return seal(bytes(data[:CRC_OFFSET])) if sealed else bytes(data)

    def load(self, **changes: int) -> bytes:
        space = changes.get("space", self.one_of(*self.spaces))
        fields = {"region": self.below(2), "space": space, **self._load_shape(space)}
        if self.below(2):
            fields |= {"check_crc": 1, "crc": self._crc(fields)}
        return self.arch.instructions.encode("LOAD", **fields | changes)

    def _load_shape(self, space: int) -> dict[str, int]:
        size = self.arch.space_units()[SPACES[space]]
        if space != 1:
            shape = self._transfer(min(size, 120))
            return {**shape, "chip_addr": self.below(size - shape["n0"] * shape["n1"] * shape["n2"] + 1)}
        shape = self._transfer(min(self.arch.row_words // 4, 16)) | {"n2": self.between(1, 20)}
        return {**shape, "chip_addr": self.below(4)}

    def store(self, **changes: int) -> bytes:
        shape = self._transfer(100)
        used = shape["n0"] * shape["n1"] * shape["n2"]
        fields = {"region": 2, "chip_addr": self.below(self.arch.feature_words - used + 1), **shape}
        return self.arch.instructions.encode("STORE", **fields | changes)

    def _stride(self) -> int:
        """Mostly the small ones that networks use, now and then any."""
        return self.one_of(1, 1, 1, 2, 2, 3, self.between(1, 8))

    def _clips(self) -> dict[str, int]:
        """Clips, rounding and a table, which half of the instructions have."""
        low, table = self.one_of(-128, 0, -256, -8), self.below(2) * self.between(0, self.arch.tables)
        clips = {"clip_lo": low, "clip_hi": self.one_of(127, 255, 7), "table": table}
        return {**clips, "rounding": self.below(3), "in_unsigned": self.below(2)}

    def _merge(self) -> dict[str, int]:
        """How a PW merges; few sums are clipped."""
        limits = {"merge_lo": self.one_of(-128, 0, -256, -20), "merge_hi": self.one_of(127, 255, 30)}
        return {"merge": self.one_of(MERGE_NONE, MERGE_ZIP, MERGE_ADD), "merge_unsigned": self.below(2), **limits}

    def pw(self, **changes: int) -> bytes:
        words, kernel_h, kernel_w = self.between(1, 2), self.between(1, 3), self.between(1, 3)
        stride, pad_top, pad_left = self._stride(), self.below(2), self.below(2)
        out_rows, out_cols, wide = self.between(1, 4), self.between(1, 4), changes.get("wide_weights", self.below(2))
        rows, cols = self.between(1, 6), self.between(1, 6)
        taps = kernel_h * kernel_w * words * 16
        per_tile = self.arch.cells // 16 * (1 if wide else 2)
        out_words = self.between(1, min(3, per_tile * (self.arch.weight_words // taps)))
        merge = self._merge() | {name: value for name, value in changes.items() if name == "merge"}
        pixels, pitch = out_rows * out_cols, out_words * (2 if merge["merge"] == MERGE_ZIP else 1) + self.below(2)
        in_addr = self.below(self.half - rows * cols * words + 1)
        fields = {
            "in_addr": (in_addr - (pad_top * cols + pad_left) * words) & WRAP, "in_words": words, "kernel_h": kernel_h,
            "kernel_w": kernel_w, "in_rows": rows, "in_cols": cols, "pad_top": pad_top, "pad_left": pad_left, "stride": stride,
            "pixel_step": stride * words, "row_step": stride * cols * words, "kx_step": words, "ky_step": cols * words,
            "out_rows": out_rows, "out_cols": out_cols, "out_words": out_words, "out_pitch": pitch,
            "out_addr": self.half + self.below(self.half - pixels * pitch + 1),
            "weight_addr": self.below(self.arch.weight_words - taps * -(-out_words // per_tile) + 1),
            "param_addr": self.below(self.arch.parameter_words - 8 * out_words + 1), **merge,
            "merge_addr": self.below(self.half - pixels * out_words + 1), "merge_pitch": out_words, "wide_weights": wide,
        }  # fmt: skip
        return self.arch.instructions.encode("PW", **fields | self._clips() | changes)

    def _window(self, mode: int) -> dict[str, int]:
        sides = {DW_CONV: (1, WINDOW_MAX), DW_DEFORM: (WINDOW_MAX, WINDOW_MAX), DW_SAMPLE: (SAMPLE_SIDE, SAMPLE_SIDE)}
        least, most = sides.get(mode, (1, 7))
        return {"kernel_h": self.between(least, most), "kernel_w": self.between(least, min(most, 4))}

    def _tall(self, words: int) -> dict[str, int]:
        """Many rows on few words, in the middle of which samples begin: their offsets take them many turns of the banks away."""
        return {"in_rows": 300, "in_cols": 4, "pitch": words, "row_pitch": 1, "row0": self.between(100, 180), "row0_addr": 18}

    def dw(self, **changes: int) -> bytes:
        mode = changes.get("mode", self.one_of(DW_CONV, DW_DEFORM, DW_MAX, DW_SUM, DW_SAMPLE))
        words, cols, rows = self.between(1, 2), self.between(1, 6), self.between(1, 14)
        out_rows, out_cols = self.between(1, 4), self.between(1, 4)
        row_pitch, pitch = words * cols, words
        fields = {
            "mode": mode, "words": words, "pitch": pitch, "row_pitch": row_pitch, "in_rows": rows, "in_cols": cols,
            "row0": self.between(-1, 2), "bank0": self.below(9), "row0_addr": 2 * row_pitch + self.below(8),
            "col0": self.between(-1, 1), **self._window(mode), "stride": self._stride(),
            "out_rows": out_rows, "out_cols": out_cols,
            "out_addr": self.half + self.below(self.half - out_rows * out_cols * words + 1), "out_pitch": words,
            "weight_addr": self.below(self.arch.parameter_words - 9 * words + 1),
            "param_addr": self.below(self.arch.parameter_words - 8 * words + 1),
            "offset_addr": self.below(self.half - out_rows * out_cols + 1), "offset_pitch": 1,
            "offset_pair": self.below(OFFSET_PAIRS), "offset_frac": self.below(8),
        }  # fmt: skip
        if mode == DW_SAMPLE and self.below(3) == 0:
            fields |= self._tall(words) if self.below(2) else {"in_cols": 200, "pitch": 0, "col0": self.between(80, 120)}
        return self.arch.instructions.encode("DW", **fields | self._clips() | changes)
