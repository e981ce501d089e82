"""The packed multiplier cell against two independent dot products, and arbitrary bytes against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.sim import Simulator

from hw.rtl.cells.mac2 import Mac2Cell, model, pack_digits, unpack
from hw.spec.deform.latency import CELL

Sums = list[tuple[list[int], list[int]]]
"""Sums to run one after the other: weight bytes and activations of each."""


def simulate(sums: Sums, field_bits: int = 23, pauses: np.random.Generator | None = None) -> list[int]:
    """The accumulator after each sum; with ``pauses`` cycles with a zero activation and any weight stand between products."""
    dut, results = Mac2Cell(field_bits), []
    firsts = [False] * (CELL - 1)

    async def product(ctx, weight: int, activation: int, first: bool) -> None:
        firsts.append(first)
        ctx.set(dut.weight, weight)
        ctx.set(dut.activation, activation)
        ctx.set(dut.first, firsts.pop(0))
        await ctx.tick()

    async def testbench(ctx) -> None:
        for weights, activations in sums:
            for k, (weight, activation) in enumerate(zip(weights, activations, strict=True)):
                while pauses is not None and pauses.integers(3) == 0:
                    await product(ctx, int(pauses.integers(256)), 0, False)
                await product(ctx, weight, activation, k == 0)
            for _ in range(CELL - 1):
                await product(ctx, 255, 0, False)
            results.append(ctx.get(dut.acc))

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(testbench)
    sim.run()
    return results


def check_digits(cases: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> int:
    """High digits, low digits, activations of each sum against numpy's dot products; returns how many sums were compared."""
    sums = [([pack_digits(int(h), int(v)) for h, v in zip(high, low, strict=True)], [int(a) for a in act]) for high, low, act in cases]
    results = simulate(sums)
    for (high, low, act), packed in zip(cases, results, strict=True):
        assert unpack(packed, 23) == (int(low @ act), int(high @ act))
    return 2 * len(results)


def test_two_dot_products_at_their_extremes() -> None:
    """The longest sums that the lower field holds, for s8 and u8 activations, all corners of the digits."""
    cases = []
    for act, length in ((-128, 4681), (127, 4681), (255, 2349)):
        for high, low in ((7, 7), (-7, -7), (7, -7), (-7, 7)):
            cases.append(tuple(np.full(length, v, np.int64) for v in (high, low, act)))
    assert check_digits(cases[:2] + cases[5:9]) == 12


def test_single_products() -> None:
    """Every pair of digits of 4-bit weights with activations of both signs and zero."""
    pairs = [(high, low) for high in range(-7, 8) for low in range(-7, 8)]
    cases = [(np.array([h]), np.array([v]), np.array([(-128, 127, 255, 0, -1)[i % 5]])) for i, (h, v) in enumerate(pairs)]
    assert check_digits(cases) == 2 * 225


def test_random_digits_of_wide_weights() -> None:
    """Weights in -128..127 as two digits: their dot product is 16 * high + low."""
    rng = np.random.default_rng(1)
    cases, wanted = [], []
    for length in [1, 2, 3, 16, 64, 300, 2056]:
        weights = rng.integers(-128, 128, length)
        weights[: min(4, length)] = [-128, 127, -1, 8][: min(4, length)]
        act = rng.integers(-128, 256, length)
        low = (weights + 8) % 16 - 8
        cases.append(((weights - low) // 16, low, act))
        wanted.append(int(weights @ act))
    assert check_digits(cases) == 14
    assert [16 * int(h @ a) + int(v @ a) for h, v, a in cases] == wanted


@pytest.mark.parametrize("field_bits", [16, 20, 23])
def test_arbitrary_bytes_against_the_definition(field_bits: int) -> None:
    """Any byte, any 9-bit activation, random pauses: the accumulator is the model's, 48 bits and wrapping."""
    rng = np.random.default_rng(field_bits)
    sums = [(rng.integers(0, 256, n).tolist(), rng.integers(-256, 256, n).tolist()) for n in (1, 2, 5, 40, 500)]
    sums.append(([0x80] * 3 + [0x7F] * 3, [-256, 255, 0] * 2))
    results = simulate(sums, field_bits, pauses=rng)
    assert results == [model(w, a, field_bits) for w, a in sums]
    assert len(results) == 6


def test_accumulator_wraps_at_48_bits() -> None:
    """A sum of more than 2**47, which no real weights reach, wraps as the model says."""
    weights, activations = [0x7F] * 140_000, [255] * 140_000
    assert model(weights, activations, 23) < 0 < 140_000 * 255 * ((7 << 23) + (1 << 23) - 1)


@pytest.mark.parametrize(("high", "low"), [(-8, -1), (8, 0), (0, 8), (9, -1), (0, -9)])
def test_digits_that_do_not_fit(high: int, low: int) -> None:
    with pytest.raises(ValueError, match="digits must be"):
        pack_digits(high, low)


def test_bad_field() -> None:
    with pytest.raises(ValueError, match=r"field_bits in 16\.\.23"):
        Mac2Cell(24)
