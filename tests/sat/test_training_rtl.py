"""Whole training steps in Verilog: forward, loss, backward, update, pruning; equal to the machine and the graph after every step.

The network has 3 x 3 convolutions of stride 1 and 2, 1 x 1, BatchNorm, ReLU, residual sums, maximum and average pooling and a linear
layer (tests/sat/small_graphs.py).
"""

from __future__ import annotations

import pytest

from hw.sim.core import build_core
from hw.sim.loop import MemoryTiming, Stalls
from hw.spec.sat import SatArch
from hw.spec.training import Hyper
from sw.compiler.training import compile_training
from sw.flow.predict import training_predictor
from sw.flow.training_chain import TrainingReport, verify_training
from sw.runtime.interpreter import InterpreterDevice
from sw.runtime.sim import SimDevice
from sw.sparse import ordered_products
from sw.training_graph import Pattern
from tests.sat.small_graphs import random_batch, residual_network

HYPER = Hyper(learning_rate=0.05, weight_decay=1e-4)
SMALLEST = SatArch(rows=4, columns=4)


def train(
    arch: SatArch, pattern: Pattern, steps: int, *, width: int = 8, size: int = 8, stalls: Stalls | None = None
) -> TrainingReport:  # fmt: skip
    graph = residual_network(pattern, width=width, size=size)
    batches = [random_batch(graph, step) for step in range(steps)]
    predictor = None if stalls else training_predictor(MemoryTiming())
    with SimDevice(arch, build=build_core(arch), state_seed=11, stalls=stalls) as core:
        return verify_training(
            graph, compile_training(graph, arch), batches, HYPER, InterpreterDevice(arch, seed=5), core=core,
            products=ordered_products(), predictor=predictor,
        )  # fmt: skip


def check(report: TrainingReport, steps: int) -> None:
    assert report.ok, report.first
    assert report.links["graph_machine"].compared > steps * 8_000
    assert report.links["machine_rtl"].compared > steps * 400_000
    assert report.links["memory"].compared > steps * 100_000


@pytest.mark.parametrize("pattern", [None, (2, 8)])
def test_five_steps_on_four_by_four(pattern: Pattern) -> None:
    report = train(SMALLEST, pattern, 5)
    check(report, 5)
    assert report.links["timing"].compared > 5 * 600


def test_a_step_under_random_stalls() -> None:
    check(train(SMALLEST, (2, 8), 1, stalls=Stalls.everywhere(64, seed=3)), 1)


@pytest.mark.slow
@pytest.mark.parametrize("pattern", [None, (2, 8), (2, 4), (2, 16)])
def test_five_steps_on_eight_by_eight(pattern: Pattern) -> None:
    check(train(SatArch(), pattern, 5, width=16), 5)


@pytest.mark.slow
@pytest.mark.parametrize("pattern", [None, (2, 8)])
def test_fifty_steps_at_the_smallest_size(pattern: Pattern) -> None:
    check(train(SMALLEST, pattern, 50, size=4), 50)
