"""A fault in the generator must show: each of these breaks one thing, and the compiled program must differ from the graph."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hw.spec.fixed import FixedFormat, Rounding
from hw.spec.ops import Concat, Conv2d, MaxPool2d, Requant, Shuffle, ShuffleJoin, Slice, Upsample2x
from sw.bridges.hls import cpp, deform, pointwise, settle, source, weighted
from sw.bridges.hls.function import Function
from sw.bridges.hls.settle import Settling
from sw.graph import IntegerGraph
from tests.bridges.hls_project import compared, differing, images
from tests.bridges.test_hls import extremes
from tests.compiler.graphs import Builder

Patch = Callable[[pytest.MonkeyPatch], None]
Case = tuple[IntegerGraph, dict[str, np.ndarray]]


def convolution() -> Case:
    """Two groups, stride, padding, a shift and a multiplier for each channel, many ties and saturated codes."""
    b = Builder(2)
    x = b.input("x", (4, 5, 5), FixedFormat(4, 0))
    weight = b.rng.integers(-3, 4, (4, 2, 3, 3))
    requant = Requant(bias=np.array([0, 5, -9, 40]), multiplier=np.array([1, 1, 3, 2]), shift=np.array([0, 1, 3, 2]),
                      rounding=Rounding.RND_CONV, lo=-32, hi=31)
    operation = Conv2d(weight=weight, requant=requant, stride=2, padding=1, groups=2)
    graph = b.graph(b.add("y", operation, x, fmt=FixedFormat(6, 0)))
    return graph, images(graph, 12)


def moves() -> Case:
    b = Builder(3)
    x, z = b.input("x", (6, 3, 2)), b.input("z", (6, 3, 2))
    made = [b.add("joined", ShuffleJoin(), x, z), b.add("cat", Concat(), x, z), b.add("mixed", Shuffle(groups=2), x),
            b.add("part", Slice(start=1, stop=4), x), b.add("up", Upsample2x(), x), b.table("looked", x), b.clip("held", x, -20, 100),
            b.sum("total", x, z), b.add("most", MaxPool2d(kernel=2, stride=1, padding=1), b.clip("low", x, -128, -1))]
    graph = b.graph(*made)
    return graph, images(graph, 6)


def bent() -> Case:
    b = Builder(8)
    x, s, t = b.input("x", (2, 3, 10)), b.input("s", (1, 3, 10), FixedFormat(8, 2)), b.input("t", (8, 2, 9), FixedFormat(6, 2))
    square = b.deform("square", x, s)
    general = b.deform_conv("general", x, t, 2, kernel=(2, 2), frac=2, padding=1, dilation=3)
    mean = b.mean("mean", x, (3, 3), stride=2, padding=1)
    graph = b.graph(square, general, mean)
    return graph, images(graph, 6)


# --- faults


def modes(old: str, new: str) -> Patch:
    """Types of tensors with another mode."""
    return lambda patch: patch.setattr(source, "of_format", lambda *given: cpp.of_format(*given).replace(old, new))


def rewritten(op: str, old: str, new: str) -> Patch:
    """The functions of an operation with something else in their text."""
    make = source._MAKERS[op]

    def faulty(layer: Any, parallel: int) -> Function:
        function = make(layer, parallel)
        body = tuple(re.sub(old, new, line) for line in function.body)
        assert body != function.body, f"{old} is not in the text"
        return replace(function, body=body)

    return lambda patch: patch.setitem(source._MAKERS, op, faulty)


def placed(module: Any, **changes: int) -> Patch:
    """Windows whose stride, padding or dilation is another."""

    def faulty(start: str, stride: int, tap: str, padding: int, dilation: int = 1) -> str:
        given = {"stride": stride, "padding": padding, "dilation": dilation} | changes
        return cpp.position(start, given["stride"], tap, given["padding"], given["dilation"])

    return lambda patch: patch.setattr(module, "position", faulty)


def narrow(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(settle, "bits", lambda low, high: cpp.bits(low, high) - 1)


def no_lead(patch: pytest.MonkeyPatch) -> None:
    end = Settling.end
    patch.setattr(Settling, "end", lambda self: [line for line in end(self) if "<<=" not in line])


def no_multiplier(patch: pytest.MonkeyPatch) -> None:
    end = Settling.end
    patch.setattr(Settling, "end", lambda self: [re.sub(r"_scale_t>\(.*\)", "_scale_t>(1)", line) for line in end(self)])


def no_bias(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Settling, "start", lambda self: f"{self.name}_sum_t sum = 0;")


def no_groups(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(weighted, "channel_of", lambda weight, groups: "i")


def shifted_table(patch: pytest.MonkeyPatch) -> None:
    make = pointwise.Constant
    patch.setattr(pointwise, "Constant", lambda name, values: make(name=name, values=np.roll(values, 1)))


def truncated_samples(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(deform, "of_format", lambda fmt, rounding: cpp.of_format(fmt, Rounding.TRN))


def no_limit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(pointwise, "limited", lambda layer, value, low, high: value)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What is broken, and a network that shows it."""

    patch: Patch
    case: Callable[[], Case]


FAULTS = {
    "rounding": Fault(patch=modes("AP_RND_CONV", "AP_RND"), case=convolution),
    "saturation": Fault(patch=modes("AP_SAT", "AP_WRAP"), case=convolution),
    "padding": Fault(patch=placed(weighted, padding=0), case=convolution),
    "stride": Fault(patch=placed(weighted, stride=1), case=convolution),
    "accumulator": Fault(patch=narrow, case=extremes),
    "table index": Fault(patch=shifted_table, case=moves),
    "zip order": Fault(patch=rewritten("shuffle_join", "c % 2 == 0", "c % 2 != 0"), case=moves),
}
MORE_FAULTS = {
    "lead": Fault(patch=no_lead, case=convolution),
    "multiplier": Fault(patch=no_multiplier, case=convolution),
    "bias": Fault(patch=no_bias, case=convolution),
    "groups": Fault(patch=no_groups, case=convolution),
    "truncation for ties to even": Fault(patch=modes("AP_RND_CONV", "AP_TRN"), case=convolution),
    "place in a concatenation": Fault(patch=rewritten("concat", r"c \+ 6", "c + 5"), case=moves),
    "shuffle order": Fault(patch=rewritten("shuffle", r"c % 2 \* 3 \+ c / 2", "c % 3 * 2 + c / 3"), case=moves),
    "slice start": Fault(patch=rewritten("slice", r"c \+ 1", "c"), case=moves),
    "upsampled pixel": Fault(patch=rewritten("upsample2x", "y / 2", "y % 3"), case=moves),
    "clip limit": Fault(patch=rewritten("clip", "(100|-1)>", "50>"), case=moves),
    "no clip": Fault(patch=no_limit, case=moves),
    "sum saturates": Fault(patch=modes("AP_SAT", "AP_WRAP"), case=moves),
    "pad wins a maximum": Fault(patch=rewritten("max_pool2d", r"ap_int<8>\(1\) << 7", "0"), case=moves),
    "sample rounding": Fault(patch=truncated_samples, case=bent),
    "dilation": Fault(patch=placed(deform, dilation=1), case=bent),
    "offset limit": Fault(patch=rewritten("deform_depthwise_conv2d", "-28", "-32"), case=bent),
    "row for column": Fault(patch=rewritten("deform_conv2d", "down, right", "right, down"), case=bent),
    "mean's pads": Fault(patch=placed(pointwise, padding=0), case=bent),
}


def show(fault: Fault, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    graph, inputs = fault.case()
    with monkeypatch.context() as patch:
        fault.patch(patch)
        assert differing(graph, inputs, folder / "faulty") > 0


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_the_generator_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    show(FAULTS[name], monkeypatch, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE_FAULTS)
def test_more_faults_are_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    show(MORE_FAULTS[name], monkeypatch, tmp_path)


@pytest.mark.parametrize("case", [convolution, moves, pytest.param(bent, marks=pytest.mark.slow)])
def test_without_a_fault_there_is_no_difference(tmp_path: Path, case: Callable[[], Case]) -> None:
    graph, inputs = case()
    assert compared(graph, inputs, tmp_path / "whole") > 100
