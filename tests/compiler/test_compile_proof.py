"""The accumulator proof: exact at the limit, equal to brute force, and every failing layer is named."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from hw.spec.deform import DeformArch
from hw.spec.fixed import FixedFormat, Rounding
from hw.spec.ops import Conv2d, Requant
from sw.compiler import CompileError, check_graph, compile_graph
from sw.compiler.proof import digits, is_wide, prove_dw, prove_pw, sum_bounds
from sw.graph import IntegerGraph, Node, TensorSpec
from tests.compiler.graphs import S8, U8, run_machine


def constant_layer(weight: np.ndarray, fmt: FixedFormat, bias: int = 0) -> IntegerGraph:
    """One 1 x 1 convolution of ``weight`` (OC, IC) that keeps the top of its accumulator."""
    channels = len(weight)
    ones = np.ones(channels, np.int64)
    requant = Requant(bias=ones * bias, multiplier=ones, shift=ones * 20, rounding=Rounding.TRN, lo=-128, hi=127)
    node = Node(name="c", operation=Conv2d(weight=weight[:, :, None, None], requant=requant), inputs=("x",), output="y")
    tensors = {"x": TensorSpec(shape=(weight.shape[1], 1, 1), fmt=fmt), "y": TensorSpec(shape=(channels, 1, 1), fmt=S8)}
    return IntegerGraph(tensors=tensors, inputs=("x",), outputs=("y",), nodes=(node,))


@pytest.mark.parametrize("fmt", [FixedFormat(2, 0), FixedFormat(2, 0, False), FixedFormat(3, 0)])
def test_bounds_equal_brute_force(fmt: FixedFormat) -> None:
    rng, checked = np.random.default_rng(1), 0
    codes = np.array(list(itertools.product(range(fmt.min_code, fmt.max_code + 1), repeat=4)))
    for _ in range(20):
        weight = rng.integers(-128, 128, (3, 4))
        sums = codes @ weight.T
        low, high = sum_bounds(weight, fmt)
        assert low.tolist() == sums.min(axis=0).tolist()
        assert high.tolist() == sums.max(axis=0).tolist()
        checked += len(sums)
    assert checked > 1000


def test_digits_are_those_of_the_cell() -> None:
    weight = np.arange(-128, 128)
    high, low = digits(weight)
    assert (16 * high + low == weight).all()
    assert low.min() == -8 and low.max() == 7 and high.min() == -8 and high.max() == 8


# u8 in [0, 255], weights 7: 7 * 255 = 1785 per term; the field of 16 bits holds 32767, so 18 terms and a rest of 637.
AT_LIMIT = np.array([[7] * 18 + [2] * 1 + [0] * 2])
EXACT = DeformArch(field_bits=16)


def test_a_layer_at_the_limit_passes_and_computes_exactly() -> None:
    assert sum_bounds(AT_LIMIT, U8)[1][0] == 18 * 1785 + 510 <= 32767
    for weight, code in ((AT_LIMIT, 255), (-AT_LIMIT, 255)):
        graph = constant_layer(weight, U8)
        x = np.full((AT_LIMIT.shape[1], 1, 1), code)
        expected = graph({"x": x[None]})["y"][0]
        np.testing.assert_array_equal(run_machine(compile_graph(graph, EXACT), {"x": x}, 1)["y"], expected)


def test_a_layer_beyond_the_limit_is_refused_with_its_numbers() -> None:
    weight = AT_LIMIT.copy()
    weight[0, -1] = 1
    graph = constant_layer(np.concatenate([AT_LIMIT, weight]), U8)
    (problem,) = check_graph(graph, EXACT)
    assert problem.place == "c"
    assert "output channel 1 can reach 0..32895, the field of 16 bits holds -32768..32767" in problem.reason
    with pytest.raises(CompileError, match="c: the accumulator of output channel 1"):
        compile_graph(graph, EXACT)
    assert check_graph(graph, DeformArch(field_bits=17)) == []


def test_the_smallest_code_counts_for_negative_sums() -> None:
    """s8 reaches -128: 256 terms of weight 1 give exactly -32768, one more does not fit."""
    fits, exceeds = np.ones((1, 256), np.int64), np.ones((1, 257), np.int64)
    assert prove_pw("c", fits, np.zeros(1, np.int64), S8, 16) == []
    assert len(prove_pw("c", exceeds, np.zeros(1, np.int64), S8, 16)) == 1


def test_wide_weights_need_both_digits_in_their_fields() -> None:
    """Weight 8 is 16 - 8: its lower digit sums where its upper digit does too; 112 has an upper digit alone."""
    zero = np.zeros(1, np.int64)
    for value, place in ((8, "lower"), (-8, "lower"), (112, "upper")):
        digit = {"lower": 8, "upper": 7}[place]
        terms = 32768 // (digit * 128)
        weight = np.full((1, terms), value)
        assert is_wide(weight)
        found = prove_pw("c", np.concatenate([weight, weight[:, :1]], axis=1), zero, FixedFormat(8, 0), 16)
        assert [f"accumulator {place} digit" in p.reason for p in found] == [True]
    assert prove_pw("c", np.full((1, 36), 112), zero, S8, 16) == []


def test_bias_and_depthwise_sums_have_limits_too() -> None:
    bias = np.array([2**31 - 1])
    assert prove_pw("c", np.full((1, 10), 7), bias, U8, 23) == []
    assert prove_dw("d", np.full((1, 3, 3), -128), -bias, U8) == []
    huge = np.full((1, 1000, 140), 127)
    reasons = [problem.reason for problem in prove_dw("d", huge, bias, U8)]
    assert ["accumulator of 32 bits" in reasons[0], "requantise input of 33 bits" in reasons[1]] == [True, True]
