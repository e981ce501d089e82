"""Every operation of the core in one network, through graph, program, interpreter and Verilog: zero differences, exact cycles."""

from __future__ import annotations

import numpy as np

from hw.sim.build import SimulationBuild
from hw.spec.fixed import FixedFormat
from hw.spec.ops import OPERATIONS, Concat, MaxPool2d, Shuffle, ShuffleJoin, Slice, Upsample2x
from sw.compiler import compile_graph
from sw.flow.verify import Simulation, verify
from sw.graph import IntegerGraph
from tests.compiler.graphs import U8, Builder
from tests.e2e.tiny import ARCH


def network() -> IntegerGraph:
    """(3, 6, 6) to (10, 1, 1): a residual unit, a dense unit, a shuffle unit, a doubled and three deformed paths."""
    b = Builder(5)
    stem = b.conv("stem", b.input("image", (3, 6, 6), U8), 24, kernel=(3, 3), padding=1, peak=127)
    silu = b.table("silu", b.conv("grouped", b.scale("norm", stem), 24, groups=3))
    total = b.clip("relu", b.sum("sum", stem, b.conv("back", silu, 24)), -20, 127)
    small = b.add("pool", MaxPool2d(kernel=2, stride=2), total)
    wide = b.add("up", Upsample2x(), b.conv("lateral", small, 17))
    cat = b.add("cat", Concat(), wide, b.depthwise("deep", total))
    part = b.add("part", Slice(start=3, stop=27), b.add("mix", Shuffle(groups=41), cat))
    moved = b.deform("moved", part, b.conv("offset", part, 1, fmt=FixedFormat(5, 0)))
    sigmoid = b.table("sigmoid", b.add("join", ShuffleJoin(), moved, total), FixedFormat(6, 0, False))
    bent = b.deform_conv("bent", sigmoid, b.conv("bend", sigmoid, 6, kernel=(1, 3)), 48, kernel=(1, 3), frac=5, padding=0, groups=2)
    turned = b.deform("turned", bent, b.conv("turn", bent, 1, fmt=FixedFormat(8, 2)))
    single = b.conv("single", turned, 48, kernel=(3, 2), stride=2, padding=1, groups=48, peak=127, fmt=U8)
    return b.graph(b.linear("head", b.mean("mean", single, b.tensors[single].shape[1:]), 10))


def test_every_operation_is_exact_in_rtl(core_build: SimulationBuild) -> None:
    graph = network()
    assert {node.operation.op for node in graph.nodes} == set(OPERATIONS)
    images = np.random.default_rng(3).integers(0, 256, (2, 3, 6, 6))
    program = compile_graph(graph, ARCH)
    report = verify(graph, program, {"image": images}, simulation=Simulation(build=core_build))
    assert report.first == [] and report.ok
    assert set(report.links) == {"graph_ops", "ops_machine", "machine_rtl"}
    assert report.links["ops_machine"].compared > 2 * 3_000 and report.links["machine_rtl"].compared > 100_000
    assert report.timing is not None and report.timing.compared == 2 * program.instruction_count
    assert max(life.zero for life in report.alive) < 0.9 and max(life.saturated for life in report.alive) < 0.9
