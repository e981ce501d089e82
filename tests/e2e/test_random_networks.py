"""Random networks through the whole chain: torch == graph == program in the interpreter, and a sample in the Verilog."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from hw.spec.deform import DeformArch
from sw.compiler import compile_graph
from sw.flow.chain import Report
from sw.flow.verify import verify
from sw.quant import codes_of, export, quantize_model
from tests.e2e.random_networks import Drawn, networks

ARCH = DeformArch(rows=4, columns=32)
ROOMY = replace(ARCH, feature_words=1 << 14, row_words=1 << 11, weight_words=1 << 14, parameter_words=1 << 12)
"""For whatever is drawn; such memories are no burden to the interpreter."""

LINKS = ("torch_graph", "graph_ops", "ops_machine")

RELAXED = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True}


def check(drawn: Drawn, *, rtl: bool) -> Report:
    """Quantise, calibrate, export, compile; every link equal."""
    model = quantize_model(drawn.network, drawn.recipe)
    model.calibrate([drawn.images(16)])
    images = drawn.images(2)
    graph = export(model, images)
    trace = {name: codes.numpy() for name, codes in model.trace(images).items()}
    inputs = {graph.inputs[0]: codes_of(model, images)}
    report = verify(graph, compile_graph(graph, ARCH if rtl else ROOMY), inputs, torch_trace=trace, interpreter_only=not rtl)
    assert report.first == [] and report.ok
    assert all(report.links[name].compared > 0 for name in LINKS)
    return report


class _Seen:
    """What a run of examples has compared; a run that never met a kind of layer has not tested it."""

    def __init__(self) -> None:
        self.codes: Counter[str] = Counter()
        self.layers: Counter[str] = Counter()

    def add(self, drawn: Drawn, report: Report) -> None:
        self.codes.update({name: link.compared for name, link in report.links.items()})
        self.layers.update(type(module).__name__ for module in drawn.network.modules())


def run(examples: int) -> _Seen:
    seen = _Seen()

    @settings(max_examples=examples, **RELAXED)
    @given(networks())
    def each(drawn: Drawn) -> None:
        seen.add(drawn, check(drawn, rtl=False))

    each()
    return seen


def test_random_networks_are_exact() -> None:
    seen = run(20)
    assert min(seen.codes[name] for name in LINKS) > 10_000


@pytest.mark.slow
def test_many_random_networks_are_exact() -> None:
    seen = run(500)
    assert min(seen.codes[name] for name in LINKS) > 1_000_000
    kinds = (
        "Residual", "Fork", "ShuffleUnit", "Deformed", "MaxPool2d", "AvgPool2d", "Upsample", "SiLU", "LeakyReLU", "ReLU6", "Linear",
    )  # fmt: skip
    assert not [kind for kind in kinds if not seen.layers[kind]]


@pytest.mark.slow
def test_random_networks_in_rtl() -> None:
    compared = []

    @settings(max_examples=12, **RELAXED)
    @given(networks(most=3))
    def each(drawn: Drawn) -> None:
        compared.append(check(drawn, rtl=True).links["machine_rtl"].compared)

    each()
    assert len(compared) >= 10 and np.min(compared) > 0
