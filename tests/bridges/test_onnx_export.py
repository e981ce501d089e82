"""Exported models against the graph: qonnx and ONNX Runtime execute them, every code is equal; what has no words is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from hw.spec import ops
from hw.spec.fixed import FixedFormat, Rounding
from sw.bridges.errors import BridgeError
from sw.bridges.qonnx import save_qcdq, save_qonnx, to_qcdq, to_qonnx
from sw.graph import IntegerGraph, Node, TensorSpec
from tests.bridges.onnx_networks import (
    EVEN,
    UP,
    ExactBuilder,
    digits,
    digits_graph,
    every_operation,
    floats,
    in_rounding,
    mismatches,
    mobile_graph,
    plain_graph,
    random_values,
    residual_graph,
    run_qonnx,
    run_runtime,
    single,
    test_codes,
    ties,
)

# -- equal on whole networks --------------------------------------------------------------------------------------------


Make = Callable[[Rounding], IntegerGraph]


@pytest.mark.parametrize("make", [plain_graph, digits_graph])
@pytest.mark.parametrize("rounding", [UP, EVEN])
def test_every_held_out_digit_is_equal(make: Make, rounding: Rounding) -> None:
    """By the recipe's defaults (half up, 4-bit weights), and half to even."""
    graph, codes = make(rounding), {"input": test_codes()}
    right = graph(codes)[graph.outputs[0]][:, :, 0, 0].argmax(1) == digits().test_labels.numpy()
    assert right.mean() > 0.8 and (rounding is EVEN or ties(graph, codes) > 10_000)
    values = floats(graph, codes)
    for outputs in (run_qonnx(to_qonnx(graph, batch=450), values), run_runtime(to_qcdq(graph), values)):
        assert mismatches(graph, codes, outputs) == (0, 4500)


def test_ties_of_a_network_show_in_its_outputs() -> None:
    graph, codes = plain_graph(UP), {"input": test_codes()}
    wrong, count = mismatches(graph, codes, run_runtime(to_qcdq(in_rounding(graph, EVEN)), floats(graph, codes)))
    assert wrong > 100 and count == 4500


@pytest.mark.parametrize("make", [residual_graph, mobile_graph, every_operation])
@pytest.mark.parametrize("rounding", [UP, EVEN])
def test_networks_are_equal(make: Make, rounding: Rounding) -> None:
    graph = make(rounding)
    codes = random_values(graph, 20)
    assert rounding is EVEN or ties(graph, codes) > 100
    values = floats(graph, codes)
    wrong, count = mismatches(graph, codes, run_qonnx(to_qonnx(graph, batch=20), values))
    assert wrong == 0 and count >= 200
    assert mismatches(graph, codes, run_runtime(to_qcdq(graph), values)) == (0, count)


def test_a_square_deformable_layer_as_it_is_trained() -> None:
    """Its offsets round half up by definition, among layers that round half to even."""
    graph = digits_graph(EVEN)
    layer = next(n for n in graph.nodes if n.operation.op == "deform_depthwise_conv2d")
    offsets = next(n for n in graph.nodes if n.output == layer.inputs[1])
    assert [n for n in graph.nodes if getattr(getattr(n.operation, "requant", None), "rounding", EVEN) is not EVEN] == [offsets]
    graph, codes = dataclasses.replace(graph, outputs=(offsets.output, layer.output)), {"input": test_codes()}
    assert ties(graph, codes) > 0 and len(np.unique(graph(codes)[offsets.output])) > 3
    values, count = floats(graph, codes), 450 * 16 * (1 + 64)
    for outputs in (run_qonnx(to_qonnx(graph, batch=450), values), run_runtime(to_qcdq(graph), values)):
        assert mismatches(graph, codes, outputs) == (0, count)


def test_models_pass_the_checker_and_say_what_they_are() -> None:
    for make in (to_qonnx, to_qcdq):
        model = make(every_operation())
        onnx.checker.check_model(model, full_check=True)
        assert model.producer_name == "bitloom"
    assert {n.op_type for n in to_qcdq(every_operation()).graph.node if n.domain} == set()


@pytest.mark.parametrize("rounding", [UP, EVEN, Rounding.TRN])
def test_optimised_runtime_is_equal_too(rounding: Rounding) -> None:
    """Not promised, as an optimiser may fuse what it likes; seen to be so with this one."""
    import onnxruntime

    graph = digits_graph(rounding)
    session = onnxruntime.InferenceSession(to_qcdq(graph).SerializeToString(), providers=["CPUExecutionProvider"])
    codes = {"input": test_codes()[:50]}
    assert mismatches(graph, codes, session.run(None, floats(graph, codes))) == (0, 500)


# -- limits, signs, widths, roundings -----------------------------------------------------------------------------------


def _record(channels: int, shift: int, rounding: Rounding, low: int, high: int, multiplier: int = 1) -> ops.Requant:
    ones = np.ones(channels, np.int64)
    bias = np.arange(channels) - 1
    return ops.Requant(bias=bias, multiplier=ones * multiplier, shift=ones * shift, rounding=rounding, lo=low, hi=high)


def _scale(rounding: Rounding, low: int, high: int, shift: int = 4, multiplier: int = 1) -> ops.Scale:
    return ops.Scale(weight=np.array([7, -3, 100]), requant=_record(3, shift, rounding, low, high, multiplier))


@pytest.mark.parametrize("fmt", [FixedFormat(8, 0), FixedFormat(8, 3, False), FixedFormat(4, -2), FixedFormat(3, 7, False)])
@pytest.mark.parametrize("limits", [(0, 0), (1, 0), (0, -1), (2, -1), (None, 0)])
@pytest.mark.parametrize("rounding", [UP, EVEN, Rounding.TRN])
def test_limits_of_all_kinds(fmt: FixedFormat, limits: tuple[int | None, int], rounding: Rounding) -> None:
    low = 0 if limits[0] is None else fmt.min_code + limits[0]
    graph = single(_scale(rounding, low, fmt.max_code + limits[1]), (3, 16, 16), out=fmt)
    codes = random_values(graph, 1)
    for outputs in (run_qonnx(to_qonnx(graph), floats(graph, codes)), run_runtime(to_qcdq(graph), floats(graph, codes))):
        assert mismatches(graph, codes, outputs) == (0, 768)


# -- ends ---------------------------------------------------------------------------------------------------------------


def test_an_input_may_be_an_output_and_outputs_may_repeat() -> None:
    b = ExactBuilder(0)
    b.conv("y", b.input("x", (2, 4, 4)), 3)
    graph = b.graph("y", "x", "y")
    codes = random_values(graph, 2)
    for outputs in (run_qonnx(to_qonnx(graph, batch=2), floats(graph, codes)), run_runtime(to_qcdq(graph), floats(graph, codes))):
        assert mismatches(graph, codes, outputs) == (0, 2 * (48 + 32 + 48))


def test_files_are_whole_or_not_there(tmp_path: Path) -> None:
    graph, path = every_operation(), tmp_path / "a.onnx"
    save_qonnx(graph, path)
    assert onnx.load(path) == to_qonnx(graph)
    save_qcdq(graph, path)
    assert onnx.load(path) == to_qcdq(graph)
    with pytest.raises(BridgeError):
        save_qonnx(refused_graph(), path)
    assert onnx.load(path) == to_qcdq(graph) and [p.name for p in tmp_path.iterdir()] == ["a.onnx"]


# -- refusals -----------------------------------------------------------------------------------------------------------


def refused_graph(rounding: Rounding = UP) -> IntegerGraph:
    """Two layers whose sums float32 holds, but not half a one more, which half up needs."""
    b = ExactBuilder(0, rounding)
    b.input("x", (300, 1, 1), FixedFormat(8, 0, False))
    record = ops.Requant(bias=[0], multiplier=[1], shift=[20], rounding=rounding, lo=-128, hi=127)
    for name in ("first", "second"):
        b.add(name, ops.Conv2d(weight=np.full((1, 300, 1, 1), 127), requant=record), "x", fmt=FixedFormat(8, 0))
    return b.graph("first", "second")


def test_every_refusal_is_told_with_its_layer() -> None:
    for make in (to_qonnx, to_qcdq):
        with pytest.raises(BridgeError, match="2 thing") as caught:
            make(refused_graph())
        assert [p.place for p in caught.value.problems] == ["first", "second"]
        told = "can sum up to 9715500 in channel 0, in steps of 1/2 to round by RND, which float32 does not hold exactly beyond 2**23; "
        assert str(caught.value).count(told) == str(caught.value).count("or rounding RND_CONV") == 1
        assert "2 times conv2d can sum" in str(caught.value) and str(caught.value).endswith(":\n    first, second")
        make(refused_graph(EVEN))


def _wide(weights: int, bias: int, rounding: Rounding = EVEN) -> IntegerGraph:
    """An 8-bit convolution whose largest sum is 255 * 127 * weights + bias."""
    record = ops.Requant(bias=np.array([bias]), multiplier=[1], shift=[20], rounding=rounding, lo=-128, hi=127)
    return single(ops.Conv2d(weight=np.full((1, weights, 1, 1), 127), requant=record), (weights, 1, 1), fmt=FixedFormat(8, 0, False),
                  out=FixedFormat(8, 0))


@pytest.mark.parametrize(("rounding", "bound", "weights"), [(EVEN, 2**24, 518), (UP, 2**23, 259)])
def test_the_bound_of_float32_is_tight(rounding: Rounding, bound: int, weights: int) -> None:
    """2**24 is the last sum that is exact, or that many halves; one more is refused, and would indeed be lost."""
    rest, half = bound - 255 * 127 * weights, rounding is UP
    assert 0 < rest < 255 * 127 and np.float32(bound) + np.float32(0.5 if half else 1) == np.float32(bound)
    for make in (to_qonnx, to_qcdq):
        make(_wide(weights, rest - half, rounding))
        make(_wide(weights, -rest, rounding))
        for wide in (_wide(weights, rest - half + 1, rounding), _wide(weights + 1, 0, rounding), _wide(weights, -rest - 1, rounding)):
            with pytest.raises(BridgeError, match=r"can sum up to [0-9]{7,8} in channel 0"):
                make(wide)


def _with_format(graph: IntegerGraph, name: str, fmt: FixedFormat) -> IntegerGraph:
    tensors = {**graph.tensors, name: TensorSpec(shape=graph.tensors[name].shape, fmt=fmt)}
    return IntegerGraph(tensors=tensors, inputs=graph.inputs, outputs=graph.outputs, nodes=graph.nodes)


def _deform(frac: int) -> IntegerGraph:
    b = ExactBuilder(0)
    b.deform("it", b.input("x", (4, 5, 5)), b.input("s", (1, 5, 5), FixedFormat(5, frac)))
    return b.graph("it")


def _deform_conv(frac: int) -> IntegerGraph:
    b = ExactBuilder(0)
    b.deform_conv("it", b.input("x", (4, 5, 5)), b.input("s", (18, 5, 5), FixedFormat(4, 0)), 2, frac=frac)
    return b.graph("it")


def _next_to_a_tie() -> ops.Scale:
    """32401 * 625 is 154.5 * 2**17 + 1, of 25 bits: float32 loses the last one and with it the side of the tie."""
    assert 32401 * 625 == int(154.5 * 2**17) + 1
    record = ops.Requant(bias=np.array([20000]), multiplier=[40000], shift=[23], rounding=EVEN, lo=0, hi=255)
    return ops.Scale(weight=np.array([127]), requant=record)


def _many_bits() -> ops.Scale:
    """Sums up to 72385, 65536 of them a tie, which may move by less than 1 / 253."""
    record = ops.Requant(bias=np.array([40000]), multiplier=[253], shift=[17], rounding=UP, lo=0, hi=255)
    return ops.Scale(weight=np.array([127]), requant=record)


def _mean(rounding: Rounding) -> ops.AvgPool2d:
    return ops.AvgPool2d(kernel=(2, 3), requant=ops.mean_requant(3, 6, 0, rounding, -8, 7))


S9, S16 = FixedFormat(9, 0), FixedFormat(16, 0)
REFUSED: list[tuple[str, Callable[[], IntegerGraph], str, Callable[..., Any]]] = [
    ("half up of a long product", lambda: single(_many_bits(), (1, 4, 4), fmt=FixedFormat(8, 0, False)), "steps of 1/256 to round by",
     to_qonnx),
    ("floor of a mean of six in qcdq", lambda: single(_mean(Rounding.TRN), (3, 4, 4)), "to round by TRN", to_qcdq),
    ("multiplier", lambda: single(_next_to_a_tie(), (1, 4, 4), out=FixedFormat(8, 0, False)), "gives 154 for the sum 32401", to_qonnx),
    ("limits", lambda: single(_scale(EVEN, -200, 127), (3, 4, 4)), "codes -200..127, beyond its format s8f0", to_qonnx),
    ("nine bits in qcdq", lambda: single(_scale(EVEN, -200, 200), (3, 4, 4), out=S9), "wider than the bytes", to_qcdq),
    ("wide input", lambda: single(ops.MaxPool2d(kernel=1, stride=1), (3, 4, 4), fmt=S16), "wider than the 9 bits", to_qonnx),
    ("one signed bit", lambda: single(_scale(EVEN, -1, 0), (3, 4, 4), out=FixedFormat(1, 0)), "one bit", to_qonnx),
    ("far exponent", lambda: single(_scale(EVEN, -128, 127), (3, 4, 4), out=FixedFormat(8, 120)), "binary point", to_qonnx),
    ("pool changes format", lambda: _with_format(single(ops.MaxPool2d(kernel=2, stride=2), (3, 4, 4)), "it", S9), "one format",
     to_qonnx),
    ("concat of formats", lambda: _with_format(single(ops.Concat(), (3, 4, 4), (3, 4, 4)), "in1", FixedFormat(8, 2)), "one format",
     to_qonnx),
    ("add of scales", lambda: _with_format(single(ops.Add(lo=-128, hi=127), (3, 4, 4), (3, 4, 4)), "in1", FixedFormat(8, 2)),
     "one binary point", to_qonnx),
    ("clip to a scale", lambda: _with_format(single(ops.Clip(lo=-8, hi=7), (3, 4, 4)), "it", FixedFormat(8, 2)), "one binary point",
     to_qonnx),
    ("table of nine bits", lambda: single(ops.Table(values=np.arange(256) - 128), (3, 4, 4), fmt=S9, out=FixedFormat(8, 0)),
     "more than a byte", to_qonnx),
    ("square between pixels", lambda: _deform(2), "samples between pixels", to_qonnx),
    ("deformable between pixels", lambda: _deform_conv(3), "samples between pixels", to_qonnx),
]


@pytest.mark.parametrize(("graph", "words", "make"), [entry[1:] for entry in REFUSED], ids=[entry[0] for entry in REFUSED])
def test_what_has_no_words_is_refused(graph: Callable[[], IntegerGraph], words: str, make: Callable[..., Any]) -> None:
    with pytest.raises(BridgeError, match=words):
        make(graph())


def test_wrong_arguments_are_refused() -> None:
    for call, words in ((lambda: to_qonnx(3), "IntegerGraph"), (lambda: to_qonnx(every_operation(), batch=0), "batch"),
                        (lambda: to_qcdq(every_operation(), batch=True), "batch")):
        with pytest.raises(BridgeError, match=words):
            call()
    spec = TensorSpec(shape=(1, 1, 1), fmt=FixedFormat(8, 0))
    node = Node(name="", operation=ops.Clip(lo=0, hi=1), inputs=("x",), output="y")
    unnamed = IntegerGraph(tensors={"x": spec, "y": spec}, inputs=("x",), outputs=("y",), nodes=(node,))
    with pytest.raises(BridgeError, match="empty name"):
        to_qonnx(unnamed)


def test_multipliers_are_exact_where_float32_holds_them() -> None:
    """A product of at most 24 bits needs no power of two; longer ones are compared at every step of the code."""
    for multiplier, shift in ((3, 5), (625, 14), (40001, 20)):
        graph = single(_scale(EVEN, -128, 127, shift, multiplier), (3, 16, 16))
        codes = random_values(graph, 1)
        assert mismatches(graph, codes, run_qonnx(to_qonnx(graph), floats(graph, codes))) == (0, 768)
