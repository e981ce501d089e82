"""The benchmark's array that skips zeros, against dense sums: what it costs is only worth knowing if it computes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from amaranth.sim import Simulator

from hw.rtl.cells.mac2 import model, pack_digits
from hw.spec.deform import LANES, DeformArch
from hw.spec.deform.latency import CELL

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
from skipping_array import CHOICE_BITS, GROUP, KEPT, SLOT, SkippingArray

ARCH = DeformArch(rows=3)
SLOTS = 4


@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_sums_are_those_of_dense_weights(shared: bool, unsigned: bool) -> None:
    rng = np.random.default_rng(5)
    words = rng.integers(0, 256, (SLOTS, ARCH.rows, LANES))
    groups = SLOTS * LANES // GROUP
    # For each group and cell two different activations, ascending, and the two digits of a byte for each.
    chosen = np.array([[np.sort(rng.choice(GROUP, KEPT, replace=False)) for _ in range(ARCH.cells)] for _ in range(groups)])
    chosen = np.repeat(chosen[:, :1], ARCH.cells, axis=1) if shared else chosen
    digits = rng.integers(-7, 8, (groups, ARCH.cells, KEPT, 2))
    dense = np.zeros((groups, GROUP, ARCH.cells), np.int64)
    for kept in range(KEPT):
        packed = np.vectorize(pack_digits)(digits[:, :, kept, 1], digits[:, :, kept, 0])
        np.put_along_axis(dense, chosen[:, None, :, kept], packed[:, None, :], axis=1)
    dense = dense.reshape(groups * GROUP, ARCH.cells)

    dut, found = SkippingArray(ARCH, shared=shared), {}
    steps = SLOTS * SLOT

    async def testbench(ctx) -> None:
        ctx.set(dut.unsigned, unsigned)
        for cycle in range(steps + ARCH.rows + CELL + 3):
            slot, row = divmod(cycle, SLOT)
            loads = slot < SLOTS
            ctx.set(dut.load, loads and row == 0)
            real = loads and row < ARCH.rows
            ctx.set(dut.word, int.from_bytes(words[slot, row].astype(np.uint8).tobytes(), "little") if real else 0)
            step = cycle - 1
            if 0 <= step < steps:
                group, kept = divmod(step, KEPT)
                at = [int(chosen[group, cell, kept]) for cell in range(ARCH.cells)]
                ctx.set(dut.weights, sum(int(dense[GROUP * group + at[c], c]) << 8 * c for c in range(ARCH.cells)))
                ctx.set(dut.choices, at[0] if shared else sum(a << CHOICE_BITS * c for c, a in enumerate(at)))
                ctx.set(dut.first, step == 0)
            # Row r's sum is complete r + CELL cycles after the last step, and read a cycle later; no further product may come in.
            ctx.set(dut.row, max(0, cycle - steps - CELL))
            row = cycle - 1 - steps - CELL
            if 0 <= row < ARCH.rows:
                found[row] = [ctx.get(dut.packed[lane]) for lane in range(LANES)]
            await ctx.tick()

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(testbench)
    sim.run()
    for row in range(ARCH.rows):
        raw = words[:, row].reshape(-1)
        values = raw if unsigned else np.where(raw > 127, raw - 256, raw)
        assert found[row] == [model(dense[:, c], values, ARCH.field_bits) for c in range(ARCH.cells)], row
    assert len(found) == ARCH.rows and ARCH.cells == LANES
