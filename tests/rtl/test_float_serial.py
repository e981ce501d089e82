"""Division, square root, and integers to FP32: one operation at a time, against numpy and the specification."""

from __future__ import annotations

import functools

import numpy as np

from hw.rtl.arith.float_serial import Fp32Divide, Fp32Sqrt, IntToFp32
from hw.sim.stream import Stream
from hw.spec.floats import FP32_MAX, fp32_div, fp32_from_int, fp32_sqrt, saturates_div, saturates_from_int
from hw.spec.sat.latency import FP32_DIVIDE, FP32_SQRT, INT_TO_FP32
from tests.rtl.float_vectors import RANDOM_PAIRS, Bits, bits_of, finite, floats_of, packed, pairs, specials

LIMIT = 64


@functools.cache
def divider() -> Stream:
    return Stream(Fp32Divide())


@functools.cache
def rooter() -> Stream:
    return Stream(Fp32Sqrt())


@functools.cache
def converter() -> Stream:
    return Stream(IntToFp32())


def check_divide(a: Bits, b: Bits) -> tuple[int, int, int]:
    """Pairs compared, quotients that saturated, quotients that are subnormal or underflowed to zero."""
    answers = divider().iterative_run({"a": a, "b": b}, limit=LIMIT)
    x, y = floats_of(a), floats_of(b)
    wanted, saturated, found = bits_of(fp32_div(x, y)), saturates_div(x, y), answers.outputs
    where = np.flatnonzero((found["o"] != wanted) | (found["saturated"] != saturated))
    words = [f"{a[i]:08x} / {b[i]:08x}: {int(found['o'][i]):08x}, not {int(wanted[i]):08x}" for i in where[:5]]
    assert not words, words
    assert (answers.cycles == FP32_DIVIDE).all()
    return len(a), int(saturated.sum()), int(((wanted & 0x7F800000 == 0) & (x != 0)).sum())


def check_root(a: Bits) -> int:
    answers = rooter().iterative_run({"a": a}, limit=LIMIT)
    wanted, found = bits_of(fp32_sqrt(floats_of(a))), answers.outputs["o"]
    where = np.flatnonzero(found != wanted)
    words = [f"root of {a[i]:08x}: {int(found[i]):08x}, not {int(wanted[i]):08x}" for i in where[:5]]
    assert not words, words
    assert (answers.cycles == FP32_SQRT).all()
    return len(a)


def check_integers(high: np.ndarray, low: np.ndarray, exponent: np.ndarray, wanted: Bits, saturated: np.ndarray) -> int:
    value = np.stack([low, high], axis=1)
    answers = converter().iterative_run({"value": value, "exponent": exponent & 1023}, limit=LIMIT)
    found = answers.outputs
    where = np.flatnonzero((found["o"] != wanted) | (found["saturated"] != saturated))
    words = [f"{high[i]:016x} {low[i]:016x} * 2**{exponent[i]}: {int(found['o'][i]):08x}, not {int(wanted[i]):08x}" for i in where[:5]]
    assert not words, words
    assert (answers.cycles == INT_TO_FP32).all()
    return len(high)


def test_divide_directed() -> None:
    """Every pair of special values, zeros among them; quotients next to ties, which are products of what fits half the width."""
    compared, saturated, small = check_divide(*pairs(specials()[::2]))
    assert compared == 90_000 and saturated > 5_000 and small > 5_000
    rng = np.random.default_rng(20)
    short, divisor = (packed(rng.integers(0, 2, 100_000), rng.integers(100, 150, 100_000), rng.integers(0, 1 << 12, 100_000) << 11)
                      for _ in range(2))  # fmt: skip
    exact = bits_of(floats_of(short) * floats_of(divisor))
    for distance in (-1, 0, 1):
        assert check_divide((exact.astype(np.int64) + distance).astype(np.uint32), divisor)[0] == 100_000


def test_divide_random() -> None:
    rng = np.random.default_rng(21)
    compared, saturated, small = check_divide(finite(rng, RANDOM_PAIRS), finite(rng, RANDOM_PAIRS))
    assert compared == RANDOM_PAIRS and saturated > 100_000 and small > 100_000


def test_root_directed() -> None:
    """Special values of both signs; squares and what is beside them; every subnormal that has few bits."""
    assert check_root(specials()) == 600
    roots = packed(np.zeros(200_000), np.arange(200_000) % 120 + 70, (np.arange(200_000) * 2621 & 0xFFF) << 11)
    squares = bits_of(floats_of(roots) * floats_of(roots))
    for distance in (-1, 0, 1):
        assert check_root((squares.astype(np.int64) + distance).astype(np.uint32)) == 200_000
    assert check_root(np.unique([1 << i | 1 << j for i in range(23) for j in range(23)]).astype(np.uint32)) == 276


def test_root_random() -> None:
    assert check_root(finite(np.random.default_rng(22), RANDOM_PAIRS) & 0x7FFFFFFF) == RANDOM_PAIRS


def test_integers_directed() -> None:
    """Powers of two of every length and their neighbours, ties and what is beside them, with exponents from end to end."""
    values = [0, 1, -1, (1 << 127) - 1, -(1 << 127)]
    for length in range(128):
        values += [(1 << length) + d for d in (-1, 0, 1)]
        values += [(pattern << length - 25) + d for pattern in (0x1000001, 0x1000003, 0x1FFFFFF) for d in (-1, 0, 1) if length > 25]
    values = [v for v in [*values, *(-v for v in values)] if -(1 << 127) <= v < 1 << 127]
    exponents = [-512, -277, -276, -275, -174, -173, -151, -150, -149, -126, -48, -24, 0, 1, 103, 104, 127, 128, 511]
    value = np.array([v for v in values for _ in exponents], dtype=object)
    exponent = np.array(exponents * len(values))
    high, low = (np.array([v >> shift & (1 << 64) - 1 for v in value], np.uint64) for shift in (64, 0))
    wanted, saturated = fp32_from_int(value, exponent), saturates_from_int(value, exponent)
    assert saturated.sum() > 1_000
    assert check_integers(high, low, exponent, bits_of(wanted), saturated) == len(values) * 19 > 30_000


def test_integers_random() -> None:
    """Lengths and exponents such that results are everywhere from underflow to saturation; rounded from 40 bits of which the last one
    stands for all below, in float64, which is another way than the specification's."""
    rng = np.random.default_rng(23)
    count = RANDOM_PAIRS
    length = rng.integers(1, 128, count)
    magnitude = rng.integers(1 << 39, 1 << 40, count)
    exponent = rng.integers(-320, 110, count)
    # The magnitude has 40 bits: its upper ones are the number's, the lowest one all the others'.
    shift = length - 40
    sticky = magnitude & 1
    high, low = wide_shift(magnitude & ~1, shift, sticky)
    cut = np.where(shift < 0, (magnitude & ~1) >> np.clip(-shift, 0, 63), magnitude)
    with np.errstate(over="ignore", under="ignore"):
        raw = np.ldexp(cut.astype(np.float64), exponent + np.maximum(shift, 0)).astype(np.float32)
    negative = rng.integers(0, 2, count).astype(bool)
    wanted = np.where(negative, -1, 1).astype(np.float32) * np.minimum(raw, FP32_MAX)
    wanted = np.where(cut == 0, np.float32(0), wanted)
    high, low = np.where(negative, ~high + (low == 0), high), np.where(negative, ~low + np.uint64(1), low)
    assert np.isinf(raw).sum() > 10_000 and (raw < 2.0**-126).sum() > 100_000
    assert check_integers(high, low, exponent, bits_of(wanted), np.isinf(raw)) == count


def wide_shift(value: np.ndarray, shift: np.ndarray, sticky: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``value << shift`` (right where negative) as upper and lower 64 bits, and a one at the bottom where ``sticky`` and shift > 0."""
    value = value.astype(np.uint64)
    left, right = np.clip(shift, 0, 127).astype(np.uint64), np.clip(-shift, 0, 63).astype(np.uint64)
    below = left < 64
    low = np.where(below, (value >> right) << (left & np.uint64(63)), 0).astype(np.uint64)
    spill = value >> np.clip(64 - left.astype(np.int64), 1, 63).astype(np.uint64)
    high = np.where(below, np.where(left > 0, spill, 0), value << (left & np.uint64(63))).astype(np.uint64)
    return high, low | (sticky.astype(np.uint64) & (shift >= 0).astype(np.uint64))
