"""The FP32 adders, the accumulator's and the general one, against numpy's float32."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from hw.rtl.arith.float_add import Fp32Add
from hw.rtl.arith.float_mac import MacAdder
from hw.sim.stream import Stream
from hw.spec.floats import fp16_dot, fp32_add, saturates_add
from hw.spec.sat.latency import MAC_ADDER
from tests.rtl.float_vectors import (
    RANDOM_PAIRS,
    Bits,
    beside,
    bits_of,
    distances,
    finite,
    floats_of,
    on_grid,
    pairs,
    specials,
)


@functools.cache
def mac_adder(latency: int) -> Stream:
    return Stream(MacAdder(latency))


@functools.cache
def general_adder() -> Stream:
    return Stream(Fp32Add())


def differing(found: np.ndarray, wanted: np.ndarray, a: Bits, b: Bits) -> list[str]:
    """The first few pairs with another result than wanted, in words."""
    where = np.flatnonzero(found != wanted)
    return [f"{a[i]:08x} + {b[i]:08x}: {int(found[i]):08x}, not {int(wanted[i]):08x}" for i in where[:5]]


def check_mac(latency: int, a: Bits, b: Bits) -> int:
    results = mac_adder(latency).pipelined({"acc": a, "product": b}, latency=latency)
    early = mac_adder(latency).pipelined({"acc": a, "product": b}, latency=latency - 1)["o_next"]
    with np.errstate(all="raise"):  # in this domain nothing overflows, underflows or is invalid
        wanted = bits_of(floats_of(a) + floats_of(b))
    assert not differing(results["o"], wanted, a, b) and not differing(early, wanted, a, b)
    assert np.array_equal(wanted, on_grid(wanted)), "sums stay in the domain"
    return len(a)


def check_general(a: Bits, b: Bits) -> tuple[int, int]:
    results = general_adder().pipelined({"a": a, "b": b}, latency=Fp32Add.latency)
    x, y = floats_of(a), floats_of(b)
    assert not differing(results["o"], bits_of(fp32_add(x, y)), a, b)
    saturated = saturates_add(x, y)
    assert np.array_equal(results["saturated"], saturated)
    return len(a), int(saturated.sum())


def in_domain(a: Bits, b: Bits) -> tuple[Bits, Bits]:
    """Operands whose sum, rounded, is below 2**80 as well."""
    a, b = on_grid(a), on_grid(b)
    small = np.abs(floats_of(a).astype(np.float64) + floats_of(b)) < 2.0**80 - 2.0**55
    return a[small], b[small]


@pytest.mark.parametrize("latency", MAC_ADDER)
def test_mac_directed(latency: int) -> None:
    """Every pair of special values, and every difference of exponents with cancellation, ties and lost bits."""
    compared = check_mac(latency, *in_domain(*pairs(np.unique(on_grid(specials())))))
    compared += check_mac(latency, *in_domain(*distances()))
    assert compared > 150_000


@pytest.mark.parametrize("latency", MAC_ADDER)
def test_mac_random(latency: int) -> None:
    rng = np.random.default_rng(latency)
    a = on_grid(finite(rng, RANDOM_PAIRS) - (np.uint32(20) << 23))
    assert check_mac(latency, *in_domain(a, beside(rng, a))) > 0.9 * RANDOM_PAIRS
    far = on_grid(finite(rng, RANDOM_PAIRS // 4))
    assert check_mac(latency, *in_domain(a[: len(far)], far)) > 0.2 * RANDOM_PAIRS


def test_mac_is_the_dot_product() -> None:
    """Step by step over K, accumulators of 20,000 outputs: the specification's dot product, with subnormal operands among them."""
    rng = np.random.default_rng(7)
    bits = rng.integers(0, 1 << 16, (2, 20_000, 24), dtype=np.uint16)
    bits = np.where(bits >> 10 & 31 == 31, bits & 0x83FF, bits).astype(np.uint16)  # subnormals in place of infinity and NaN
    x, w = bits.view(np.float16)
    acc, latency = np.zeros(len(x), np.uint64), MAC_ADDER[0]
    for k in range(x.shape[1]):
        product = bits_of(x[:, k].astype(np.float32) * w[:, k].astype(np.float32))
        acc = mac_adder(latency).pipelined({"acc": acc, "product": product}, latency=latency)["o"]
        assert np.array_equal(acc, bits_of(fp16_dot(x[:, : k + 1], w[:, : k + 1])))


def test_general_directed() -> None:
    compared, saturated = map(sum, zip(check_general(*pairs(specials())), check_general(*distances()), strict=True))
    assert compared > 500_000 and saturated > 500


def test_general_random() -> None:
    rng = np.random.default_rng(3)
    a = finite(rng, RANDOM_PAIRS)
    compared, saturated = check_general(a, beside(rng, a))
    assert compared == RANDOM_PAIRS and saturated > 100
    assert check_general(a, finite(rng, RANDOM_PAIRS))[0] == RANDOM_PAIRS


@pytest.mark.parametrize("latency", [3, 7])
def test_bad_latency(latency: int) -> None:
    with pytest.raises(ValueError, match=r"must be one of \(4, 5, 6\), not"):
        MacAdder(latency)
