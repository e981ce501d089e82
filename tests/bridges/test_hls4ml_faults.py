"""A fault in the layers must show: each of these breaks one thing, and hls4ml's compiled project must differ from the graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hw.spec.fixed import Overflow, Rounding
from hw.spec.ops import Concat, MaxPool2d, Shuffle, ShuffleJoin, Slice, Upsample2x
from sw.bridges.hls4ml import formats, layers, lower, moves, tables, weighted
from sw.bridges.hls4ml.formats import ApFixed
from sw.bridges.hls4ml.weighted import Step
from sw.graph import IntegerGraph
from tests.bridges.hls4ml_project import compared, mismatches
from tests.bridges.hls_project import images
from tests.bridges.test_hls import extremes
from tests.bridges.test_hls_faults import convolution
from tests.compiler.graphs import Builder

Patch = Callable[[pytest.MonkeyPatch], None]
Case = tuple[IntegerGraph, dict[str, np.ndarray]]


def moved() -> Case:
    """What has no weights, but for the mean; unsigned codes under a pad."""
    b = Builder(3)
    x, z = b.input("x", (6, 3, 2)), b.input("z", (6, 3, 2))
    made = [b.add("joined", ShuffleJoin(), x, z), b.add("cat", Concat(), x, z), b.add("mixed", Shuffle(groups=2), x),
            b.add("part", Slice(start=1, stop=4), x), b.add("up", Upsample2x(), x), b.table("looked", x), b.clip("held", x, -20, 100),
            b.sum("total", x, z), b.mean("mean", x, (3, 2)), b.clip("unsigned", x, 0, 127),
            b.add("most", MaxPool2d(kernel=2, stride=2, padding=1), "unsigned")]
    graph = b.graph(*made)
    return graph, images(graph, 6)


# --- faults


def result(**changes: Any) -> Patch:
    """Types of results with other modes."""

    def faulty(*given: Any) -> tuple[ApFixed, bool]:
        found, exact = formats.limiting(*given)
        return replace(found, **changes), exact

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        for module in (weighted, moves):
            monkeypatch.setattr(module, "limiting", faulty)

    return patch


def one_weight(patch: pytest.MonkeyPatch) -> None:
    """The smallest weight is one code larger."""

    def faulty(codes: np.ndarray, frac: int) -> np.ndarray:
        changed = codes.copy()
        if codes.ndim == 4:
            changed.flat[int(np.argmin(codes.astype(np.int64)))] += 1
        return weighted_values(changed, frac)

    weighted_values = weighted._values
    patch.setattr(weighted, "_values", faulty)


def narrow_accumulator(patch: pytest.MonkeyPatch) -> None:
    def faulty(low: int, high: int, frac: int) -> ApFixed:
        found = formats.spanning(low, high, frac)
        return replace(found, width=found.width - 1)

    patch.setattr(weighted, "spanning", faulty)


def narrow_weights(patch: pytest.MonkeyPatch) -> None:
    def faulty(codes: Any, frac: int) -> ApFixed:
        found = formats.holding(codes, frac)
        return replace(found, width=max(found.width - 1, 1))

    patch.setattr(weighted, "holding", faulty)


def steps(**changes: Callable[[np.ndarray], Any]) -> Patch:
    """Requantise steps of which something is another."""
    of = Step.of

    def faulty(layer: Any) -> Step:
        step = of(layer)
        return replace(step, **{name: change(getattr(step, name)) for name, change in changes.items()})

    return lambda patch: patch.setattr(Step, "of", staticmethod(faulty))


def attribute(kind: str, **changes: Any) -> Patch:
    """Layers of a kind with other attributes."""
    add = layers.Layers.add

    def faulty(self: Any, name: str, of: str, *given: Any, **options: Any) -> Any:
        return add(self, name, of, *given, **(options | changes if of == kind else options))

    return lambda patch: patch.setattr(layers.Layers, "add", faulty)


def no_table(patch: pytest.MonkeyPatch) -> None:
    """Limits are left out where a type does not have them."""
    patch.setattr(moves, "clipped", lambda to, name, x, low, high: tables.looked_up(to, name, x, x.type.frac, lambda codes: codes))


def shifted_table(patch: pytest.MonkeyPatch) -> None:
    def faulty(to: Any, name: str, x: Any, frac: int, function: Callable[[np.ndarray], np.ndarray]) -> Any:
        return tables.looked_up(to, name, x, frac, lambda codes: np.roll(function(codes), 1))

    patch.setattr(moves, "looked_up", faulty)


def padded_maximum(patch: pytest.MonkeyPatch) -> None:
    """hls4ml's own pad under unsigned codes."""
    most = moves.most

    def faulty(to: Any, layer: Any, x: Any) -> Any:
        unsigned = x.type
        claimed = replace(x, type=replace(unsigned, signed=True))
        before = len(to.made)
        value = most(to, layer, claimed)
        to.made[before] = replace(to.made[before], types={"result": unsigned, "accum": unsigned})
        return replace(value, type=unsigned)

    patch.setitem(lower._MAKERS, "max_pool2d", faulty)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What is broken, and a network that shows it."""

    patch: Patch
    case: Callable[[], Case]


FAULTS = {
    "rounding": Fault(patch=result(rounding=Rounding.RND), case=convolution),
    "one weight": Fault(patch=one_weight, case=convolution),
    "accumulator": Fault(patch=narrow_accumulator, case=extremes),
}
MORE_FAULTS = {
    "pad wins a maximum": Fault(patch=padded_maximum, case=moved),
    "truncation for ties to even": Fault(patch=result(rounding=Rounding.TRN), case=convolution),
    "saturation": Fault(patch=result(overflow=Overflow.WRAP), case=convolution),
    "sum saturates": Fault(patch=result(overflow=Overflow.WRAP), case=moved),
    "narrow weights": Fault(patch=narrow_weights, case=convolution),
    "lead": Fault(patch=steps(factor=lambda factor: factor // factor), case=convolution),
    "multiplier": Fault(patch=steps(multiplier=lambda multiplier: multiplier // multiplier), case=convolution),
    "binary point": Fault(patch=steps(frac=lambda frac: frac + 1), case=convolution),
    "padding": Fault(patch=attribute("Conv2D", pad_top=0, pad_bottom=2), case=convolution),
    "place in a concatenation": Fault(patch=attribute("Concatenate", axis=2, op="concatenate3d"), case=moved),
    "shuffle order": Fault(patch=attribute("Transpose", perm=[0, 1, 2]), case=moved),
    "slice start": Fault(patch=attribute("Cropping2D", crop_left=0, crop_right=3), case=moved),
    "table index": Fault(patch=shifted_table, case=moved),
    "no clip": Fault(patch=no_table, case=moved),
}


def show(fault: Fault, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    graph, inputs = fault.case()
    with monkeypatch.context() as patch:
        fault.patch(patch)
        different, count = mismatches(graph, inputs, folder / "faulty")
    assert 0 < different <= count


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_the_layers_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    show(FAULTS[name], monkeypatch, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", MORE_FAULTS)
def test_more_faults_are_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    show(MORE_FAULTS[name], monkeypatch, tmp_path)


@pytest.mark.parametrize("case", [convolution, pytest.param(moved, marks=pytest.mark.slow)])
def test_without_a_fault_there_is_no_difference(tmp_path: Path, case: Callable[[], Case]) -> None:
    graph, inputs = case()
    assert compared(graph, inputs, tmp_path / "whole") > 100
