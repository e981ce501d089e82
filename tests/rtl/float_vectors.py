"""Operands for the floating-point units: bit patterns at and beside every edge, and random ones that make edges likely."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint32]

FRACTIONS = (0, 1, 2, 3, 0x3FFFFF, 0x400000, 0x400001, 0x555555, 0x7FFFFE, 0x7FFFFF)
FIELDS = (
    0, 1, 2, 3, 12, 23, 24, 25, 26, 63, 64, 100, 102, 103, 112, 113, 125, 126, 127, 128, 129, 142, 150, 151, 152, 190, 191,
    252, 253, 254,
)  # fmt: skip

RANDOM_PAIRS = 2_000_000
"""Pairs of random operands for each unit, in each of its tests."""


def bits_of(values: NDArray[np.float32]) -> Bits:
    return np.ascontiguousarray(values, np.float32).view(np.uint32)


def floats_of(bits: Bits) -> NDArray[np.float32]:
    return np.ascontiguousarray(bits, np.uint32).view(np.float32)


def packed(sign: NDArray, field: NDArray, fraction: NDArray) -> Bits:
    return (np.asarray(sign, np.uint32) << 31 | np.asarray(field, np.uint32) << 23 | np.asarray(fraction, np.uint32)).astype(np.uint32)


def specials() -> Bits:
    """Both zeros, smallest and largest subnormals and normals, one and its neighbours, powers of two and what is beside them."""
    return np.array([s << 31 | f << 23 | x for s, f, x in itertools.product((0, 1), FIELDS, FRACTIONS)], np.uint32)


def pairs(values: Bits) -> tuple[Bits, Bits]:
    """Every pair."""
    a, b = np.meshgrid(values, values, indexing="ij")
    return a.ravel(), b.ravel()


def finite(rng: np.random.Generator, count: int) -> Bits:
    """Random finite numbers of all exponents, about one in eight with few ones in its fraction, so that ties come up."""
    fraction = rng.integers(0, 1 << 23, count)
    sparse = rng.integers(0, 8, count) == 0
    fraction = np.where(sparse, fraction & (-1 << rng.integers(0, 24, count)), fraction)
    return packed(rng.integers(0, 2, count), rng.integers(0, 255, count), fraction)


def beside(rng: np.random.Generator, a: Bits, reach: int = 30) -> Bits:
    """For each number one whose exponent is at most ``reach`` away; often of the same leading bits, so that differences cancel."""
    count = len(a)
    field = np.clip((a >> 23 & 0xFF).astype(np.int64) + rng.integers(-reach, reach + 1, count), 0, 254)
    other = rng.integers(0, 1 << 23, count)
    near = ((a & 0x7FFFFF).astype(np.int64) + rng.integers(-4, 5, count)) & 0x7FFFFF
    short = other & (-1 << rng.integers(0, 24, count))
    fraction = np.choose(rng.integers(0, 3, count), [other, near, short])
    return packed(rng.integers(0, 2, count), field, fraction)


def distances() -> tuple[Bits, Bits]:
    """Pairs with every difference of exponents 0..30, both ways round, at several exponents: cancellation, ties, what is lost."""
    a, b = [], []
    for distance, field in itertools.product(range(31), (0, 1, 30, 127, 180, 224)):
        for x, y in itertools.product(FRACTIONS, FRACTIONS):
            for s, t in itertools.product((0, 1), (0, 1)):
                a.append(s << 31 | (field + distance) << 23 | x)
                b.append(t << 31 | field << 23 | y)
    first, second = np.array(a, np.uint32), np.array(b, np.uint32)
    return np.concatenate([first, second]), np.concatenate([second, first])


def on_grid(bits: Bits) -> Bits:
    """The nearest numbers in the domain of the accumulator's adder: exponents 2**-48 .. 2**79, no ones below 2**-48; or zero."""
    field = np.clip((bits >> 23 & 0xFF).astype(np.int64), 78, 206)
    fraction = (bits & 0x7FFFFF).astype(np.int64) & (-1 << np.clip(102 - field, 0, 23))
    zero = field == 78
    return packed(bits >> 31, np.where(zero, 0, field), np.where(zero, 0, fraction))
