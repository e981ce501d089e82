"""Half up, half to even and down as quantisers that round half to even have to say it: each record, every tie, both executions."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw.spec import ops
from hw.spec.fixed import FixedFormat, Rounding
from sw.bridges.errors import BridgeError
from sw.bridges.qonnx import differences, from_qonnx, read_qonnx, same_graph, to_qcdq, to_qonnx
from sw.bridges.qonnx.roundings import offsets
from sw.graph import IntegerGraph
from tests.bridges.onnx_models import Model, exact
from tests.bridges.onnx_networks import (
    EVEN,
    UP,
    ExactBuilder,
    every_operation,
    floats,
    mismatches,
    plain_graph,
    random_values,
    residual_graph,
    run_qonnx,
    run_runtime,
    single,
    ties,
)

DOWN = Rounding.TRN
MULTIPLIERS, SHIFTS, WEIGHTS = (1, 3, 5, 48, 255), range(-3, 15), (1, -1, 7, -100)


def _equal(graph: IntegerGraph, codes: dict[str, np.ndarray]) -> int:
    """How many codes there are, after both executions made exactly these."""
    values, count = floats(graph, codes), sum(graph(codes)[name].size for name in graph.outputs)
    batch = len(next(iter(codes.values())))
    for outputs in (run_qonnx(to_qonnx(graph, batch=batch), values), run_runtime(to_qcdq(graph), values)):
        assert mismatches(graph, codes, outputs) == (0, count)
    return count


# -- records ------------------------------------------------------------------------------------------------------------


def _records(rounding: Rounding, low: int, high: int) -> ops.Scale:
    """A channel for each multiplier, shift and weight, with biases of their own."""
    grid = np.array([(m, s, w) for m in MULTIPLIERS for s in SHIFTS for w in WEIGHTS])
    bias = np.arange(len(grid)) * 37 % 101 - 50
    record = ops.Requant(bias=bias, multiplier=grid[:, 0], shift=grid[:, 1], rounding=rounding, lo=low, hi=high)
    return ops.Scale(weight=grid[:, 2], requant=record)


@pytest.mark.parametrize("rounding", [UP, DOWN, EVEN])
@pytest.mark.parametrize("limits", [(-128, 127), (-5, 90), (0, 127)])
def test_every_record_on_every_code(rounding: Rounding, limits: tuple[int, int]) -> None:
    graph = single(_records(rounding, *limits), (360, 16, 16))
    codes = {"in0": np.broadcast_to(np.arange(-128, 128).reshape(1, 1, 16, 16), (1, 360, 16, 16))}
    assert _equal(graph, codes) == 360 * 256
    assert rounding is EVEN or ties(graph, codes) > 200
    assert differences(graph, from_qonnx(to_qonnx(graph))) == []


@pytest.mark.parametrize("shift", [1, 2, 4, 6])
def test_all_ties_of_a_power_of_two(shift: int) -> None:
    graph = single(ops.Scale(weight=np.array([1]), requant=_record(0, shift, UP)), (1, 16, 16))
    codes = {"in0": np.arange(-128, 128).reshape(1, 1, 16, 16)}
    assert _equal(graph, codes) == 256
    assert ties(graph, codes) == 128 >> shift  # every second tie goes to the even code, which is above it
    assert ties(graph, codes, DOWN) == 128


def test_only_sums_within_reach_of_a_tie_move() -> None:
    ends = np.array([-100]), np.array([100])
    for record, native, wanted in (
        (_record(0, 4, UP), EVEN, 0.5), (_record(0, 4, UP, 3), EVEN, 0.25), (_record(0, 4, DOWN), EVEN, -7.5),
        (_record(0, 4, DOWN, 3), EVEN, -2.5), (_record(0, 4, DOWN), DOWN, 0), (_record(0, 0, UP), EVEN, 0),
        (_record(0, 8, UP), EVEN, 0), (_record(30, 8, UP), EVEN, 0.5), (_record(0, 15, UP, 625), EVEN, 0),
    ):  # fmt: skip
        assert offsets(record, *ends, native).tolist() == [wanted], record


# -- means --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounding", [UP, DOWN, EVEN])
@pytest.mark.parametrize("extra", [-1, 0, 1])
@pytest.mark.parametrize("kernel", [(2, 2), (1, 4), (4, 4), (2, 3), (3, 3)])
def test_means_round_alike(rounding: Rounding, extra: int, kernel: tuple[int, int]) -> None:
    operation = ops.AvgPool2d(kernel=kernel, requant=ops.mean_requant(3, kernel[0] * kernel[1], extra, rounding, -128, 127))
    graph, whole = single(operation, (3, 12, 12), out=FixedFormat(8, -extra)), kernel[0] * kernel[1] in (4, 16)
    codes = random_values(graph, 3)
    if whole or rounding is not DOWN:
        assert _equal(graph, codes) > 500
    again, model = from_qonnx(to_qonnx(graph)), to_qonnx(graph)
    assert differences(graph, again) == []
    if whole:
        assert "AveragePool" in {n.op_type for n in model.graph.node}
        assert rounding is EVEN or ties(graph, codes) > 3


# -- hints and meanings -------------------------------------------------------------------------------------------------


def _hinted(model: onnx.ModelProto, hint: str) -> tuple[onnx.ModelProto, int]:
    """The model with another hint at each quantiser, none if it is empty; and how many had one."""
    changed, found = onnx.ModelProto.FromString(model.SerializeToString()), 0
    for node in (n for n in changed.graph.node if n.op_type == "Quant"):
        found += len(node.metadata_props)
        node.ClearField("metadata_props")
        if hint:
            node.metadata_props.add(key="bitloom.op", value=hint)
    return changed, found


def test_a_hint_that_lies_changes_no_code() -> None:
    for rounding, hint in ((EVEN, "RND"), (UP, "TRN"), (UP, "RND_CONV"), (UP, "rnd"), (DOWN, "RND")):
        graph = every_operation(rounding)
        model, found = _hinted(to_qonnx(graph), hint)
        assert (found > 5) is (rounding is UP)
        again, codes = from_qonnx(model), random_values(graph, 2)
        assert all(np.array_equal(v, again(codes)[k]) and v.size for k, v in graph(codes).items()), hint


@pytest.mark.parametrize(("factor", "bias", "scale", "name", "rounding"), [
    (1, 0.5, 4, "ROUND", UP), (3, 0.25, 8, "ROUND", UP), (3, 0.5, 8, "ROUND", None), (1, 0.5, 3, "ROUND", None),
    (1, 0.5, 4, "FLOOR", DOWN)])  # fmt: skip
def test_a_hint_on_a_foreign_model_says_no_more_than_its_numbers(factor: int, bias: float, scale: int, name: str,
                                                                 rounding: Rounding | None) -> None:
    """A bias between two sums: off every tie; past what is near to one, or right on one (None: no record is equal); rounded down."""
    m = Model(1, 16, 16)
    value = m.node("Mul", m.node("Add", m.quant("x", 1), m.const(bias)), m.const(factor))
    model = m.model(m.quant(value, scale, rounding=name))
    for each in (model, _hinted(model, "RND")[0]):
        if rounding is None:
            with pytest.raises(BridgeError, match="no 16-bit multiplier"):
                from_qonnx(each)
        else:
            assert exact(each, "scale").nodes[0].operation.requant.rounding is rounding


def test_half_up_is_found_without_a_hint_where_ties_are_in_reach() -> None:
    graph = residual_graph(UP)
    found = read_qonnx(_hinted(to_qonnx(graph), "")[0])
    assert found.exact and differences(graph, found.graph) == []
    assert {n.operation.requant.rounding for n in found.graph.nodes if hasattr(n.operation, "requant")} == {UP}


def test_the_hint_brings_back_a_rounding_that_no_sum_needs() -> None:
    graph = single(ops.Scale(weight=np.array([1]), requant=_record(0, 9, UP)), (1, 4, 4))
    model = to_qonnx(graph)
    assert not any(n.op_type == "Add" for n in model.graph.node)
    for hint, rounding in (("RND", UP), ("", EVEN)):
        assert from_qonnx(_hinted(model, hint)[0]).nodes[0].operation.requant.rounding is rounding


def test_roundings_of_a_qcdq_model_come_back_by_meaning() -> None:
    """qonnx makes Quant nodes of it; rounding down then is half up with half a step less, which is the same."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.transformation.qcdq_to_qonnx import QCDQToQuant

    for rounding in (UP, DOWN, EVEN):
        b = ExactBuilder(3, rounding)
        weight, record = b.rng.integers(-7, 8, (1, 4, 3, 3)), _record(7, 6, rounding)
        b.add("a", ops.Conv2d(weight=weight, requant=record), b.input("x", (4, 5, 5)))
        b.add("b", ops.Conv2d(weight=weight[:, :1], requant=record), "a")
        b.add("c", ops.Linear(weight=[[100]], requant=record), "b")
        graph = b.graph("c", "a")
        again = from_qonnx(ModelWrapper(to_qcdq(graph, batch=1)).transform(QCDQToQuant()).model)
        assert {n.operation.requant.rounding for n in again.nodes} == {EVEN if rounding is EVEN else UP}
        assert len(again.nodes) == 3 and all(_same(n.operation.requant, m.operation.requant)
                                             for n, m in zip(graph.nodes, again.nodes, strict=True))


def _record(bias: int, shift: int, rounding: Rounding, multiplier: int = 1, low: int = -128, high: int = 127) -> ops.Requant:
    return ops.Requant(bias=[bias], multiplier=[multiplier], shift=[shift], rounding=rounding, lo=low, hi=high)


def _same(a: ops.Requant, b: ops.Requant) -> bool:
    one, other = (single(ops.Scale(weight=np.array([1]), requant=record), (1, 2, 2)) for record in (a, b))
    return same_graph(one, other)


def test_half_up_is_down_with_half_a_step_more() -> None:
    for shift in range(1, 31):
        half = 1 << (shift - 1)
        assert _same(_record(5, shift, UP), _record(5 + half, shift, DOWN))
        assert not _same(_record(5, shift, UP), _record(5 + half - 1, shift, DOWN))
        assert not _same(_record(5, shift, UP), _record(5, shift, EVEN))
    assert not _same(_record(5, 3, UP, 3), _record(5 + 1, 3, DOWN, 3))  # half a step is no whole sum
    assert _same(_record(5, -2, UP), _record(5, -2, DOWN)) and not _same(_record(5, -2, UP), _record(5, -1, DOWN))
    assert _same(_record(5, 3, UP, low=1, high=1), _record(9, 4, EVEN, low=1, high=1))  # nothing but 1
    assert not _same(_record(5, 3, UP, low=1, high=1), _record(5, 3, UP, low=2, high=2))


RECORDS = st.builds(_record, st.integers(-6, 6), st.integers(-2, 4), st.sampled_from([UP, DOWN, EVEN]), st.integers(1, 5),
                    st.just(-4), st.integers(-4, 3))
SUMS = np.arange(-400, 401).reshape(1, 1, -1)


def test_records_are_the_same_where_all_their_codes_are() -> None:
    """Against brute force over all sums before both saturate; each drawn record also with its bias moved by up to half a step."""
    found: list[bool] = []

    @settings(max_examples=300, deadline=None, database=None, derandomize=True)
    @given(RECORDS, RECORDS, st.booleans())
    def check(a: ops.Requant, b: ops.Requant, near: bool) -> None:
        if near:
            b = dataclasses.replace(a, bias=a.bias + (1 << max(int(a.shift[0]) - 1, 0)), rounding=b.rounding)
        equal = (a.lo, a.hi) == (b.lo, b.hi) and np.array_equal(a(SUMS), b(SUMS))
        assert _same(a, b) is equal
        found.append(equal)

    check()
    assert len(found) >= 300 and 20 < sum(found) < 250


def test_models_say_half_up_in_the_bias_or_beside_it() -> None:
    """QONNX in the bias itself; QCDQ in an Add, as ONNX Runtime's optimiser rounds biases to whole sums."""
    for model, inputs, adds in ((to_qonnx(plain_graph(UP)), 3, 1), (to_qcdq(plain_graph(UP)), 2, 5)):
        layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
        assert [len(node.input) for node in layers] == [inputs] * 4
        assert sum(node.op_type == "Add" for node in model.graph.node) == adds  # one is the mean's
