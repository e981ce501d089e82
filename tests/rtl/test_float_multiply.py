"""The FP32 multiplier against numpy's float32."""

from __future__ import annotations

import functools

import numpy as np

from hw.rtl.arith.float_multiply import Fp32Multiply
from hw.sim.stream import Stream
from hw.spec.floats import fp32_mul, saturates_mul
from tests.rtl.float_vectors import RANDOM_PAIRS, Bits, bits_of, finite, floats_of, packed, pairs, specials


@functools.cache
def multiplier() -> Stream:
    return Stream(Fp32Multiply())


def check(a: Bits, b: Bits) -> tuple[int, int, int]:
    """Pairs compared, products that saturated, products that are subnormal or underflowed to zero."""
    results = multiplier().pipelined({"a": a, "b": b}, latency=Fp32Multiply.latency)
    x, y = floats_of(a), floats_of(b)
    wanted, saturated = bits_of(fp32_mul(x, y)), saturates_mul(x, y)
    where = np.flatnonzero((results["o"] != wanted) | (results["saturated"] != saturated))
    words = [f"{a[i]:08x} * {b[i]:08x}: {int(results['o'][i]):08x}, not {int(wanted[i]):08x}" for i in where[:5]]
    assert not words, words
    small = (wanted & 0x7F800000 == 0) & (x != 0) & (y != 0)
    return len(a), int(saturated.sum()), int(small.sum())


def test_directed() -> None:
    """Every pair of special values; one operand subnormal with each number of leading zeros."""
    compared, saturated, small = check(*pairs(specials()))
    assert compared > 350_000 and saturated > 10_000 and small > 10_000
    subnormals = np.array([1 << k | d for k in range(23) for d in (0, 1, (1 << k) - 1)], np.uint32)
    large = packed(np.zeros(0x9F), np.arange(96, 255), np.arange(0x9F) * 0x8123)
    a, b = (grid.ravel() for grid in np.meshgrid(subnormals, large))
    assert check(a, b)[0] == check(b, a)[0] == 69 * 159


def test_random() -> None:
    rng = np.random.default_rng(5)
    a = finite(rng, RANDOM_PAIRS)
    compared, saturated, small = check(a, finite(rng, RANDOM_PAIRS))
    assert compared == RANDOM_PAIRS and saturated > 100_000 and small > 100_000


def test_random_around_the_smallest_numbers() -> None:
    """Exponents that add up to products from far below the smallest subnormal to just above the smallest normal number."""
    rng = np.random.default_rng(6)
    count = RANDOM_PAIRS // 2
    a, b = finite(rng, count), finite(rng, count)
    field = np.clip(127 - (a >> 23 & 0xFF).astype(np.int64) + rng.integers(-28, 4, count), 0, 254)
    compared, _, small = check(a, packed(b >> 31, field, b & 0x7FFFFF))
    assert compared == count and small > count // 4
