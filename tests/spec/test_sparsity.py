"""N:M masks, compression and the random counter against brute force in plain Python."""

from __future__ import annotations

import numpy as np
import pytest

from hw.spec.counter import WORD, counter_key, counter_uniform, mix
from hw.spec.sparsity import compress, expand, nm_mask
from tests.sparse.reference import slow_mask

SHAPES = [((8,), 0), ((3, 16), 1), ((16, 3), 0), ((4, 8, 3, 3), 1), ((8, 4, 3, 3), 0), ((2, 3, 24), -1), ((0, 8), 1), ((8, 0), 0)]


def test_ties_zeros_and_signs_worked_out_by_hand() -> None:
    values = np.array([1.0, -1.0, 1.0, 0.5, 0.0, -0.0, 0.0, -0.0, -3.0, 2.0, -2.0, 3.0])
    expected = [1, 1, 0, 0, 1, 1, 0, 0, 1, 0, 0, 1]
    assert nm_mask(values, 2, 4, 0).astype(int).tolist() == expected
    assert nm_mask(np.array([-0.0, 0.0, 1e-45, np.inf], np.float32), 3, 4, 0).tolist() == [True, False, True, True]
    kept, places = compress(values, 2, 4, 0)
    assert kept.tolist() == [1, -1, 0, 0, -3, 3] and places.tolist() == [0, 1, 0, 1, 0, 3] and places.dtype == np.uint8
    assert np.signbit(kept).tolist() == [False, True, False, True, True, False]  # a kept -0 stays -0


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "u1", "i4", "i8"])
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_against_sorting(shape: tuple[int, ...], axis: int, dtype: str) -> None:
    random = np.random.default_rng(len(shape) * 10 + axis)
    compared = 0
    for n, m in ((1, 1), (1, 2), (2, 4), (2, 8), (7, 8), (8, 8)):
        values = random.integers(0 if dtype[0] == "u" else -4, 5, shape).astype(dtype)  # small range: many ties
        if shape[axis] % m:
            continue
        mask = nm_mask(values, n, m, axis)
        assert np.array_equal(mask, slow_mask(values, n, m, axis))
        kept, places = compress(values, n, m, axis)
        assert kept.dtype == values.dtype and kept.shape[axis] == shape[axis] * n // m
        assert np.array_equal(expand(kept, places, n, m, axis), np.where(mask, values, 0).astype(dtype))
        compared += 1 + mask.size
    assert compared >= 6


def test_large_groups_and_the_most_negative_integer() -> None:
    random = np.random.default_rng(1)
    values = random.standard_normal((2, 512)).astype(np.float32)
    kept, places = compress(values, 13, 256, 1)
    assert np.array_equal(expand(kept, places, 13, 256, 1), np.where(slow_mask(values, 13, 256, 1), values, 0))
    assert nm_mask(np.array([127, -128, -127, 126], np.int8), 1, 4, 0).tolist() == [False, True, False, False]
    big = np.array([2**53 + 1, -(2**53), 2**53, -(2**53) - 1])  # equal as floats
    assert nm_mask(big, 2, 4, 0).tolist() == [True, False, False, True]


def test_the_mask_ignores_memory_order_and_leaves_its_input() -> None:
    values = np.asfortranarray(np.random.default_rng(2).standard_normal((8, 16)))
    before = values.copy()
    assert np.array_equal(nm_mask(values, 2, 8, 0), slow_mask(values, 2, 8, 0))
    assert np.array_equal(nm_mask(values[:, ::2], 2, 8, 1), slow_mask(values[:, ::2], 2, 8, 1))
    assert np.array_equal(values, before)


@pytest.mark.parametrize(("arguments", "message"), [
    ((np.ones(6), 2, 4, 0), "multiple of 4, not 6"), ((np.ones(8), 5, 4, 0), "1 <= n <= m"), ((np.ones(8), 0, 4, 0), "1 <= n <= m"),
    ((np.ones(512), 1, 512, 0), "m <= 256"), ((np.ones(8), 2, 4, 1), "one of the 1 axes"),
    ((np.float64(1), 1, 1, 0), "one of the 0 axes"), ((np.array([1, np.nan, 2, 3]), 2, 4, 0), "1 of 4 are NaN"),
    ((np.ones(4, complex), 2, 4, 0), "real floats or integers"), ((np.array(["a"] * 4), 2, 4, 0), "real floats or integers"),
])
def test_bad_input_is_refused(arguments: tuple[object, ...], message: str) -> None:
    for function in (nm_mask, compress):
        with pytest.raises(ValueError, match=message):
            function(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(("kept", "places", "message"), [
    ([1.0, 2.0], [0], "one shape"), ([1.0, 2.0, 3.0], [0, 1, 2], "multiple of 2, not 3"), ([1.0, 2.0], [1, 1], "ascend"),
    ([1.0, 2.0], [3, 0], "ascend"), ([1.0, 2.0], [0, 4], "positions 0..3"), ([1.0, 2.0], [-1, 2], "positions 0..3"),
    ([1.0, 2.0], [0.0, 1.0], "integers"),
])
def test_bad_compressed_data_is_refused(kept: list[float], places: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        expand(np.array(kept), np.array(places), 2, 4, 0)


def test_unsigned_places_need_not_wrap_to_ascend() -> None:
    with pytest.raises(ValueError, match="ascend"):
        expand(np.array([1.0, 2.0]), np.array([3, 0], np.uint8), 2, 4, 0)


# --- the counter ------------------------------------------------------------------------------------------------------


def test_the_mixer_is_one_to_one_and_known() -> None:
    """A bijection takes 0 to 0; the other value was computed with Python integers, step by step, below."""
    x = 1
    x ^= x >> 16
    x = x * 0x7FEB352D % 2**32
    x ^= x >> 15
    x = x * 0x846CA68B % 2**32
    x ^= x >> 16
    assert mix(0) == 0 and mix(1) == x
    words = np.arange(2**16, dtype=np.uint64) * np.uint64(65537) & np.uint64(WORD)
    assert len(np.unique(mix(words))) == 2**16


def test_uniform_numbers_do_not_depend_on_order_and_are_uniform() -> None:
    key = counter_key(7, 3, 2)
    whole = counter_uniform(key, np.arange(100_000))
    assert np.array_equal(counter_uniform(key, np.arange(100_000)[::-1]), whole[::-1])
    assert whole.dtype == np.float32 and whole.min() >= 0 and whole.max() < 1 and not (whole * 2**24 % 1).any()
    counts, _ = np.histogram(whole, 64, (0, 1))
    chi = ((counts - 100_000 / 64) ** 2 / (100_000 / 64)).sum()
    assert 20 < chi < 120  # 63 degrees of freedom: mean 63, deviation 11
    pairs = np.corrcoef(whole[:-1], whole[1:])[0, 1]
    assert abs(pairs) < 0.015


def test_seed_step_and_layer_all_count() -> None:
    keys = {counter_key(seed, step, layer) for seed in range(8) for step in range(8) for layer in range(8)}
    assert len(keys) == 512
    a, b = (counter_uniform(counter_key(0, step, 0), np.arange(10_000)) for step in (1, 2))
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.05
    with pytest.raises(ValueError, match="must not be negative"):
        counter_key(0, -1, 0)
