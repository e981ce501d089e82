"""Comparisons with constants: every value of a width against every limit."""

from __future__ import annotations

import pytest
from amaranth.hdl import Cat, Module, Signal, unsigned
from amaranth.sim import Simulator

from hw.rtl.arith.compare import at_least

WIDTH = 5


def test_at_least_is_a_comparison_for_every_value_and_limit():
    limits = range(2 * (1 << WIDTH))  # the upper half cannot be reached
    m, value, results = Module(), Signal(unsigned(WIDTH)), Signal(len(limits))
    m.d.comb += results.eq(Cat(at_least(value, limit) for limit in limits))
    compared = 0

    async def bench(ctx) -> None:
        nonlocal compared
        for number in range(1 << WIDTH):
            ctx.set(value, number)
            found = ctx.get(results)
            assert [found >> limit & 1 for limit in limits] == [int(number >= limit) for limit in limits]
            compared += len(limits)

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
    assert compared == len(limits) << WIDTH


def test_a_negative_limit_is_refused():
    with pytest.raises(ValueError, match="limit must not be negative, not -1"):
        at_least(Signal(3), -1)
