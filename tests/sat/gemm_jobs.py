"""Random memories and random legal GEMM instructions for the bench of the engine."""

from __future__ import annotations

import numpy as np

from hw.spec.isa import Instruction
from hw.spec.sat import SatArch
from hw.spec.sat.gemm import chunk_count
from hw.spec.sat.timing.gemm import gemm_cycles
from tests.sat.gemm_bench import Job

LONGEST = 1500
"""Cycles of a random instruction at most, unless told otherwise."""


def halves(rng: np.random.Generator, words: int) -> np.ndarray:
    """FP16 as bytes (words, 16): random bits in half of the words, else numbers near to each other, so that sums cancel and round."""
    bits = rng.integers(0, 1 << 16, (words, 8))
    near = rng.integers(0, 2, (words, 8)) << 15 | rng.integers(11, 19, (words, 8)) << 10 | rng.integers(0, 1 << 10, (words, 8))
    bits = np.where(rng.random((words, 1)) < 0.5, bits, near)
    bits[rng.random((words, 8)) < 0.05] &= 0x8000
    return bits.astype("<u2").view(np.uint8)


def sums(rng: np.random.Generator, words: int) -> np.ndarray:
    """FP32 as bytes (words, 16) that are sums of products: multiples of 2**-48, no -0."""
    values = np.ldexp(rng.integers(-(1 << 24), 1 << 24, (words, 4)).astype(np.float32), rng.integers(-48, 20, (words, 4)))
    return values.astype("<f4").view(np.uint8)


def instruction(arch: SatArch, **fields: int) -> Instruction:
    return arch.instructions.decode(arch.instructions.encode("GEMM", **fields))


class Jobs:
    """Draws jobs. The first one fills all memories; each has a pixel table of its own."""

    def __init__(self, arch: SatArch, seed: int, longest: int = LONGEST) -> None:
        self.arch, self.rng, self.longest = arch, np.random.default_rng(seed), longest

    def draw(self, count: int, **fixed: int) -> list[Job]:
        """``fixed``: fields that all have."""
        size = self.arch.space_units()
        fill = (
            ("act", 0, halves(self.rng, size["act"])),
            ("wgt", 0, halves(self.rng, size["wgt"])),
            ("idx", 0, self.rng.integers(0, 256, (size["idx"], 16), np.uint8)),
            ("acc", 0, sums(self.rng, size["acc"])),
        )
        # After this one every sum of the array is known.
        first = self.job(a_log2=0, b_log2=4, preload=0, resume=0)
        return [Job(instruction=first.instruction, writes=fill + first.writes), *(self.job(**fixed) for _ in range(count - 1))]

    def job(self, **fixed: int) -> Job:
        """One job with some fields given. Drawn again where it takes too long."""
        while True:
            fields = {**self._shape(fixed), **fixed}
            fields |= {**self._start(), **fixed}
            probe = instruction(self.arch, **fields)
            if gemm_cycles(probe, self.arch) <= self.longest:
                break
        fields |= self._weights(probe) | self._results(probe)
        table = self._table(probe, fields)
        return Job(instruction=instruction(self.arch, **fields), writes=(table,), gap=int(self.rng.integers(0, 4)))

    def _int(self, low: int, high: int) -> int:
        """In low .. high."""
        return int(self.rng.integers(low, high + 1))

    def _shape(self, fixed: dict[str, int]) -> dict[str, int]:
        channels = fixed.get("channels", int(self.rng.random() < 0.3))
        a_log2 = fixed.get("a_log2", self._int(0, 2))
        b_log2 = fixed.get("b_log2", self._int(0, 4 - a_log2))
        chunk_log2 = fixed.get("chunk_log2", 0 if channels or a_log2 == 2 else self._int(0, 1))
        kernel = (1, 1) if channels else [(1, 1), (1, 1), (3, 3), (2, 2), (1, 8), (8, 1), (2, 5)][self._int(0, 6)]
        return dict(
            channels=channels, a_log2=a_log2, b_log2=b_log2, chunk_log2=chunk_log2, steps=self._int(1, 8 << chunk_log2),
            sparse=self._int(0, 1), kernel_h=kernel[0], kernel_w=kernel[1], chunks=self._int(1, 5), tap_row=self._int(0, 7),
            tap_col=self._int(0, 7), row_step=self._int(-9, 9), col_step=self._int(-9, 9), act_addr=self._int(0, 0xFFFF),
        )  # fmt: skip

    def _start(self) -> dict[str, int]:
        kind = self.rng.random()
        return dict(preload=int(kind < 0.25), resume=int(kind > 0.75), drain=int(self.rng.choice(3, p=[0.2, 0.4, 0.4])))

    def _weights(self, i: Instruction) -> dict[str, int]:
        """Addresses of all steps within the memory; the pitch may lead up, down or nowhere."""
        steps, b = chunk_count(i) * i["steps"], 1 << i["b_log2"]
        room = self.arch.wgt_words - b
        pitch = self._int(0, min(room // max(steps - 1, 1), 40))
        span = pitch * (steps - 1)
        down = self._int(0, 1)
        places = [self._int(span, room) if down else self._int(0, room - span) for _ in range(2)]
        return dict(wgt_addr=places[0], idx_addr=places[1], wgt_pitch=-pitch % (1 << 20) if down else pitch)

    def _results(self, i: Instruction) -> dict[str, int]:
        """Places of accumulators and of results; no column word twice."""
        rows, b = self.arch.rows << i["a_log2"], 1 << i["b_log2"]
        out_words, out_rows = self._int(1, b), self._int(1, rows + 4)
        written, words = min(rows, out_rows), self.arch.vec_words * 8 // self.arch.columns
        pitch = self._int(out_words, max(out_words, min((words - out_words) // written, 50)))
        span = pitch * (written - 1) + out_words
        down = self._int(0, 1)
        at = self._int(0, words - span) + (pitch * (written - 1) if down else 0)
        return dict(
            acc_addr=self._int(0, self.arch.acc_words - rows * b), out_bank=self._int(0, 2), out_addr=at,
            out_pitch=-pitch % (1 << 20) if down else pitch, out_rows=out_rows, out_words=out_words,
        )  # fmt: skip

    def _table(self, i: Instruction, fields: dict[str, int]) -> tuple[str, int, np.ndarray]:
        """The entries that the instruction uses, among others; sets ``table_addr``."""
        count = 8 * i["chunks"] if i["channels"] else self.arch.rows << i["a_log2"]
        at = self._int(0, self.arch.table_entries - count)
        fields["table_addr"] = at
        first, end = at // 4, -(-(at + count) // 4)
        entries = np.stack([self._entry(i) for _ in range(4 * (end - first))])
        return "tbl", first, entries.reshape(-1, 16)

    def _entry(self, i: Instruction) -> np.ndarray:
        """An entry all of whose words lie within the memory; if it has none, its base is any."""
        masks = self.rng.integers(0, 256, 2)
        masks[self.rng.random(2) < 0.5] = 255
        taps = [
            row * i["row_step"] + col * i["col_step"]
            for row in range(i["kernel_h"]) if masks[0] >> (i["tap_row"] + row) % 8 & 1
            for col in range(i["kernel_w"]) if masks[1] >> (i["tap_col"] + col) % 8 & 1
        ]  # fmt: skip
        words = -(-(self.arch.rows << i["a_log2"]) // 8) if i["channels"] else i["chunks"] << i["chunk_log2"]
        base = self._int(0, 0xFFFF)
        if taps:
            base = self._int(-min(taps), self.arch.act_words - words - max(taps)) - i["act_addr"]
        return np.frombuffer((base & 0xFFFF).to_bytes(2, "little") + bytes(masks.astype(np.uint8)), np.uint8)
