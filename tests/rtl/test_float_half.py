"""FP16: normalised operands, exact products, conversions; against numpy's float16 and float32."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from hw.rtl.arith.float_half import Fp16Normalise, Fp16Product, Fp16ToFp32, Fp32ToFp16
from hw.sim.stream import Stream
from hw.spec.floats import saturates_fp16, to_fp16, to_fp32
from tests.rtl.float_vectors import RANDOM_PAIRS, bits_of, floats_of, packed, specials

EVERY = np.array([bits for bits in range(1 << 16) if bits >> 10 & 31 != 31], np.uint16)
"""All finite FP16: 65,536 less infinities and NaNs."""


@functools.cache
def normalised() -> dict[str, np.ndarray]:
    """Every finite FP16 as an operand."""
    return Stream(Fp16Normalise()).pipelined({"i": EVERY}, latency=Fp16Normalise.latency)


@functools.cache
def product() -> Stream:
    return Stream(Fp16Product())


@functools.cache
def narrower() -> Stream:
    return Stream(Fp32ToFp16())


def check_products(i: np.ndarray, j: np.ndarray) -> int:
    """Products of finite FP16 with these numbers in EVERY."""
    operands, values = normalised()["o"], to_fp32(EVERY.view(np.float16))
    found = product().pipelined({"a": operands[i], "b": operands[j]}, latency=Fp16Product.latency)["o"]
    wanted = values[i] * values[j]
    assert np.array_equal(found, bits_of(wanted))
    assert np.array_equal(wanted.astype(np.float64), values[i].astype(np.float64) * values[j]), "products are exact"
    return len(found)


def check_narrow(bits: np.ndarray) -> tuple[int, int]:
    results = narrower().pipelined({"i": bits}, latency=Fp32ToFp16.latency)
    values = floats_of(bits)
    wanted, saturated = to_fp16(values).view(np.uint16), saturates_fp16(values)
    where = np.flatnonzero((results["o"] != wanted) | (results["saturated"] != saturated))
    words = [f"{bits[i]:08x}: {int(results['o'][i]):04x}, not {wanted[i]:04x}" for i in where[:5]]
    assert not words, words
    return len(bits), int(saturated.sum())


def test_every_operand() -> None:
    """Value and form: the top bit is set unless it is zero."""
    operand, values = normalised()["o"], EVERY.view(np.float16)
    significand, exponent, sign = operand & 0x7FF, operand >> 11 & 63, operand >> 17
    value = np.ldexp(significand.astype(np.float64), exponent.astype(np.int64) - 42) * np.where(sign, -1.0, 1.0)
    assert np.array_equal(value, values.astype(np.float64)) and np.array_equal(sign, np.signbit(values))
    assert np.array_equal(significand >> 10, values != 0)
    assert exponent[values != 0].min() == 8 and exponent.max() == 47 and len(operand) == 63_488


def test_product_of_every_pair_of_significands() -> None:
    """1,024 normal significands by 1,024, signs and exponents varied along; every subnormal by every one of the first binade."""
    fraction = np.arange(1 << 20)
    field = 1 + fraction % 30, 1 + fraction // 7 % 30
    first = (fraction % 3 & 1) << 15 | field[0] << 10 | fraction >> 10
    second = (fraction % 5 & 1) << 15 | field[1] << 10 | fraction & 1023
    subnormal = (fraction & 1) << 15 | fraction >> 10
    place = np.zeros(1 << 16, np.int64)
    place[EVERY] = np.arange(len(EVERY))
    compared = sum(check_products(place[a], place[b]) for a, b in ((first, second), (subnormal, second), (second, subnormal)))
    assert compared == 3 << 20


def test_product_of_specials_and_random_pairs() -> None:
    """All pairs of zeros, subnormals and normals at every binade's edges; then any two."""
    edges = np.flatnonzero(np.isin(EVERY & 0x3FF, (0, 1, 2, 511, 512, 513, 1022, 1023)))
    i, j = (grid.ravel() for grid in np.meshgrid(edges, edges))
    rng = np.random.default_rng(11)
    assert check_products(i, j) == (31 * 2 * 8) ** 2
    assert check_products(*rng.integers(0, len(EVERY), (2, RANDOM_PAIRS))) == RANDOM_PAIRS


def test_every_fp16_to_fp32() -> None:
    found = Stream(Fp16ToFp32()).pipelined({"i": EVERY}, latency=Fp16ToFp32.latency)["o"]
    assert np.array_equal(found, bits_of(EVERY.view(np.float16).astype(np.float32))) and len(found) == 63_488


def test_fp32_to_fp16_at_every_boundary() -> None:
    """Every FP16, every point halfway between two of them, and their neighbours: 381,000 numbers. Then special FP32."""
    ordered = np.sort(EVERY[EVERY < 0x8000].view(np.float16)).astype(np.float32)
    halfway = np.append((ordered[1:] + ordered[:-1]) / 2, np.float32(65520))
    points = bits_of(np.concatenate([ordered, halfway]))
    around = np.concatenate([points, points + 1, points[points > 0] - 1])
    compared, saturated = check_narrow(np.concatenate([around, around | 1 << 31]))
    assert compared > 380_000 and saturated == 4
    assert check_narrow(specials())[1] > 100


def test_fp32_to_fp16_random() -> None:
    rng = np.random.default_rng(12)
    anywhere = packed(rng.integers(0, 2, RANDOM_PAIRS), rng.integers(0, 255, RANDOM_PAIRS), rng.integers(0, 1 << 23, RANDOM_PAIRS))
    inside = packed(rng.integers(0, 2, RANDOM_PAIRS), rng.integers(98, 146, RANDOM_PAIRS), rng.integers(0, 1 << 23, RANDOM_PAIRS))
    assert check_narrow(anywhere)[0] + check_narrow(inside)[0] == 2 * RANDOM_PAIRS


@pytest.mark.slow
def test_fp32_to_fp16_of_every_field() -> None:
    """2**26 numbers: all signs and fields, a 64th of the fractions, all last bits of FP16 among them. All 2**32 are a proof."""
    compared = 0
    for upper in range(512):
        if upper & 0xFF != 255:
            fraction = np.arange(1 << 17, dtype=np.uint32) * 64 + np.uint32(upper * 5 % 64)
            compared += check_narrow(np.uint32(upper << 23) | fraction)[0]
    assert compared == 510 << 17
