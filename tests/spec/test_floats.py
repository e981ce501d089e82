"""The floating-point definition against exact rational arithmetic, and against the IEEE theory of z3."""

from __future__ import annotations

from fractions import Fraction
from math import isqrt

import numpy as np
import pytest
import z3

from hw.spec import floats
from hw.spec.floats import (
    FP16_MAX,
    FP32_MAX,
    fp16_dot,
    fp32_add,
    fp32_div,
    fp32_from_int,
    fp32_mul,
    fp32_sqrt,
    to_fp16,
    to_fp32,
)

FORMATS = {"fp16": (11, -24, Fraction(float(FP16_MAX))), "fp32": (24, -149, Fraction(float(FP32_MAX)))}


def nearest(value: Fraction, name: str) -> tuple[Fraction, bool]:
    """The nearest number of a format, ties to even, saturating; and whether it did: all from the definition of rounding."""
    precision, lowest, largest = FORMATS[name]
    magnitude = abs(value)
    length = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()  # or one too many
    unit = Fraction(2) ** max(lowest, length - 1 - precision)
    while magnitude >= unit * 2**precision:
        unit *= 2
    rounded = round(magnitude / unit) * unit  # of a Fraction: to nearest, ties to even, exactly
    saturated = rounded > largest
    rounded = min(rounded, largest)
    return (-rounded if value < 0 else rounded), saturated


def exact(x: np.floating) -> Fraction:
    return Fraction(float(x))


def numbers(seed: int, count: int) -> np.ndarray:
    """FP32 of all exponents, among them subnormals, zeros and the extremes."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 1 << 32, count, dtype=np.uint32)
    bits = np.where(bits >> 23 & 0xFF == 255, bits & 0x807FFFFF, bits)
    bits[: count // 8] &= 0x807FFFFF
    bits[:8] = [0, 0x80000000, 1, 0x807FFFFF, 0x00800000, 0x7F7FFFFF, 0xFF7FFFFF, 0x3F800001]
    return bits.view(np.float32)


def compare(found: np.ndarray, wanted: list[tuple[Fraction, bool]], saturated: np.ndarray) -> int:
    for number, (value, over) in enumerate(wanted):
        assert exact(found[number]) == value and bool(saturated[number]) == over, number
    return len(wanted)


def neighbours(a: np.ndarray, seed: int) -> np.ndarray:
    """For each number one of a near exponent."""
    rng = np.random.default_rng(seed)
    return (a * np.float32(2) ** rng.integers(-26, 3, len(a)).astype(np.float32) * np.float32(-0.7)).astype(np.float32)


@pytest.fixture(autouse=True)
def quiet():
    with np.errstate(over="ignore", under="ignore"):
        yield


def finite_neighbours(a: np.ndarray, seed: int) -> np.ndarray:
    return np.clip(neighbours(a, seed), -FP32_MAX, FP32_MAX)


def test_add_and_multiply_are_rational_arithmetic_rounded_once() -> None:
    a, b = numbers(1, 4000), numbers(2, 4000)
    near = finite_neighbours(a, 3)
    for x, y in ((a, b), (a, near)):
        sums = [nearest(exact(p) + exact(q), "fp32") for p, q in zip(x, y, strict=True)]
        assert compare(fp32_add(x, y), sums, floats.saturates_add(x, y)) == 4000
    products = [nearest(exact(p) * exact(q), "fp32") for p, q in zip(a, b, strict=True)]
    assert compare(fp32_mul(a, b), products, floats.saturates_mul(a, b)) == 4000
    assert floats.saturates_mul(a, b).sum() > 100
    big = np.float32(3e38)
    assert fp32_add(big, big) == FP32_MAX and fp32_add(-big, -big) == -FP32_MAX and floats.saturates_add(big, big)


def test_divide_is_rational_arithmetic_rounded_once() -> None:
    a, b = numbers(4, 4000), numbers(5, 4000)
    b[b == 0] = 3
    quotients = [nearest(exact(p) / exact(q), "fp32") for p, q in zip(a, b, strict=True)]
    assert compare(fp32_div(a, b), quotients, floats.saturates_div(a, b)) == 4000


def test_root_lies_between_the_midpoints() -> None:
    """The root r of a is the nearest number if a lies between the squares of the points halfway to its neighbours."""
    compared = 0
    for a in np.abs(numbers(6, 4000)):
        root = fp32_sqrt(a)
        below, above = (exact(np.nextafter(root, np.float32(to))) for to in (-np.inf, np.inf))
        if a:
            assert ((exact(root) + below) / 2) ** 2 < exact(a) < ((exact(root) + above) / 2) ** 2
            compared += 1
    assert compared > 3900
    assert all(fp32_sqrt(np.float32(n * n)) == n == isqrt(n * n) for n in range(4096))


def test_what_is_defined_outside_of_the_domain() -> None:
    zero, one = np.float32(0), np.float32(1)
    assert fp32_div(one, zero) == FP32_MAX and fp32_div(one, -zero) == -FP32_MAX and floats.saturates_div(one, zero)
    for bottom in (zero, -zero):
        assert fp32_div(-zero, bottom) == 0 and not np.signbit(fp32_div(-zero, bottom)) and not floats.saturates_div(zero, bottom)
    assert fp32_sqrt(-one) == 0 and not np.signbit(fp32_sqrt(-one)) and np.signbit(fp32_sqrt(-zero))


def test_signs_of_zero() -> None:
    zero, x = np.float32(0), np.float32(1.5)
    signs = [np.signbit(fp32_add(*pair)) for pair in ((x, -x), (-x, x), (zero, -zero), (-zero, -zero))]
    assert signs == [False, False, False, True]
    assert np.signbit(fp32_mul(-zero, x)) and np.signbit(to_fp16(-zero)) and np.signbit(to_fp16(np.float32(-1e-30)))


def test_to_fp16() -> None:
    """Every FP16 comes back; every midpoint, one step below and above it, and random numbers are rounded as rationals."""
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    every = every[np.isfinite(every)]
    assert np.array_equal(to_fp16(to_fp32(every)).view(np.uint16), every.view(np.uint16)) and len(every) == 63_488
    ordered = np.sort(every[~np.signbit(every)]).astype(np.float32)
    middle = np.append((ordered[1:] + ordered[:-1]) / 2, np.float32(65520))
    points = np.concatenate([middle, np.nextafter(middle, np.float32(0)), np.nextafter(middle, np.float32(np.inf))])[::7]
    values = np.concatenate([points, -points, numbers(7, 2000), np.float32([65519.996, 65520, 3e38])])
    wanted = [nearest(exact(x), "fp16") for x in values]
    assert compare(to_fp16(values), wanted, floats.saturates_fp16(values)) > 20_000


def test_dot_is_the_ordered_chain() -> None:
    """Against a chain of rational sums, each rounded; of 3 x 5 outputs, K = 40, with subnormals and cancellation."""
    rng = np.random.default_rng(8)
    bits = rng.integers(0, 1 << 16, (2, 3, 5, 40), dtype=np.uint16)
    x, w = np.where(bits >> 10 & 31 == 31, bits & 0x83FF, bits).astype(np.uint16).view(np.float16)
    x[..., 20:] = -x[..., 19::-1]
    w[..., 20:] = w[..., 19::-1]
    found = fp16_dot(x, w)
    for index in np.ndindex(3, 5):
        acc = Fraction(0)
        for a, b in zip(x[index], w[index], strict=True):
            acc = nearest(acc + exact(a) * exact(b), "fp32")[0]
        assert exact(found[index]) == acc
    assert found.shape == (3, 5) and found.dtype == np.float32
    assert fp16_dot(x[0, :, None], w[0, None]).shape == (5, 5)
    assert fp16_dot(x[..., :0], w[..., :0]).tolist() == np.zeros((3, 5)).tolist()


def test_dot_of_masked_weights_skips_zeros_without_a_trace() -> None:
    """Adding +-0 changes nothing: the chain over the survivors alone is the same, bit for bit."""
    rng = np.random.default_rng(9)
    x, w = (rng.normal(size=(50, 64)).astype(np.float16) for _ in range(2))
    chosen = rng.permuted(np.tile(np.arange(8), (50, 8, 1)), axis=2)[..., :2]
    survivors = np.sort(chosen + 8 * np.arange(8)[:, None], axis=2).reshape(50, 16)
    masked = np.zeros_like(w)
    np.put_along_axis(masked, survivors, np.take_along_axis(w, survivors, 1), 1)
    short = fp16_dot(np.take_along_axis(x, survivors, 1), np.take_along_axis(w, survivors, 1))
    assert np.array_equal(fp16_dot(x, masked).view(np.uint32), short.view(np.uint32))


def test_accumulator_stays_in_its_domain() -> None:
    """The longest possible growth: from 2**56 on the largest product no longer moves it."""
    largest = np.float32(FP16_MAX) * np.float32(FP16_MAX)
    top = np.float32(2.0**56)
    assert top + largest == top and np.nextafter(top, np.float32(0)) + largest == top
    assert exact(np.float16(2**-24)) ** 2 == Fraction(1, 2**48)


def test_integers() -> None:
    rng = np.random.default_rng(10)
    values = [int.from_bytes(rng.bytes(16), "little", signed=True) >> int(shift) for shift in rng.integers(0, 128, 4000)]
    values += [0, 1, -1, (1 << 127) - 1, -(1 << 127), (1 << 25) + 1, (1 << 25) + 3, -(1 << 25) - 2]
    exponents = rng.integers(-300, 130, len(values))
    array = np.array(values, dtype=object)
    wanted = [nearest(Fraction(v) * Fraction(2) ** int(e), "fp32") for v, e in zip(values, exponents, strict=True)]
    assert compare(fp32_from_int(array, exponents), wanted, floats.saturates_from_int(array, exponents)) > 4000
    assert fp32_from_int(np.arange(-3, 3), -1).tolist() == [-1.5, -1, -0.5, 0, 0.5, 1] and fp32_from_int(5, 0) == 5
    assert fp32_from_int(1, -(10**9)) == 0 and fp32_from_int(-1, 10**9) == -FP32_MAX


def test_ieee_theory_of_z3_agrees() -> None:
    """Sum, product, quotient, root and conversion of 600 pairs, as another implementation of IEEE 754 evaluates them."""
    sort, mode, compared = z3.FPSort(8, 24), z3.RNE(), 0

    def number(x: np.float32) -> z3.FPRef:
        return z3.fpBVToFP(z3.BitVecVal(int(x.view(np.uint32)), 32), sort)

    def agrees(term: z3.FPRef, found: np.floating) -> bool:
        largest = abs(float(FP32_MAX if found.dtype == np.float32 else FP16_MAX))
        value = z3.simplify(term)
        if z3.is_true(z3.simplify(z3.fpIsInf(value))):
            return abs(float(found)) == largest and z3.is_true(z3.simplify(z3.fpIsNegative(value))) == bool(found < 0)
        bits = z3.simplify(z3.fpToIEEEBV(value)).as_long()
        return bits == int(found.view(f"u{found.itemsize}"))

    a, b = numbers(11, 600), numbers(12, 600)
    for x, y in [*zip(a[:300], b[:300], strict=True), *zip(a[300:], finite_neighbours(a[300:], 13), strict=True)]:
        p, q = number(x), number(y)
        found = [fp32_add(x, y)[()], fp32_mul(x, y)[()], fp32_sqrt(abs(x))[()], to_fp16(x)[()]]
        terms = [z3.fpAdd(mode, p, q), z3.fpMul(mode, p, q), z3.fpSqrt(mode, z3.fpAbs(p)), z3.fpFPToFP(mode, p, z3.FPSort(5, 11))]
        if y:
            found, terms = [*found, fp32_div(x, y)[()]], [*terms, z3.fpDiv(mode, p, q)]
        assert all(agrees(term, value) for term, value in zip(terms, found, strict=True)), (x, y)
        compared += len(terms)
    assert compared > 2_900


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    values = np.array([[1, 2], [3, bad]])
    for function in (fp32_add, fp32_mul, fp32_div):
        with pytest.raises(ValueError, match=r"b must be finite, not .* at index \(1, 1\)"):
            function(np.float32(1), values.astype(np.float32))
    for function in (to_fp16, fp32_sqrt, floats.saturates_fp16):
        with pytest.raises(ValueError, match="must be finite"):
            function(values.astype(np.float32))
    with pytest.raises(ValueError, match="w must be finite"):
        fp16_dot(np.ones((2, 2), np.float16), values.astype(np.float16))


def test_other_types_and_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="a must be float32, not float64: convert it first"):
        fp32_add(np.float64(1), np.float32(1))
    with pytest.raises(ValueError, match="x must be float16, not float32"):
        fp16_dot(np.ones(2, np.float32), np.ones(2, np.float16))
    for shape in ((3,), ()):
        with pytest.raises(ValueError, match="must have the same last axis, not shapes"):
            fp16_dot(np.ones(2, np.float16), np.ones(shape, np.float16))
    with pytest.raises(ValueError, match="value must fit 128 bits signed"):
        fp32_from_int(1 << 127, 0)
    with pytest.raises(TypeError, match="value must be integers, not float64"):
        fp32_from_int(1.5, 0)
