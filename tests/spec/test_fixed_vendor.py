"""Casts of hw.spec.fixed against the vendor's own ap_fixed headers, which the hls4ml wheel installs with its templates.

A small program of C++ templates, one function per format and mode, is compiled against those headers and kept in the
user's cache. Every value goes through both; not one code may differ.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import itertools
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from hw.sim.cache import cache_root, cached_folder
from hw.spec import fixed
from hw.spec.fixed import FixedFormat, Overflow, Rounding, quantize, requantize

pytestmark = pytest.mark.slow

SIGNED = [FixedFormat(w, f) for w, f in (
    (1, 0), (1, 3), (2, 1), (3, -2), (4, 4), (6, 9), (8, 4), (8, 0), (9, 70), (12, -40), (16, 8), (24, 300), (31, 15),
    (32, -300), (33, 33), (48, 20), (53, 10), (54, 52), (63, 31), (64, 0), (64, 64))]  # fmt: skip
UNSIGNED = [FixedFormat(w, f, False) for w, f in (
    (1, 0), (2, 5), (4, -1), (8, 8), (8, 3), (13, -30), (16, 16), (32, 200), (53, 26), (63, 0))]  # fmt: skip
RECASTS = [(FixedFormat(33, 12), FixedFormat(8, 4)), (FixedFormat(16, 8), FixedFormat(24, 12)),
           (FixedFormat(64, 40), FixedFormat(8, -3)), (FixedFormat(24, 11), FixedFormat(9, 11)),
           (FixedFormat(8, 0), FixedFormat(4, 9)), (FixedFormat(16, 15, False), FixedFormat(8, 4)),
           (FixedFormat(33, 20), FixedFormat(8, 8, False)), (FixedFormat(12, 4, False), FixedFormat(7, 1, False)),
           (FixedFormat(48, 0), FixedFormat(16, -20)), (FixedFormat(5, 4), FixedFormat(5, 1))]  # fmt: skip
"""Formats that `requantize` is compared on: wide and narrow, finer and coarser, all four changes of sign."""

PER_MODE = 1 << 14
"""Values in each format and mode; at least ten million casts in all."""

_SOURCE = r"""
#include <cstdint>
#include "ap_fixed.h"
template <int W, int I, bool S, ap_q_mode Q, ap_o_mode O> struct Type { typedef ap_fixed<W, I, Q, O> type; };
template <int W, int I, ap_q_mode Q, ap_o_mode O> struct Type<W, I, false, Q, O> { typedef ap_ufixed<W, I, Q, O> type; };
template <int W, int I, bool S, ap_q_mode Q, ap_o_mode O>
static void cast(const double *values, int64_t *codes, long count) {
    for (long i = 0; i < count; i++) {
        typename Type<W, I, S, Q, O>::type fixed(values[i]);
        ap_int_base<W, S> code;
        code.V = fixed.V;
        codes[i] = (int64_t)code.to_int64();
    }
}
template <int W1, int I1, bool S1, int W, int I, bool S, ap_q_mode Q, ap_o_mode O>
static void recast(const int64_t *from, int64_t *codes, long count) {
    for (long i = 0; i < count; i++) {
        typename Type<W1, I1, S1, AP_TRN, AP_WRAP>::type source;
        source.V = from[i];
        typename Type<W, I, S, Q, O>::type fixed = source;
        ap_int_base<W, S> code;
        code.V = fixed.V;
        codes[i] = (int64_t)code.to_int64();
    }
}
"""
_FLAGS = ("-std=c++11", "-O1", "-w", "-shared", "-fPIC")

Cast = Callable[[np.ndarray, FixedFormat, Rounding, Overflow], np.ndarray]


def modes(fmt: FixedFormat) -> list[tuple[Rounding, Overflow]]:
    """Every pair of modes that the headers have for a format: an unsigned one has no WRAP_SM."""
    return [(r, o) for r in Rounding for o in Overflow if fmt.signed or o is not Overflow.WRAP_SM]


def name(fmt: FixedFormat) -> str:
    return str(fmt).replace("-", "m")


def template(fmt: FixedFormat) -> str:
    return f"{fmt.width}, {fmt.integer_bits}, {str(fmt.signed).lower()}"


def program() -> str:
    """The C++ program: one exported function per format and pair of modes."""
    lines = [_SOURCE, 'extern "C" {']
    for fmt in SIGNED + UNSIGNED:
        lines += [f"void cast_{name(fmt)}_{r.name}_{o.name}(const double *v, int64_t *c, long n) "
                  f"{{ cast<{template(fmt)}, AP_{r.name}, AP_{o.name}>(v, c, n); }}" for r, o in modes(fmt)]
    for source, target in RECASTS:
        lines += [f"void recast_{name(source)}_{name(target)}_{r.name}_{o.name}(const int64_t *v, int64_t *c, long n) "
                  f"{{ recast<{template(source)}, {template(target)}, AP_{r.name}, AP_{o.name}>(v, c, n); }}"
                  for r, o in modes(target)]
    return "\n".join([*lines, "}", ""])


def headers() -> Path:
    """The folder of ap_fixed.h in the installed wheel, found without importing the package."""
    found = importlib.util.find_spec("hls4ml")
    assert found is not None and found.submodule_search_locations, (
        "hls4ml is not installed, and the vendor's headers come from its wheel: pip install -e '.[dev]'")
    folder = Path(found.submodule_search_locations[0]) / "templates" / "vivado" / "ap_types"
    assert (folder / "ap_fixed.h").is_file(), f"this hls4ml has no ap_fixed.h under {folder}"
    return folder


@functools.cache
def vendor() -> ctypes.CDLL:
    """The compiled headers; the first run takes about a minute."""
    source, folder = program(), headers()
    text = [source, *_FLAGS, subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True).stdout]
    text += [path.read_text(errors="replace") for path in sorted(folder.rglob("*.h"))]
    key = hashlib.sha256("\0".join(text).encode()).hexdigest()[:32]

    def build(target: Path) -> None:
        (target / "casts.cpp").write_text(source)
        command = ["g++", *_FLAGS, f"-I{folder}", "-o", "casts.so", "casts.cpp"]
        subprocess.run(command, cwd=target, check=True)

    place = cache_root() / "ap-fixed" / key
    cached_folder(place, build)
    return ctypes.CDLL(str(place / "casts.so"))


def call(function: str, values: np.ndarray) -> np.ndarray:
    """Codes by one of the compiled functions."""
    codes = np.empty(values.size, np.int64)
    getattr(vendor(), function)(ctypes.c_void_p(values.ctypes.data), ctypes.c_void_p(codes.ctypes.data),
                                ctypes.c_long(values.size))
    return codes


def vendor_quantize(values: np.ndarray, fmt: FixedFormat, rounding: Rounding, overflow: Overflow) -> np.ndarray:
    return call(f"cast_{name(fmt)}_{rounding.name}_{overflow.name}", values)


def hard_values(rng: np.random.Generator, fmt: FixedFormat, count: int) -> np.ndarray:
    """``count`` values: ties and their float64 neighbours, bounds, powers of two, denormals, any finite bit pattern."""
    part = count // 8
    reach = 2.0 ** min(fmt.width + 2, 66)
    integers = np.concatenate([np.floor(rng.uniform(-reach, reach, part)), rng.integers(-40, 40, part),
                               float(fmt.max_code) + rng.integers(-3, 4, part),
                               float(fmt.min_code) + rng.integers(-3, 4, part)])
    near = np.ldexp(integers + rng.choice([0.0, 0.25, 0.5, 0.75], integers.size), -fmt.frac)
    side = rng.choice([-np.inf, np.inf], near.size)
    near = np.where(rng.random(near.size) < 0.5, np.nextafter(near, side), near)
    powers = np.ldexp(rng.choice([-1.0, 1.0], part), rng.integers(-1022, 1024, part))
    local = np.ldexp(rng.choice([-1.0, 1.0], part), rng.integers(-3, 70, part) - fmt.frac)
    denormal = rng.integers(0, 2**52, part, np.uint64).view(np.float64) * rng.choice([-1.0, 1.0], part)
    bits = rng.integers(0, 2**64, part, np.uint64).view(np.float64)
    values = np.concatenate([near, powers, local, denormal, np.where(np.isfinite(bits), bits, 1.7e308)])
    return np.ascontiguousarray(rng.permutation(values))


def difference(cast: Cast, values: np.ndarray, fmt: FixedFormat, rounding: Rounding, overflow: Overflow) -> int:
    """Codes that differ from the vendor's."""
    return int((cast(values, fmt, rounding, overflow) != vendor_quantize(values, fmt, rounding, overflow)).sum())


def cases(seed: int, count: int) -> Iterator[tuple[np.ndarray, FixedFormat, Rounding, Overflow]]:
    rng = np.random.default_rng(seed)
    for fmt in SIGNED + UNSIGNED:
        for rounding, overflow in modes(fmt):
            yield hard_values(rng, fmt, count), fmt, rounding, overflow


def test_the_vendor_agrees_on_ten_million_casts():
    compared, seen = 0, set()
    for values, fmt, rounding, overflow in cases(20261122, PER_MODE):
        np.testing.assert_array_equal(quantize(values, fmt, rounding, overflow),
                                      vendor_quantize(values, fmt, rounding, overflow), f"{fmt} {rounding} {overflow}")
        compared += values.size
        seen.add((rounding, overflow))
    print(f"ap_fixed: {compared} casts of float64 compared, 0 mismatches")
    assert compared >= 10_000_000
    assert seen == set(itertools.product(Rounding, Overflow))


def test_the_vendor_agrees_on_casts_between_formats():
    rng, compared = np.random.default_rng(5), 0
    for source, target in RECASTS:
        low, high = source.min_code, source.max_code
        for rounding, overflow in modes(target):
            codes = rng.integers(low, high, 4000, np.int64, endpoint=True) >> rng.integers(0, source.width, 4000)
            codes = np.concatenate([codes, [low, low + 1, high - 1, high, 0, 1]]).astype(np.int64)
            expected = call(f"recast_{name(source)}_{name(target)}_{rounding.name}_{overflow.name}", codes)
            np.testing.assert_array_equal(requantize(codes, source, target, rounding, overflow), expected,
                                          f"{source} -> {target} {rounding} {overflow}")
            compared += codes.size
    print(f"ap_fixed: {compared} casts between formats compared, 0 mismatches")
    assert compared >= 1_000_000


# --- what the comparison would see


def test_each_mode_differs_from_every_other_on_these_values():
    """If two modes gave the same codes, the comparison could not tell that one stood in place of the other."""
    fmt, rng = FixedFormat(8, 4), np.random.default_rng(3)
    values = hard_values(rng, fmt, PER_MODE)
    codes = {pair: vendor_quantize(values, fmt, *pair) for pair in modes(fmt)}
    pairs = list(itertools.combinations(codes, 2))
    assert len(pairs) == 35 * 34 // 2
    assert not [pair for pair in pairs if (codes[pair[0]] == codes[pair[1]]).all()]


def adding_a_half(scaled: np.ndarray, rounding: Rounding) -> np.ndarray:
    """The usual fault: a value next to a tie is rounded when the half is added."""
    return np.floor(scaled + 0.5) if rounding is Rounding.RND else true_round(scaled, rounding)


def ties_to_zero(scaled: np.ndarray, rounding: Rounding) -> np.ndarray:
    return true_round(scaled, Rounding.RND_ZERO if rounding is Rounding.RND_CONV else rounding)


def saturated(values: np.ndarray, frac: int) -> np.ndarray:
    with np.errstate(over="ignore", under="ignore"):
        return np.clip(np.ldexp(values, frac), -(2.0**63), 2.0**63)


true_round = fixed._round


@pytest.mark.parametrize(("fault", "attribute"), [
    (adding_a_half, "_round"), (ties_to_zero, "_round"),
    (lambda scaled, width: np.zeros(scaled.shape, bool), "_deleted_bit"),
    (saturated, "_scale"),
], ids=["adds a half", "ties to zero", "deleted bit lost", "saturates before wrapping"])
def test_a_planted_fault_is_seen(monkeypatch, fault, attribute):
    """Faults of single values, or of one mode, are enough."""
    monkeypatch.setattr(fixed, attribute, fault)
    found = sum(difference(quantize, *case) for case in cases(4, 1 << 11))
    assert found > 0
