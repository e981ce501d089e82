"""A multiplier cell in simulation: a pair of operands in every cycle."""

from __future__ import annotations

from typing import Any

import numpy as np
from amaranth.sim import Simulator

from hw.spec.deform.latency import CELL


def accumulators(dut: Any, weights: np.ndarray, activations: np.ndarray, firsts: np.ndarray) -> np.ndarray:
    """``acc`` CELL cycles after each pair of a weight byte and an activation; a sum starts anew at those of ``firsts``."""
    found: list[int] = []
    count = len(weights)
    late = np.concatenate([np.zeros(CELL - 1, bool), firsts])

    async def testbench(ctx) -> None:
        for k in range(count + CELL - 1):
            ctx.set(dut.weight, int(weights[k % count]))
            ctx.set(dut.activation, int(activations[k % count]))
            ctx.set(dut.first, int(late[k]))
            await ctx.tick()
            found.append(ctx.get(dut.acc))

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(testbench)
    sim.run()
    return np.array(found[CELL - 1 :])
