"""The array against the cell's model, row by row, at its documented cycles."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.sim import Simulator

from hw.rtl.cells.mac2 import model
from hw.rtl.deform.array import Array
from hw.spec.deform import LANES, DeformArch
from hw.spec.deform.latency import CELL


class Bench:
    """Runs sums over ``slots`` words back to back and reads every accumulator at the earliest legal cycle."""

    def __init__(self, arch: DeformArch, slots: list[int], unsigned: bool, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.arch, self.slots, self.unsigned = arch, slots, unsigned
        total = sum(slots)
        self.words = rng.integers(0, 256, (total, arch.rows, LANES), np.int64)
        self.words[0, 0], self.words[0, -1] = 128, 127
        self.zero = rng.integers(0, 4, (total, arch.rows)) == 0
        self.weights = rng.integers(0, 256, (total * LANES, arch.cells), np.int64)
        self.noise = rng

    def acts(self, row: int, first: int, slots: int) -> np.ndarray:
        """The activations that a row sees, as integers."""
        raw = np.where(self.zero[first : first + slots, row, None], 0, self.words[first : first + slots, row]).reshape(-1)
        return raw if self.unsigned else np.where(raw > 127, raw - 256, raw)

    def expected(self, row: int, group: int, first: int, slots: int) -> list[int]:
        cells = range(LANES * group, LANES * group + LANES)
        weights = self.weights[first * LANES : (first + slots) * LANES]
        return [model(weights[:, c], self.acts(row, first, slots), self.arch.field_bits) for c in cells]

    def run(self) -> int:
        dut, compared = Array(self.arch), 0
        starts = np.cumsum([0, *self.slots])
        reads = {}
        for first, slots in zip(starts[:-1].tolist(), self.slots, strict=True):
            for row in range(self.arch.rows):
                # Group g is read g cycles after the sum is complete: the next sum's first product comes 1 cycle after completion,
                # so only the last sum allows a later group.
                reads[1 + (first + slots) * LANES - 1 + row + CELL] = (row, 0, first, slots)
        last = max(reads) + 1
        for group in range(1, self.arch.cells // LANES):
            for row in range(self.arch.rows):
                reads[last + self.arch.rows * group + row] = (row, group, int(starts[-2]), self.slots[-1])

        async def testbench(ctx) -> None:
            nonlocal compared
            ctx.set(dut.unsigned, self.unsigned)
            for cycle in range(max(reads) + 2):
                if cycle - 1 in reads:
                    got = [ctx.get(dut.packed[lane]) for lane in range(LANES)]
                    assert got == self.expected(*reads[cycle - 1]), reads[cycle - 1]
                    compared += LANES
                row, group, *_ = reads.get(cycle, (0, 0))
                ctx.set(dut.row, row)
                ctx.set(dut.group, group)
                self._drive(ctx, dut, cycle, starts)
                await ctx.tick()

        sim = Simulator(dut)
        sim.add_clock(1e-8)
        sim.add_testbench(testbench)
        sim.run()
        return compared

    def _drive(self, ctx, dut: Array, cycle: int, starts: np.ndarray) -> None:
        slot, row = divmod(cycle, LANES)
        loads = slot < len(self.words)
        ctx.set(dut.load, loads and row == 0)
        real = loads and row < self.arch.rows
        ctx.set(dut.word, int.from_bytes(self.words[slot, row].astype(np.uint8).tobytes(), "little") if real else 2**127)
        ctx.set(dut.zero, bool(real and self.zero[slot, row]))
        step = cycle - 1
        busy = 0 <= step < len(self.weights)
        raw = self.weights[step] if busy else self.noise.integers(0, 256, self.arch.cells)
        ctx.set(dut.first, step in (starts[:-1] * LANES).tolist() if busy else 0)
        ctx.set(dut.weights, int.from_bytes(np.asarray(raw).astype(np.uint8).tobytes(), "little"))


CASES = [(1, 32, 23, False), (2, 32, 23, True), (4, 32, 23, False), (2, 64, 23, False), (3, 32, 16, True), (16, 32, 21, True)]


@pytest.mark.parametrize(("rows", "columns", "field_bits", "unsigned"), CASES)
def test_sums(rows: int, columns: int, field_bits: int, unsigned: bool) -> None:
    """Three sums back to back; masked words; garbage on the inputs outside of them."""
    arch = DeformArch(rows=rows, columns=columns, field_bits=field_bits)
    slots = [1, 3, 2] if rows < 16 else [1, 1]
    bench = Bench(arch, slots, unsigned, seed=rows)
    assert bench.run() == LANES * rows * (len(slots) + columns // 32 - 1)
