"""Casts of hw.spec.fixed against apytypes, and against their written definitions in exact fractions."""

import math
from dataclasses import FrozenInstanceError
from fractions import Fraction

import apytypes
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hw.spec.fixed import FixedFormat, Overflow, Rounding, dequantize, quantize, requantize, round_shift

TIES = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]
BELOW_TIES = [float(np.nextafter(t, -9)) for t in TIES]
ABOVE_TIES = [float(np.nextafter(t, 9)) for t in TIES]
EXTREMES = [0.0, -0.0, 5e-324, -5e-324, 2.2e-308, -2.2e-308, 1e300, -1e300, 1.7976931348623157e308,
            2.0**52 + 1, -(2.0**52) - 1, 2.0**53 - 1, 2.0**62, 2.0**63, -(2.0**63), 2.0**64,
            2.0**65 + 2.0**13]
FORMATS = [FixedFormat(8, 4), FixedFormat(8, 0, False), FixedFormat(1, 0), FixedFormat(1, 2, False),
           FixedFormat(2, 0), FixedFormat(5, -3), FixedFormat(4, 9), FixedFormat(54, 20), FixedFormat(64, 0),
           FixedFormat(64, 40), FixedFormat(63, 10, False), FixedFormat(53, 0), FixedFormat(16, 2000),
           FixedFormat(16, -2000), FixedFormat(12, 1080), FixedFormat(9, -1000), FixedFormat(7, 10**9)]


# --- the written definitions


def adds_one(scaled: Fraction, rounding: Rounding) -> bool:
    """Whether the rounded value is ``floor(scaled) + 1``."""
    below = math.floor(scaled)
    part, half = scaled - below, Fraction(1, 2)
    return {
        Rounding.TRN: False,
        Rounding.TRN_ZERO: scaled < 0 and part > 0,
        Rounding.RND: part >= half,
        Rounding.RND_ZERO: part > half or (part == half and scaled < 0),
        Rounding.RND_MIN_INF: part > half,
        Rounding.RND_INF: part > half or (part == half and scaled >= 0),
        Rounding.RND_CONV: part > half or (part == half and below % 2 == 1),
    }[rounding]


def wrap(integer: int, fmt: FixedFormat) -> int:
    low = integer % 2**fmt.width
    return low - 2**fmt.width if fmt.signed and low >= 2 ** (fmt.width - 1) else low


def wrap_sign_magnitude(before: int, rounded: int, fmt: FixedFormat) -> int:
    """``before`` is the integer below the value, ``rounded`` its rounded neighbour, outside the range."""
    deleted = (before >> fmt.width) & 1
    kept = wrap(rounded, fmt)
    return kept if deleted == (kept < 0) else -1 - kept


def saturate(integer: int, fmt: FixedFormat, symmetric: bool) -> int:
    low = fmt.min_code
    if symmetric and fmt.signed:
        low = -1 if fmt.width == 1 else -fmt.max_code
    return min(max(integer, low), fmt.max_code)


def cast(value: Fraction, fmt: FixedFormat, rounding: Rounding, overflow: Overflow) -> int:
    """The code of an exact value, one definition per mode."""
    # A frac of 10**9 would make astronomically long integers; beyond 4000 no result can change.
    frac = max(-4000, min(fmt.frac, 4000))
    scaled = value * Fraction(2) ** frac
    before = math.floor(scaled)
    rounded = before + adds_one(scaled, rounding)
    if overflow in (Overflow.SAT, Overflow.SAT_SYM):
        return saturate(rounded, fmt, overflow is Overflow.SAT_SYM)
    if fmt.min_code <= rounded <= fmt.max_code:
        return rounded
    if overflow is Overflow.SAT_ZERO:
        return 0
    return wrap(rounded, fmt) if overflow is Overflow.WRAP else wrap_sign_magnitude(before, rounded, fmt)


def modes(fmt: FixedFormat) -> list[tuple[Rounding, Overflow]]:
    return [(r, o) for r in Rounding for o in Overflow if fmt.signed or o is not Overflow.WRAP_SM]


def random_format(rng: np.random.Generator, frac_range: int) -> FixedFormat:
    signed = bool(rng.integers(2))
    width, frac = rng.integers(1, 65 if signed else 64), rng.integers(-frac_range, frac_range)
    return FixedFormat(int(width), int(frac), signed)


def hard_values(rng: np.random.Generator, fmt: FixedFormat, count: int) -> np.ndarray:
    """Values around a format's codes, ties and bounds, their float64 neighbours, and any bit pattern."""
    reach = 2.0 ** min(fmt.width + 2, 70)
    near = np.concatenate([np.floor(rng.uniform(-reach, reach, count)), rng.integers(-9, 9, count),
                           float(fmt.max_code) + rng.integers(-3, 3, count),
                           float(fmt.min_code) + rng.integers(-3, 3, count)])
    near = near + rng.choice([0.0, 0.5, 0.25, 0.75], near.size)
    with np.errstate(over="ignore", under="ignore"):
        near = np.ldexp(near, max(-4000, min(-fmt.frac, 4000)))
        near = np.where(rng.random(near.size) < 0.25, np.nextafter(near, np.inf), near)
        near = np.where(rng.random(near.size) < 0.25, np.nextafter(near, -np.inf), near)
    bits = rng.integers(0, 2**64, count, np.uint64).view(np.float64)
    denormal = rng.integers(0, 2**52, count, np.uint64).view(np.float64) * rng.choice([-1, 1], count)
    values = np.concatenate([near, bits, denormal, EXTREMES])
    return rng.permutation(values[np.isfinite(values)])


# --- directed edges

EXPECTED_AT_TIES = {
    Rounding.TRN: [-3, -2, -1, 0, 1, 2],
    Rounding.TRN_ZERO: [-2, -1, 0, 0, 1, 2],
    Rounding.RND: [-2, -1, 0, 1, 2, 3],
    Rounding.RND_ZERO: [-2, -1, 0, 0, 1, 2],
    Rounding.RND_MIN_INF: [-3, -2, -1, 0, 1, 2],
    Rounding.RND_INF: [-3, -2, -1, 1, 2, 3],
    Rounding.RND_CONV: [-2, -2, 0, 0, 2, 2],
}


@pytest.mark.parametrize("rounding", Rounding)
def test_ties_round_as_tabulated(rounding):
    fmt = FixedFormat(8, 0)
    assert quantize(TIES, fmt, rounding, Overflow.SAT).tolist() == EXPECTED_AT_TIES[rounding]
    assert round_shift([2 * t for t in (-2, -1, 0, 1)] + np.int64(1), 1, rounding).tolist() == [
        EXPECTED_AT_TIES[rounding][i] for i in (1, 2, 3, 4)]


@pytest.mark.parametrize("rounding", [r for r in Rounding if r.name.startswith("RND")])
def test_neighbours_of_ties_go_to_the_nearest(rounding):
    fmt = FixedFormat(8, 0)
    assert quantize(BELOW_TIES, fmt, rounding, Overflow.SAT).tolist() == [-3, -2, -1, 0, 1, 2]
    assert quantize(ABOVE_TIES, fmt, rounding, Overflow.SAT).tolist() == [-2, -1, 0, 1, 2, 3]


@pytest.mark.parametrize(("overflow", "expected"), [
    (Overflow.SAT, [7, 7, -8, -8, 7, -8]),
    (Overflow.SAT_ZERO, [0, 0, 0, -8, 7, 0]),
    (Overflow.SAT_SYM, [7, 7, -7, -7, 7, -7]),
    (Overflow.WRAP, [-8, -7, 7, -8, 7, 3]),
    (Overflow.WRAP_SM, [7, 6, -8, -8, 7, -4]),
])
def test_overflow_as_tabulated(overflow, expected):
    codes = quantize([8, 9, -9, -8, 7, -13], FixedFormat(4, 0), Rounding.TRN, overflow)
    assert codes.tolist() == expected


def test_wrap_sm_takes_the_deleted_bit_from_before_rounding():
    # 15.5 lies above 15 = 0_1111 (bit 4 clear) but rounds to 16 = 1_0000 (bit 4 set).
    fmt = FixedFormat(4, 0)
    assert quantize([15.5, -16.5], fmt, Rounding.RND, Overflow.WRAP_SM).tolist() == [0, 0]
    assert requantize([31, -33], FixedFormat(8, 1), fmt, Rounding.RND, Overflow.WRAP_SM).tolist() == [0, 0]


def test_one_bit_signed_saturates_symmetrically_to_minus_one():
    one = FixedFormat(1, 0)
    assert quantize([-5.0, -1.0, 0.0, 5.0], one, Rounding.TRN, Overflow.SAT_SYM).tolist() == [-1, -1, 0, 0]
    assert requantize([-5, -1, 0, 5], FixedFormat(8, 0), one, Rounding.TRN, Overflow.SAT_SYM).tolist() == [
        -1, -1, 0, 0]


def test_infinity():
    fmt = FixedFormat(8, 3)
    for overflow, expected in [(Overflow.SAT, [-128, 127]), (Overflow.SAT_SYM, [-127, 127]),
                               (Overflow.SAT_ZERO, [0, 0])]:
        for rounding in Rounding:
            assert quantize([-np.inf, np.inf], fmt, rounding, overflow).tolist() == expected
    assert quantize([-np.inf, np.inf], FixedFormat(64, 3), Rounding.RND, Overflow.SAT).tolist() == [
        -(2**63), 2**63 - 1]
    assert quantize(-np.inf, FixedFormat(9, 3, False), Rounding.RND, Overflow.SAT).tolist() == 0


def test_shapes_and_input_types():
    fmt = FixedFormat(8, 1)
    scalar = quantize(0.75, fmt, Rounding.RND, Overflow.SAT)
    assert (scalar.shape, scalar.dtype, int(scalar)) == ((), np.int64, 2)
    assert quantize(np.zeros((0, 3)), fmt, Rounding.RND, Overflow.WRAP).shape == (0, 3)
    grid = np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1)
    codes = quantize(grid, fmt, Rounding.RND, Overflow.SAT)
    assert codes.shape == (4, 2, 3)
    assert (codes == 2 * grid.astype(np.int64)).all()
    assert (quantize(grid.astype(np.float16), fmt, Rounding.RND, Overflow.SAT) == codes).all()
    assert (quantize(grid.astype(np.int16), fmt, Rounding.RND, Overflow.SAT) == codes).all()
    # An integer that float64 cannot hold is still cast exactly.
    assert quantize(2**53 + 1, FixedFormat(64, 0), Rounding.RND, Overflow.SAT).tolist() == 2**53 + 1


# --- outside oracle

APYTYPES_ROUNDING = {
    Rounding.TRN: "TO_NEG", Rounding.TRN_ZERO: "TO_ZERO", Rounding.RND: "TIES_POS",
    Rounding.RND_ZERO: "TIES_ZERO", Rounding.RND_MIN_INF: "TIES_NEG", Rounding.RND_INF: "TIES_AWAY",
    Rounding.RND_CONV: "TIES_EVEN",
}


def apytypes_cast(exact, fmt: FixedFormat, rounding: Rounding, overflow: Overflow) -> np.ndarray:
    """Codes by apytypes, signed only: unsigned ones come from a signed format that is one bit wider."""
    width = fmt.width if fmt.signed else fmt.width + 1
    result = exact.cast(bits=width, frac_bits=fmt.frac,
                        quantization=getattr(apytypes.QuantizationMode, APYTYPES_ROUNDING[rounding]),
                        overflow=getattr(apytypes.OverflowMode, overflow.name))
    codes = result.to_bits(numpy=True).astype(np.uint64).view(np.int64)
    codes = (codes << (64 - width)) >> (64 - width)
    if fmt.signed:
        return codes
    return codes & fmt.max_code if overflow is Overflow.WRAP else np.maximum(codes, 0)


def test_apytypes_agrees_on_a_million_casts():
    rng = np.random.default_rng(20240117)
    compared = 0
    for index in range(200):
        fmt = random_format(rng, 1100 if index % 4 == 0 else 40)
        values = hard_values(rng, fmt, 130)
        # Every float64 is a multiple of 2**-1074 below 2**1024: this array is exact.
        exact = apytypes.APyFixedArray.from_array(values, int_bits=1025, frac_bits=1074)
        for rounding in Rounding:
            for overflow in (Overflow.SAT, Overflow.WRAP):
                codes = quantize(values, fmt, rounding, overflow)
                expected = apytypes_cast(exact, fmt, rounding, overflow)
                np.testing.assert_array_equal(codes, expected, f"{fmt} {rounding} {overflow}")
                compared += codes.size
    print(f"apytypes: {compared} casts compared")
    assert compared >= 1_000_000


# --- written definitions


def test_quantize_follows_its_definition_in_every_mode():
    rng = np.random.default_rng(7)
    compared = 0
    for fmt in FORMATS + [random_format(rng, 80) for _ in range(15)]:
        values = np.concatenate([hard_values(rng, fmt, 8), TIES, BELOW_TIES, ABOVE_TIES, EXTREMES])
        exact = [Fraction(v) for v in values]
        for rounding, overflow in modes(fmt):
            expected = [cast(v, fmt, rounding, overflow) for v in exact]
            result = quantize(values, fmt, rounding, overflow)
            assert result.tolist() == expected, f"{fmt} {rounding} {overflow}"
            compared += len(expected)
    print(f"quantize definition: {compared} casts compared")
    assert compared > 50_000


def hard_codes(rng: np.random.Generator, fmt: FixedFormat, shift: int, count: int) -> np.ndarray:
    """Codes of all magnitudes, both bounds, and codes at and beside the ties of a right shift."""
    codes = rng.integers(-(2**63), 2**63 - 1, count) >> rng.integers(0, 64, count)
    if 0 < shift < 64:
        ties = ((codes >> shift) << shift) | (1 << (shift - 1))
        codes = np.where(rng.random(count) < 0.5, ties + rng.integers(-1, 2, count), codes)
    codes = np.concatenate([codes, [0, 1, fmt.min_code, fmt.max_code]])
    return np.clip(codes, fmt.min_code, fmt.max_code)


def codes_at_bounds(source: FixedFormat, target: FixedFormat) -> np.ndarray:
    """The source codes that are next to the target's smallest and largest codes, where there are any."""
    step = Fraction(2) ** (source.frac - target.frac)
    near = [math.floor(bound * step) + d for bound in (target.min_code, target.max_code) for d in (-1, 0, 1)]
    return np.array([c for c in near if source.min_code <= c <= source.max_code], np.int64)


def test_requantize_follows_its_definition_in_every_mode():
    rng = np.random.default_rng(11)
    fracs = [(64, 0), (63, 0), (66, 0), (2000, 0), (0, 63), (0, 64), (0, 66), (0, 2000), (5, 5)]
    pairs = [(FixedFormat(64, a), FixedFormat(w, b)) for a, b in fracs for w in (1, 8, 64)]
    while len(pairs) < 90:
        pairs.append((random_format(rng, 40), random_format(rng, 40)))
    compared = 0
    for source, target in pairs:
        codes = hard_codes(rng, source, source.frac - target.frac, 24)
        codes = np.concatenate([codes, codes_at_bounds(source, target)])
        exact = [Fraction(c) * Fraction(2) ** -source.frac for c in codes.tolist()]
        for rounding, overflow in modes(target):
            expected = [cast(v, target, rounding, overflow) for v in exact]
            result = requantize(codes, source, target, rounding, overflow)
            assert result.tolist() == expected, f"{source} -> {target} {rounding} {overflow}"
            compared += len(expected)
    print(f"requantize definition: {compared} casts compared")
    assert compared > 50_000


def test_requantize_equals_quantize_of_the_values():
    rng = np.random.default_rng(3)
    source, compared = FixedFormat(24, 11), 0
    codes = rng.integers(source.min_code, source.max_code + 1, (64, 600))
    values = dequantize(codes, source)
    for target in (FixedFormat(8, 4), FixedFormat(8, 2, False), FixedFormat(30, 14), FixedFormat(3, 12)):
        for rounding, overflow in modes(target):
            direct = requantize(codes, source, target, rounding, overflow)
            np.testing.assert_array_equal(direct, quantize(values, target, rounding, overflow))
            compared += direct.size
    assert compared > 5_000_000


def test_round_shift_follows_its_definition():
    rng = np.random.default_rng(5)
    shifts = np.concatenate([np.arange(-3, 70), [1000, -1000]])
    codes = hard_codes(rng, FixedFormat(64, 0), 7, 60)
    small = np.concatenate([codes >> 3, [0, -(2**60), 2**60 - 1]])
    compared = 0
    for rounding in Rounding:
        for shift in shifts.tolist():
            # At shifts of 62 and more only codes near the bounds reach a tie; left shifts need room.
            chosen = small if shift >= -3 else np.zeros(3, np.int64)
            if shift >= 0:
                chosen = np.concatenate([chosen, [-(2**63), -(2**63) + 1, 2**63 - 1, 2**62, -(2**62)]])
            scaled = [Fraction(c) * Fraction(2) ** -shift for c in chosen.tolist()]
            expected = [math.floor(v) + adds_one(v, rounding) for v in scaled]
            assert round_shift(chosen, shift, rounding).tolist() == expected, f"{rounding} shift {shift}"
            compared += len(expected)
    assert compared > 30_000


def test_round_shift_broadcasts_mixed_shifts():
    rng = np.random.default_rng(6)
    codes, shifts, compared = rng.integers(-(2**40), 2**40, (50, 1, 9)), np.arange(-8, 82, 10), 0
    for rounding in Rounding:
        mixed = round_shift(codes, shifts, rounding)
        assert (mixed.shape, mixed.dtype) == ((50, 1, 9), np.int64)
        for channel, shift in enumerate(shifts.tolist()):
            alone = round_shift(codes[..., channel], shift, rounding)
            np.testing.assert_array_equal(mixed[..., channel], alone)
            compared += alone.size
    assert compared == 7 * 50 * 9
    assert round_shift(np.zeros((4, 1), np.int32), np.zeros(5, np.int8), Rounding.RND).shape == (4, 5)
    scalar = round_shift(-7, 1, Rounding.TRN)
    assert (scalar.shape, int(scalar)) == ((), -4)


@settings(max_examples=150, deadline=None)
@example(-0.49999999999999994, 8, 0, True, Rounding.RND_MIN_INF, Overflow.SAT)
@example(0.49999999999999994, 8, 0, True, Rounding.RND, Overflow.SAT)
@given(st.floats(allow_nan=False, allow_infinity=False), st.integers(1, 63), st.integers(-1200, 1200),
       st.booleans(), st.sampled_from(Rounding), st.sampled_from(Overflow))
def test_any_float64_is_cast_exactly(value, width, frac, signed, rounding, overflow):
    fmt = FixedFormat(width, frac, signed or overflow is Overflow.WRAP_SM)
    assert int(quantize(value, fmt, rounding, overflow)) == cast(Fraction(value), fmt, rounding, overflow)


# --- dequantize


def test_dequantize_is_exact():
    rng = np.random.default_rng(9)
    compared = 0
    for fmt in [FixedFormat(8, 4), FixedFormat(8, -3), FixedFormat(53, 1070), FixedFormat(50, -970),
                FixedFormat(54, 0), FixedFormat(16, 12, False)]:
        codes = rng.integers(-(2**49), 2**49, 200) >> rng.integers(0, 49, 200)
        codes = np.clip(codes, fmt.min_code, fmt.max_code)
        values = dequantize(codes, fmt)
        expected = [Fraction(c) * Fraction(2) ** -fmt.frac for c in codes.tolist()]
        assert [Fraction(v) for v in values.tolist()] == expected
        assert (quantize(values, fmt, Rounding.TRN, Overflow.WRAP) == codes).all()
        compared += codes.size
    assert compared == 1200
    assert dequantize([2**53, 2**60, -(2**63)], FixedFormat(64, 1)).tolist() == [2.0**52, 2.0**59, -(2.0**62)]


@pytest.mark.parametrize(("code", "fmt"), [
    (2**53 + 1, FixedFormat(64, 0)), (2**63 - 1, FixedFormat(64, 0)), (-(2**63) + 1, FixedFormat(64, 0)),
    (3, FixedFormat(8, 1075)), (1, FixedFormat(8, 10**9)), (1, FixedFormat(8, -1024))])
def test_dequantize_refuses_what_float64_cannot_hold(code, fmt):
    message = rf"codes of {fmt} must be exact in float64, not {code} at index \(1,\)"
    with pytest.raises(ValueError, match=message):
        dequantize([0, code], fmt)


# --- the format


def test_format_properties_and_text():
    for fmt in FORMATS:
        assert fmt.max_code - fmt.min_code + 1 == 2**fmt.width
        assert fmt.min_code == (-(2 ** (fmt.width - 1)) if fmt.signed else 0)
        assert fmt.integer_bits == fmt.width - fmt.frac
        assert FixedFormat.parse(str(fmt)) == fmt
        assert FixedFormat.from_dict(fmt.to_dict()) == fmt
    assert str(FixedFormat(5, -3)) == "s5f-3"
    assert str(FixedFormat(8, 0, False)) == "u8f0"
    assert {FixedFormat(8, 4): 1}[FixedFormat(np.int64(8), np.int32(4), np.True_)] == 1


def test_format_is_frozen():
    fmt = FixedFormat(8, 4)
    with pytest.raises(FrozenInstanceError):
        fmt.width = 9


# --- bad input

S8, U8 = FixedFormat(8, 0), FixedFormat(8, 0, False)
R, SAT, WRAP, SM = Rounding.RND, Overflow.SAT, Overflow.WRAP, Overflow.WRAP_SM


@pytest.mark.parametrize(("call", "error", "message"), [
    (lambda: FixedFormat(0, 0), ValueError, r"width of a signed format must be 1 to 64 bits, not 0"),
    (lambda: FixedFormat(65, 0), ValueError, r"width of a signed format must be 1 to 64 bits, not 65"),
    (lambda: FixedFormat(64, 0, False), ValueError,
     r"width of an unsigned format must be 1 to 63 bits, not 64"),
    (lambda: FixedFormat(8.0, 0), TypeError, r"width must be an integer, not 8\.0"),
    (lambda: FixedFormat(8, 1.5), TypeError, r"frac must be an integer, not 1\.5"),
    (lambda: FixedFormat(True, 0), TypeError, r"width must be an integer, not True"),
    (lambda: FixedFormat(8, 0, 1), TypeError, r"signed must be a bool, not 1"),
    (lambda: FixedFormat.parse("8f4"), ValueError, r"must read like 's8f4' or 'u8f-2' .* not '8f4'"),
    (lambda: FixedFormat.from_dict({"width": 8}), ValueError,
     r"width, frac and signed only, not \['width'\]"),
    (lambda: quantize([0, np.nan], S8, R, SAT), ValueError, r"must be numbers, not NaN at index \(1,\)"),
    (lambda: quantize([[0.0], [-np.inf]], S8, R, WRAP), ValueError,
     r"must be finite under WRAP, not -inf at index \(1, 0\)"),
    (lambda: quantize(np.inf, S8, R, SM), ValueError, r"must be finite under WRAP_SM, not inf at index \(\)"),
    (lambda: quantize([1.0], U8, R, SM), ValueError, r"WRAP_SM needs a signed format, not u8f0: use WRAP"),
    (lambda: requantize([1], S8, U8, R, SM), ValueError,
     r"WRAP_SM needs a signed format, not u8f0: use WRAP"),
    (lambda: quantize(["1"], S8, R, SAT), TypeError, r"values must be floats of at most 64 bits or integers"),
    (lambda: quantize(1j, S8, R, SAT), TypeError, r"or integers, not complex128"),
    (lambda: quantize(1.0, "s8f0", R, SAT), TypeError, r"the format must be a FixedFormat, not 's8f0'"),
    (lambda: quantize(1.0, S8, "RND", SAT), TypeError, r"rounding must be a Rounding, not 'RND'"),
    (lambda: quantize(1.0, S8, R, "SAT"), TypeError, r"overflow must be an Overflow, not 'SAT'"),
    (lambda: requantize([1, 128], S8, S8, R, SAT), ValueError,
     r"codes of s8f0 must be -128 to 127, not 128 at index \(1,\)"),
    (lambda: dequantize(-1, U8), ValueError, r"codes of u8f0 must be 0 to 255, not -1 at index \(\)"),
    (lambda: dequantize([1.0], S8), TypeError, r"codes must be integers of at most 64 bits, not float64"),
    (lambda: requantize([2**64 - 1], S8, S8, R, SAT), ValueError, r"codes must fit a signed 64-bit integer"),
    (lambda: round_shift([1], 1.0, R), TypeError, r"shift must be integers of at most 64 bits, not float64"),
    (lambda: round_shift([1], 1, "RND"), TypeError, r"rounding must be a Rounding, not 'RND'"),
    (lambda: round_shift([0, 2**62], -1, R), ValueError,
     r"codes must fit 64 bits when shifted left, not 4611686018427387904 << 1 at index \(1,\)"),
    (lambda: round_shift([0, 1], [-99, -63], R), ValueError, r"not 1 << 63 at index \(1,\)"),
    (lambda: round_shift([-1], -64, R), ValueError, r"not -1 << 64 at index \(0,\)"),
])
def test_bad_input_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
