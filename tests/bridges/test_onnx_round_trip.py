"""Export and import again: the same graph, for every network and for random ones; and what "the same" means."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hw.spec import ops
from hw.spec.fixed import FixedFormat, Rounding
from sw.bridges.qonnx import differences, from_qonnx, read_qonnx, same_graph, to_qcdq, to_qonnx
from sw.graph import IntegerGraph, Node, TensorSpec
from tests.bridges.onnx_networks import (
    EVEN,
    UP,
    ExactBuilder,
    digits_graph,
    every_operation,
    exact_record,
    floats,
    mobile_graph,
    plain_graph,
    random_values,
    residual_graph,
    run_qonnx,
    run_runtime,
    single,
    ties,
)
from tests.compiler.random_graphs import Drawn, graphs

NETWORKS = [plain_graph, digits_graph, residual_graph, mobile_graph, every_operation]


@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize("rounding", [UP, EVEN])
def test_networks_come_back(make: Callable[[Rounding], IntegerGraph], rounding: Rounding) -> None:
    graph = make(rounding)
    found = read_qonnx(to_qonnx(graph))
    assert differences(graph, found.graph) == []
    assert found.exact and found.proven > 10_000
    assert set(found.scales) == set(found.graph.tensors)
    codes = random_values(graph, 3)
    assert all(np.array_equal(v, found.graph(codes)[k]) and v.size for k, v in graph(codes).items())
    assert same_graph(graph, from_qonnx(to_qonnx(found.graph)))


def test_the_batch_is_of_no_matter() -> None:
    graph = every_operation()
    for batch in (1, 7, None):
        assert same_graph(graph, from_qonnx(to_qonnx(graph, batch=batch)))


def test_values_become_codes_as_quant_makes_them() -> None:
    found = read_qonnx(to_qonnx(single(ops.Clip(lo=-3, hi=5), (1, 1, 4), fmt=FixedFormat(4, 1))))
    values = np.array([[[[-9.0, 0.25, 0.75, 3.6]]]], np.float32)
    assert found.input_codes({"in0": values})["in0"].tolist() == [[[[-8, 0, 2, 7]]]]


# -- equal operations keep their name -----------------------------------------------------------------------------------


def _convolutions() -> IntegerGraph:
    b = ExactBuilder(2)
    b.conv("conv", b.input("x", (4, 6, 6)), 4, kernel=(3, 3), groups=4, padding=1)
    b.depthwise("depthwise", "conv")
    b.conv("point", "depthwise", 6)
    b.mean("m", "point", (6, 6))
    b.linear("linear", "m", 3)
    b.conv("pixel", "linear", 3)
    return b.graph("pixel")


def _moves() -> IntegerGraph:
    b = ExactBuilder(2)
    b.input("x", (6, 3, 3))
    for name, operation in (("one", ops.Shuffle(groups=1)), ("two", ops.Shuffle(groups=2)), ("all", ops.Shuffle(groups=6)),
                            ("whole", ops.Slice(start=0, stop=6)), ("part", ops.Slice(start=2, stop=6)),
                            ("pool", ops.MaxPool2d(kernel=1, stride=1))):
        b.add(name, operation, list(b.tensors)[-1])
    b.add("join", ops.ShuffleJoin(), "pool", "pool")
    b.add("pairs", ops.Shuffle(groups=2), b.add("concat", ops.Concat(), "pool", "pool", "part"))
    return b.graph("pairs", "join")


@pytest.mark.parametrize("make", [_convolutions, _moves])
def test_equal_operations_are_told_apart(make: Callable[[], IntegerGraph]) -> None:
    assert differences(make(), from_qonnx(to_qonnx(make()))) == []


def test_hints_only_choose_between_equal_operations() -> None:
    """A hint that says something else than the numbers changes nothing."""
    model = to_qonnx(every_operation())
    hinted = 0
    for node in model.graph.node:
        for entry in node.metadata_props:
            entry.value, hinted = "shuffle:3" if node.op_type == "Reshape" else "avg_pool2d", hinted + 1
    again, codes = from_qonnx(model), random_values(every_operation(), 2)
    assert hinted > 8
    assert all(np.array_equal(v, again(codes)[k]) for k, v in every_operation()(codes).items())


# -- random graphs ------------------------------------------------------------------------------------------------------


def expressible(graph: IntegerGraph) -> IntegerGraph:
    """The graph with multipliers and offsets that ONNX has words for."""
    def change(operation: Any) -> Any:
        if hasattr(operation, "offset_frac"):
            operation = dataclasses.replace(operation, offset_frac=0)
        if operation.op == "avg_pool2d":
            return operation
        return dataclasses.replace(operation, requant=exact_record(operation.requant)) if hasattr(operation, "requant") else operation

    whole = {n.inputs[1] for n in graph.nodes if hasattr(n.operation, "offset_frac")}
    tensors = {k: TensorSpec(shape=t.shape, fmt=FixedFormat(t.fmt.width, 0, t.fmt.signed) if k in whole else t.fmt)
               for k, t in graph.tensors.items()}
    nodes = tuple(Node(name=f"node {n.name}", operation=change(n.operation), inputs=n.inputs, output=n.output) for n in graph.nodes)
    return IntegerGraph(tensors=tensors, inputs=graph.inputs, outputs=graph.outputs, nodes=nodes)


def comes_back(drawn: Drawn) -> tuple[int, int]:
    """Codes that were equal, and ties among them: of the graph, the graph that came back, and both executions of the model."""
    graph = expressible(drawn.graph)
    model = to_qonnx(graph)
    assert differences(graph, from_qonnx(model)) == []
    codes = random_values(graph, 1, drawn.seed)
    wanted, count = graph(codes), 0
    for outputs in (run_qonnx(model, floats(graph, codes)), run_runtime(to_qcdq(graph), floats(graph, codes))):
        for name, found in zip(graph.outputs, outputs, strict=True):
            exact = np.ldexp(wanted[name].astype(np.float64), -graph.tensors[name].fmt.frac)
            assert np.array_equal(found.astype(np.float64), exact), name
            count += exact.size
    return count, ties(graph, codes)


_OPTIONS: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None, "derandomize": True}


def _many(count: int, most: int) -> tuple[int, int]:
    """Codes of random graphs that were equal, and ties of all layers."""
    found: list[tuple[int, int]] = []

    @settings(max_examples=count, **_OPTIONS)
    @given(graphs(most=most))
    def check(drawn: Drawn) -> None:
        found.append(comes_back(drawn))

    check()
    assert len(found) >= count and all(codes > 0 for codes, _ in found)
    return sum(codes for codes, _ in found), sum(met for _, met in found)


def test_random_graphs_come_back_and_compute_the_same() -> None:
    codes, met = _many(25, 10)
    assert codes > 5_000 and met > 50


@pytest.mark.slow
def test_many_random_graphs_come_back_and_compute_the_same() -> None:
    codes, met = _many(400, 14)
    assert codes > 100_000 and met > 1_000


@given(st.integers(1, 2**14), st.integers(-20, 31), st.integers(-5, 5), st.sampled_from([UP, EVEN, Rounding.TRN]))
@settings(max_examples=120, **_OPTIONS)
def test_records_come_back(multiplier: int, shift: int, bias: int, rounding: Rounding) -> None:
    ones = np.ones(2, np.int64)
    record = ops.Requant(bias=ones * bias, multiplier=ones * multiplier, shift=ones * shift, rounding=rounding, lo=-100, hi=127)
    graph = single(ops.Scale(weight=np.array([3, -2]), requant=record), (2, 1, 1))
    assert differences(graph, from_qonnx(to_qonnx(graph))) == []


# -- what the same means ------------------------------------------------------------------------------------------------


def _changed(graph: IntegerGraph, index: int, **changes: Any) -> IntegerGraph:
    nodes = list(graph.nodes)
    nodes[index] = dataclasses.replace(nodes[index], **changes)
    return IntegerGraph(tensors=graph.tensors, inputs=graph.inputs, outputs=graph.outputs, nodes=tuple(nodes))


def test_every_difference_is_seen() -> None:
    graph = every_operation()
    conv = graph.nodes[0].operation
    record = conv.requant
    weight = conv.weight.copy()
    weight.flat[3] += 1
    others = [
        _changed(graph, 0, name="other"), _changed(graph, 0, operation=dataclasses.replace(conv, weight=weight)),
        *(_changed(graph, 0, operation=dataclasses.replace(conv, requant=dataclasses.replace(record, **change))) for change in (
            {"bias": record.bias + 1}, {"shift": record.shift + 1}, {"lo": record.lo + 1}, {"hi": record.hi - 1},
            {"rounding": Rounding.TRN}, {"multiplier": record.multiplier * 3})),
        _changed(graph, 5, operation=ops.Add(lo=-128, hi=126)),
        _changed(graph, 0, operation=dataclasses.replace(conv, padding=0)),
        IntegerGraph(tensors=graph.tensors, inputs=graph.inputs, outputs=graph.outputs[:1], nodes=graph.nodes),
        IntegerGraph(tensors={**graph.tensors, "conv": TensorSpec(shape=(8, 9, 8), fmt=FixedFormat(8, 1))}, inputs=graph.inputs,
                     outputs=graph.outputs, nodes=graph.nodes),
        IntegerGraph(tensors=graph.tensors, inputs=graph.inputs, outputs=graph.outputs[:0], nodes=graph.nodes[:3]),
    ]  # fmt: skip
    assert same_graph(graph, graph)
    assert all(not same_graph(graph, other) and not same_graph(other, graph) for other in others) and len(others) == 13


def test_two_ways_to_write_one_record_are_the_same() -> None:
    def graph(multiplier: int, shift: int, rounding: Rounding) -> IntegerGraph:
        record = ops.Requant(bias=[1], multiplier=[multiplier], shift=[shift], rounding=rounding, lo=-8, hi=7)
        return single(ops.Scale(weight=np.array([1]), requant=record), (1, 2, 2))

    assert same_graph(graph(3, 5, EVEN), graph(24, 8, EVEN))
    assert not same_graph(graph(3, 5, EVEN), graph(3, 5, Rounding.RND))
    assert same_graph(graph(1, 0, Rounding.TRN), graph(4, 2, Rounding.RND))
    assert not same_graph(graph(1, 1, Rounding.TRN), graph(2, 1, Rounding.TRN))
